"""Distributed training: `torchrun` starts this module once for each GPU.

torchrun --nproc-per-node=8 -m tasks.training.distributed SYNTHETIC REAL REFINER-ID CONFIG.json True
"""

import subprocess
import sys
from pathlib import Path

import torch

from simgan_core.compute.distributed import join_process_group, leave_process_group
from simgan_core.config import TrainingConfig
from storage.reader import open_dataset
from tasks.runtime.devices import default_device
from tasks.runtime.paths import refiner_folder
from tasks.runtime.processes.cancellation import EXIT_CODE, termination_noticed
from tasks.runtime.processes.child_path import without_current_folder
from tasks.runtime.processes.parent import PARENT_PIPE, end_with_parent
from tasks.runtime.tracking.experiments import REFINERS
from tasks.runtime.tracking.runs import begin_run
from tasks.training.fit import fit

_SECONDS_BETWEEN_LOOKS = 0.5


def num_processes(config: TrainingConfig) -> int:
    """Return the number of training processes: as configured, else one for each GPU."""
    return config.processes or max(1, torch.cuda.device_count())


def train_in_processes(
    count: int,
    synthetic: str,
    real: str,
    refiner_id: str,
    config: TrainingConfig,
    may_lead: bool,
) -> None:
    """Run `count` processes of this module under torchrun; SIGTERM is passed on."""
    settings = refiner_folder(refiner_id) / "training.json"
    settings.write_text(config.model_dump_json())
    command = [sys.executable, "-P", "-m", "tasks.training.torchrun", f"--nproc-per-node={count}"]
    command += ["--standalone", "-m", "tasks.training.distributed", synthetic, real, refiner_id]
    with termination_noticed() as asked_to_go:
        with subprocess.Popen(
            [*command, str(settings), str(may_lead)],
            env={**without_current_folder(), **PARENT_PIPE},
            stdin=subprocess.PIPE,
        ) as process:
            while process.poll() is None:
                try:
                    process.wait(_SECONDS_BETWEEN_LOOKS)
                except subprocess.TimeoutExpired:
                    if asked_to_go():
                        process.terminate()
        if asked_to_go():
            raise SystemExit(EXIT_CODE)
    if process.returncode != 0:
        raise RuntimeError(
            f"training in {count} processes failed with exit code {process.returncode}; their "
            "output is above. The same command resumes from the last checkpoint"
        )


def main(synthetic: str, real: str, refiner_id: str, settings: str, may_lead: str) -> None:
    """Train as one of the processes."""
    end_with_parent()  # torchrun passes its stdin on, so this is its parent
    config = TrainingConfig.model_validate_json(Path(settings).read_text())
    distributed = join_process_group(torch.device(default_device()))
    if torch.cuda.is_available():
        torch.cuda.set_device(distributed.rank % torch.cuda.device_count())
    run = begin_run(REFINERS, refiner_id, refiner_id)
    weights = refiner_folder(refiner_id) / "refiner.pt"
    datasets = open_dataset(synthetic), open_dataset(real)
    fit(weights, *datasets, config, run, distributed, may_lead == "True")
    run.flush()
    leave_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
