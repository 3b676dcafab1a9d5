import copy

import pytest
import torch
from torch import Tensor

from simgan_core.compute.cuda_graph import CapturedFunction
from simgan_core.config import PRESETS, StoppingConfig, TrainingConfig
from simgan_core.training.trainer import Trainer

pytestmark = pytest.mark.gpu("only a GPU captures CUDA graphs")


def config(**changes: object) -> TrainingConfig:
    chosen = {"batch_size": 16, "steps": 12, "stopping": StoppingConfig(evaluate_every=0)}
    return PRESETS["stable"].model_copy(update=chosen | changes)


def images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (64, 35, 55, 1), dtype=torch.uint8, generator=generator)


def trained(config: TrainingConfig, num_steps: int | None = None) -> Trainer:
    trainer = Trainer(config, images(0), images(1), "cuda")
    taken = iter(range(10**9))
    trainer.run(None, lambda: num_steps is not None and next(taken) == num_steps)
    return trainer


def weights_of(trainer: Trainer) -> Tensor:
    refiner = trainer._state.averaged_refiner
    return torch.cat([weight.detach().flatten() for weight in refiner.parameters()])


def test_a_recorded_step_sees_each_batch_and_gives_figures_that_stay() -> None:
    total = torch.zeros((), device="cuda")

    def add(batch: Tensor, factor: Tensor | None) -> dict[str, Tensor]:
        assert factor is None
        total.add_(batch.sum())
        return {"sum": batch.sum()}

    step = CapturedFunction(add, torch.device("cuda"))
    figures = [step(torch.full((3,), float(n), device="cuda"), None)["sum"] for n in range(8)]
    assert [figure.item() for figure in figures] == [3.0 * n for n in range(8)]
    assert total.item() == 3.0 * sum(range(8))


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd"}, {"refiner_pretraining_steps": 6}],
    ids=["stable", "sgd", "pretraining"],
)
def test_recorded_training_is_what_it_is_step_by_step(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    recorded = weights_of(trained(config(**changes)))
    monkeypatch.setattr("simgan_core.compute.cuda_graph._EAGER_CALLS", 10**9)
    step_by_step = weights_of(trained(config(**changes)))
    beginning = weights_of(trained(config(**changes), num_steps=0))
    error = (recorded - step_by_step).norm() / (step_by_step - beginning).norm()
    assert error < 0.02


class Shards:
    """Images in four parts, read one at a time."""

    digest = "four parts"
    shard_sizes = (16, 16, 16, 16)

    def __init__(self, images: Tensor) -> None:
        self._parts = images.split(16)

    def read(self, shard: int) -> Tensor:
        return self._parts[shard]


def test_images_read_shard_by_shard_train_what_they_train_on_a_cpu() -> None:
    changed = []
    for device in ("cpu", "cuda"):
        trainer = Trainer(config(precision="fp32"), Shards(images(0)), Shards(images(1)), device)
        beginning = weights_of(trainer).cpu()
        trainer.run()
        changed.append(weights_of(trainer).cpu() - beginning)
    on_cpu, on_gpu = changed
    assert (on_gpu - on_cpu).norm() / on_cpu.norm() < 0.1


def test_a_resumed_training_records_its_steps_anew(tmp_path) -> None:
    whole = weights_of(trained(config()))
    cut_short, taken = config(), iter(range(100))
    first = Trainer(cut_short, images(0), images(1), "cuda")
    first.run(tmp_path / "training.ckpt", lambda: next(taken) == 30)
    second = Trainer(cut_short, images(0), images(1), "cuda")
    before = copy.deepcopy(weights_of(second))
    second.run(tmp_path / "training.ckpt")
    assert (weights_of(second) - whole).norm() / (whole - before).norm() < 0.02
