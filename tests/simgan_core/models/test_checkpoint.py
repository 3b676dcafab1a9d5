import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simgan_core.config import RefinerConfig, TrainingConfig
from simgan_core.errors import InputError, UnavailableError
from simgan_core.models.checkpoint import (
    load_checkpoint,
    load_refiner,
    save_checkpoint,
    save_refiner,
    weights_digest,
)
from simgan_core.models.refiner import ConvolutionalRefiner

CONFIG = TrainingConfig(refiner=RefinerConfig(num_features=4, num_blocks=1))
METADATA = {"image_height": 35, "image_width": 55, "preprocess": "equalize",
            "pixels": "uint8", "real_url": "x.zarr"}  # fmt: skip


@pytest.fixture
def refiner() -> ConvolutionalRefiner:
    torch.manual_seed(0)
    return ConvolutionalRefiner(CONFIG.refiner, channels=1)


@pytest.fixture
def saved(tmp_path: Path, refiner: ConvolutionalRefiner) -> Path:
    path = tmp_path / "refiner.pt"
    save_refiner(path, refiner, CONFIG, METADATA)
    return path


def test_a_refiner_comes_back_with_all_that_using_it_needs(
    saved: Path, refiner: ConvolutionalRefiner
) -> None:
    loaded = load_refiner(saved)
    assert (loaded.config, loaded.channels, loaded.metadata) == (CONFIG, 1, METADATA)
    assert (loaded.image_height, loaded.image_width, loaded.preprocess) == (35, 55, "equalize")
    torch.testing.assert_close(loaded.refiner.state_dict(), refiner.state_dict(), rtol=0, atol=0)
    assert loaded.weights_digest == weights_digest(refiner)


def test_a_loaded_refiner_refines_as_the_saved_one(
    saved: Path, refiner: ConvolutionalRefiner
) -> None:
    images = torch.rand(2, 1, 35, 55)
    assert torch.equal(load_refiner(saved).refiner(images), refiner(images))


def test_the_digest_is_of_the_values_and_not_of_their_order_in_memory(
    refiner: ConvolutionalRefiner,
) -> None:
    before = weights_digest(refiner)
    assert weights_digest(refiner.to(memory_format=torch.channels_last)) == before
    torch.nn.init.constant_(refiner.last.bias, 1e-20)
    assert weights_digest(refiner) != before


def test_metadata_without_the_image_size_is_refused(
    tmp_path: Path, refiner: ConvolutionalRefiner
) -> None:
    with pytest.raises(InputError, match="'image_height' should be of type int"):
        save_refiner(tmp_path / "refiner.pt", refiner, CONFIG, {"preprocess": "none"})


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("load", [load_checkpoint, load_refiner])
@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, load, write) -> None:
    path, target = tmp_path / "hostile.pt", tmp_path / "executed"
    write({"kind": "simgan refiner 1", "weights": Hostile(target)}, path)
    with pytest.raises(InputError, match="nothing in it was run"):
        load(path)
    assert not target.exists()


def test_a_refiner_cut_off_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        saved.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_refiner(saved)


def test_a_refiner_with_damaged_bytes_is_refused_or_the_same(
    saved: Path, refiner: ConvolutionalRefiner
) -> None:
    whole, generator = saved.read_bytes(), torch.Generator().manual_seed(0)
    for position in torch.randint(0, len(whole), (60,), generator=generator).tolist():
        saved.write_bytes(
            whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :]
        )
        try:
            loaded = load_refiner(saved)
        except InputError:
            continue
        assert loaded.weights_digest == weights_digest(refiner)


def test_weights_of_another_network_than_described_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "refiner.pt"
    save_refiner(
        path, ConvolutionalRefiner(RefinerConfig(num_features=5), channels=1), CONFIG, METADATA
    )
    with pytest.raises(InputError, match="do not fit the network"):
        load_refiner(path)


def test_a_checkpoint_is_not_taken_for_a_refiner(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(InputError, match="not a file of the kind 'simgan refiner 1'"):
        load_refiner(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*absent\.pt"):
        load_refiner(tmp_path / "absent.pt")


def test_a_failed_save_keeps_the_previous_checkpoint_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(path, {"step": 2, "unsaveable": (number for number in range(3))})
    assert load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["training.ckpt"]


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(
    small_disk: Callable[[int], Path],
) -> None:
    path = small_disk(1_000_000) / "training.ckpt"
    save_checkpoint(path, {"state": {"weights": torch.zeros(50_000)}})
    with pytest.raises(UnavailableError, match=r"no space left for .*what was there before"):
        save_checkpoint(path, {"state": {"weights": torch.ones(400_000)}})
    assert load_checkpoint(path)["state"]["weights"].sum() == 0
    assert [found.name for found in path.parent.iterdir()] == ["training.ckpt"]
