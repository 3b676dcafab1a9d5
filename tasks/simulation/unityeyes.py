"""Render UnityEyes' eyes into UnityEyes' layout of files or into a dataset."""

import logging
import os
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from prefect import task
from pydantic import Field, JsonValue

from simgan_core.config import Config
from simgan_core.data.preprocess import Preprocess, preprocess
from simgan_core.errors import InputError
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Labels, Picture
from simgan_core.simulator.unityeyes.render import Rendered, Renderer
from simgan_core.simulator.unityeyes.scenes import Scenes
from storage.reader import open_dataset
from storage.samples import SampleBlock
from storage.schema import (
    CORNERS_PX,
    GAZE,
    HEAD_POSE,
    IRIS_PX,
    IRIS_VISIBLE,
    LID_PX,
    PUPIL_PX,
    VISUAL_AXIS,
    DatasetInfo,
    DatasetSpec,
    LabelSpec,
)
from storage.sources.formats.unityeyes import write_unityeyes_pair
from storage.sources.head_pose import from_matrices, matrices_to_unityeyes
from storage.writer import DatasetWriter
from tasks.runtime.policies import (
    CACHE,
    IO_RETRIES,
    IO_RETRY_DELAYS_S,
    groups_of_shards,
    retry_on_io,
    stop_if_told,
)
from tasks.runtime.recipes import recipe_version
from tasks.runtime.stages import position
from tasks.simulate import claim_folder
from tasks.simulation.unityeyes_assets import assets_digest, load_assets

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 256
PAIRS_AT_ONCE = 64


class CropConfig(Config):
    """Images of a dataset: crops by ingestion's rule for UnityEyes, rendered at their size."""

    height: int = Field(default=35, ge=8, le=512)
    """Height of the images, in pixels."""
    width: int = Field(default=55, ge=8, le=512)
    """Width of the images, in pixels."""
    framing: Literal["crop", "corners"] = "crop"
    """crop: about the eye's opening, as ingestion crops UnityEyes' frames; corners: midway between
    the eye's corners, as face landmarks have them."""
    eye_widths: float = Field(default=1.5, ge=0.8, le=4)
    """Width of the images in eye widths: distances from the caruncle (crop) or the inner corner's
    tip (corners) to the outer corner."""
    channels: Literal[1, 3] = 1
    """1: grey, 3: colour."""
    samples: int = Field(default=3, ge=1, le=8)
    """Samples of a pixel along each axis (antialiasing)."""
    preprocess: Preprocess = "none"
    """Histogram equalisation, as MPIIGaze's images have it, or none."""
    rows_per_shard: int = Field(default=2048, ge=1)
    """Images in a shard, the unit of resuming and of sharing work between processes."""


class FrameConfig(Config):
    """Frames of UnityEyes' layout."""

    height: int = Field(default=480, ge=48, le=2160)
    """Height of the frames, in pixels (UnityEyes: 480 or 600)."""
    width: int = Field(default=640, ge=48, le=3840)
    """Width of the frames, in pixels."""
    samples: int = Field(default=1, ge=1, le=4)
    """Samples of a pixel along each axis (antialiasing)."""


class Simulation(Config):
    """Parameters that determine every image of a simulation."""

    assets: str
    """Folder of UnityEyes2's assets: the repository, or its Assets."""
    seed: int = Field(ge=0)
    """The same seed gives the same images."""
    config: UnityEyesConfig = UnityEyesConfig()
    """Sampling ranges of the simulator."""
    match: str | None = None
    """Dataset from whose gaze labels gazes are drawn, instead of the ranges."""
    device: Literal["cpu", "cuda"] = "cpu"
    """cpu: compiled loops, in as many processes as there are; cuda: whole batches on a GPU. Images
    of one device differ from those of the other by a grey level or two."""


class RendersRows(Protocol):
    """A renderer of one seed: compiled loops, or whole batches on a GPU."""

    def render(self, rows: range, picture: Picture) -> Rendered:
        """Render neighbouring rows."""


class SimulationPlan(NamedTuple):
    """Shards left to render, in groups."""

    groups: list[list[int]]


@task(name="simulate-unityeyes-pairs", cache_policy=CACHE)
def write_pairs(out: str, count: int, simulation: Simulation, frame: FrameConfig) -> str:
    """Write N.jpg + N.json for N = 1 … count; pairs that an earlier run left are kept."""
    renderer = _renderer(simulation)
    folder = claim_folder(
        Path(out), "unityeyes", count, simulation.seed, recipe=recipe_version("unityeyes"),
        assets=assets_digest(simulation.assets), config=simulation.config.model_dump(mode="json"),
        frame=frame.model_dump(mode="json"), match=_match_digest(simulation.match),
        device=simulation.device,
    )  # fmt: skip
    picture = Picture("frame", frame.height, frame.width, frame.samples)
    started = time.monotonic()
    for start in range(0, count, PAIRS_AT_ONCE):
        stop_if_told()
        rows = range(start, min(start + PAIRS_AT_ONCE, count))
        missing = [row for row in rows if not (folder / f"{row + 1}.jpg").exists()]
        if missing:
            wanted = range(missing[0], rows.stop)
            rendered = renderer.render(wanted, picture)
            for row in missing:
                _write_pair(folder, row, row - wanted.start, rendered, simulation)
        _say_progress(rows.stop, count, started)
    return out


@task(
    name="plan-simulation",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def plan_simulation(
    to: str, count: int, simulation: Simulation, crop: CropConfig, overwrite: bool = False
) -> SimulationPlan:
    """Create the dataset, or open an unfinished one of the same simulation."""
    if count < 1:
        raise InputError(f"a simulation needs count ≥ 1, got {count}; nothing is written")
    # What is missing or wrong shows before anything is made.
    _renderer(simulation)
    writer = DatasetWriter.open(to, _spec(count, simulation, crop), overwrite=overwrite)
    pending = [] if writer.complete else writer.pending_shards()
    at = position("rendering", writer.num_shards - len(pending), writer.num_shards)
    logger.info("%s: %d of %d shards to render", to, len(pending), writer.num_shards, extra=at)
    return SimulationPlan(groups_of_shards(pending))


@task(
    name="simulate-shards",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def simulate_shards(shards: list[int], to: str, simulation: Simulation, crop: CropConfig) -> int:
    """Render and write the pending ones of these shards; returns their number of rows."""
    renderer, writer = _renderer(simulation), DatasetWriter.attach(to)
    _require_same_inputs(writer.spec, to, simulation)
    pending = sorted(set(shards) & set(writer.pending_shards()))
    for shard in pending:
        rows, started = writer.shard_rows(shard), time.monotonic()
        writer.write_shard(shard, _shard(renderer, rows, simulation, crop))
        rate = len(rows) / max(time.monotonic() - started, 1e-9)
        words = "shard %d of %d: %d images, %.0f a second"
        at = position("rendering", shard + 1, writer.num_shards)
        logger.info(words, shard + 1, writer.num_shards, len(rows), rate, extra=at)
    return sum(len(writer.shard_rows(shard)) for shard in pending)


@task(
    name="finish-simulation",
    cache_policy=CACHE,
    retries=IO_RETRIES,
    retry_delay_seconds=IO_RETRY_DELAYS_S,
    retry_condition_fn=retry_on_io,
)
def finish_simulation(to: str) -> DatasetInfo:
    """Mark the dataset complete."""
    info = DatasetWriter.attach(to).finish()
    logger.info("%s: %s images rendered", Path(to).name, f"{info.spec.num_rows:,}")
    return info


def _renderer(simulation: Simulation) -> RendersRows:
    assets = load_assets(simulation.assets)
    skins = simulation.config.num_skins
    if skins is not None and skins > len(assets.skins):
        raise InputError(
            f"num_skins should be at most {len(assets.skins)}, the skins in {simulation.assets}, "
            f"found {skins}"
        )
    given = (assets, simulation.config, simulation.seed, _gaze_labels(simulation.match))
    if simulation.device == "cpu":
        return Renderer(*given, threads=_num_threads())
    # torch is loaded only where it renders.
    import torch  # noqa: PLC0415

    from simgan_core.simulator.unityeyes.batched.render import BatchRenderer  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise InputError("device cuda needs a GPU, and PyTorch sees none; leave out --device")
    return BatchRenderer(*given, device=torch.device("cuda"))


def _require_same_inputs(spec: DatasetSpec, to: str, simulation: Simulation) -> None:
    """Raise InputError where assets or gazes are others than those that `to` was begun with.

    They may have been replaced meanwhile, or be others on this worker's machine.
    """
    inputs = {
        "listing": (simulation.assets, assets_digest(simulation.assets)),
        "match": (simulation.match, _match_digest(simulation.match)),
    }
    for name, (place, found) in inputs.items():
        begun = spec.source[name]
        if found != begun:
            raise InputError(
                f"{place} is not what {to} was begun with (digest {str(begun)[:12]}, found "
                f"{str(found)[:12]}): put it back and run the same command again, or add "
                "--overwrite"
            )


def _gaze_labels(match: str | None) -> NDArray[np.float32] | None:
    """Return the gazes of a dataset's valid rows that have one [M, 3], M at least 1."""
    if match is None:
        return None
    dataset = open_dataset(match)
    names = [label.name for label in dataset.info.spec.labels]
    if GAZE.name not in names:
        raise InputError(
            f"--match needs a dataset with the label {GAZE.name!r}, {match} has: "
            f"{', '.join(names) or 'none'}"
        )
    block = dataset.read(0, dataset.info.spec.num_rows)
    gaze = block.labels[GAZE.name][block.valid]
    known = gaze[np.isfinite(gaze).all(axis=1)]
    if not len(known):
        raise InputError(
            f"--match needs a dataset with gazes, {match} has none in its {len(gaze)} valid rows; "
            "give another one, or leave --match out"
        )
    return known


def _match_digest(match: str | None) -> str | None:
    return None if match is None else open_dataset(match).info.digest


def _labels(config: UnityEyesConfig) -> tuple[LabelSpec, ...]:
    axis = f"The {config.gaze_axis} axis of the eyeball. {GAZE.description}"
    gaze = GAZE.model_copy(update={"description": axis})
    return (gaze, HEAD_POSE, PUPIL_PX, IRIS_PX, LID_PX, CORNERS_PX, VISUAL_AXIS, IRIS_VISIBLE)


def _spec(count: int, simulation: Simulation, crop: CropConfig) -> DatasetSpec:
    rows_per_chunk = next(n for n in range(min(1024, crop.rows_per_shard), 0, -1)
                          if crop.rows_per_shard % n == 0)  # fmt: skip
    source: dict[str, JsonValue] = {
        "name": "unityeyes-simulator",
        "listing": assets_digest(simulation.assets),
        "seed": simulation.seed,
        "match": _match_digest(simulation.match),
        "device": simulation.device,
        "samples": crop.samples,
        "framing": crop.framing,
        "eye_widths": crop.eye_widths,
        **simulation.config.model_dump(mode="json"),
    }
    return DatasetSpec(
        num_rows=count,
        height=crop.height,
        width=crop.width,
        channels=crop.channels,
        dtype="uint8",
        labels=_labels(simulation.config),
        domain="synthetic",
        source=source,
        preprocess=crop.preprocess,
        provenance={"recipe": recipe_version("unityeyes")},
        rows_per_chunk=rows_per_chunk,
        rows_per_shard=crop.rows_per_shard,
    )


def _shard(
    renderer: RendersRows, rows: range, simulation: Simulation, crop: CropConfig
) -> SampleBlock:
    picture = Picture(crop.framing, crop.height, crop.width, crop.samples, crop.eye_widths)
    images = np.empty((len(rows), crop.height, crop.width, crop.channels), np.uint8)
    labels = {
        spec.name: np.empty((len(rows), *spec.shape), np.float32)
        for spec in _labels(simulation.config)
    }
    for first in range(rows.start, rows.stop, ROWS_AT_ONCE):
        stop_if_told()
        part = range(first, min(first + ROWS_AT_ONCE, rows.stop))
        rendered = renderer.render(part, picture)
        place = slice(part.start - rows.start, part.stop - rows.start)
        images[place] = rendered.images if crop.channels == 3 else _grey(rendered.images)
        for name, values in _label_values(rendered, simulation.config).items():
            labels[name][place] = values
    return SampleBlock(
        images=preprocess(images, crop.preprocess),
        valid=np.ones(len(rows), bool),
        ids=[str(row + 1) for row in rows],
        labels=labels,
    )


def _label_values(rendered: Rendered, config: UnityEyesConfig) -> dict[str, NDArray[Any]]:
    labels = rendered.labels
    return {
        GAZE.name: labels.gaze if config.gaze_axis == "optical" else labels.visual_axis,
        HEAD_POSE.name: from_matrices(labels.head_rotation),
        PUPIL_PX.name: labels.pupil_px,
        IRIS_PX.name: labels.iris_px,
        LID_PX.name: labels.lid_px,
        CORNERS_PX.name: labels.corners_px,
        VISUAL_AXIS.name: labels.visual_axis,
        IRIS_VISIBLE.name: rendered.iris_visible,
    }


def _grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luminance [N, H, W, 1] of colours, rounded as Pillow does for ingestion."""
    red, green, blue = np.moveaxis(images.astype(np.uint32), -1, 0)
    luminance = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return np.asarray(luminance[..., None], np.uint8)


def _write_pair(
    folder: Path, row: int, place: int, rendered: Rendered, simulation: Simulation
) -> None:
    labels, axis = rendered.labels, simulation.config.gaze_axis
    x, y, z = (labels.gaze if axis == "optical" else labels.visual_axis)[place]
    write_unityeyes_pair(
        folder,
        row + 1,
        frame=rendered.images[place],
        look_vec_y_up=np.array([x, -y, z]),
        head_pose_deg=matrices_to_unityeyes(labels.head_rotation[place][None])[0],
        iris_px=labels.iris_px[place],
        lid_margin_px=labels.lid_px[place],
        caruncle_px=labels.caruncle_px[place],
        details=_details(rendered.scenes, labels, rendered.iris_visible, place, simulation),
    )


def _details(
    scenes: Scenes,
    labels: Labels,
    iris_visible: NDArray[np.floating[Any]],
    place: int,
    simulation: Simulation,
) -> dict[str, dict[str, JsonValue]]:
    """Return the fields of UnityEyes' files besides the points, and a few labels of ours."""
    assets, lights = load_assets(simulation.assets), scenes.lights
    visual_x, visual_y, visual_z = labels.visual_axis[place]
    # Unity's light looks along its z axis, in the face's frame; so does ours with all signs turned.
    to_x, to_y, to_z = lights.direction[place, 0]
    light_pitch = np.degrees(np.arcsin(np.clip(-to_y, -1, 1))) % 360
    light_yaw = np.degrees(np.arctan2(to_x, to_z)) % 360
    coefficients: list[JsonValue] = [f"{c:.7g}" for c in scenes.coefficients[place]]
    corners: list[JsonValue] = [f"({x:.4f}, {y:.4f})" for x, y in labels.corners_px[place]]
    return {
        "eye_details": {
            "pupil_size": f"{scenes.pupil_size[place]:.7g}",
            "iris_size": f"{scenes.iris_size[place]:.7g}",
            "iris_texture": f"eyeball_{assets.iris_names[scenes.iris[place]]}",
            "visual_axis": f"({visual_x:.4f}, {-visual_y:.4f}, {visual_z:.4f}, 0.0000)",
            "iris_visible": f"{iris_visible[place]:.4f}",
            "corners_2d_top_left": corners,
        },
        "lighting_details": {
            "skybox_texture": "generated",
            "skybox_exposure": f"{lights.sky[place].mean():.7g}",
            "skybox_rotation": f"{np.degrees(lights.spin[place]):.0f}",
            "ambient_intensity": f"{(lights.sky[place] + lights.ground[place]).mean() / 2:.7g}",
            "light_rotation": f"({light_pitch:.1f}, {light_yaw:.1f}, 0.0)",
            "light_intensity": f"{lights.colour[place].sum(axis=0).mean():.7g}",
        },
        "eye_region_details": {
            "pca_shape_coeffs": coefficients,
            "primary_skin_texture": f"{assets.skin_names[scenes.skin[place]]}_color",
        },
    }


def _num_threads() -> int:
    """Return how many threads render: OMP_NUM_THREADS, or as many as this process has cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))


def _say_progress(done: int, count: int, started: float) -> None:
    rate = done / max(time.monotonic() - started, 1e-9)
    words = "rendered %s of %s UnityEyes images, %.0f a second"
    at = position("rendering", done, count)
    logger.info(words, f"{done:,}", f"{count:,}", rate, extra=at)
