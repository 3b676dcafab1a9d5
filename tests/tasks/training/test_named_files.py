"""Files that a training's settings name travel as content, and no path is part of an id."""

from pathlib import Path

import pytest

from simgan_core.config import RegularizationConfig, StoppingConfig, TrainingConfig
from simgan_core.errors import InputError
from tasks.training.named_files import contents_of, identity_of, with_received


def settings(folder: Path) -> TrainingConfig:
    """Return settings that name three files in a folder, each of which holds its name."""
    folder.mkdir()
    paths = {name: folder / name for name in ("features.pt", "estimator.pt", "prior.npz")}
    for name, path in paths.items():
        path.write_bytes(name.encode())
    features, estimator, prior = map(str, paths.values())
    return TrainingConfig(
        regularization=RegularizationConfig(features=1.0, features_from=features),
        stopping=StoppingConfig(estimator=estimator),
        match_labels_by=prior,
    )


def test_what_was_received_is_named_in_place_of_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path / "head")
    contents = contents_of(config)
    identity = identity_of(config)
    for path in (tmp_path / "head").iterdir():
        path.unlink()
    monkeypatch.setenv("SIMGAN_HOME", str(tmp_path / "worker"))
    found = with_received(config, contents)
    assert identity_of(found) == identity
    assert found.stopping.estimator is not None
    assert Path(found.stopping.estimator).read_bytes() == b"estimator.pt"
    assert Path(found.stopping.estimator).is_relative_to(tmp_path / "worker")
    assert sorted(contents_of(found).values()) == sorted(contents.values())


def test_the_content_of_a_file_is_part_of_the_identity_and_its_place_is_not(tmp_path: Path) -> None:
    config = settings(tmp_path / "one")
    assert identity_of(settings(tmp_path / "two")) == identity_of(config)
    (tmp_path / "one" / "prior.npz").write_bytes(b"another")
    assert identity_of(settings(tmp_path / "three")) != identity_of(config)


def test_settings_that_name_no_file_keep_their_ids() -> None:
    config = TrainingConfig()
    assert identity_of(config) == {"config": config.model_dump(mode="json"), "networks": []}
    assert with_received(config, {}) == config


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = TrainingConfig(match_labels_by=str(tmp_path / "prior.npz"))
    with pytest.raises(InputError, match=r"there is no file .*prior\.npz"):
        contents_of(config)
