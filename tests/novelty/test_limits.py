"""Laws of the evidence of novelty and its limit, and of prediction sets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgraft
from scgraft.calibration.calibrate import guarantee_of
from scgraft.expression.generate import generate
from scgraft.expression.residuals import decoder, residuals
from scgraft.labels.transfer import calibrated_labels
from scgraft.labels.votes import Votes
from scgraft.novelty.find import find_novelty
from scgraft.novelty.limits import LEAST, evidence, further_batch_limit, limit_of, quarter_of
from scgraft.novelty.place import HeldOut
from scgraft.novelty.score import shared_moments
from scgraft.numerics.conformal import conformal_pvalues
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
seeds = st.integers(0, 10_000)


@given(seeds, st.floats(0.01, 100), st.floats(0.01, 100))
def test_what_all_cells_of_a_query_share_makes_none_of_them_novel(seed, worse, farther):
    """Scores and distances that are all larger, as those of another laboratory are, change no evidence."""
    rng = np.random.default_rng(seed)
    score, distance, markers = rng.gamma(3, size=50), rng.gamma(9, size=50), rng.random(50)
    neighbours = rng.integers(50, size=(50, 5))
    one, two = (
        evidence(a * score / quarter_of(a * score), markers, b * distance / quarter_of(b * distance), neighbours)
        for a, b in ((1, 1), (worse, farther))
    )
    assert np.allclose(one, two, rtol=1e-4)


@given(seeds)
def test_more_markers_farther_away_and_worse_explained_are_more_evidence(seed):
    rng = np.random.default_rng(seed)
    parts = [rng.gamma(9, size=20), rng.random(20), rng.gamma(9, size=20)]
    neighbours = rng.integers(20, size=(20, 5))
    for i in range(3):
        more = [part * 1.5 if i == j else part for j, part in enumerate(parts)]
        assert (evidence(*more, neighbours) > evidence(*parts, neighbours)).all()
    # Errors downward are no markers, but cells keep an order.
    few = evidence(parts[0], -parts[1], parts[2], neighbours)
    assert (few > 0).all() and few.max() < 1e-3


@given(seeds, st.floats(0, 5))
def test_the_limit_is_what_held_out_cells_seldom_have_and_twice_what_the_query_has_within_bounds(seed, size):
    rng = np.random.default_rng(seed)
    held, fold, own = size * rng.random(200), np.arange(200) % 4, size * rng.random(30) ** 2
    further, usual = further_batch_limit(held, 0.05, fold), 2 * float(np.quantile(own, 0.25))
    assert limit_of(own, held, 0.05, fold) == pytest.approx(max(further, 0.11, min(usual, 0.22)))
    assert limit_of(own, np.zeros(0), 0.05, None) == np.inf
    # A query of nothing but cells with clear markers is beyond the limit, whatever it says of itself.
    assert limit_of(np.full(30, 0.3), held / 100, 0.05, fold) < 0.3


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_cells_with_markers_are_novel_whatever_share_of_the_query_they_are(share):
    """Known cells have errors in all genes; a missing type has ten genes besides that the model does not expect."""
    rng, n, genes, k = np.random.default_rng(0), 300, 500, 15
    novel = np.arange(n) < share * n
    residual = (rng.standard_normal((n, genes)) + 0.5 * rng.standard_normal(genes)).astype(np.float32)
    residual[novel, :10] += 5
    own = [np.flatnonzero(novel == kind) for kind in novel]
    neighbours = np.stack([rng.choice(part, k) for part in own])
    score, markers = shared_moments(residual, neighbours, np.zeros(n, int), {})
    found = evidence(score / quarter_of(score), markers, np.ones(n), neighbours) > LEAST
    assert found[novel].all() and not found[~novel].any()


@pytest.mark.parametrize("n_cells", [1, 2, 129])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_any_number_of_cells_has_a_strength(n_cells, likelihood):
    reference = reference_of(replace(CONFIG, gene_likelihood=likelihood))
    query = scgraft.align(reference, tiny_query(CONFIG, n_cells=n_cells), batch_key="batch")
    graft = scgraft.fit(reference, query, FitConfig(max_steps=2))
    latent = scgraft.embed(reference, query, graft)
    null = np.random.default_rng(0).random(100)
    held = HeldOut(null, null + 1, np.full(100, -1), np.zeros(100, int), null)
    found, without = (
        find_novelty(reference, query, graft, latent, held, key=key) for key in (reference.schema.labels_key, None)
    )
    assert found.markers.shape == found.strength.shape == (n_cells,) and np.isfinite(found.strength).all()
    assert np.array_equal(found.novel, found.strength > 1) and np.array_equal(found.strength, without.strength)


def test_residuals_are_those_of_the_models_own_moments():
    """Generated cells have residuals of variance one where the model is right; a count far above it is cut at ten."""
    reference = reference_of(replace(CONFIG, n_cells=300, gene_likelihood="nb"))
    cells = generate(reference, np.arange(300))
    found = residuals(decoder(reference, cells, None), cells.counts, scgraft.embed(reference, cells).mean)
    assert found.shape == (300, 40) and found.dtype == np.float32 and np.abs(found).max() <= 10
    assert 0.3 < np.median(found.std(axis=0)) < 2


@given(seeds)
def test_a_probability_of_almost_one_excludes_no_class(seed):
    """However sure held-out cells are: 0.995 instead of 1 is no reason against a label."""
    scores = np.random.default_rng(seed).uniform(0, 1e-4, 200)
    sure = conformal_pvalues(np.array([[0.995, 0.005], [0.9, 0.1]]), scores, np.zeros(200, int))
    assert sure[0, 0] == 1 and sure[0, 1] < 0.01 and sure[1, 0] < 0.01


@given(seeds)
def test_few_held_out_batches_widen_the_sets(seed):
    rng = np.random.default_rng(seed)
    matrix, scores, codes = rng.dirichlet([1, 1, 1], size=20), rng.uniform(size=90), rng.integers(3, size=90)
    known = conformal_pvalues(matrix, scores, codes)
    one, four = (conformal_pvalues(matrix, scores, codes, batches=batches) for batches in (1, 4))
    assert np.allclose(one, np.minimum(2 * known, 1)) and np.array_equal(one > 0.1, known > 0.05)
    assert np.allclose(four, np.minimum(1.25 * known, 1)) and (four <= one).all() and (four >= known).all()


def test_a_reference_with_one_batch_has_sets_at_half_of_the_rate():
    reference = reference_of(CONFIG)
    key = reference.schema.labels_key
    mapped = scgraft.map_query(
        reference, tiny_query(CONFIG), batch_key="batch", config=FitConfig(max_steps=2), labels=[key]
    )
    labels, made = mapped.labels[key], mapped.calibration[key]
    assert any(made.folds)
    alone = calibrated_labels(
        labels, replace(made, folds=((),) * 5), Votes(labels.votes["latent"], labels.votes["genes"], labels.classifier)
    )
    n = sum(map(len, made.folds))
    several = labels.pvalues < 1  # the others were cut there
    assert several.any() and np.allclose(
        alone.pvalues[several], np.minimum(2 * labels.pvalues / (1 + 1 / n), 1)[several], rtol=1e-5
    )
    assert "half" in guarantee_of(((),) * 5, 9, "x") and "80%" in guarantee_of((("a", "b"), ("c", "d")), 9, "x")
