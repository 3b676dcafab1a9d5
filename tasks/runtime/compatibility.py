"""Compatibility checks between datasets, and between a refiner and a dataset."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from simgan_core.errors import InputError
from storage.samples import Images
from storage.schema import DatasetInfo, Domain
from tasks.runtime.dataset_cache import DatasetCache

if TYPE_CHECKING:
    # Loading torch takes 1.5 s, which the Turing test's server does without.
    from simgan_core.models.checkpoint import LoadedRefiner


def require_same_images(a: DatasetInfo, b: DatasetInfo, a_role: str, b_role: str) -> None:
    """Refuse two datasets whose images differ in size, depth or preprocessing."""
    for what in ("height", "width", "channels", "dtype", "preprocess"):
        in_a, in_b = getattr(a.spec, what), getattr(b.spec, what)
        if in_a != in_b:
            raise InputError(
                f"{what} differs: {in_a} in the {a_role} dataset {a.url}, {in_b} in the {b_role} "
                f"dataset {b.url}; ingest one of them again with the other's {what}"
            )


def require_domain(info: DatasetInfo, role: str, *domains: Domain) -> None:
    """Refuse a dataset whose recorded domain is none of those that its role takes."""
    if info.spec.domain not in domains:
        raise InputError(
            f"{role} dataset {info.url}: expected {' or '.join(domains)} images, found "
            f"{info.spec.domain} ones (as recorded when it was made); give each dataset under its "
            "own option, or ingest it again with the right --domain"
        )


def require_distinct(datasets: Mapping[str, DatasetInfo]) -> None:
    """Refuse one dataset, here or as a copy elsewhere, in two roles."""
    roles: dict[str, str] = {}
    for role, info in datasets.items():
        other = roles.setdefault(info.digest, role)
        if other != role:
            raise InputError(
                f"the {other} and the {role} dataset are one: {info.url} (digest "
                f"{info.digest[:12]}); give each its own"
            )


def require_refiner_fits(refiner: "LoadedRefiner", refiner_id: str, info: DatasetInfo) -> None:
    """Refuse a refiner on images of another size, depth or preprocessing than it was trained on."""
    spec = info.spec
    trained = {
        "height": refiner.image_height,
        "width": refiner.image_width,
        "channels": refiner.channels,
        "preprocess": refiner.preprocess,
        "dtype": refiner.pixels,
    }
    for what, expected in trained.items():
        found = getattr(spec, what)
        if found != expected:
            raise InputError(
                f"refiner {refiner_id} was trained on images with {what} {expected}, dataset "
                f"{info.url} has {what} {found}; refine a dataset like the training's, or train a "
                "refiner on datasets like this one"
            )


def require_gaze(info: DatasetInfo) -> None:
    """Refuse a dataset without gaze labels where an estimator is trained or tested."""
    names = [label.name for label in info.spec.labels]
    if "gaze" not in names:
        raise InputError(
            f"dataset {info.url} has no 'gaze' label (it has: {', '.join(names) or 'none'}); "
            "ingest it with its gaze"
        )


def require_valid_rows(info: DatasetInfo) -> None:
    """Refuse a dataset all of whose rows were rejected, for instance by the gate of `refine`."""
    if info.num_valid == 0:
        raise InputError(
            f"none of the {info.spec.num_rows} rows of dataset {info.url} is valid; `simgan "
            f"inspect {info.url}` lists the reasons: make it again without what rejects them all"
        )


def as_uint8(images: NDArray[np.unsignedinteger[Any]], info: DatasetInfo) -> NDArray[np.uint8]:
    """Return the images; refuse 16-bit ones, which models of other programs are not given."""
    if images.dtype != np.uint8:
        raise InputError(
            f"dataset {info.url} has {images.dtype} images, expected uint8; ingest it as 8 bit"
        )
    return cast("NDArray[np.uint8]", images)


class HeldOutImages:
    """Hashes of a test set's images, by which training sets that hold any of them are refused."""

    def __init__(self, test: DatasetInfo, datasets: DatasetCache) -> None:
        self._test, self._datasets = test, datasets
        self._hashes = _hashes(datasets.load(test).images)
        self._disjoint: set[str] = set()

    def require_none_in(self, train: DatasetInfo) -> None:
        """Raise InputError where a training set holds test images: its error would be a fiction."""
        if train.digest in self._disjoint:
            return
        shared = self._hashes & _hashes(self._datasets.load(train).images)
        if shared:
            raise InputError(
                f"{len(shared)} images of the training dataset {train.url} are in the test dataset "
                f"{self._test.url} too; split them, for instance by person (--people)"
            )
        self._disjoint.add(train.digest)


def _hashes(images: Images) -> frozenset[bytes]:
    return frozenset(blake2b(image.tobytes(), digest_size=12).digest() for image in images)
