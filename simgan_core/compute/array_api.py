"""Array namespace dispatch: one algorithm for numpy arrays and torch tensors.

Both libraries know the operators, methods and functions of the array API standard by the same names
(`axis`, `concat`, `asarray` with a device). An algorithm that needs no others asks here for the
library of its arrays, and makes new ones by that library on their device.
"""

from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = Any
"""numpy array or tensor: there is no type for what both can do."""


def library_of(array: Array) -> ModuleType:
    """Return the module that computes with an array: `torch` for a tensor, else `numpy`."""
    return torch if isinstance(array, torch.Tensor) else np


def on_host(array: Array) -> NDArray[Any]:
    """Return an array as one of numpy's, having waited for a device to compute it."""
    return array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
