"""The fit and the embedding on a CUDA device, where there is one: the same numbers, and no waiting for it in a step."""

import numpy as np
import pytest
import torch

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.minimise import make_problem
from scgraft.graft.start import start_rows
from scgraft.model.families import family_of
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import pair

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
CONFIGS = [
    TinyConfig(encode_covariates=True, gene_likelihood=likelihood, model=model, n_genes=200, n_hidden=32)
    for likelihood in ("nb", "zinb", "poisson")
    for model in ("SCVI", "SCANVI")
]


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_and_gradient_are_those_of_the_cpu(config):
    reference, query = pair(config, n_cells=60)
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, {"batch": 2}, start="mean", seed=0)
    names = tuple(s.name for s in slots if s.trainable)
    results = []
    for device in ("cpu", "cuda"):
        settings = FitConfig(objective="atlas", device=device)
        problem = make_problem(
            reference, query, {"batch": ("new 1", "new 2")}, rows, names, settings, torch.device(device)
        )
        index = np.arange(60)
        noise = torch.zeros(60, problem.model.noise_width, device=device)
        parameters = {n: r.clone().requires_grad_() for n, r in problem.start.items()}
        loss = problem.loss(problem.batch(index, torch.from_numpy(index).to(device)), parameters, noise)
        results.append([loss.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(loss, list(parameters.values())))])
    for here, there in zip(*results, strict=True):
        assert torch.allclose(here, there, rtol=1e-4, atol=1e-4 * float(here.abs().max()))


def test_a_step_does_not_wait_for_the_device():
    reference, query = pair(CONFIGS[0], n_cells=60)
    slots = family_of("SCVI").slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, {"batch": 2}, start="mean", seed=0)
    device, generator = torch.device("cuda"), torch.Generator("cuda")
    names = tuple(s.name for s in slots if s.trainable)
    problem = make_problem(reference, query, {"batch": ("new 1", "new 2")}, rows, names, FitConfig(), device)
    index, parameters = np.arange(32), {n: r.clone().requires_grad_() for n, r in problem.start.items()}
    where = torch.from_numpy(index).to(device)

    def step():
        loss = problem.loss(problem.batch(index, where), parameters, problem.noise(32, generator))
        return torch.autograd.grad(loss, list(parameters.values()))

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_mapping_on_the_device_is_close_to_the_cpu(config):
    reference, query = pair(config, n_cells=120)
    graft = fit(reference, query, FitConfig(max_steps=40, device="cuda"))
    here, there = (embed(reference, query, graft, device=device).mean for device in ("cpu", "cuda"))
    assert np.allclose(here, there, atol=1e-4 * np.abs(here).max())
    assert graft.record.loss[-1][1] < graft.record.loss[0][1]
