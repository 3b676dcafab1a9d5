"""Benchmark refiner training against a plain implementation of the same algorithm.

    python -m benchmarks.train                             # refiner steps a second of `paper`
    python -m benchmarks.train --processes 2               # the same, ours by two processes
    python -m benchmarks.train --to-kid 0.5 --preset stable  # time to a realism score

The plain one is what a first, careful reading of the paper gives: fp32, NCHW, whole batches, a
DataLoader over PNG files with workers, no compilation, Adam as it comes. It is written to be fair:
the same networks, losses and history, and no needless copy, sync or conversion. Interleaved, best
of the rounds, so that a busy machine meets both alike.
"""

import argparse
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.results_file import ResultsFile
from simgan_core.compute.distributed import join_process_group, leave_process_group
from simgan_core.config import PRESETS, StoppingConfig, TrainingConfig
from simgan_core.models.discriminator import Discriminator
from simgan_core.models.refiner import ConvolutionalRefiner
from simgan_core.quality.kid import KernelDistance
from simgan_core.simulator.eyes import render, sample_scenes
from simgan_core.training.sink import NullSink
from simgan_core.training.trainer import Trainer


class ImageFiles(Dataset[Tensor]):
    """PNG files as tensors [1, H, W] in [−1, 1]."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.png"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self._files[index]) as image:
            pixels = np.asarray(image, dtype=np.float32)
        return torch.from_numpy(pixels / 127.5 - 1)[None]


def endless(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    """Deal batch after batch."""
    while True:
        yield from loader


class PlainTraining:
    """Algorithm 1 without any care for speed but that of not being careless."""

    def __init__(self, config: TrainingConfig, synthetic: Path, real: Path, device: str) -> None:
        self._config, self._device = config, device
        torch.manual_seed(config.seed)
        self.refiner = ConvolutionalRefiner(config.refiner, 1).to(device)
        self._discriminator = Discriminator(config.discriminator, 1).to(device)
        rate = config.learning_rate
        self._refiner_optimizer = torch.optim.Adam(self.refiner.parameters(), lr=rate)
        self._discriminator_optimizer = torch.optim.Adam(self._discriminator.parameters(), lr=rate)
        self._synthetic, self._real = (
            endless(
                DataLoader(
                    ImageFiles(folder),
                    batch_size=config.batch_size,
                    shuffle=True,
                    drop_last=True,
                    num_workers=2,
                    persistent_workers=True,
                    pin_memory=device == "cuda",
                )
            )
            for folder in (synthetic, real)
        )
        self._history: list[Tensor] = []

    def refiner_step(self) -> None:
        """Update the refiner once."""
        weights = self._config.regularization
        images = next(self._synthetic).to(self._device, non_blocking=True)
        refined = self.refiner(images)
        logits = self._discriminator(refined)
        real = torch.ones(logits[:, 0].shape, dtype=torch.long, device=self._device)
        loss = nn.functional.cross_entropy(logits, real)
        difference = refined - images
        loss = loss + weights.identity * difference.abs().mean()
        if weights.gradient > 0:
            across, down = difference.diff(dim=3), difference.diff(dim=2)
            loss = loss + weights.gradient * (across.abs().mean() + down.abs().mean())
        self._refiner_optimizer.zero_grad()
        loss.backward()
        self._refiner_optimizer.step()

    def discriminator_step(self) -> None:
        """Update the discriminator once, on half a batch of earlier refinements."""
        half = self._config.batch_size // 2
        images = next(self._synthetic).to(self._device, non_blocking=True)
        with torch.no_grad():
            refined = self.refiner(images)
        if len(self._history) >= half:
            chosen = torch.randperm(len(self._history))[:half].tolist()
            refined = torch.cat([refined[:half], torch.stack([self._history[i] for i in chosen])])
        for image in refined[:half]:
            if len(self._history) < self._config.history_size:
                self._history.append(image)
            else:
                self._history[int(torch.randint(len(self._history), ()))] = image
        batch = torch.cat([refined, next(self._real).to(self._device, non_blocking=True)])
        logits = self._discriminator(batch)
        labels = torch.zeros(logits[:, 0].shape, dtype=torch.long, device=self._device)
        labels[len(refined) :] = 1
        loss = nn.functional.cross_entropy(logits, labels)
        self._discriminator_optimizer.zero_grad()
        loss.backward()
        self._discriminator_optimizer.step()

    def run(self, num_steps: int) -> None:
        """Take refiner steps, with the discriminator's between them."""
        for step in range(num_steps):
            self.refiner_step()
            if (step + 1) % self._config.refiner_steps_per_round == 0:
                self.discriminator_step()


class OurTraining:
    """The product's trainer, in processes of its own as `torchrun` starts them, idle between calls.

    One process takes as many threads as this one has, several share them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        synthetic: np.ndarray,
        real: np.ndarray,
        device: str,
        processes: int,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // processes)
        self._pipes, ends = zip(*(context.Pipe() for _ in range(processes)), strict=True)
        for rank, end in enumerate(ends):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(processes)}
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            context.Process(
                target=train_when_told,
                args=(end, environment, threads, config, synthetic, real, device),
                daemon=True,
            ).start()
            end.close()
        self._hear()

    def refiner_steps(self, count: int) -> None:
        """Update the refiner so many times."""
        self._tell("refiner", count)

    def steps_of_both(self, count: int) -> None:
        """Update refiner and discriminator so many times, in turn."""
        self._tell("both", count)

    def _tell(self, what: str, count: int) -> None:
        for pipe in self._pipes:
            pipe.send((what, count))
        self._hear()

    def _hear(self) -> None:
        for pipe in self._pipes:
            pipe.recv()


def train_when_told(
    pipe: Connection,
    environment: dict[str, str],
    threads: int,
    config: TrainingConfig,
    synthetic: np.ndarray,
    real: np.ndarray,
    device: str,
) -> None:
    """Be one of the processes: take the steps that are asked for, and say when they are taken."""
    torch.set_num_threads(threads)
    os.environ |= environment
    if device == "cuda":
        device = f"cuda:{environment['RANK']}"
    distributed = join_process_group(torch.device(device))
    if distributed.size > 1:
        # Several agree to stop where they report, and are to be stopped after any step.
        config = config.model_copy(update={"log_every": 1})
    alone = config.model_copy(update={"refiner_steps_per_round": 10**9})
    images = torch.from_numpy(synthetic), torch.from_numpy(real)
    trainers = {
        name: Trainer(each, *images, device, distributed=distributed)
        for name, each in (("refiner", alone), ("both", config))
    }

    def take(trainer: Trainer, count: int) -> None:
        taken = iter(range(count + 1))
        trainer.run(None, lambda: next(taken) == count)

    pipe.send("ready")
    while True:
        try:
            name, count = pipe.recv()
        except EOFError:  # the benchmark is over
            leave_process_group()
            return
        take(trainers[name], count)
        if device != "cpu":
            torch.cuda.synchronize()
        pipe.send("taken")


def files_of(images: np.ndarray, folder: Path) -> Path:
    """Write each image to a PNG file."""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{number:06}.png")
    return folder


def seconds(action: object, device: str) -> float:
    """Return how long a call takes, the device's work included."""
    started = time.perf_counter()
    action()  # type: ignore[operator]
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def steps_a_second(
    config: TrainingConfig,
    synthetic: np.ndarray,
    real: np.ndarray,
    device: str,
    processes: int,
    rounds: int,
    steps: int,
    results: ResultsFile,
) -> None:
    """Time refiner steps of both, and discriminator steps, in turn.

    A round of the schedule, K_g refiner steps and K_d of the discriminator, is put together from
    the best of each: K_g of 50 would take the plain one a quarter of an hour.
    """
    once = config.model_copy(
        update={"refiner_steps_per_round": 1, "discriminator_steps_per_round": 1}
    )
    ours = OurTraining(once, synthetic, real, device, processes)
    with tempfile.TemporaryDirectory() as folder:
        plain = PlainTraining(
            once,
            files_of(synthetic, Path(folder) / "synthetic"),
            files_of(real, Path(folder) / "real"),
            device,
        )
        work = {
            "plain, refiner": lambda: [plain.refiner_step() for _ in range(steps)],
            "plain, discriminator": lambda: [plain.discriminator_step() for _ in range(steps)],
            "ours, refiner": lambda: ours.refiner_steps(steps),
            "ours, both": lambda: ours.steps_of_both(steps),
        }
        best = dict.fromkeys(work, float("inf"))
        for round_number in range(rounds + 1):
            for name, action in work.items():
                took = seconds(action, device) / steps
                if round_number:  # the first warms up
                    best[name] = min(best[name], took)
                    results.update({f"{name}, s a step": best[name]})
    best["ours, discriminator"] = max(0.0, best.pop("ours, both") - best["ours, refiner"])
    for name, took in best.items():
        print(f"{name}: {took:.3f} s a step")
    rates = {}
    for name in ("plain", "ours"):
        times_k = best[f"{name}, discriminator"] * config.discriminator_steps_per_round
        took = best[f"{name}, refiner"] + times_k / config.refiner_steps_per_round
        rates[name] = 1 / took
        print(f"{name}: {1 / took:.3f} refiner steps a second, the discriminator's share included")
    print(f"ratio: {rates['ours'] / rates['plain']:.2f}")
    results.update({"refiner_steps_a_second": rates, "ratio": rates["ours"] / rates["plain"]})


class _KidReached(Exception):  # noqa: N818  it is no error
    pass


class _Clock(NullSink):
    """Stops the time when a score is reached."""

    def __init__(self, kid: float) -> None:
        self._kid = kid

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Look at the score."""
        if step > 0 and values.get("realism/kid", self._kid) < self._kid:
            raise _KidReached


def time_to_kid(
    config: TrainingConfig, synthetic: np.ndarray, real: np.ndarray, device: str, kid: float
) -> None:
    """Time both until an examination every 50 steps says that the score is reached."""
    config = config.model_copy(update={"stopping": StoppingConfig(evaluate_every=50, patience=99)})
    images = torch.from_numpy(synthetic), torch.from_numpy(real)
    trainer = Trainer(config, *images, device, _Clock(kid))

    def ours() -> None:
        try:
            trainer.run()
        except _KidReached:
            return
        raise SystemExit(f"KID {kid} was not reached in {config.steps} steps")

    print(f"ours: {seconds(ours, device):.1f} s to KID {kid}")
    distance = KernelDistance(images[1][:500].to(device))
    with tempfile.TemporaryDirectory() as folder:
        plain = PlainTraining(
            config,
            files_of(synthetic, Path(folder) / "synthetic"),
            files_of(real, Path(folder) / "real"),
            device,
        )

        def plainly() -> None:
            inputs = images[0][:500].permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
            for _ in range(config.steps // 50):
                plain.run(50)
                with torch.no_grad():
                    refined = ((plain.refiner(inputs) + 1) * 127.5).round().clamp(0, 255)
                if distance(refined.permute(0, 2, 3, 1).to(torch.uint8)) < kid:
                    return
            raise SystemExit(f"the plain one did not reach KID {kid}")

        print(f"plain: {seconds(plainly, device):.1f} s to KID {kid}")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    # The plain one has the paper's networks.
    presets = [name for name, config in PRESETS.items() if config.family == "convolutional"]
    parser.add_argument("--preset", default="paper", choices=sorted(presets))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="refiner steps a round")
    parser.add_argument("--processes", type=int, default=1, help="of our training")
    parser.add_argument("--images", type=int, help="of each domain")
    parser.add_argument("--json", type=Path, help="file for the results of timed steps")
    parser.add_argument("--to-kid", type=float)
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preset = PRESETS[asked.preset]
    batch_size = asked.batch_size or preset.batch_size
    config = preset.model_copy(
        update={
            "batch_size": batch_size,
            "history_size": max(preset.history_size, batch_size),
            "refiner_pretraining_steps": 0,
            "discriminator_pretraining_steps": 0,
            "stopping": StoppingConfig(evaluate_every=0),
        }
    )
    count = asked.images or max(2 * batch_size, 2000)
    synthetic = render(sample_scenes("synthetic", count, seed=1), "crop", 35, 55).images
    real = render(sample_scenes("real", count, seed=2), "crop", 35, 55).images
    print(f"{torch.get_num_threads()} threads, {device}, preset {asked.preset}, batch {batch_size}")
    if asked.to_kid is None:
        domains, results = (synthetic, real), ResultsFile(asked.json)
        results.update({"preset": asked.preset, "batch_size": batch_size})
        steps_a_second(
            config, *domains, device, asked.processes, asked.rounds, asked.steps, results
        )
    else:
        time_to_kid(config, synthetic, real, device, asked.to_kid)


if __name__ == "__main__":
    main()
