"""Backends of bulk refinement: our refiners, other programs' models, other programs' images.

`--refiner` names one of them: an id, an MLflow model URI or a refiner.pt; an exported program
(.pt2) or an ONNX model (.onnx); a folder of images.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch

from simgan_core.compute.settings import choose_inference_settings
from simgan_core.errors import InputError
from simgan_core.inference import BulkRefiner, RefinedImages, StyledImages
from simgan_core.model_inference import NUM_TRIED, ModelRefiner
from simgan_core.models.checkpoint import LoadedRefiner
from simgan_core.models.exported_model import ExportedModel, ImageModel
from storage.reader import Dataset
from storage.samples import Images, SampleBlock
from storage.schema import DatasetInfo
from storage.sources.crop import Size
from storage.sources.named_images import NamedImages
from tasks.refinement.onnx_model import OnnxModel
from tasks.runtime.compatibility import as_uint8, require_refiner_fits
from tasks.runtime.devices import default_device
from tasks.runtime.paths import refiner_folder
from tasks.runtime.refiners import open_refiner
from tasks.runtime.styles import style_numbers

Precision = Literal["fp32", "bf16"]

MODEL_SUFFIXES = (".onnx", ".pt2")
MAX_MODEL_BATCH = 256
"""Images at once on a GPU by a model of unknown size."""


class RowSettings(NamedTuple):
    """Settings of a refinement that its backend needs."""

    precision: Precision
    styles: int
    style_seed: int


class RowRefiner(Protocol):
    """Refines the rows of blocks."""

    def refine_each(self, blocks: Iterable[SampleBlock]) -> Generator[RefinedImages, None, None]:
        """Yield the valid rows of each block before and after refinement, in order."""


class Backend(Protocol):
    """Identity of what refines, and its checks; `load` prepares it for computing."""

    refiner: str
    """Id in a refined dataset's provenance."""
    digest: str
    """Digest of weights, model file or images."""
    real_digest: str | None
    """Digest of the real images that it learned from, where known."""
    style_size: int
    """Numbers of a style; 0: none is taken."""
    family: str
    precisions: tuple[Precision, ...]
    """Number formats that it computes in."""

    def require_usable(self, parent: Dataset) -> None:
        """Raise InputError or SourceError where it cannot refine the dataset."""

    def load(self, parent: DatasetInfo, settings: RowSettings) -> RowRefiner:
        """Return it ready to refine the dataset's rows; slow, once a process."""


def open_backend(refiner: str, parent: Dataset) -> Backend:
    """Open what `--refiner` names, to refine a dataset; InputError where it is none."""
    path = Path(refiner)
    if path.suffix in MODEL_SUFFIXES:
        return ModelBackend(refiner)
    if path.is_dir() and not (refiner_folder(refiner) / "refiner.pt").exists():
        return ImagesBackend(path, parent)
    return CheckpointBackend(refiner, open_refiner(refiner))


class CheckpointBackend:
    """One of our refiners."""

    precisions: tuple[Precision, ...] = ("bf16", "fp32")

    def __init__(self, name: str, loaded: LoadedRefiner) -> None:
        self._name, self._loaded = name, loaded
        self.refiner = str(loaded.metadata["refiner"])
        self.digest = loaded.weights_digest
        self.real_digest: str | None = loaded.metadata["real_digest"]
        self.style_size = loaded.refiner.style_size
        self.family: str = loaded.config.family

    def require_usable(self, parent: Dataset) -> None:
        """Raise InputError for images of another kind than it was trained on."""
        require_refiner_fits(self._loaded, self._name, parent.info)

    def load(self, parent: DatasetInfo, settings: RowSettings) -> RowRefiner:
        """Copy the weights to the device."""
        shape = _image_shape(parent)
        compute = choose_inference_settings(
            default_device(), settings.precision, image_size=shape[:2]
        )
        bulk = BulkRefiner(self._loaded.refiner, compute, shape, parent.spec.dtype)
        return _CheckpointRows(bulk, settings)


class _CheckpointRows:
    def __init__(self, bulk: BulkRefiner, settings: RowSettings) -> None:
        self._bulk, self._settings = bulk, settings

    def refine_each(self, blocks: Iterable[SampleBlock]) -> Generator[RefinedImages, None, None]:
        """Refine rows in their styles; a GPU has begun the next block."""
        with closing(self._bulk.refine_each(self._styled(blocks))) as computed:
            yield from computed

    def _styled(self, blocks: Iterable[SampleBlock]) -> Iterator[StyledImages]:
        _, styles, seed = self._settings
        for block in blocks:
            style = None
            if self._bulk.style_size:
                style = style_numbers(block.ids, styles, seed, self._bulk.style_size)
                style = style if block.valid.all() else style[block.valid]
            yield StyledImages(_valid_images(block), style)


class ModelBackend:
    """Another program's model: an exported PyTorch program or an ONNX model."""

    real_digest: str | None = None
    style_size = 0
    family = "models of other programs"
    precisions: tuple[Precision, ...] = ("fp32",)

    def __init__(self, name: str) -> None:
        self._name = name
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no file {path}; name an ONNX model or exported program")
        kind = path.suffix.removeprefix(".")
        self._model: ImageModel = (
            OnnxModel(path)
            if kind == "onnx"
            else ExportedModel(path, torch.device(default_device()))
        )
        self.digest = self._model.digest
        self.refiner = f"{kind}-{self.digest[:12]}"

    def require_usable(self, parent: Dataset) -> None:
        """Raise InputError for images of another shape, or a model that returns no images."""
        spec, found = parent.info.spec, self._model.input
        for what in ("height", "width", "channels"):
            has, takes = getattr(spec, what), getattr(found, what)
            fits = takes in (None, has) or (what == "channels" and (has, takes) == (1, 3))
            if not fits:
                raise InputError(
                    f"model {self._name} takes images with {what} {takes}, dataset "
                    f"{parent.info.url} has {what} {has}; export it for images of that size, or "
                    f"ingest images with {what} {takes}"
                )
        first = parent.load(max_rows=NUM_TRIED).images
        self._rows(parent.info).require_usable(as_uint8(first, parent.info))

    def load(self, parent: DatasetInfo, settings: RowSettings) -> RowRefiner:
        """Return the model with batches of a size that fits the device."""
        del settings
        return _ModelRows(self._rows(parent), parent)

    def _rows(self, parent: DatasetInfo) -> ModelRefiner:
        size = (parent.spec.height, parent.spec.width)
        compute = choose_inference_settings(default_device(), "fp32", image_size=size)
        batch_size = min(compute.micro_batch_size, MAX_MODEL_BATCH)
        return ModelRefiner(self._model, batch_size)


class _ModelRows:
    def __init__(self, model: ModelRefiner, parent: DatasetInfo) -> None:
        self._model, self._parent = model, parent

    def refine_each(self, blocks: Iterable[SampleBlock]) -> Generator[RefinedImages, None, None]:
        images = (as_uint8(_valid_images(block), self._parent) for block in blocks)
        return self._model.refine_each(images)


class ImagesBackend:
    """Images that another program refined, in a folder, named by the rows' ids."""

    real_digest: str | None = None
    style_size = 0
    family = "images of other programs"
    precisions: tuple[Precision, ...] = ("fp32",)

    def __init__(self, folder: Path, parent: Dataset) -> None:
        spec = parent.info.spec
        channels: Literal[1, 3] = 3 if spec.channels == 3 else 1
        self._images = NamedImages(folder, Size(spec.height, spec.width), channels)
        self.digest = self._images.digest()
        self.refiner = f"images-{self.digest[:12]}"
        ids, valid = parent.read_ids(), parent.read_valid()
        self._images.assign(
            (name for name, good in zip(ids, valid, strict=True) if good),
            (name for name, good in zip(ids, valid, strict=True) if not good),
        )

    def require_usable(self, parent: Dataset) -> None:
        """Raise SourceError for images of another size, InputError for a dataset of 16 bits."""
        as_uint8(np.empty(0, parent.info.spec.dtype), parent.info)
        self._images.require_fitting()

    def load(self, parent: DatasetInfo, settings: RowSettings) -> RowRefiner:
        """Return the reader of the images."""
        del settings
        return _ReadRows(self._images, parent)


class _ReadRows:
    def __init__(self, images: NamedImages, parent: DatasetInfo) -> None:
        self._images, self._parent = images, parent

    def refine_each(self, blocks: Iterable[SampleBlock]) -> Generator[RefinedImages, None, None]:
        for block in blocks:
            ids = [name for name, good in zip(block.ids, block.valid, strict=True) if good]
            refined = self._images.read(ids)
            yield RefinedImages(refined, as_uint8(_valid_images(block), self._parent), refined)


def _valid_images(block: SampleBlock) -> Images:
    return block.images if block.valid.all() else block.images[block.valid]


def _image_shape(info: DatasetInfo) -> tuple[int, int, int]:
    return info.spec.height, info.spec.width, info.spec.channels
