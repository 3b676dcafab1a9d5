import torch

from simgan_core.landmarks.augmentation import random_crops, random_photographs, random_views
from simgan_core.landmarks.network import CANVAS

POINTS = torch.tensor([[30.0, 42.0], [78.0, 38.0], [55.0, 37.0], [45.0, 38.0], [65.0, 36.0]])


def ramps(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, 72, 112] whose pixels are their own places: x, and y."""
    y, x = torch.meshgrid(torch.arange(72) + 0.5, torch.arange(112) + 0.5, indexing="ij")
    return tuple(each.expand(count, 1, 72, 112) for each in (x, y))  # type: ignore[return-value]


def test_landmarks_move_with_the_picture() -> None:
    count = 64
    points = POINTS.expand(count, 5, 2)
    seen = [random_crops(ramp, points, torch.Generator().manual_seed(0)) for ramp in ramps(count)]
    assert torch.equal(seen[0][1], seen[1][1])
    num_checked = 0
    for row, moved in enumerate(seen[0][1]):
        # Well inside what the canvas shows, where no edge pixels go on.
        inside = [
            (name, x, y)
            for name, (x, y) in enumerate(moved.tolist())
            if 12 < x < CANVAS[1] - 12 and 12 < y < CANVAS[0] - 12
        ]
        found = {
            name: torch.stack([views[row, 0, int(y), int(x)] for views, _ in seen])
            for name, x, y in inside
        }
        # In a mirrored picture left and right landmarks change places.
        off = [
            max(((at - POINTS[order[name]]).abs().max().item() for name, at in found.items()),
                default=0.0)
            for order in ((0, 1, 2, 3, 4), (1, 0, 2, 4, 3))
        ]  # fmt: skip
        assert min(off) < 3.0
        num_checked += len(inside)
    assert num_checked > 100


def test_the_same_seed_gives_the_same_views() -> None:
    images = torch.rand(4, 1, 72, 112, generator=torch.Generator().manual_seed(1))
    one, other = (
        random_views(images, POINTS.expand(4, 5, 2), torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_photographs_are_finite_and_differ_from_one_another() -> None:
    canvases = torch.rand(1, 1, *CANVAS, generator=torch.Generator().manual_seed(1))
    seen = random_photographs(canvases.expand(32, -1, -1, -1), torch.Generator().manual_seed(2))
    assert seen.isfinite().all()
    assert len({round(float(each.std()), 4) for each in seen}) > 25
