"""Train CUT on two datasets and export it for `simgan refine`: an opponent for our refiners.

python examples/train_cut.py data/synthetic.zarr data/real.zarr --out cut.pt2
simgan refine data/synthetic.zarr --refiner cut.pt2 --to data/cut.zarr --gate-shift 1.5

Killed, the same command resumes from its checkpoint, cut.pt2.ckpt, to the same weights.

CUT: contrastive unpaired translation (Park, Efros, Zhang, Zhu, ECCV 2020). By the generator's own
features a patch of the translated image must be told from other patches of its source (PatchNCE);
a PatchGAN compares images with least squares (LSGAN); translated real images stay as they are
(identity PatchNCE). Networks are smaller than the paper's, for images of some 35×55.

Shapes: N images, C channels, H × W pixels, F features, P patches.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from simgan_core.compute.settings import choose_compute_settings
from simgan_core.data.images import to_network
from simgan_core.errors import InputError, UnavailableError
from simgan_core.models.checkpoint import load_checkpoint, save_checkpoint
from storage.errors import StorageError
from storage.reader import open_dataset
from tasks.runtime.compatibility import as_uint8, require_same_images
from tasks.runtime.devices import default_device

NUM_PATCHES, TEMPERATURE = 64, 0.07
LEARNING_RATE, LOG_EVERY, SAVE_EVERY = 2e-4, 500, 100


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return convolution, instance normalisation and ReLU."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="reflect")
    return nn.Sequential(conv, nn.InstanceNorm2d(outputs), nn.ReLU())


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.layers = nn.Sequential(convolution(width, width, 3), last, nn.InstanceNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, F, H, W] to the same."""
        return features + self.layers(features)


class Generator(nn.Module):
    """ResNet generator: [N, C, H, W] in [−1, 1] to the same; half resolution inside."""

    def __init__(self, channels: int, width: int, num_blocks: int) -> None:
        super().__init__()
        blocks = [ResidualBlock(2 * width) for _ in range(num_blocks)]
        self.encoder = nn.ModuleList(
            [convolution(channels, width, 7), convolution(width, 2 * width, 3, stride=2), *blocks]
        )
        self.up = convolution(2 * width, width, 3)
        self.last = nn.Conv2d(width, channels, 7, padding=3, padding_mode="reflect")
        self.feature_widths = [channels, width, *[2 * width] * (1 + num_blocks // 2)]

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the images and the features [N, F, h, w] after each stage of the encoder."""
        features = [images]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        return features

    def decode(self, features: Tensor, size: torch.Size) -> Tensor:
        """Return images of a size from the encoder's last features."""
        large = functional.interpolate(features, scale_factor=2.0, mode="nearest")
        large = large[:, :, : size[2], : size[3]]
        return torch.tanh(self.last(self.up(large)).float())

    def forward(self, images: Tensor) -> Tensor:
        """Translate synthetic images to real ones."""
        return self.decode(self.encode(images)[-1], images.shape)


def patch_gan(channels: int, width: int) -> nn.Sequential:
    """Return a discriminator: [N, C, H, W] to a map of scores [N, 1, h, w]."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inputs, stride in ((width, 2), (2 * width, 1)):
        conv = nn.Conv2d(inputs, 2 * inputs, 4, stride, 1)
        layers += [conv, nn.InstanceNorm2d(2 * inputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, 1, 1))


class PatchNCE(nn.Module):
    """Contrastive loss: each patch's features against those of other patches of its own image."""

    def __init__(self, feature_widths: list[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))
            for inputs in feature_widths
        )

    def forward(self, translated: list[Tensor], source: list[Tensor]) -> Tensor:
        """Return the mean loss over the layers that have a head; the source gets no gradient."""
        losses = []
        for head, query, key in zip(self.heads, translated, source, strict=False):
            places = torch.randperm(query[0, 0].numel(), device=query.device)[:NUM_PATCHES]
            q, k = (
                functional.normalize(head(of.flatten(2)[:, :, places].transpose(1, 2)), dim=2)
                for of in (query, key)
            )
            logits = q.float() @ k.float().detach().transpose(1, 2) / TEMPERATURE  # [N, P, P]
            own = torch.arange(len(places), device=q.device).repeat(len(q))
            losses.append(functional.cross_entropy(logits.flatten(0, 1), own))
        return torch.stack(losses).mean()


class Checkpoint:
    """File that a killed training resumes from, replaced atomically."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Name the training: whatever changes its weights belongs in `settings`."""
        self.path, self._settings = path, settings

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Write the state of networks, optimizers and random generators after a step."""
        generators = [torch.get_rng_state()]
        if torch.cuda.is_available():
            generators.append(torch.cuda.get_rng_state())
        states = {name: part.state_dict() for name, part in parts.items()}
        content = {"settings": self._settings, "step": step, "generators": generators}
        save_checkpoint(self.path, {**content, "states": states})

    def resume(self, parts: dict[str, Any]) -> int:
        """Load the file into `parts` and return its step; 0 where there is none.

        Raises `InputError` where it is damaged or of another training; names what differs.
        """
        if not self.path.exists():
            return 0
        saved = load_checkpoint(self.path)
        old = saved.get("settings", {})
        changed = [
            f"{name} was {old.get(name)}, is {new}"
            for name, new in self._settings.items()
            if old.get(name) != new
        ]
        if changed:
            raise InputError(
                f"checkpoint {self.path} is of another training: {'; '.join(changed)}. Give the "
                "same datasets and options again, or delete it to start anew"
            )
        try:
            for name, part in parts.items():
                part.load_state_dict(saved["states"][name])
            set_states = (torch.set_rng_state, torch.cuda.set_rng_state)
            for set_state, state in zip(set_states, saved["generators"], strict=False):
                set_state(state)
            return int(saved["step"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise InputError(
                f"checkpoint {self.path} is of other networks or optimizers; delete it to start "
                f"anew ({error})"
            ) from error


def train(
    synthetic: Tensor, real: Tensor, given: argparse.Namespace, checkpoint: Checkpoint
) -> Generator:
    """Train CUT on images, uint8 [N, H, W, C]; returns the generator in eval mode."""
    torch.manual_seed(given.seed)
    compute = choose_compute_settings(default_device())
    generator = Generator(synthetic.shape[3], given.width, given.blocks)
    critic = patch_gan(synthetic.shape[3], given.width)
    nce = PatchNCE(generator.feature_widths, 2 * given.width)
    networks = nn.ModuleList([generator, critic, nce]).to(compute.device)
    betas = (0.5, 0.999)
    of_generator = torch.optim.Adam([*generator.parameters(), *nce.parameters()], betas=betas)
    of_critic = torch.optim.Adam(critic.parameters(), betas=betas)
    parts = {"networks": networks, "of_generator": of_generator, "of_critic": of_critic}
    num_done = checkpoint.resume(parts)
    if num_done:
        print(f"resumed after step {num_done} of {given.steps}", file=sys.stderr)
    began = time.monotonic()
    for step in range(num_done + 1, given.steps + 1):
        # Constant in the first half, then linearly to 0.
        rate = LEARNING_RATE * min(1.0, 2 * (1 - (step - 1) / given.steps))
        for group in (*of_generator.param_groups, *of_critic.param_groups):
            group["lr"] = rate
        a, b = (
            to_network(images[torch.randint(len(images), (given.batch_size,))]).to(compute.device)
            for images in (synthetic, real)
        )
        with compute.autocast():
            features = generator.encode(torch.cat([a, b]))
            both = generator.decode(features[-1], a.shape)
            refined = both[: len(a)]
            fake, true = critic(refined.detach()).float(), critic(b).float()
            loss_critic = ((fake**2).mean() + ((true - 1) ** 2).mean()) / 2
        of_critic.zero_grad()
        loss_critic.backward()
        of_critic.step()
        with compute.autocast():
            contrastive = nce(generator.encode(both), features)
            adversarial = ((critic(refined).float() - 1) ** 2).mean()
        of_generator.zero_grad()
        (adversarial + contrastive).backward()
        of_generator.step()
        if step % SAVE_EVERY == 0:
            checkpoint.save(step, parts)
        if step % LOG_EVERY == 0 or step == given.steps:
            minutes_a_step = (time.monotonic() - began) / 60 / (step - num_done)
            minutes = minutes_a_step * (given.steps - step)
            losses = [each.item() for each in (contrastive, adversarial, loss_critic)]
            named = "NCE {:.3f}, adversarial {:.3f}, discriminator {:.3f}".format(*losses)
            print(f"step {step} of {given.steps}: {named}; {minutes:.0f} min left", file=sys.stderr)
    return generator.eval().cpu()


def export(generator: Generator, example: Tensor, path: Path) -> None:
    """Write the generator for images of the example's shape [2, C, H, W], any number of them."""
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(generator, (example,), dynamic_shapes=dynamic)
    partial = path.with_name(f"partial-{path.name}")
    torch.export.save(program, partial)
    partial.replace(path)


def main() -> int:
    """Parse, read, train, export."""
    parser = argparse.ArgumentParser(description="Train CUT on a synthetic and a real dataset.")
    parser.add_argument("synthetic", help="dataset to refine, path or URL")
    parser.add_argument("real", help="dataset of unlabelled real images, of the same size")
    parser.add_argument("--out", type=Path, required=True, help="the model, for instance cut.pt2")
    parser.add_argument("--steps", type=int, default=12000, help="updates of the generator")
    parser.add_argument("--batch-size", type=int, default=8, help="images of each domain")
    parser.add_argument("--width", type=int, default=32, help="feature maps at full resolution")
    parser.add_argument("--blocks", type=int, default=4, help="residual blocks")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.out.suffix != ".pt2" or not given.out.absolute().parent.is_dir():
        parser.error(f"--out {given.out}: expected NAME.pt2 in a folder that exists")
    try:
        synthetic, real = open_dataset(given.synthetic), open_dataset(given.real)
        require_same_images(synthetic.info, real.info, "synthetic", "real")
        digests = {"synthetic": synthetic.info.digest, "real": real.info.digest}
        settings = {name: value for name, value in (vars(given) | digests).items() if name != "out"}
        checkpoint = Checkpoint(given.out.with_name(f"{given.out.name}.ckpt"), settings)
        images = [torch.from_numpy(as_uint8(d.load().images, d.info)) for d in (synthetic, real)]
        generator = train(*images, given, checkpoint)
    except (InputError, StorageError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 2
    export(generator, to_network(images[0][:2]).contiguous(), given.out)
    checkpoint.path.unlink(missing_ok=True)
    print(f"refine with: simgan refine {given.synthetic} --refiner {given.out} --to DATASET")
    return 0


if __name__ == "__main__":
    sys.exit(main())
