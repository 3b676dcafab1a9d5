"""Every ingestion input opens the source that it describes, with its settings."""

from pathlib import Path
from typing import Any, get_args

import pytest
from source_samples import SAMPLES

from storage.sources.source import Source
from tasks.ingestion.inputs import (
    ArraysInput,
    EyeGazeInput,
    FolderInput,
    MPIIGazeInput,
    NyuHandInput,
    SourceInput,
    SynthesEyesInput,
    UnityEyesInput,
)
from tasks.ingestion.sources import open_source

GIVEN: dict[str, Any] = {
    "unityeyes": lambda at: UnityEyesInput(folder=at, height=20, width=30, channels=3),
    "syntheseyes": lambda at: SynthesEyesInput(folder=at, height=20, width=30, channels=3),
    "mpiigaze": lambda at: MPIIGazeInput(folder=at, height=20, width=30, subset="all"),
    "eye-gaze": lambda at: EyeGazeInput(file=f"{at}/gaze.h5", height=20, width=30),
    "arrays-h5": lambda at: ArraysInput(file=f"{at}/eyes.h5", images="image", gaze="gaze"),
    "folder-colour": lambda at: FolderInput(folder=at, channels=3, domain="real"),
    "nyu-hand": lambda at: NyuHandInput(folder=at, height=20, width=20),
}


def kinds_of_inputs() -> set[type]:
    union, _ = get_args(SourceInput)
    return set(get_args(union))


@pytest.mark.parametrize("name", GIVEN)
def test_an_input_opens_its_source_with_the_size_that_it_asks_for(
    name: str, tmp_path: Path
) -> None:
    SAMPLES[name].write(tmp_path)
    given = GIVEN[name](str(tmp_path))
    source: Source = open_source(given)
    assert type(source) is type(SAMPLES[name].open(tmp_path))
    asked = {"height", "width"} & given.model_fields_set
    if asked:
        assert source.image_shape[:2] == (given.height, given.width)
    if "channels" in given.model_fields_set:
        assert source.image_shape[2] == given.channels
    if "domain" in given.model_fields_set:
        assert source.domain == given.domain


def test_no_kind_of_input_is_left_out(tmp_path: Path) -> None:
    assert {type(make(str(tmp_path))) for make in GIVEN.values()} == kinds_of_inputs()
