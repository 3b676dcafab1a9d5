import torch

from simgan_core.config import DiscriminatorConfig
from simgan_core.data.discriminator_augmentation import DiscriminatorAugmentation


def augmentation_with(**options: float) -> DiscriminatorAugmentation:
    generator = torch.Generator().manual_seed(0)
    return DiscriminatorAugmentation(DiscriminatorConfig(**options), generator)


def changed(images: torch.Tensor, **options: float) -> torch.Tensor:
    augmentation = augmentation_with(**options)
    return augmentation(images, augmentation.draw(len(images), images.device))


def test_images_pass_as_they_are_unless_something_is_set() -> None:
    images = torch.rand(3, 1, 8, 9)
    assert changed(images) is images


def test_each_image_is_moved_by_its_own_numbers_and_the_gradient_passes() -> None:
    images = torch.rand(1, 1, 12, 14).repeat(5, 1, 1, 1).requires_grad_()
    moved = changed(images, max_shift_px=2.0)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 5
    moved.sum().backward()
    assert images.grad is not None
    assert images.grad[:, :, 4:8, 4:8].abs().min() > 0


def test_tone_changes_within_what_is_set() -> None:
    images = torch.linspace(-1, 1, 50).reshape(1, 1, 5, 10).repeat(200, 1, 1, 1)
    toned = changed(images, max_tone=0.2)
    contrast = (toned[:, 0, -1, -1] - toned[:, 0, 0, 0]) / 2
    brightness = toned.mean(dim=(1, 2, 3))
    for figure, middle in ((contrast, 1.0), (brightness, 0.0)):
        assert (figure - middle).abs().max() <= 0.2 + 1e-6
        assert figure.std() > 0.05
