"""Array namespace dispatch: one algorithm for numpy arrays and torch tensors.

Both libraries know the operators, methods and functions of the array API standard by the same names
(`axis`, `concat`, `asarray` with a device). An algorithm that needs no others asks here for the
library of its arrays, and makes new ones by that library on their device. torch is not loaded for
it: where there are tensors, it is loaded already.
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""numpy array or tensor: there is no type for what both can do."""


def library_of(array: Array) -> ModuleType:
    """Return the module that computes with an array: `torch` for a tensor, else `numpy`."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else np


def constant(values: NDArray[Any], like: Array) -> Array:
    """Return values as an array with the library and device of another array."""
    return library_of(like).asarray(values, device=like.device)


def on_host(array: Array) -> NDArray[Any]:
    """Copy an array to the host as a numpy array; waits for the device."""
    return np.asarray(array if library_of(array) is np else array.cpu())
