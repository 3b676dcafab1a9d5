"""Parts of a batch computed side by side."""

import threading
import time

import pytest
import torch
from torch import Tensor

from simgan_core.compute.parallel import num_parallel, parallel_map, single_threaded_map

pytestmark = pytest.mark.usefixtures("two_threads")

PARTS = [(torch.tensor(float(number)),) for number in range(6)]


def test_results_come_in_the_order_of_the_parts() -> None:
    def slow_at_first(part: Tensor) -> float:
        time.sleep(0.05 if part == 0 else 0)
        return part.item()

    assert list(parallel_map(slow_at_first, PARTS)) == [0, 1, 2, 3, 4, 5]


def test_two_parts_are_under_way_at_once_with_one_thread_each() -> None:
    both_here = threading.Barrier(2, timeout=30)

    def meet(part: Tensor) -> int:
        both_here.wait()
        return torch.get_num_threads()

    assert list(parallel_map(meet, PARTS)) == [1] * 6
    assert torch.get_num_threads() == 2


def test_threads_that_start_later_have_the_number_of_threads_they_would_have_had() -> None:
    list(parallel_map(lambda part: part, PARTS))
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()

    assert seen == [2]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_work_finds_gradients_on_or_off_as_they_are_outside(mode) -> None:
    def modes(part: Tensor) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with mode():
        assert set(parallel_map(modes, PARTS)) == {modes(PARTS[0][0])}


def test_an_error_in_the_work_is_raised_where_its_result_was_due() -> None:
    def fail_at_three(part: Tensor) -> float:
        return 1 / (3 - part.item())

    results = parallel_map(fail_at_three, PARTS)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("num_parts", "num_threads", "size"),
    [
        (1024, 1, 1),
        (1024, 12, 12),
        (8, 2, 2),
        (8, 12, 4),  # three threads each, rather than four threads idle
        (8, 16, 8),
        (3, 2, 1),  # the third would have one thread, and the other nothing to do
        (7, 4, 4),
        (1, 4, 1),
        (0, 4, 1),
    ],
)
def test_threads_are_shared_evenly_and_few_are_idle(num_parts, num_threads, size) -> None:
    assert num_parallel(num_parts, num_threads) == size


@pytest.mark.parametrize("num_parts", [0, 1, 2, 3])
def test_single_threaded_parts_have_one_thread_however_many_they_are(num_parts: int) -> None:
    seen = single_threaded_map(lambda part: (part, torch.get_num_threads()), range(num_parts))
    assert list(seen) == [(part, 1) for part in range(num_parts)]
    assert torch.get_num_threads() == 2


def test_two_single_threaded_parts_are_under_way_at_once() -> None:
    both_here = threading.Barrier(2, timeout=30)
    list(single_threaded_map(lambda _: both_here.wait(), range(4)))
