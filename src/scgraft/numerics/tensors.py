"""From NumPy to torch, in one place: torch takes no array that cannot be written to, and those of frozen values cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def as_tensor(array: Any) -> torch.Tensor:
    """An array as a tensor on the CPU: it shares the memory of one that can be written to, and copies any other.

    Of a large array give the rows that are used, not the whole of it: ``as_tensor(array[rows])``.
    """
    return torch.as_tensor(np.require(array, requirements="W"))
