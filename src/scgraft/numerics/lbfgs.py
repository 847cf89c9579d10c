"""Minimisation of a smooth function with few evaluations: what fits columns that no draw of the next step changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

Rows = dict[str, Tensor]
# Largest change of a number in the first step, before any curvature is known; chosen by eye, not measured.
FIRST_MOVE = 0.1
MEMORY = 10  # pairs; chosen by eye, not measured
SUFFICIENT = 1e-4  # share of the promised fall that a step has to bring (Nocedal and Wright 2006, section 3.1)
MOST_TRIALS = 12  # halvings of a step before the search ends: 2e-4 of its length; chosen by eye, not measured


def lbfgs(
    function: Callable[[Mapping[str, Tensor]], tuple[float, Rows]],
    start: Mapping[str, Tensor],
    iterations: int,
    *,
    memory: int = MEMORY,
) -> Iterator[tuple[int, Rows]]:
    """Limited-memory BFGS (Nocedal 1980, doi:10.1090/S0025-5718-1980-0572855-7) with backtracking; torch.optim's takes long to import.

    Parameters
    ----------
    function
        Value and gradient at given rows. A value that is not finite is stepped back from.
    start
        Rows where it begins.
    iterations
        At most.
    memory
        Pairs of steps and changes of the gradient that the curvature is made from.

    Yields
    ------
    tuple
        Number of the iteration and its rows. It ends early where no step along the direction lowers the value.
    """
    shapes = {name: row.shape for name, row in start.items()}

    def unpack(flat: Tensor) -> Rows:
        parts = flat.split([math.prod(shape) for shape in shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def evaluate(flat: Tensor) -> tuple[float, Tensor]:
        value, gradients = function(unpack(flat))
        return value, pack(gradients)

    def pack(rows: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([rows[name].reshape(-1) for name in shapes])

    at = pack(start)
    value, gradient = evaluate(at)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for number in range(1, iterations + 1):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if not slope < 0:  # the curvature misleads, or there is nothing left to gain
            pairs, direction = [], -gradient
            slope = float(gradient @ direction)
            if not slope < 0:
                return
        length = 1.0 if pairs else FIRST_MOVE / float(direction.abs().max())
        for _ in range(MOST_TRIALS):
            moved = at + length * direction
            new_value, new_gradient = evaluate(moved)
            if new_value <= value + SUFFICIENT * length * slope and bool(new_gradient.isfinite().all()):
                break
            length /= 2
        else:
            return
        step, change = moved - at, new_gradient - gradient
        curvature = float(step @ change)
        if curvature > 1e-10 * float(change @ change):
            pairs = [*pairs, (step, change, curvature)][-memory:]
        at, value, gradient = moved, new_value, new_gradient
        yield number, unpack(at)


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Minus the gradient times the inverse of the curvature that the pairs tell: the recursion of two loops."""
    rest, weights = gradient.clone(), []
    for step, change, curvature in reversed(pairs):
        weight = float(step @ rest) / curvature
        weights.append(weight)
        rest = rest - weight * change
    if pairs:
        _, change, curvature = pairs[-1]
        rest = rest * (curvature / float(change @ change))
    for (step, change, curvature), weight in zip(pairs, reversed(weights), strict=True):
        rest = rest + step * (weight - float(change @ rest) / curvature)
    return -rest
