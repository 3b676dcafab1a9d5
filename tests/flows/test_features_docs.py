"""docs/how-to/features.md as it stands there: its lines of Python, then its commands."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from simgan_core.models.checkpoint import load_refiner
from simgan_core.simulator.eyes import sample_scenes
from tests.flows.conftest import ForkedSimgan, write_eyes

DOCUMENT = (Path(__file__).parents[2] / "docs" / "how-to" / "features.md").read_text("utf-8")
LINES = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (simgan .*)$", DOCUMENT, re.MULTILINE)]
LESS = {
    "train": ("--steps", 2, "--batch-size", 8, "--history-size", 0, "--refiner.num-features", 4,
              "--discriminator-pretraining-steps", 1, "--stopping.evaluate-every", 0),
    "evaluate": ("--seeds", 1, "--steps", 2, "--batch-size", 8),
}  # fmt: skip


class Vgg16(nn.Module):
    """VGG16's layers up to relu3_3, with few maps: what torchvision, which is not here, has."""

    def __init__(self) -> None:
        super().__init__()
        channels, layers = 3, []
        for num_convolutions, width in ((2, 4), (2, 6), (3, 8)):
            for _ in range(num_convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Path:
    """A working directory with the datasets that the page names, and torchvision's stand-in."""
    models = ModuleType("torchvision.models")
    models.vgg16 = lambda weights: Vgg16()  # type: ignore[attr-defined]
    models.VGG16_Weights = type("VGG16_Weights", (), {"IMAGENET1K_V1": None})  # type: ignore
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    real = sample_scenes("real", 60, seed=2)
    write_eyes(Path("data/synthetic.zarr"), "synthetic", sample_scenes("synthetic", 30, seed=1))
    write_eyes(Path("data/real.zarr"), "real", real[real.person < 10])
    write_eyes(Path("data/test.zarr"), "real", real[real.person >= 10])
    return tmp_path


def test_exported_features_are_what_a_training_is_held_by(
    simgan: ForkedSimgan, folder: Path, environment: dict[str, str]
) -> None:
    exec(compile(LINES[1], "docs/how-to/features.md", "exec"), {})
    said = {}
    for _, command, *words in COMMANDS:
        done = simgan.within(folder)(command, *words, *LESS[command])
        assert done.returncode == 0, done.stderr
        said[command] = done.stdout
    (refiner,) = Path(environment["SIMGAN_HOME"]).glob(
        f"refiners/{said['train'].split()[0]}/refiner.pt"
    )
    assert load_refiner(refiner).config.regularization.features_from == "vgg16.pt2"
    assert Path(re.findall("estimator: (.*)", said["evaluate"])[0]).is_file()
