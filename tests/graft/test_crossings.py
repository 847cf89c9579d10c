"""Nothing comes back from the device within the steps of a fit, watched on a device that is the CPU.

On a CUDA device every number that the host asks for makes it wait. Here the calls that would ask are noted, the operators that would
wait, and what is sent: of a mini-batch its cells' lengths, without waiting; the counts are on the device from the start.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scgraft.graft import embed as embedding
from scgraft.graft import match, minimise
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.numerics.adam import Adam
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import pair

CONFIG = TinyConfig(
    encode_covariates=True, minified="latent_posterior_parameters", n_genes=60, n_hidden=16, n_cells=300
)
# Operators whose result decides what the host does next, or whose shape it must know.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero", "bincount")
SENT, ASKED = ("from_numpy", "tensor", "as_tensor"), ("numpy", "tolist", "cpu", "item")
CALLS = ((torch, SENT), (torch.Tensor, ASKED))
SENT_A_STEP = 3


class Watch(TorchDispatchMode):
    """Notes operators that would wait."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        if name in WAITS:
            self.log.append(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(monkeypatch):
    """What crosses within the block, in order, with "step" for each step of the optimiser."""
    log = []

    def noted(name, real):
        def call(*args, **kwargs):
            log.append(name)
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch, Watch(log):
        for home, names in CALLS:
            for name in names:
                patch.setattr(home, name, noted(name, getattr(home, name)))
        patch.setattr(Adam, "step", noted("step", Adam.step))
        yield log


def gaps(log):
    """What crossed between each step and the next."""
    at = [i for i, name in enumerate(log) if name == "step"]
    return [log[i + 1 : j] for i, j in zip(at, at[1:], strict=False)]


@pytest.mark.parametrize("objective", ["match", "atlas", "elbo"])
def test_nothing_comes_back_within_a_step(monkeypatch, objective):
    reference, query = pair(CONFIG, n_cells=200)
    every = min(match.UPDATE_EVERY, minimise.EVALUATE_EVERY)
    with watched(monkeypatch) as log:
        fit(reference, query, FitConfig(objective=objective, max_steps=60, patience=100, device="cpu"))
    found = gaps(log)
    assert len(found) >= 59
    looked = [i for i, gap in enumerate(found) if {*gap} - {*SENT}]
    # Now and then the loss is looked at, or the clusters that the cells are near; and where one fit ends and another begins.
    assert len(looked) <= len(found) / every + 2
    assert all(b - a > 1 for a, b in zip(looked, looked[1:], strict=False)), looked
    assert all(len(gap) <= SENT_A_STEP for i, gap in enumerate(found) if i not in looked)


def test_a_block_of_cells_crosses_the_same_few_times_whatever_its_size(monkeypatch):
    reference, query = pair(CONFIG, n_cells=192)
    graft = fit(reference, query, FitConfig(max_steps=2, device="cpu"))
    number = {}
    for size in (192, 96, 24):
        monkeypatch.setattr(embedding, "BLOCK", size)
        with watched(monkeypatch) as log:
            embed(reference, query, graft, device="cpu")
        number[size] = len(log)
    each = (number[24] - number[192]) / 7
    assert number[96] - number[192] == each and each <= 25


@pytest.mark.parametrize("call", [lambda x: x.sum().item(), lambda x: float(x.sum()), lambda x: bool(x.any()), lambda x: x.nonzero(),
                                  lambda x: x.numpy(), lambda x: torch.from_numpy(np.ones(2))])  # fmt: skip
def test_what_crosses_is_seen(monkeypatch, call):
    with watched(monkeypatch) as log:
        call(torch.ones(3))
    assert log
