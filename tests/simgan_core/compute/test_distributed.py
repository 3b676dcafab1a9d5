import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch

from simgan_core.compute.distributed import (
    DistributedContext,
    join_process_group,
    leave_process_group,
)
from simgan_core.config import DiscriminatorConfig, RefinerConfig, StoppingConfig, TrainingConfig
from simgan_core.errors import InputError
from simgan_core.models.checkpoint import load_checkpoint
from simgan_core.training.trainer import Trainer

# Without a history, whose random draws are each rank's own, the numbers are those of one process.
PLAIN = TrainingConfig(
    refiner=RefinerConfig(num_features=4, num_blocks=1, residual=False),
    steps=6,
    discriminator_pretraining_steps=2,
    batch_size=8,
    micro_batch_size=4,
    history_size=0,
    stopping=StoppingConfig(evaluate_every=6, num_images=8),
    log_every=2,
)
FULL = PLAIN.model_copy(
    update={
        "history_size": 16,
        "discriminator": DiscriminatorConfig(normalization="batch", max_shift_px=1.0),
    }
)
SYNTHETIC = torch.randint(
    0, 256, (24, 12, 14, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
REAL = SYNTHETIC.flip(0) // 2


def train_in_two_processes(path: Path, config: TrainingConfig, stop_after: int = 0) -> dict:
    """Train up to a checkpoint, which is returned; for so many questions whether to stop only."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simgan_core.training.trainer"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=train_as_rank, args=(rank, port, path, config, stop_after))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return load_checkpoint(path)


def train_as_rank(
    rank: int, port: int, path: Path, config: TrainingConfig, stop_after: int
) -> None:
    """Be one of two processes, in the surroundings that torchrun makes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed = join_process_group(torch.device("cpu"))
    questions = iter(range(1000))
    trainer = Trainer(config, SYNTHETIC, REAL, distributed=distributed)
    trainer.run(path, lambda: 0 < stop_after <= next(questions))
    leave_process_group()


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    alone = tmp_path / "alone.ckpt"
    Trainer(PLAIN, SYNTHETIC, REAL).run(alone)
    together = train_in_two_processes(tmp_path / "together.ckpt", PLAIN)["state"]
    expected = load_checkpoint(alone)["state"]
    for network in ("refiner", "discriminator", "averaged_refiner"):
        for name, weights in expected[network].items():
            # By norms: Adam makes a whole step of a gradient that is nothing but rounding.
            error = (together[network][name] - weights).norm()
            assert error <= 1e-3 * weights.norm(), f"{network}: {name}"
    assert together["stopping"]["best_step"] == expected["stopping"]["best_step"]


def test_two_processes_keep_a_history_each_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    stopped = train_in_two_processes(tmp_path / "resumed.ckpt", FULL, stop_after=2)
    assert 0 < stopped["state"]["step"] < 8
    resumed = train_in_two_processes(tmp_path / "resumed.ckpt", FULL)
    undisturbed = train_in_two_processes(tmp_path / "undisturbed.ckpt", FULL)
    first, second = (rank["history"] for rank in undisturbed["ranks"])
    assert first.shape == second.shape == (8, 12, 14, 1)
    assert not torch.equal(first, second)
    for rank, other in zip(resumed["ranks"], undisturbed["ranks"], strict=True):
        assert torch.equal(rank["history"], other["history"])
    torch.testing.assert_close(
        resumed["state"]["refiner"], undisturbed["state"]["refiner"], rtol=0, atol=0
    )
    with pytest.raises(InputError, match="training in 2 processes, not 1"):
        Trainer(FULL, SYNTHETIC, REAL).run(tmp_path / "undisturbed.ckpt")


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="give a multiple of 6"):
        Trainer(PLAIN, SYNTHETIC, REAL, distributed=DistributedContext(0, 3))


def test_the_parts_of_all_ranks_are_the_batch() -> None:
    batch = torch.arange(12)
    parts = [DistributedContext(rank, 3).part_of(batch) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == batch.tolist()
