"""The optimiser of every fit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba 2015) on a few tensors; torch.optim takes longer to import than a fit takes to run."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = list(parameters.values())
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.count = 0

    def step(self, gradients: tuple[Tensor | None, ...], rate: float) -> None:
        """Move the parameters in place along their gradients."""
        self.count += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
                if g is None:
                    continue
                m.lerp_(g, 0.1)
                v.mul_(0.99).addcmul_(g, g, value=0.01)
                scale = math.sqrt(1 - 0.99**self.count) / (1 - 0.9**self.count)
                p.addcdiv_(m, v.sqrt().add_(1e-8), value=-rate * scale)


def cosine(rate: float, step: int, total: int) -> float:
    """Learning rate of step 1, ..., `total`, falling to zero along half a cosine."""
    return rate * 0.5 * (1 + math.cos(math.pi * step / (total + 1)))
