"""What computes here, as runs record it."""

import torch

from tasks.runtime.devices import (
    default_device,
    describe_compute,
    num_gpus,
    take_device_of_worker,
)


def test_a_run_records_device_number_format_and_threads() -> None:
    found = describe_compute("bf16")
    kind, _, name = found.pop("device").partition(" (")
    assert kind == default_device()
    assert name.endswith(")")
    assert len(name) > 1
    assert found == {"precision": "bf16", "threads": str(torch.get_num_threads())}


def test_outside_of_a_cluster_no_device_is_taken() -> None:
    take_device_of_worker()
    assert (default_device() == "cuda") == (num_gpus() > 0)
