"""The batched renderer draws what the compiled loops draw."""

import numpy as np
import pytest
import torch

from simgan_core.simulator.unityeyes.assets import Assets
from simgan_core.simulator.unityeyes.batched.raster import FAR, rasterise
from simgan_core.simulator.unityeyes.batched.render import BatchRenderer
from simgan_core.simulator.unityeyes.config import UnityEyesConfig
from simgan_core.simulator.unityeyes.placement import Picture
from simgan_core.simulator.unityeyes.render import Renderer
from tasks.simulation.unityeyes_assets import load_assets
from tests.unityeyes_folder import write_assets

DECORATED = UnityEyesConfig(glasses_share=0.5, makeup_share=0.5, num_lights=(2, 4))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """Skins of noise on a small mesh."""
    return load_assets(str(write_assets(tmp_path_factory.mktemp("assets"))))


@pytest.mark.parametrize(
    "picture", [Picture("crop", 35, 55, 3), Picture("corners", 40, 60, 2, 1.3)]
)
def test_images_are_those_of_the_compiled_loops(assets: Assets, picture: Picture) -> None:
    pytest.importorskip("numba")
    rows = range(3, 15)
    loops = Renderer(assets, DECORATED, seed=1).render(rows, picture, masks=True)
    batched = BatchRenderer(assets, DECORATED, 1, device=CPU).render(rows, picture, masks=True)
    same = loops.shown == batched.shown
    # The small mesh lets the eyeball through its skin, where the loops do not look for it.
    assert same.mean() > 0.99
    pixels = same.reshape(12, picture.height, picture.samples, picture.width, picture.samples)
    apart = np.abs(loops.images.astype(int) - batched.images)[pixels.all(axis=(2, 4))]
    assert apart.mean() < 0.6
    assert np.percentile(apart, 99) <= 6
    np.testing.assert_allclose(batched.iris_visible, loops.iris_visible, atol=0.01)
    np.testing.assert_allclose(batched.labels.pupil_px, loops.labels.pupil_px, atol=1e-6)


def test_a_row_has_the_same_bits_in_any_range(assets: Assets) -> None:
    renderer, picture = BatchRenderer(assets, DECORATED, 1, device=CPU), Picture("crop", 35, 55, 1)
    whole = renderer.render(range(12), picture)
    part = renderer.render(range(6, 11), picture)
    np.testing.assert_array_equal(part.images, whole.images[6:11])
    np.testing.assert_array_equal(part.labels.iris_px, whole.labels.iris_px[6:11])


@pytest.mark.gpu("the same formulas by other kernels")
def test_a_gpu_draws_what_a_cpu_draws(assets: Assets) -> None:
    picture = Picture("crop", 35, 55, 3)
    cpu = BatchRenderer(assets, DECORATED, 1, device=CPU).render(range(8), picture)
    on_gpu = BatchRenderer(assets, DECORATED, 1, device=torch.device("cuda"))
    gpu, again = (on_gpu.render(range(8), picture) for _ in range(2))
    apart = np.abs(cpu.images.astype(int) - gpu.images)
    assert apart.mean() < 0.1
    assert np.percentile(apart, 99) <= 2
    np.testing.assert_array_equal(gpu.images, again.images)


def test_the_nearest_triangle_owns_a_sample_and_the_first_of_equal_ones() -> None:
    corners = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])

    def at(*depths: float) -> torch.Tensor:
        planes = [torch.cat([corners, torch.full((3, 1), depth)], dim=1) for depth in depths]
        return torch.cat(planes)[None]

    triangles = torch.arange(9).view(3, 3)
    nearest = rasterise(at(5.0, 3.0, 3.0), triangles, 8, 8)
    assert nearest.owner[0, 1, 1] == 1
    assert nearest.depth[0, 1, 1] == 3.0
    assert nearest.owner[0, 7, 7] == -1
    assert nearest.depth[0, 7, 7] == FAR
