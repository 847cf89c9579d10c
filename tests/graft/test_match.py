"""The match objective: its energy against a slow version, its gates, and what it does to a shifted query."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scgraft.errors import NoLabels
from scgraft.graft import match as matching
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.objective import pairs_within, stratified_energy
from scgraft.judgement.measures import cluster_distance
from scgraft.numerics.atlas import atlas_of
from scgraft.query.align import align
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values import reference as values
from scgraft.values.graft import FitConfig
from scgraft.values.reference import Latent
from tiny import pair, reference_of

CONFIG = TinyConfig(minified="latent_posterior_parameters", encode_covariates=True, n_layers=2, n_cells=120, n_genes=20)
QUICK = FitConfig(max_steps=20, device="cpu")


def slow_energy(query, points, stratum):
    """Stratum by stratum, pair by pair."""
    total = 0.0
    for s in np.unique(stratum):
        z, p = query[stratum == s], points[stratum == s]
        n = len(z)
        if n < 2:
            continue
        between = np.mean([np.linalg.norm(a - b) for a in z for b in p])
        within = np.sum([np.linalg.norm(a - b) for a in z for b in z]) / (n * (n - 1))
        total += n * (2 * between - within)
    return total / len(query)


def energy(query, points, stratum):
    query = torch.tensor(query)
    return float(stratified_energy(query, torch.tensor(points), pairs_within(stratum, query)))


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))
def test_stratified_energy_equals_the_slow_one(seed, n, strata, d):
    rng = np.random.default_rng(seed)
    query, points = rng.standard_normal((2, n, d))
    stratum = rng.integers(0, strata, n)
    found = energy(query, points, stratum)
    assert found == pytest.approx(slow_energy(query, points, stratum), abs=1e-9)


@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(2, 12))
@settings(max_examples=20)
def test_few_partners_estimate_the_energy_of_all(seed, n, most):
    """The mean over the orders of cells and points is the energy of all pairs: each meets each other equally often."""
    rng = np.random.default_rng(seed)
    query, points = rng.standard_normal((2, n, 2))
    one, found = np.zeros(n, np.int64), []
    for _ in range(400):
        z, p = torch.tensor(rng.permutation(query)), torch.tensor(rng.permutation(points))
        found.append(float(stratified_energy(z, p, pairs_within(one, z, most=most))))
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert np.mean(found) == pytest.approx(slow_energy(query, points, one), abs=5 * error + 1e-9)


@given(st.integers(0, 2**31))
def test_strata_do_not_see_each_other(seed):
    """Moving one stratum as a whole, points and cells, changes nothing: composition is no distance."""
    rng = np.random.default_rng(seed)
    query, points = rng.standard_normal((2, 10, 2))
    stratum = np.repeat([0, 1], 5)
    away = np.where(stratum[:, None] == 1, 100.0, 0.0)

    assert energy(query + away, points + away, stratum) == pytest.approx(energy(query, points, stratum), abs=1e-9)


def test_gradient_of_coinciding_cells_is_finite():
    query = torch.zeros(6, 3, requires_grad=True)
    stratified_energy(query, torch.zeros(6, 3), pairs_within(np.zeros(6, np.int64), query)).backward()
    assert query.grad is not None and bool(query.grad.isfinite().all())


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 4))
@settings(max_examples=20)
def test_atlas_has_the_moments_of_its_cells(seed, n, d):
    rng = np.random.default_rng(seed)
    latent = Latent(
        rng.standard_normal((n, d)).astype(np.float32),
        rng.uniform(0.1, 1, (n, d)).astype(np.float32),
        np.arange(n).astype(str),
    )
    atlas = atlas_of(latent.mean, latent.variance)
    weight = atlas.mixture.weight[:, None]
    mean = (weight * atlas.mixture.mean).sum(axis=0)
    second = (weight * (atlas.mixture.variance + atlas.mixture.mean**2)).sum(axis=0)
    assert np.allclose(mean, latent.mean.mean(axis=0), atol=1e-4)
    assert np.allclose(second, (latent.mean**2 + latent.variance).mean(axis=0), atol=1e-3)
    assert np.array_equal(np.unique(atlas.cluster), np.arange(len(atlas.mixture.weight)))
    assert np.array_equal(latent.mean[atlas.index], atlas.points)


def test_the_atlas_is_made_once_for_a_reference(monkeypatch):
    made = []
    monkeypatch.setattr(values, "atlas_of", lambda *latent: made.append(latent[0]) or atlas_of(*latent))
    reference, query = pair(CONFIG, n_cells=60)
    for _ in range(2):
        graft = fit(reference, query, QUICK)
        cluster_distance(reference.latent, embed(reference, query, graft))
    assert len(made) == 1 and made[0] is reference.latent.mean


def columns(graft, reference):
    return {name: row for name, row in graft.rows.items() if "z_encoder" in name}


def test_a_bad_start_is_brought_onto_the_atlas():
    """Columns far from the reference's put the cells outside the atlas; the match brings them back."""
    reference, query = pair(CONFIG, n_cells=80)
    config = FitConfig(start="random", seed=3, device="cpu")
    lost, found = fit(reference, query, replace(config, epochs=0)), fit(reference, query, config)
    assert found.record.reach in ("near", "far") and found.record.gain > 0

    def distance(graft):
        return np.linalg.norm(embed(reference, query, graft).mean - reference.latent.mean.mean(axis=0), axis=1).mean()

    assert distance(found) < distance(lost)
    assert found.record.moved["new 1"] > 0


def test_a_fit_that_lowers_the_density_is_not_kept(monkeypatch):
    reference, query = pair(CONFIG, n_cells=60)

    def away(scene, start, steps, *, far):
        assert not far
        return {name: row + 30 for name, row in start.items()}

    monkeypatch.setattr(matching, "descend", away)
    graft, start = fit(reference, query, QUICK), fit(reference, query, replace(QUICK, epochs=0))
    assert graft.record.reach == "start" and graft.record.gain < 0 and "start was kept" in graft.record.reason
    for name, row in columns(start, reference).items():
        assert np.array_equal(row, graft.rows[name])
    assert set(graft.record.moved.values()) == {0.0}


def test_a_far_fit_that_costs_the_labels_is_not_kept(monkeypatch):
    reference, query = pair(CONFIG, n_cells=60)
    monkeypatch.setattr(matching, "descend", lambda scene, start, steps, *, far: {n: r + far for n, r in start.items()})
    confidence = iter([0.9, 0.95])  # far fit, start
    monkeypatch.setattr(matching.Scene, "confidence", lambda scene, latents: next(confidence))
    graft = fit(reference, query, QUICK)
    assert graft.record.reach == "near" and graft.record.confidence == pytest.approx(-0.05)
    assert "was not kept" in graft.record.reason
    confidence = iter([0.94, 0.95])
    graft = fit(reference, query, QUICK)
    assert graft.record.reach == "far" and graft.record.confidence == pytest.approx(-0.01)


def test_a_fit_that_is_not_finite_is_not_kept(monkeypatch):
    reference, query = pair(CONFIG, n_cells=60)
    monkeypatch.setattr(
        matching, "descend", lambda scene, start, steps, *, far: {n: r * float("nan") for n, r in start.items()}
    )
    graft = fit(reference, query, QUICK)
    assert graft.record.reach == "start" and all(np.isfinite(row).all() for row in graft.rows.values())


def test_without_labels_the_far_fit_is_not_tried():
    config = replace(CONFIG, labels=())
    reference = reference_of(config)
    query = align(reference, tiny_query(config, n_cells=60, batches=("new 1",)), batch_key="batch", drop_empty=True)
    graft = fit(reference, query, QUICK)
    assert graft.record.reach != "far" and graft.record.confidence is None


def test_labels_must_be_a_column():
    reference, query = pair(CONFIG, n_cells=30)
    with pytest.raises(NoLabels, match="no label column 'nope'; its cells have"):
        fit(reference, query, replace(QUICK, labels="nope"))


@pytest.mark.parametrize("n", [1, 2, 129])
def test_any_number_of_cells(n):
    reference = reference_of(CONFIG)
    query = align(reference, tiny_query(CONFIG, n_cells=n, batches=("new 1",)), batch_key="batch", drop_empty=True)
    graft = fit(reference, query, QUICK)
    assert all(np.isfinite(row).all() for row in graft.rows.values())
    if n == 1:
        assert graft.record.reach == "start"


def test_the_same_seed_gives_the_same_columns():
    reference, query = pair(CONFIG, n_cells=60)
    first, second = fit(reference, query, QUICK), fit(reference, query, QUICK)
    assert all(np.array_equal(first.rows[name], second.rows[name]) for name in first.rows)


def test_many_batches_are_all_seen():
    codes = np.repeat(np.arange(40), 300)
    chosen = matching.choose(codes, 0)
    assert np.array_equal(np.bincount(codes[chosen]), np.full(40, matching.CELLS_OF_BATCH))
    assert matching.step_size(codes[chosen]) == matching.MOST_IN_STEP
    assert matching.step_size(np.zeros(10)) == matching.CELLS_IN_STEP


def test_a_reference_without_latents_gets_the_published_objective_and_says_so():
    reference, query = pair(CONFIG, n_cells=30)
    graft = fit(replace(reference, latent=None), query, QUICK)
    assert graft.record.objective == "elbo" and graft.record.reach is None
    assert "The published objective was used, not 'match'" in graft.record.reason
    assert "published" not in fit(reference, query, replace(QUICK, objective="elbo")).record.reason
