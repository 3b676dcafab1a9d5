import pytest

from simgan_core.compute.settings import gpu_micro_batch_size

GIB = 2**30


@pytest.mark.parametrize(
    ("memory_gib", "image_size", "expected"),
    [
        (80, (35, 55), 2048),
        (16, (35, 55), 512),
        (80, (12, 16), 2048),
        (80, (224, 224), 78),
        (16, (224, 224), 19),
        (16, (4000, 6000), 1),
    ],
)
def test_of_larger_images_a_gpu_refines_as_many_fewer_at_once(
    memory_gib: int, image_size: tuple[int, int], expected: int
) -> None:
    assert gpu_micro_batch_size(memory_gib * GIB, image_size) == expected
