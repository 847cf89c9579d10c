"""Newton's method on numbers that do not meet, whose minimum is known."""

import numpy as np
import pytest
import torch

from scgraft.numerics.newton import newton


@pytest.mark.parametrize("target", [0.3, 2.0, 50.0])
def test_newton_moves_each_number_by_its_own_curvature_and_not_beyond_its_reach(target):
    scale = torch.tensor([1e-3, 1.0, 1e4])

    def function(rows):  # scale * (exp(x) - target x): minimum at log(target), for each number
        x = rows["x"]
        return {"x": scale * (torch.exp(x) - target)}, {"x": scale * torch.exp(x)}

    *_, (number, rows) = newton(function, {"x": torch.zeros(3)}, 12, reach=2.5)
    assert number == 12
    torch.testing.assert_close(rows["x"], torch.full((3,), min(np.log(target), 2.5)).float(), atol=1e-4, rtol=0)
