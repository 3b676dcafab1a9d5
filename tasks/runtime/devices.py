"""Default compute device."""

import platform
import sys

import torch


def default_device() -> str:
    """`cuda` where PyTorch sees a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_compute(precision: str) -> dict[str, str]:
    """Return device, precision and CPU threads, for a run's parameters."""
    if default_device() == "cuda":
        device = f"cuda ({torch.cuda.get_device_name()})"
    else:
        device = f"cpu ({torch.cpu.get_capabilities().get('cpu_name') or platform.machine()})"
    return {"device": device, "precision": precision, "threads": str(torch.get_num_threads())}


def take_device_of_worker() -> None:
    """Set GPU n as the device of Dask's worker number n, on a machine with several GPUs.

    Workers that were given CUDA_VISIBLE_DEVICES of their own see one GPU, and take that.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None or torch.cuda.device_count() < 2:
        return
    try:
        name = distributed.get_worker().name
    except ValueError:  # not in a worker
        return
    if isinstance(name, int):
        torch.cuda.set_device(name % torch.cuda.device_count())


def num_gpus() -> int:
    """Return the number of GPUs that PyTorch sees."""
    return torch.cuda.device_count()
