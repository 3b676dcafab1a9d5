"""Crops about landmarks that the product's model finds."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simgan_core.errors import InputError
from simgan_core.landmarks.examples import simulated_examples
from simgan_core.landmarks.model import DEFAULT_MODEL, LandmarkModel
from storage.manifest import block_digest
from storage.reader import Dataset, open_dataset
from storage.sources.formats.arrays import ArraysOptions
from storage.sources.formats.folder import FolderOptions
from tasks.ingestion import reading
from tasks.ingestion.ingest import finish_ingestion, ingest_shards, plan_ingestion
from tasks.ingestion.landmarks import LandmarkFinder, open_source
from tasks.ingestion.reading import Reader
from tasks.ingestion.session import sole_ingestion

NUM_EYES, NUM_BLANK = 40, 3


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> ArraysOptions:
    """Eyes anywhere in their images, after them images that show none; pupil: the midpoint."""
    known = simulated_examples("synthetic", NUM_EYES, seed=11)
    moved = [np.roll(image, at % 9 - 4, axis=1) for at, image in enumerate(known.images)]
    middle = known.points[:, :2].mean(axis=1)
    middle[:, 0] += np.arange(NUM_EYES) % 9 - 4
    blank = np.full((NUM_BLANK, *known.images.shape[1:]), 90, np.uint8)
    path = tmp_path_factory.mktemp("eyes") / "eyes.npz"
    pupil = np.concatenate([middle, np.full((NUM_BLANK, 2), np.nan, np.float32)])
    np.savez(path, image=np.concatenate([np.stack(moved), blank]), pupil=pupil)
    return ArraysOptions(
        file=str(path), images="image", pupil="pupil", crop="landmarks", size=(35, 55)
    )


def ingested(source: ArraysOptions, to: Path, rows_per_shard: int = 16) -> Dataset:
    with sole_ingestion(source, str(to)) as session:
        plan = plan_ingestion.fn(session, rows_per_shard=rows_per_shard)
        for group in plan.groups:
            ingest_shards.fn(group, session, plan.listing_digest)
        return open_dataset(finish_ingestion.fn(session, 0.01).url)


def test_eyes_are_cut_about_their_corners_and_others_in_their_middle(
    eyes: ArraysOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        dataset = ingested(eyes, tmp_path / "d.zarr")
    labels = dataset.read_labels()
    off = labels["pupil_px"][:NUM_EYES] - [27.5, 17.5]
    assert np.median(np.linalg.norm(off, axis=1)) < 1.5
    missed = np.isnan(labels["landmarks_px"]).any(axis=(1, 2))
    assert missed[:NUM_EYES].sum() <= 2
    assert missed[NUM_EYES:].all()
    assert dataset.read_valid().all()
    assert (
        f"{missed.sum()} of {NUM_EYES + NUM_BLANK} images are cropped at their middle"
        in caplog.text
    )
    assert dataset.info.spec.source["landmarks"] == LandmarkModel.load().digest


def test_shards_of_another_size_hold_the_same_bits(eyes: ArraysOptions, tmp_path: Path) -> None:
    digests = [
        block_digest(ingested(eyes, tmp_path / f"{rows}.zarr", rows).load()) for rows in (7, 43)
    ]
    assert digests[0] == digests[1]


def test_decoding_processes_find_what_this_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    for number, image in enumerate(simulated_examples("real", 4, seed=2).images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(reading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(reading, "num_decoders", lambda: 2)
    monkeypatch.setattr(reading, "ROWS_A_PIECE", 2)
    source = open_source(FolderOptions(folder=tmp_path, crop="landmarks", size=(35, 55)))
    reader = Reader(source, "none")
    try:
        assert block_digest(reader.read(0, 4)) == block_digest(source.read(0, 4))
    finally:
        reader.close()


def test_a_finder_is_sent_as_its_files_path() -> None:
    finder = LandmarkFinder(DEFAULT_MODEL)
    sent = pickle.dumps(finder)
    assert len(sent) < 1000
    assert pickle.loads(sent).digest == finder.digest  # noqa: S301


def test_a_model_that_is_not_there_is_refused(eyes: ArraysOptions, tmp_path: Path) -> None:
    options = eyes.model_copy(update={"landmarks": tmp_path / "none.pt"})
    with pytest.raises(InputError, match=r"there is no file .*none\.pt"):
        open_source(options)
