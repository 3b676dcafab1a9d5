from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from simgan_core.config import BilateralConfig, RefinerConfig, TrainingConfig
from simgan_core.inference import UInt8Refiner
from simgan_core.models.bilateral import BilateralRefiner
from simgan_core.models.checkpoint import load_refiner, save_refiner
from simgan_core.models.refiner import ConvolutionalRefiner
from tasks.training.onnx_export import save_onnx


@pytest.mark.parametrize(
    ("config", "channels", "pixels"),
    [
        (RefinerConfig(num_features=6, num_blocks=2), 1, "uint8"),
        (RefinerConfig(num_features=6, num_blocks=1, residual=False), 3, "uint8"),
        (RefinerConfig(num_features=4, num_blocks=1, kernel_size=7), 1, "uint16"),
    ],
)
def test_onnxruntime_refines_as_pytorch_does(
    tmp_path: Path, config: RefinerConfig, channels: int, pixels: str
) -> None:
    torch.manual_seed(0)
    refiner = ConvolutionalRefiner(config, channels)
    torch.nn.init.normal_(refiner.last.weight, std=0.5)  # some pixels leave the range
    metadata = {"image_height": 12, "image_width": 15, "preprocess": "none", "pixels": pixels}
    save_refiner(tmp_path / "refiner.pt", refiner, TrainingConfig(refiner=config), metadata)
    save_onnx(tmp_path / "refiner.onnx", load_refiner(tmp_path / "refiner.pt"))
    session = onnxruntime.InferenceSession(
        tmp_path / "refiner.onnx", providers=["CPUExecutionProvider"]
    )
    white = np.iinfo(pixels).max
    for count in (1, 5):
        images = np.random.default_rng(count).integers(0, white + 1, (count, 12, 15, channels))
        images = images.astype(pixels)
        (refined,) = session.run(None, {"images": images})
        with torch.no_grad():
            expected = UInt8Refiner(refiner)(torch.from_numpy(images)).numpy()
        assert refined.dtype == images.dtype
        difference = np.abs(refined.astype(int) - expected.astype(int))
        assert difference.max() <= 1  # where rounding is a tie but for the last bit of a sum
        assert (difference > 0).mean() < 0.01
        assert np.abs(expected.astype(int) - images.astype(int)).max() > white / 20


@pytest.mark.parametrize("sees_image", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_onnxruntime_refines_in_styles_as_pytorch_does(
    tmp_path: Path, channels: int, sees_image: bool
) -> None:
    torch.manual_seed(0)
    refiner = BilateralRefiner(BilateralConfig(grey_segments=3, sees_image=sees_image), channels)
    torch.nn.init.normal_(refiner.curves.weight, std=0.3)
    config = TrainingConfig(family="bilateral", bilateral=refiner.config)
    metadata = {"image_height": 35, "image_width": 55, "preprocess": "none", "pixels": "uint8"}
    save_refiner(tmp_path / "refiner.pt", refiner, config, metadata)
    save_onnx(tmp_path / "refiner.onnx", load_refiner(tmp_path / "refiner.pt"))
    session = onnxruntime.InferenceSession(
        tmp_path / "refiner.onnx", providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):
        generator = np.random.default_rng(count)
        images = generator.integers(0, 256, (count, 35, 55, channels), np.uint8)
        style = generator.standard_normal((count, 8)).astype(np.float32)
        (refined,) = session.run(None, {"images": images, "style": style})
        with torch.no_grad():
            expected = UInt8Refiner(refiner)(torch.from_numpy(images), torch.from_numpy(style))
        difference = np.abs(refined.astype(int) - expected.numpy().astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
