"""Datasets and refiners that do not fit together are refused, with what differs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_refiner
from storage.schema import DatasetInfo
from tasks.runtime.compatibility import (
    HeldOutImages,
    as_uint8,
    require_refiner_fits,
    require_same_images,
    require_valid_rows,
)
from tasks.runtime.dataset_cache import DatasetCache
from tests.refinement_inputs import make_refiner, make_synthetic


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    return make_synthetic(str(tmp_path_factory.mktemp("data") / "eyes.zarr"), 32, 16)


def other(info: DatasetInfo, **changes: Any) -> DatasetInfo:
    return info.model_copy(update={"spec": info.spec.model_copy(update=changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 36},
        {"width": 60},
        {"channels": 3},
        {"dtype": "uint16"},
        {"preprocess": "equalize"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_differs_is_named_with_both_values(
    info: DatasetInfo, changes: dict[str, Any], tmp_path: Path
) -> None:
    ((what, value),) = changes.items()
    require_same_images(info, info, "synthetic", "real")
    with pytest.raises(InputError, match=f"{what} differs: .* in the synthetic .*{value} in the"):
        require_same_images(info, other(info, **changes), "synthetic", "real")
    refiner = load_refiner(make_refiner(tmp_path / "refiner.pt"))
    require_refiner_fits(refiner, "refiner-0", info)
    with pytest.raises(InputError, match=f"refiner-0 was trained on images with {what}"):
        require_refiner_fits(refiner, "refiner-0", other(info, **changes))


def test_a_test_set_that_shares_images_is_refused(info: DatasetInfo, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"32 images of the training dataset .* split them"):
        HeldOutImages(info, DatasetCache()).require_none_in(info)


def test_16_bit_images_are_not_taken_for_8_bit_ones(info: DatasetInfo) -> None:
    assert as_uint8(np.zeros((1, 2, 2, 1), np.uint8), info).dtype == np.uint8
    with pytest.raises(InputError, match="has uint16 images, expected uint8"):
        as_uint8(np.zeros((1, 2, 2, 1), np.uint16), info)


def test_a_dataset_whose_rows_were_all_rejected_is_named(info: DatasetInfo) -> None:
    require_valid_rows(info)
    none = info.model_copy(update={"num_valid": 0})
    with pytest.raises(InputError, match=r"none of the \d+ rows of dataset .* is valid; `simgan"):
        require_valid_rows(none)
