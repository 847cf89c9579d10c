"""Newton's method for numbers that do not meet: each has a curvature of its own, so a step is a division."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Rows = dict[str, Tensor]
LONGEST = 1.0  # step of a number: dispersions are logarithms, so a factor of e; where the curvature is small, a step means little


def newton(
    function: Callable[[Mapping[str, Tensor]], tuple[Rows, Rows]],
    start: Mapping[str, Tensor],
    iterations: int,
    *,
    reach: float,
) -> Iterator[tuple[int, Rows]]:
    """Minimise a function that is a sum over its numbers, each moved by its gradient over its curvature.

    Parameters
    ----------
    function
        Gradient and second derivative of every number at given rows.
    start
        Rows where it begins.
    iterations
        How many.
    reach
        How far a number may come from its start: where data say nothing of it, the minimum can be at infinity.

    Yields
    ------
    tuple
        Number of the iteration and its rows.
    """
    at = dict(start)
    for number in range(1, iterations + 1):
        gradients, curvatures = function(at)
        moved = {}
        for name, row in at.items():
            step = (gradients[name] / curvatures[name].abs().clamp(min=1e-12)).clamp(-LONGEST, LONGEST)
            moved[name] = torch.clamp(row - step, start[name] - reach, start[name] + reach)
        at = moved
        yield number, at
