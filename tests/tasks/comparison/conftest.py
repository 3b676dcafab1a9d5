"""Small datasets of rendered eyes and hands, and an MLflow of each test's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simgan_core.simulator.eyes import render, sample_scenes
from simgan_core.simulator.hands import JOINTS, render_hands
from storage.samples import SampleBlock
from storage.schema import GAZE, PUPIL_PX, DatasetSpec, Domain, LabelSpec
from storage.writer import DatasetWriter

HAND_JOINTS = LabelSpec(
    name="joints_uvd",
    shape=(len(JOINTS), 3),
    unit="px, px, mm",
    frame="image",
    description="Joints.",
)


@pytest.fixture(autouse=True)
def _quick() -> None:
    torch.set_num_threads(1)


def write_dataset(
    path: Path | str,
    domain: Domain,
    images: np.ndarray[Any, Any],
    ids: list[str],
    labels: dict[str, tuple[LabelSpec, np.ndarray[Any, Any]]],
    provenance: dict[str, Any] | None = None,
) -> str:
    """Write images [N, H, W, C] with their labels as a dataset and return its place."""
    spec = DatasetSpec(
        num_rows=len(images),
        height=images.shape[1],
        width=images.shape[2],
        channels=1,
        dtype="uint16" if images.dtype == np.uint16 else "uint8",
        labels=tuple(label for label, _ in labels.values()),
        domain=domain,
        source={"name": "test", "sum": int(images.sum())},
        preprocess="none",
        provenance=provenance or {},
    )
    writer = DatasetWriter.open(str(path), spec)
    values = {name: each.astype(np.float32) for name, (_, each) in labels.items()}
    writer.write_shard(0, SampleBlock(images, np.ones(len(images), bool), ids, values))
    return writer.finish().url


def _eyes(domain: str, count: int, seed: int) -> tuple[Any, Any, list[str], list[str]]:
    scenes = sample_scenes(domain, count, seed)  # type: ignore[arg-type]
    rendered = render(scenes, "crop", 35, 55)
    labels = {"gaze": (GAZE, scenes.gaze), "pupil_px": (PUPIL_PX, rendered.pupil_px)}
    people = [f"p{person:02d}" for person in scenes.person]
    return rendered.images, labels, people, [str(row) for row in range(count)]


@pytest.fixture(scope="session")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Synthetic eyes, the same a little brighter as refined ones, and real ones of 15 people."""
    folder = tmp_path_factory.mktemp("downstream")
    images, labels, _, numbers = _eyes("synthetic", 80, 1)
    brighter = (images * 0.9 + 20).astype(np.uint8)
    ids = [f"s/{number}" for number in numbers]
    made = {
        "synthetic": write_dataset(folder / "synthetic.zarr", "synthetic", images, ids, labels),
        "refined": write_dataset(folder / "refined.zarr", "refined", brighter, ids, labels),
    }
    images, labels, people, numbers = _eyes("real", 120, 2)
    ids = [f"{person}/{number}" for person, number in zip(people, numbers, strict=True)]
    for name in ("real", "test"):
        rows = [row for row, person in enumerate(people) if (person < "p10") == (name == "real")]
        made[name] = write_dataset(
            folder / f"{name}.zarr",
            "real",
            images[rows],
            [ids[row] for row in rows],
            {label: (spec, values[rows]) for label, (spec, values) in labels.items()},
        )
    return made


@pytest.fixture(scope="session")
def hands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hands of the built-in renderer: synthetic, as if refined, and real."""
    folder = tmp_path_factory.mktemp("hands")
    made = {}
    for name, domain, count, seed in (
        ("synthetic", "synthetic", 16, 1),
        ("refined", "synthetic", 16, 1),
        ("test", "real", 20, 2),
    ):
        found = render_hands(domain, count, seed)  # type: ignore[arg-type]
        ids = [f"p{person:02d}/{row}" for row, person in enumerate(found.person)]
        made[name] = write_dataset(
            folder / f"{name}.zarr",
            {"test": "real"}.get(name, name),  # type: ignore[arg-type]
            found.images - (name == "refined"),
            ids,
            {"joints_uvd": (HAND_JOINTS, found.joints_uvd)},
        )
    return made
