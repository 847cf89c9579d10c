"""Laws of the thresholds of novelty: what a misfit may explain, and how far types are apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scgraft
from chance import fewest_beyond_rank, most_beyond_rank
from scgraft.calibration.calibrate import guarantee_of
from scgraft.expression.generate import generate
from scgraft.expression.residuals import decoder, residuals
from scgraft.labels.transfer import calibrated_labels
from scgraft.labels.votes import Votes
from scgraft.model.build import take_cells
from scgraft.novelty.find import find_novelty
from scgraft.novelty.limits import evidence, evidence_limit, foreign_limit, nearest_third, scale_of, type_distances
from scgraft.novelty.rule import NoveltyRule
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


@given(seeds, st.floats(1, 20), st.floats(1, 5), st.sampled_from([0.02, 0.05, 0.2]))
def test_what_all_cells_of_a_query_share_makes_none_of_them_novel(seed, worse, farther, rate):
    """Scores and distances that are all larger, as those of another laboratory are, move the limit with them."""
    rng = np.random.default_rng(seed)
    null, far = rng.gamma(3, size=200), rng.gamma(9, size=200)
    score, distance = 10 * rng.gamma(3, size=50), 10 * rng.gamma(9, size=50)
    limit = evidence_limit(score, distance, null, far, rate)
    moved = evidence_limit(worse * score, farther * distance, null, far, rate)
    assert np.isclose(moved, worse * farther**2 * limit)
    assert limit >= threshold_at(evidence(null, far), rate) and scale_of(score, null) > 1 == scale_of(null / 2, null)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2])
def test_known_cells_are_novel_as_often_as_declared(rate):
    """Cells measured on the reference's own scale: the number beyond the limit is beta-binomial, whatever is measured.

    The query's first quartiles are the null's here, so that its scale is 1; a true claim would fail once in a million seeds.
    """
    rng, n = np.random.default_rng(0), 4000
    null, far = rng.gamma(20, size=4000), rng.gamma(40, size=4000)
    score, distance = rng.gamma(20, size=n), rng.gamma(40, size=n)
    score *= min(np.quantile(null, 0.25) / np.quantile(score, 0.25), 1)
    distance *= min(np.quantile(far, 0.25) / np.quantile(distance, 0.25), 1)
    limit = evidence_limit(score, distance, null, far, rate)
    assert limit == pytest.approx(np.sort(null * far**2)[int(np.ceil((1 - rate) * 4001)) - 1])
    alarms = int((rng.gamma(20, size=n) * rng.gamma(40, size=n) ** 2 > limit).sum())
    assert fewest_beyond_rank(n, 4000, rate) <= alarms <= most_beyond_rank(n, 4000, rate)


def test_known_cells_of_another_scale_are_novel_about_as_often_as_declared():
    """Sixty queries whose scores and distances are larger as a whole: the mean rate, within five of its own standard errors."""
    rng, n, draws = np.random.default_rng(0), 400, 60
    alarms = []
    for _ in range(draws):
        null, far = rng.gamma(20, size=4000), rng.gamma(40, size=4000)
        score, distance = 3 * rng.gamma(20, size=n), 1.5 * rng.gamma(40, size=n)
        alarms.append((evidence(score, distance) > evidence_limit(score, distance, null, far, 0.05)).mean())
    error = np.std(alarms, ddof=1) / np.sqrt(draws)
    assert error < 0.004 and abs(np.mean(alarms) - 0.05) < 5 * error


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_missing_type_is_found_where_neither_genes_nor_place_tell_alone(share):
    """Both are a little larger; together they are evidence, also where most of the query is of that type."""
    rng = np.random.default_rng(0)
    null, far = rng.gamma(20, size=2000) / 20, rng.gamma(60, size=2000) / 60
    novel = np.arange(500) < 500 * share
    score, distance = (
        rng.gamma(20, size=500) / 20 * (1 + 0.6 * novel),
        rng.gamma(60, size=500) / 60 * (1 + 0.35 * novel),
    )
    both = evidence(score, distance) > evidence_limit(score, distance, null, far, 0.05)
    alone = score > evidence_limit(score, distance, null, far, 0.05, power=0.0)
    assert both[novel].mean() > alone[novel].mean() + 0.1
    # The novel cells can only widen the query's scale, so the known ones are beyond the limit at the declared rate at most.
    assert both[~novel].sum() <= most_beyond_rank(int((~novel).sum()), 2000, 0.05)


@given(seeds, st.floats(0, 10))
def test_types_farther_apart_never_lower_a_limit(seed, more):
    rng = np.random.default_rng(seed)
    apart, held_out = rng.gamma(1, size=30) * 5, rng.gamma(3)
    assert (foreign_limit(held_out, apart * (1 + more)) >= foreign_limit(held_out, apart)).all()
    assert (foreign_limit(held_out, apart) >= np.float32(max(held_out, 1.5))).all()


@given(st.floats(0, 1.4))
def test_types_within_the_noise_of_each_other_set_no_limit(apart):
    assert np.array_equal(foreign_limit(0.7, np.full(3, apart)), np.full(3, 1.5, np.float32))


def test_a_query_of_novel_cells_alone_is_found_where_they_are_far_from_their_type():
    """Their own scale would hide them; that they lie more than half of the way to other types does not."""
    rng = np.random.default_rng(0)
    null, score, place = rng.gamma(20, size=500) / 20, 20 + rng.gamma(20, size=80), np.ones(80)
    rule = NoveltyRule(np.zeros((1, 1)), {}, np.zeros(1), np.ones(1, bool), 20.0, np.inf)
    limit = evidence_limit(score, place, null, np.ones(500), 0.05, 0.0)
    rule = replace(rule, limit=limit, held_out_limit=threshold_at(null, 0.025))
    assert (rule.judge(score, np.full(80, 15.0), place, np.ones(80))[1] > 1).all()
    # Without other types to be half of the way to, the limit is that of their own scale, which none of them reaches.
    assert not (rule.judge(score, np.full(80, np.inf), place, np.ones(80))[1] > 1).any()


@pytest.mark.parametrize("n_cells", [1, 2, 129])
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_any_number_of_cells_has_types_and_limits(n_cells, likelihood):
    reference = reference_of(replace(CONFIG, gene_likelihood=likelihood))
    key = reference.schema.labels_key
    query = scgraft.align(reference, tiny_query(CONFIG, n_cells=n_cells), batch_key="batch")
    graft = scgraft.fit(reference, query, FitConfig(max_steps=2))
    latent = scgraft.embed(reference, query, graft)
    null = np.random.default_rng(0).gamma(3, size=100)
    found = find_novelty(reference, query, graft, latent, null, key=key)
    assert found.threshold.shape == found.strength.shape == (n_cells,)
    assert np.array_equal(found.novel, found.strength > 1)
    without = find_novelty(reference, query, graft, latent, null)
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
        labels, replace(made, folds=((),) * 5), Votes(labels.votes["latent"], labels.votes["genes"], labels.classifier)
    )
    n = sum(map(len, made.folds))
    several = labels.pvalues < 1  # the others were cut there
    assert several.any() and np.allclose(
        alone.pvalues[several], np.minimum(2 * labels.pvalues / (1 + 1 / n), 1)[several], rtol=1e-5
    )
    assert "half" in guarantee_of(((),) * 5, 9, "x") and "80%" in guarantee_of((("a", "b"), ("c", "d")), 9, "x")


@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.025, 0.1]), st.sampled_from([1.0, 1.7, 4.0]))
def test_known_cells_exceed_the_limit_at_the_declared_rate(seed, rate, shift):
    """Evidence like that of held-out cells, or all of it larger by a factor, as in a query that the model misfits."""
    rng, n = np.random.default_rng(seed), 20_000
    null, far, score, distance = (
        rng.gamma(3, size=n),
        rng.gamma(9, size=n),
        shift * rng.gamma(3, size=n),
        rng.gamma(9, size=n),
    )
    share = (evidence(score, distance) > evidence_limit(score, distance, null, far, rate)).mean()
    # The quantile, the quartiles and the share are estimated: five standard errors of the share, and what an error of three
    # per cent of the scale moves it by.
    slack = 5 * np.sqrt(2 * rate * (1 - rate) / n) + 0.2 * rate
    assert abs(share - rate) < slack


@given(st.integers(0, 2**31), st.floats(2.0, 50.0))
def test_no_misfit_hides_a_cell_beyond_other_types(seed, apart):
    """However wide the misfit makes the first limit, the second is a third of the squared distance to other types, from 1.5 on."""
    null = np.random.default_rng(seed).uniform(0.5, 1.0, size=2000)
    limit = foreign_limit(threshold_at(null, 0.025), np.array([apart, 0.3]))
    assert np.allclose(limit, [1 + apart / 3, 1.5], rtol=1e-5)
