"""Dispersions by Newton's method: better than a hundred mini-batches on held-out cells, and only where nothing else is left."""

import numpy as np
import torch

import scgraft
from scgraft.graft import fit as fitting
from scgraft.graft.dispersions import fit_dispersions, suits
from scgraft.graft.minimise import evaluator, minimise
from scgraft.numerics.products import one_thread
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from scgraft.values.graft import FitConfig
from tiny_totalvi import draw, write_totalvi_folder

CPU = FitConfig(device="cpu", progress=False)


def problem_of(folder, monkeypatch):
    """What a fit on a scPoli reference hands to Newton's method, and its graft."""
    kept = {}

    def own(problem, used, held):
        kept.update(problem=problem, used=used, held=held)
        return fit_dispersions(problem, used, held)

    monkeypatch.setattr(fitting, "fit_dispersions", own)
    reference = scgraft.load_reference(write_scpoli_folder(folder))
    query = scgraft.align(reference, tiny_query(TinyConfig(), batches=("s1",), n_cells=300), batch_key="batch")
    kept["graft"] = scgraft.fit(reference, query, CPU)
    return kept


def test_the_held_out_loss_is_at_least_that_of_a_hundred_mini_batches(tmp_path, monkeypatch):
    kept = problem_of(tmp_path / "model", monkeypatch)
    problem, used, held = (kept[key] for key in ("problem", "used", "held"))
    assert list(problem.start) == ["theta[batch]"] and problem.cells.posterior is not None
    judge = evaluator(problem, np.tile(held, 10))
    with one_thread():
        many = judge(minimise(problem, used, held).rows)
        few, again = (fit_dispersions(problem, used, held) for _ in range(2))
    start = judge(problem.start)
    assert many < start
    assert judge(few.rows) < many + 0.05 * (start - many)
    assert few.steps == 6 and few.trace[0][0] == 0 and few.trace[-1][1] < few.trace[0][1]
    for name, row in few.rows.items():
        assert torch.equal(row, again.rows[name])
        np.testing.assert_array_equal(row.cpu().numpy(), kept["graft"].rows[name])
        assert float((row - problem.start[name]).abs().max()) <= 2.5


def test_it_is_not_used_beside_other_columns_nor_for_many_batches(tmp_path, monkeypatch):
    kept = problem_of(tmp_path / "model", monkeypatch)
    problem, used = kept["problem"], kept["used"]
    assert suits(problem, used, {"dispersion"}) and not suits(problem, used, {"dispersion", "decoder"})
    called = []
    monkeypatch.setattr(fitting, "fit_dispersions", lambda *a: called.append(a))
    few = FitConfig(device="cpu", progress=False, max_steps=2)
    totalvi = scgraft.load_reference(write_totalvi_folder(tmp_path / "totalvi"))
    scgraft.fit(totalvi, scgraft.align(totalvi, draw(30, ("q0",)), batch_key="batch"), few)
    scpoli = scgraft.load_reference(tmp_path / "model")
    cells = tiny_query(TinyConfig(), batches=tuple(f"s{i}" for i in range(6)), n_cells=60)
    scgraft.fit(scpoli, scgraft.align(scpoli, cells, batch_key="batch"), few)
    assert called == []


def test_a_loss_that_is_no_number_is_told_before_the_first_step(tmp_path, monkeypatch):
    kept = problem_of(tmp_path / "model", monkeypatch)

    class Broken:
        def __getattr__(self, name):
            return getattr(kept["problem"], name)

        def loss(self, batch, rows, noise, *, value=True):
            return torch.tensor(float("nan"))

    outcome = fit_dispersions(Broken(), kept["used"], kept["held"])
    assert outcome.diverged and "The loss is nan before the first step, for cells of batches" in outcome.reason
    assert outcome.rows.keys() == kept["problem"].start.keys()
