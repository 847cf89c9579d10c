"""The two second-order minimisers, on functions whose minimum is known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.numerics.lbfgs import lbfgs
from scgraft.numerics.newton import newton


def quadratic(seed, n):
    """A convex quadratic over two rows, its minimum, and how often it was asked for."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    curvature = torch.tensor(basis @ np.diag(np.geomspace(0.1, 100, n)) @ basis.T)
    centre, calls = torch.tensor(rng.standard_normal(n)), []

    def function(rows):
        flat = torch.cat([rows["a"].reshape(-1), rows["b"]]) - centre
        calls.append(1)
        gradient = curvature @ flat
        return float(0.5 * flat @ gradient), {"a": gradient[:-2].view(-1, 1), "b": gradient[-2:]}

    start = {"a": torch.zeros(n - 2, 1, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    return function, start, centre, calls


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_a_quadratic_is_minimised_and_never_rises(seed, n):
    function, start, centre, calls = quadratic(seed, n)
    values = [function(start)[0]]
    calls.clear()
    for number, rows in lbfgs(function, start, 100, memory=20):
        values.append(function(rows)[0])
        assert number <= 100
    assert (np.diff(values) <= 1e-12).all()
    assert values[-1] < 1e-6 * values[0]
    torch.testing.assert_close(torch.cat([rows["a"].reshape(-1), rows["b"]]), centre, atol=2e-2, rtol=0)
    assert all(bool((row == 0).all()) for row in start.values())  # the start is not moved


def test_it_steps_back_from_values_that_are_not_finite():
    def barrier(rows):  # minimum at 3, nothing beyond 4: a first step of curvature leads there
        x = float(rows["x"])
        if x >= 4:
            return float("nan"), {"x": torch.tensor([float("nan")])}
        return (x - 3) ** 4 + x**2 / 100, {"x": torch.tensor([4 * (x - 3) ** 3 + x / 50])}

    found = [float(rows["x"]) for _, rows in lbfgs(barrier, {"x": torch.tensor([-20.0])}, 60)]
    assert np.isfinite(found).all() and max(found) < 4 and abs(found[-1] - 2.75) < 0.1


def test_at_a_minimum_and_at_a_value_that_is_no_number_nothing_is_done():
    assert list(lbfgs(lambda rows: (0.0, {"x": torch.zeros(2)}), {"x": torch.ones(2)}, 5)) == []
    assert list(lbfgs(lambda rows: (np.nan, {"x": torch.full((2,), np.nan)}), {"x": torch.ones(2)}, 5)) == []


@pytest.mark.parametrize("target", [0.3, 2.0, 50.0])
def test_newton_moves_each_number_by_its_own_curvature_and_not_beyond_its_reach(target):
    scale = torch.tensor([1e-3, 1.0, 1e4])

    def function(rows):  # scale * (exp(x) - target x): minimum at log(target), for each number
        x = rows["x"]
        return {"x": scale * (torch.exp(x) - target)}, {"x": scale * torch.exp(x)}

    *_, (number, rows) = newton(function, {"x": torch.zeros(3)}, 12, reach=2.5)
    assert number == 12
    torch.testing.assert_close(rows["x"], torch.full((3,), min(np.log(target), 2.5)).float(), atol=1e-4, rtol=0)
