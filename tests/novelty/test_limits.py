"""Laws of the thresholds of novelty: what a misfit may explain, and how far types are apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scgraft
from scgraft.calibration.calibrate import guarantee_of
from scgraft.expression.generate import generate
from scgraft.expression.residuals import decoder, residuals
from scgraft.labels.transfer import calibrated_labels
from scgraft.labels.votes import Votes
from scgraft.model.build import take_cells
from scgraft.novelty.find import find_novelty
from scgraft.novelty.limits import misfit_excess, nearest_third, novelty_limits, scaled_null, type_distances
from scgraft.numerics.conformal import conformal_pvalues, threshold_at
from scgraft.numerics.neighbors import nearest
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)
seeds = st.integers(0, 10_000)


def profiles(rng, n_types, n_cells, n_genes=12):
    """Profiles of types, weights of genes for cells, and the cells' types."""
    profile, weight = rng.gamma(1.0, size=(n_types, n_genes)), rng.gamma(2.0, size=(n_cells, n_genes))
    return profile, weight, rng.integers(n_types, size=n_cells)


@given(seeds, st.integers(2, 9), st.integers(1, 20))
def test_the_order_of_types_cells_and_genes_changes_no_distance(seed, n_types, n_cells):
    rng = np.random.default_rng(seed)
    profile, weight, own = profiles(rng, n_types, n_cells)
    found = nearest_third(profile, weight, own)
    types, cells, genes = rng.permutation(n_types), rng.permutation(n_cells), rng.permutation(12)
    mixed = nearest_third(profile[types][:, genes], weight[cells][:, genes], np.argsort(types)[own[cells]])
    assert np.allclose(mixed, found[cells], rtol=1e-5)


@given(seeds, st.integers(4, 12), st.sampled_from([2, 4]), st.integers(1, 10))
def test_types_that_are_cut_into_equal_pieces_are_no_nearer(seed, n_types, pieces, n_cells):
    """The nearest type would be the other piece, at no distance; a third of the other types holds another type."""
    profile, weight, own = profiles(np.random.default_rng(seed), n_types, n_cells)
    whole = nearest_third(profile, weight, own)
    cut = nearest_third(np.repeat(profile, pieces, axis=0), weight, own * pieces)
    nearest_of_all = np.array(
        [np.sort(weight[i] @ ((np.delete(profile, c, 0) - profile[c]) ** 2).T)[0] / 12 for i, c in enumerate(own)]
    )
    assert (cut >= nearest_of_all * (1 - 1e-5)).all() and (cut <= whole * (1 + 1e-5)).all()


@given(seeds, st.floats(0.1, 10))
def test_types_farther_apart_are_farther_apart(seed, factor):
    profile, weight, own = profiles(np.random.default_rng(seed), 5, 10)
    moved = profile.mean(axis=0) + factor * (profile - profile.mean(axis=0))
    assert np.allclose(nearest_third(moved, weight, own), factor**2 * nearest_third(profile, weight, own), rtol=1e-4)


def test_genes_that_the_query_lacks_say_nothing_of_types():
    profile, weight, own = profiles(np.random.default_rng(0), 5, 10)
    present = np.arange(12) < 7
    changed = profile + ~present * 100 * np.arange(5)[:, None]
    assert np.allclose(nearest_third(changed, weight, own, present), nearest_third(profile, weight, own, present))


@given(seeds, st.floats(0, 20), st.sampled_from([0.01, 0.025, 0.2]))
def test_limits_are_at_least_the_held_out_threshold_and_at_most_what_a_misfit_may_explain(seed, excess, rate):
    rng = np.random.default_rng(seed)
    score, null, apart = rng.gamma(3, size=50) * 3, rng.gamma(3, size=200), rng.gamma(1, size=50) * 10
    limit = novelty_limits(score, null, excess, apart, rate)
    assert (limit >= np.float32(threshold_at(null, rate))).all()
    highest = max(threshold_at(scaled_null(null, score), rate), 1 + 2.5 * excess)
    assert (limit <= highest * (1 + 1e-6)).all()
    assert np.allclose(novelty_limits(score, null, excess, np.full(50, np.inf), rate), highest)
    order = rng.permutation(50)
    assert np.array_equal(novelty_limits(score[order], null, excess, apart[order], rate), limit[order])


@given(seeds, st.floats(0, 10), st.floats(0, 10))
def test_a_larger_misfit_and_types_farther_apart_never_lower_a_limit(seed, one, other):
    rng = np.random.default_rng(seed)
    score, null, apart = rng.gamma(3, size=30), rng.gamma(3, size=100), rng.gamma(1, size=30) * 5
    less, more = sorted((one, other))
    assert (novelty_limits(score, null, less, apart, 0.05) <= novelty_limits(score, null, more, apart, 0.05)).all()
    wider = novelty_limits(score, null, less, apart * (1 + more), 0.05)
    assert (wider >= novelty_limits(score, null, less, apart, 0.05)).all()


def test_where_the_model_is_right_the_held_out_threshold_counts():
    rng = np.random.default_rng(0)
    null = rng.gamma(3, size=4000)
    limit = novelty_limits(rng.gamma(3, size=500) * 0.9, null, misfit_excess(0.9, ()), np.full(500, 1e3), 0.05)
    assert np.allclose(limit, threshold_at(null, 0.05))


@given(st.integers(0, 1000), st.floats(0, 1.4))
def test_types_within_the_noise_of_each_other_call_no_cell_novel(seed, apart):
    rng = np.random.default_rng(seed)
    score, null = rng.gamma(3, size=30), rng.uniform(0.5, 1.2, size=100)
    alone = novelty_limits(score, null, 0.0, np.full(30, np.inf), 0.05)
    assert np.array_equal(
        novelty_limits(score, null, 0.0, np.full(30, apart), 0.05), np.minimum(alone, np.float32(1.5))
    )


def test_a_group_of_more_than_half_is_found_where_it_is_far_from_its_type():
    """The median of the query is that of novel cells, so the null on its scale would hide them."""
    rng = np.random.default_rng(0)
    null, known = rng.gamma(20, size=500) / 20, rng.gamma(20, size=40) / 20
    novel = 20 + rng.gamma(20, size=80)
    score = np.concatenate([known, novel])
    limit = novelty_limits(score, null, float(np.median(score)) - 1, np.full(120, 15.0), 0.025)
    assert (score > limit)[40:].all() and not (score > limit)[:40].any()
    hidden = novelty_limits(score, null, float(np.median(score)) - 1, np.full(120, np.inf), 0.025)
    assert not (score > hidden)[40:].all()


@pytest.mark.parametrize(("held_out", "excess"), [((), 1.5), ((0.5, 0.6), 1.5), ((2.0, 2.0, 9.0), 0.5), ((3.0,), -0.5)])
def test_the_excess_of_a_misfit_is_over_held_out_batches_and_over_one(held_out, excess):
    assert misfit_excess(2.5, held_out) == pytest.approx(excess)


@pytest.mark.parametrize("n_cells", [1, 2, 129])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_any_number_of_cells_has_types_and_limits(n_cells, likelihood):
    reference = reference_of(replace(CONFIG, gene_likelihood=likelihood))
    key = reference.schema.labels_key
    query = scgraft.align(reference, tiny_query(CONFIG, n_cells=n_cells), batch_key="batch")
    graft = scgraft.fit(reference, query, FitConfig(max_steps=2))
    latent = scgraft.embed(reference, query, graft)
    null = np.random.default_rng(0).gamma(3, size=100)
    found = find_novelty(reference, query, graft, latent, null, null_misfit=(1.0,), key=key)
    assert found.threshold.shape == found.strength.shape == (n_cells,)
    assert np.array_equal(found.novel, found.score > found.threshold)
    without = find_novelty(reference, query, graft, latent, null, null_misfit=(1.0,))
    assert (without.threshold >= found.threshold).all()


@pytest.mark.parametrize(("n_cells", "same"), [(19, True), (120, False)])
def test_in_a_small_batch_types_set_no_limit(n_cells, same):
    """What all cells of a batch share is not taken out of a small one, and must not count as the way to another type."""
    reference = reference_of(CONFIG)
    key = reference.schema.labels_key
    query = generate(reference, np.zeros(n_cells, int), seed=1)
    latent = scgraft.embed(reference, query)
    null = np.full(100, 1e-6)
    found = [find_novelty(reference, query, None, latent, null, key=k).threshold for k in (key, None)]
    assert np.array_equal(*found) == same


@settings(max_examples=10)
@given(seeds)
def test_names_of_classes_change_no_distance_between_types(seed):
    reference, rng = reference_of(CONFIG), np.random.default_rng(seed)
    cells = generate(reference, rng.integers(120, size=20))
    latent = scgraft.embed(reference, cells)
    codes = rng.integers(-1, 4, size=120)
    near = nearest(reference.latent.mean, latent.mean, k=30)
    decode, batch = decoder(reference, cells, None), cells.codes[:, 0]
    found = type_distances(decode, reference, latent, batch, codes, near)
    renamed = np.where(codes < 0, -1, rng.permutation(9)[codes])
    assert np.allclose(type_distances(decode, reference, latent, batch, renamed, near), found, rtol=1e-4)
    order = rng.permutation(20)
    mixed = scgraft.Latent(latent.mean[order], latent.variance[order], latent.cells[order])
    moved = nearest(reference.latent.mean, mixed.mean, k=30)
    decode = decoder(reference, take_cells(cells, order), None)
    again = type_distances(decode, reference, mixed, batch[order], codes, moved)
    assert np.allclose(again, found[order], rtol=1e-3)


@pytest.mark.parametrize("codes", [np.zeros(120, int), np.full(120, -1)])
def test_one_type_or_none_is_infinitely_far_from_others(codes):
    reference = reference_of(CONFIG)
    cells = generate(reference, np.arange(5))
    latent = scgraft.embed(reference, cells)
    near = nearest(reference.latent.mean, latent.mean, k=30)
    decode = decoder(reference, cells, None)
    assert np.isinf(type_distances(decode, reference, latent, cells.codes[:, 0], codes, near)).all()


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
        labels, replace(made, folds=((),) * 5), Votes(labels.votes["latent"], labels.votes["genes"])
    )
    n = sum(map(len, made.folds))
    several = labels.pvalues < 1  # the others were cut there
    assert several.any() and np.allclose(
        alone.pvalues[several], np.minimum(2 * labels.pvalues / (1 + 1 / n), 1)[several], rtol=1e-5
    )
    assert "half" in guarantee_of(((),) * 5, 9, "x") and "80%" in guarantee_of((("a", "b"), ("c", "d")), 9, "x")


@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.025, 0.1]), st.sampled_from([1.0, 1.7, 4.0]))
def test_known_cells_exceed_the_limit_at_the_declared_rate(seed, rate, shift):
    """Scores like those of held-out cells, or all of them larger by a factor that the model's misfit of the query explains."""
    rng = np.random.default_rng(seed)
    null, score = rng.gamma(3, size=20_000), shift * rng.gamma(3, size=20_000)
    limit = novelty_limits(score, null, 0.0, np.full(len(score), np.inf), rate)
    assert len(np.unique(limit)) == 1
    # The quantile, the median and the share are estimated: five standard errors of the share, and what an error of two
    # per cent of the scale moves it by.
    slack = 5 * np.sqrt(2 * rate * (1 - rate) / len(score)) + 0.15 * rate
    assert abs((score > limit).mean() - rate) < slack


@given(st.integers(0, 2**31), st.floats(2.0, 50.0))
def test_no_misfit_hides_a_cell_beyond_other_types(seed, apart):
    """However wide the misfit makes the first limit, the second is a third of the squared distance to other types, from 1.5 on."""
    rng = np.random.default_rng(seed)
    null = rng.uniform(0.5, 1.0, size=2000)
    limit = novelty_limits(100 * null, null, 40.0, np.array([apart, 0.3]), 0.025)
    assert np.allclose(limit, [1 + apart / 3, 1.5], rtol=1e-5)
