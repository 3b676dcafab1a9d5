import numpy as np
import pytest
import torch

from simgan_core.landmarks.network import (
    CANVAS,
    CELL_PX,
    LANDMARKS,
    LandmarkNetwork,
    fit,
    heat_map_loss,
    heat_map_targets,
    means_and_spreads,
    to_canvas,
)

MAPS = (CANVAS[0] // CELL_PX, CANVAS[1] // CELL_PX)


@pytest.mark.parametrize("size", [(35, 55), (36, 60), (41, 64), (120, 120), (480, 640)])
def test_an_image_lies_in_the_canvas_where_its_fit_says(size: tuple[int, int]) -> None:
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    at, wide = torch.tensor([0.3 * width, 0.6 * height]), width / 12
    bump = torch.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / wide**2)
    canvas = to_canvas(bump[None, None])[0, 0]
    place = fit(height, width)
    canvas = (canvas - canvas.min()).clamp(min=0) ** 4
    rows, columns = (torch.arange(side) + 0.5 for side in CANVAS)
    found = torch.stack([(canvas.sum(0) * columns).sum(), (canvas.sum(1) * rows).sum()])
    expected = at * torch.tensor(place.scale) + torch.tensor(place.origin)
    assert (found / canvas.sum() - expected).abs().max() < 0.2


def test_light_and_contrast_do_not_matter() -> None:
    image = torch.rand(1, 1, 41, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(to_canvas(image), to_canvas(0.3 * image + 0.5), atol=1e-4)


def test_an_image_of_one_grey_level_is_finite() -> None:
    assert to_canvas(torch.full((1, 3, 35, 55), 0.4)).isfinite().all()


def test_means_and_spreads_agree_with_sums_over_cells() -> None:
    logs = torch.randn(2, len(LANDMARKS), *MAPS, generator=torch.Generator().manual_seed(1))
    means, spreads = means_and_spreads(logs)
    maps = np.exp(logs.double().numpy())
    maps /= maps.sum(axis=(2, 3), keepdims=True)
    for row, landmark in np.ndindex(maps.shape[:2]):
        total, squares = np.zeros(2), np.zeros(2)
        for y, x in np.ndindex(MAPS):
            place = CELL_PX * (np.array([x, y]) + 0.5)
            total += maps[row, landmark, y, x] * place
            squares += maps[row, landmark, y, x] * place**2
        variance = (squares - total**2).mean() - CELL_PX**2
        assert means[row, landmark].numpy() == pytest.approx(total, rel=1e-4)
        assert spreads[row, landmark].item() == pytest.approx(np.sqrt(variance), rel=1e-3)


def test_targets_say_where_the_points_are_and_that_they_are_certain() -> None:
    points = torch.tensor([[[20.3, 11.8], [36.0, 24.0], [50.9, 30.1], [40.0, 20.0], [9.0, 40.0]]])
    means, spreads = means_and_spreads(heat_map_targets(points).log())
    assert (means - points).abs().max() < 0.02
    assert spreads.max() < 0.3


def test_the_loss_is_the_mean_divergence_of_points_in_the_canvas() -> None:
    logs = torch.randn(1, 5, *MAPS, generator=torch.Generator().manual_seed(2))
    points = torch.tensor([[[20.0, 11.0], [36.0, 24.0], [51.0, 30.0], [-3.0, 20.0], [9.0, 48.5]]])
    targets = heat_map_targets(points).double().numpy()
    maps = np.exp(logs.double().numpy())
    maps /= maps.sum(axis=(2, 3), keepdims=True)
    inside = [0, 1, 2]
    divergence = [
        (targets[0, n] * np.log(np.maximum(targets[0, n], 1e-30) / maps[0, n])).sum()
        for n in inside
    ]
    assert heat_map_loss(logs, points).item() == pytest.approx(np.mean(divergence), rel=1e-4)


def test_maps_have_the_size_that_decoding_expects() -> None:
    maps = LandmarkNetwork().eval()(torch.zeros(2, 1, *CANVAS))
    assert maps.shape == (2, len(LANDMARKS), *MAPS)
