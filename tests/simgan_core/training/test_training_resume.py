import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from simgan_core.config import DiscriminatorConfig, RefinerConfig, StoppingConfig, TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_checkpoint, save_checkpoint
from simgan_core.training.trainer import Trainer

CONFIG = TrainingConfig(
    refiner=RefinerConfig(num_features=4, num_blocks=1, residual=False),
    steps=7,
    schedule="adaptive",
    refiner_steps_per_round=3,
    refiner_pretraining_steps=3,
    discriminator_pretraining_steps=3,
    discriminator=DiscriminatorConfig(normalization="spectral", max_shift_px=1.0),
    batch_size=4,
    history_size=6,
    stopping=StoppingConfig(evaluate_every=5, num_images=8, patience=100),
    log_every=4,
    checkpoint_every=2,
)
SYNTHETIC = torch.randint(
    0, 256, (9, 12, 14, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
REAL = SYNTHETIC.flip(0) // 2


def train(path: Path, config: TrainingConfig = CONFIG, stop_after: int | None = None) -> dict:
    """Train to the end, or for some steps only; returns the checkpoint."""
    answers = iter([False] * stop_after + [True]) if stop_after is not None else None
    should_stop = (lambda: next(answers)) if answers else (lambda: False)
    trained = Trainer(config, SYNTHETIC, REAL).run(path, should_stop)
    assert trained.finished == (stop_after is None)
    return load_checkpoint(path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return train(tmp_path_factory.mktemp("undisturbed") / "training.ckpt")


def assert_same_bits(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_bits(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_same_bits(ours, theirs)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("stop_after", range(13))
def test_a_run_stopped_anywhere_and_resumed_ends_in_the_same_bits(
    tmp_path: Path, undisturbed: dict, stop_after: int
) -> None:
    path = tmp_path / "training.ckpt"
    train(path, stop_after=stop_after)
    resumed = train(path)
    assert_same_bits(resumed, undisturbed)


def test_a_run_stopped_at_every_step_ends_in_the_same_bits(
    tmp_path: Path, undisturbed: dict
) -> None:
    path = tmp_path / "training.ckpt"
    for _ in range(12):
        train(path, stop_after=1)
    assert_same_bits(train(path), undisturbed)


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path, undisturbed: dict) -> None:
    path = tmp_path / "training.ckpt"
    save_checkpoint(path, {name: value for name, value in undisturbed.items() if name != "kind"})
    assert_same_bits(train(path), undisturbed)


def test_killed_in_every_phase_it_resumes_to_the_same_bits(
    tmp_path: Path, undisturbed: dict
) -> None:
    path = tmp_path / "training.ckpt"
    # In the pretraining of either network, and with both in turn; each time a step is lost.
    for num_done, saved in ((3, 2), (5, 4), (11, 10)):
        killed = subprocess.run(
            [sys.executable, __file__, str(path), str(num_done)],
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert killed.returncode == -signal.SIGKILL
        assert load_checkpoint(path)["state"]["step"] == saved
    assert_same_bits(train(path), undisturbed)


def test_a_resumed_run_keeps_the_arithmetic_that_it_began_with(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    checkpoint = train(path, stop_after=2)
    # As if it had begun where "auto" means something else than here.
    checkpoint["arithmetic"] = {"precision": "bf16", "micro_batch_size": 3}
    save_checkpoint(path, {name: checkpoint[name] for name in checkpoint if name != "kind"})
    trained = Trainer(CONFIG, SYNTHETIC, REAL).run(path)
    assert (trained.compute.precision, trained.compute.micro_batch_size) == ("bf16", 3)


def test_a_training_begun_on_a_gpu_goes_on_on_a_cpu(tmp_path: Path, undisturbed: dict) -> None:
    path = tmp_path / "training.ckpt"
    saved = train(path, stop_after=9)
    for name in ("refiner_optimizer", "discriminator_optimizer"):
        for group in saved["state"][name]["param_groups"]:
            # As they are where steps are recorded.
            group |= {"capturable": True, "lr": torch.tensor(group["lr"])}
    save_checkpoint(path, saved)
    assert_same_bits(train(path)["state"]["refiner"], undisturbed["state"]["refiner"])


@pytest.mark.gpu("optimisers saved on a CPU have to suit a CUDA graph")
def test_a_training_begun_on_a_cpu_goes_on_on_a_gpu(tmp_path: Path, undisturbed: dict) -> None:
    path = tmp_path / "training.ckpt"
    begun = weights_of(train(path, stop_after=4))
    trained = Trainer(CONFIG, SYNTHETIC, REAL, "cuda").run(path)
    assert trained.finished
    resumed, whole = weights_of(load_checkpoint(path)), weights_of(undisturbed)
    assert (resumed - whole).norm() / (whole - begun).norm() < 0.1


def weights_of(checkpoint: dict) -> torch.Tensor:
    weights = checkpoint["state"]["averaged_refiner"].values()
    return torch.cat([weight.flatten().cpu() for weight in weights])


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    train(path, stop_after=1)
    other = CONFIG.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(InputError, match="another configuration"):
        Trainer(other, SYNTHETIC, REAL).run(path)


def test_a_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    train(path, stop_after=1)
    with pytest.raises(InputError, match="other images"):
        Trainer(CONFIG, SYNTHETIC, REAL // 2).run(path)


def test_a_checkpoint_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    checkpoint = train(path, stop_after=1)
    del checkpoint["kind"], checkpoint["ranks"][0]["history_generator"]
    save_checkpoint(path, checkpoint)
    with pytest.raises(InputError, match="is damaged; delete it"):
        Trainer(CONFIG, SYNTHETIC, REAL).run(path)


def killer(after: int, path: Path) -> Callable[[], bool]:
    """Answer whether to stop by killing the own process, as `kill -9` does, `after` this step."""
    done = itertools.count(load_checkpoint(path)["state"]["step"] if path.exists() else 0)

    def should_stop() -> bool:
        if next(done) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return should_stop


if __name__ == "__main__":
    torch.set_num_threads(1)
    to = Path(sys.argv[1])
    Trainer(CONFIG, SYNTHETIC, REAL).run(to, killer(int(sys.argv[2]), to))
