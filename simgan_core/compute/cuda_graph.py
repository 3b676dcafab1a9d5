"""Capture a function as a CUDA graph and replay it, avoiding per-kernel launch overhead.

A refiner's step is some 300 kernels and the fit of pupils a thousand. Most of them run for less
time than a launch takes, and while Python launches them, it holds its lock.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_EAGER_CALLS = 3
"""Eager calls before the capture: libraries and optimisers allocate in their first calls."""


class CapturedFunction:
    """Function of batches on one device, replayed as a CUDA graph from the fourth call on.

    The function returns tensors by name. It may change tensors in place, but must launch the same
    kernels in every call: it may neither wait for the device nor draw a random number, and its
    Python code runs only until it is captured. Batches are copied to fixed memory. Not thread-safe.
    """

    def __init__(
        self, function: Callable[..., dict[str, Tensor]], device: torch.device | str
    ) -> None:
        self._function = function
        self._calls = 0
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batches: list[Tensor | None] = []
        self._results: dict[str, Tensor] = {}

    def __call__(self, *batches: Tensor | None) -> dict[str, Tensor]:
        """Call the function, with batches of the shapes of the first call."""
        self._calls += 1
        if self._calls <= _EAGER_CALLS:
            return self._eagerly(batches)
        if self._graph is None:
            self._graph = self._record(batches)
        for place, batch in zip(self._batches, batches, strict=True):
            if place is not None and batch is not None:
                place.copy_(batch)
        self._graph.replay()
        # The next replay overwrites the graph's own.
        return {name: result.clone() for name, result in self._results.items()}

    def _eagerly(self, batches: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
        """Call the function on the capture's stream, to which its gradients then belong."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = self._function(*batches)
        current.wait_stream(self._stream)
        return results

    def _record(self, batches: tuple[Tensor | None, ...]) -> torch.cuda.CUDAGraph:
        self._batches = [None if batch is None else batch.clone() for batch in batches]
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on with calls that a capture forbids in its own.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._results = self._function(*self._batches)
        return graph
