"""Decoder columns in few steps: as good as a hundred mini-batches on held-out cells, and only where they are cheaper."""

import numpy as np
import pytest
import torch

import scgraft
from scgraft.graft import fit as fitting
from scgraft.graft.few_steps import minimise_in_few_steps, suits
from scgraft.graft.minimise import evaluator, minimise
from scgraft.numerics.products import one_thread
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from scgraft.values.graft import FitConfig
from tiny_totalvi import draw, write_totalvi_folder

CPU = FitConfig(device="cpu", progress=False)


def problem_of(reference, cells, monkeypatch):
    """What the fit hands to either way of fitting the columns that only the decoder sees."""
    kept = {}

    def few(problem, used, held, *, separable):
        kept.update(problem=problem, used=used, held=held, separable=separable)
        return minimise_in_few_steps(problem, used, held, separable=separable)

    monkeypatch.setattr(fitting, "minimise_in_few_steps", few)
    query = scgraft.align(reference, cells, batch_key="batch")
    kept["graft"] = scgraft.fit(reference, query, CPU)
    return kept


@pytest.mark.parametrize("family", ["TOTALVI", "scPoli"])
def test_the_held_out_loss_is_that_of_a_hundred_mini_batches(tmp_path, monkeypatch, family):
    if family == "TOTALVI":
        folder, cells = write_totalvi_folder(tmp_path / "model"), draw(300, ("q0", "q1"))
    else:
        folder, cells = write_scpoli_folder(tmp_path / "model"), tiny_query(TinyConfig(), batches=("s1",), n_cells=300)
    kept = problem_of(scgraft.load_reference(folder), cells, monkeypatch)
    problem, used, held = (kept[key] for key in ("problem", "used", "held"))
    assert kept["separable"] == (family == "scPoli") and problem.cells.posterior is not None
    judge = evaluator(problem, np.tile(held, 10))
    with one_thread():
        many = judge(minimise(problem, used, held).rows)
        few = minimise_in_few_steps(problem, used, held, separable=kept["separable"])
        again = minimise_in_few_steps(problem, used, held, separable=kept["separable"])
    start = judge(problem.start)
    assert many < start
    assert judge(few.rows) < many + 0.1 * (start - many)  # measured on real cells: 2 % (docs/families.md)
    assert few.steps <= 20 and few.trace[0][0] == 0 and few.trace[-1][1] <= few.trace[0][1]
    assert all(torch.equal(row, again.rows[name]) for name, row in few.rows.items())
    for name, row in few.rows.items():
        np.testing.assert_array_equal(row.cpu().numpy(), kept["graft"].rows[name])


def test_it_is_not_used_where_a_step_is_cheap_or_batches_are_many(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(fitting, "minimise_in_few_steps", lambda *a, **k: called.append(a))
    config = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True)
    reference = scgraft.load_reference(write_hub_folder(tmp_path / "scvi", config))
    query = scgraft.align(reference, tiny_query(config, batches=("s1",)), batch_key="batch")
    scgraft.fit(reference, query, CPU)
    totalvi = scgraft.load_reference(write_totalvi_folder(tmp_path / "totalvi"))
    many = scgraft.align(totalvi, draw(60, tuple(f"q{i}" for i in range(6))), batch_key="batch")
    scgraft.fit(totalvi, many, FitConfig(device="cpu", progress=False, max_steps=2))
    assert called == []


def test_a_loss_that_is_no_number_is_told_before_the_first_step(tmp_path, monkeypatch):
    cells = draw(60, ("q0",))
    kept = problem_of(scgraft.load_reference(write_totalvi_folder(tmp_path / "model")), cells, monkeypatch)
    assert suits(kept["problem"], kept["used"])

    class Broken:
        def __getattr__(self, name):
            return getattr(kept["problem"], name)

        def loss(self, batch, rows, noise, *, value=True):
            return torch.tensor(float("nan"))

    outcome = minimise_in_few_steps(Broken(), kept["used"], kept["held"], separable=False)
    assert outcome.diverged and "The loss is nan before the first step, for cells of batches q0" in outcome.reason
    assert outcome.rows.keys() == kept["problem"].start.keys()
