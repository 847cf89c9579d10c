"""Laws of prediction sets, temperature and hierarchy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from chance import fewest_beyond_rank, most_beyond_rank
from scgraft.errors import NoLabels
from scgraft.numerics.conformal import (
    WEIGHT_RIDGE,
    conformal_pvalues,
    coverage_across,
    expected_error,
    fit_class_weights,
    fit_temperature,
    proven_class_weights,
    reliability,
    sharpen,
    threshold_at,
)
from scgraft.values.hierarchy import common_parent, name_sets, parents_of

seeds = st.integers(0, 2**31)


def draw(rng, n, classes, noise=1.0):
    """Exchangeable cells: true classes and probabilities that know something of them."""
    true = rng.integers(classes, size=n)
    logits = noise * rng.standard_normal((n, classes))
    logits[np.arange(n), true] += 1.5
    share = np.exp(logits)
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32), true


@given(seeds, st.integers(2, 6), st.sampled_from([0.05, 0.1, 0.2]))
def test_sets_cover_exchangeable_cells(seed, classes, alpha):
    """Over twenty draws, and within each class too: that is what class-conditional means.

    Coverage varies with the cells that calibrate and with those that are covered: five standard errors of both are allowed, so a
    true claim would fail once in three million draws.
    """
    rng = np.random.default_rng(seed)
    covered, kind = [], []
    for _ in range(20):
        matrix, true = draw(rng, 1000, classes)
        scores = 1 - matrix[:500][np.arange(500), true[:500]]
        inside = conformal_pvalues(matrix[500:], scores, true[:500]) > alpha
        covered.append(inside[np.arange(500), true[500:]])
        kind.append(true[500:])
    covered, kind = np.concatenate(covered), np.concatenate(kind)
    for own in (kind >= 0, *(kind == c for c in range(classes))):
        error = np.sqrt(2 * alpha * (1 - alpha) / own.sum())
        assert covered[own].mean() > 1 - alpha - 5 * error


@given(seeds, st.integers(2, 5))
def test_sets_do_not_depend_on_the_order_of_classes_or_cells(seed, classes):
    rng = np.random.default_rng(seed)
    matrix, true = draw(rng, 200, classes)
    scores = 1 - matrix[:100][np.arange(100), true[:100]]
    pvalues = conformal_pvalues(matrix[100:], scores, true[:100])
    order, cells = rng.permutation(classes), rng.permutation(100)
    renamed = np.argsort(order)[true[:100]]
    mixed = conformal_pvalues(matrix[100:][cells][:, order], scores[::-1], renamed[::-1])
    assert np.array_equal(mixed, pvalues[cells][:, order])


@given(seeds, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_smaller_error_rate_gives_a_larger_set(seed, one, other):
    matrix, true = draw(np.random.default_rng(seed), 150, 4)
    pvalues = conformal_pvalues(matrix[50:], 1 - matrix[:50][np.arange(50), true[:50]], true[:50])
    small, large = sorted((one, other))
    assert ((pvalues > small) >= (pvalues > large)).all()


def test_rare_classes_are_compared_with_all_cells():
    scores, classes = np.linspace(0, 1, 100), np.zeros(100, int)
    classes[:3] = 1
    pooled = conformal_pvalues(np.array([[0.5, 0.5]]), scores, classes)
    assert pooled[0, 1] == pytest.approx(51 / 101, abs=0.02)
    alone = conformal_pvalues(np.array([[0.5, 0.5]]), scores, classes, least=1)
    assert alone[0, 1] == 0.25


def test_without_calibration_cells_nothing_is_excluded():
    assert (conformal_pvalues(np.array([[0.9, 0.1]]), np.zeros(0), np.zeros(0, int)) == 1).all()
    assert threshold_at(np.zeros(0), 0.05) == np.inf


@given(seeds, st.sampled_from([0.05, 0.1, 0.3]))
def test_thresholds_keep_their_rate(seed, rate):
    rng = np.random.default_rng(seed)
    null, fresh = rng.gamma(3, size=4000), rng.gamma(3, size=4000)
    beyond = int((fresh > threshold_at(null, rate)).sum())
    # The number beyond an order statistic is beta-binomial: a true claim would fail for one seed in a thousand million.
    low, high = fewest_beyond_rank(4000, 4000, rate, 1e-9), most_beyond_rank(4000, 4000, rate, 1e-9)
    assert low <= beyond <= high


@given(seeds, st.floats(0.2, 5))
def test_sharpening_keeps_order_and_sums_to_one(seed, temperature):
    matrix, _ = draw(np.random.default_rng(seed), 30, 4)
    sharp = sharpen(matrix, temperature)
    assert np.allclose(sharp.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(sharp.argmax(axis=1), matrix.argmax(axis=1))
    assert np.allclose(sharpen(np.zeros((1, 4)), temperature), 0.25)


def test_temperature_repairs_probabilities_that_are_too_modest():
    matrix, true = draw(np.random.default_rng(0), 4000, 3)
    modest = sharpen(matrix, 1.6)
    temperature = fit_temperature(modest[:2000], true[:2000])
    assert 0.5 <= temperature < 0.8

    def error(m):
        best = m.argmax(axis=1)
        return expected_error(reliability(m.max(axis=1), best == true[2000:]))

    assert error(sharpen(modest[2000:], temperature)) < 0.5 * error(modest[2000:])


def slow_loss(matrix, true, weights):
    """Class by class: the mean of a class's cells counts as the square root of their number."""
    weights = np.where(np.isin(np.arange(len(weights)), true), weights, 0)
    own = [matrix[true == c].astype(float) * weights for c in np.unique(true)]
    entropy = [
        -np.log(part[:, c] / part.sum(axis=1)).mean() * np.sqrt(len(part))
        for c, part in zip(np.unique(true), own, strict=True)
    ]
    scale = len(true) / sum(np.sqrt(len(part)) for part in own)
    return scale * sum(entropy) + WEIGHT_RIDGE / 2 * (np.log(weights[np.unique(true)]) ** 2).sum()


@given(seeds, st.integers(2, 5), st.integers(1, 60))
def test_class_weights_are_the_best_there_are(seed, classes, n):
    rng = np.random.default_rng(seed)
    matrix, true = draw(rng, n, classes)
    weights = fit_class_weights(matrix, true)
    found = slow_loss(matrix, true, weights)
    for _ in range(10):
        other = weights * np.exp(rng.normal(0, rng.choice([0.03, 0.3, 1]), classes))
        assert slow_loss(matrix, true, other) >= found - 1e-4 * (1 + abs(found))


@given(seeds, st.integers(2, 5))
def test_class_weights_do_not_depend_on_the_order_of_classes_or_cells(seed, classes):
    rng = np.random.default_rng(seed)
    matrix, true = draw(rng, 80, classes)
    order, cells = rng.permutation(classes), rng.permutation(80)
    mixed = fit_class_weights(matrix[cells][:, order], np.argsort(order)[true[cells]])
    assert np.allclose(mixed, fit_class_weights(matrix, true)[order], rtol=1e-3)


@given(seeds, st.floats(0.1, 10))
def test_class_weights_undo_a_bias(seed, bias):
    matrix, true = draw(np.random.default_rng(seed), 3000, 3)
    weights = fit_class_weights(matrix * np.array([bias, 1, 1]), true)
    straight = fit_class_weights(matrix, true)
    assert weights[0] / weights[1] * bias == pytest.approx(straight[0] / straight[1], rel=0.15)


def test_a_class_that_draws_the_cells_of_others_is_called_less():
    monocyte, like_dendritic, b_cell = [0.98, 0.01, 0.01, 0], [0.1, 0.9, 0, 0], [0, 0.01, 0.99, 0]
    matrix = np.array([monocyte] * 90 + [like_dendritic] * 60 + [b_cell] * 40, np.float32)
    drawn, dendritic = np.repeat([0, 0, 1, 2], [90, 55, 5, 40]), np.repeat([0, 0, 1, 2], [90, 5, 55, 40])
    assert (like_dendritic * fit_class_weights(matrix, drawn)).argmax() == 0
    assert (like_dendritic * fit_class_weights(matrix, dendritic)).argmax() == 1
    two = np.append(np.flatnonzero(drawn == 0)[89:92], 149)  # two cells are no proof
    assert (like_dendritic * fit_class_weights(matrix[two], drawn[two])).argmax() == 1


@given(seeds, st.floats(0, 0.9))
def test_a_class_that_no_held_out_cell_has_is_left_alone(seed, share):
    """Whether one batch's annotation is finer, or its cells were not there to be held out, cannot be told."""
    matrix, true = draw(np.random.default_rng(seed), 60, 3)
    more = np.concatenate([matrix * (1 - share), np.full((60, 1), share)], axis=1)
    weights = fit_class_weights(more, true)
    assert weights[3] == 1 and np.allclose(weights[:3], fit_class_weights(matrix, true), rtol=1e-3)
    assert (fit_class_weights(matrix[:0], true[:0]) == 1).all()


def biased_fold(rng, n, bias):
    matrix, true = draw(rng, n, 3)
    return matrix * np.array([bias, 1, 1], np.float32), true


@given(seeds, st.floats(3, 10), st.integers(2, 4))
def test_weights_that_hold_for_every_fold_are_kept(seed, bias, n_folds):
    rng = np.random.default_rng(seed)
    folds = [biased_fold(rng, 400, bias) for _ in range(n_folds)]
    matrix, true = (np.concatenate(part) for part in zip(*folds, strict=True))
    assert np.array_equal(proven_class_weights(folds), fit_class_weights(matrix, true))
    assert proven_class_weights(folds)[0] < 0.8


@given(seeds, st.floats(3, 10))
def test_weights_that_the_other_fold_contradicts_are_not(seed, bias):
    rng = np.random.default_rng(seed)
    assert (proven_class_weights([biased_fold(rng, 400, bias), biased_fold(rng, 400, 1 / bias)]) == 1).all()
    one = biased_fold(rng, 400, bias)
    assert (proven_class_weights([one]) == 1).all() and (fit_class_weights(*one) != 1).all()
    assert (proven_class_weights([one, (one[0][:0], one[1][:0])]) == 1).all()


def test_reliability_counts_every_cell():
    table = reliability(np.array([0.05, 0.95, 1.0]), np.array([False, True, True]))
    assert table[:, 2].sum() == 3 and expected_error(np.zeros((0, 3))) == 0


PARENTS = {"CD4": "T", "CD8": "T", "T": "lymphocyte", "B": "lymphocyte"}


@pytest.mark.parametrize(
    ("labels", "parent"),
    [(["CD4", "CD8"], "T"), (["CD4", "B"], "lymphocyte"), (["CD4", "T"], "T"), (["CD4", "mono"], None), (["B"], "B")],
)
def test_common_parent(labels, parent):
    assert common_parent(labels, PARENTS) == parent


def test_a_circle_of_parents_ends():
    assert common_parent(["a", "b"], {"a": "b", "b": "a"}) in ("a", "b")
    assert common_parent(["a", "c"], {"a": "b", "b": "a"}) is None


def test_sets_are_named_by_label_parent_all_or_unknown():
    classes = ("B", "CD4", "CD8", "mono")
    sets = np.array([[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    matrix = np.array([[0, 1, 0, 0], [0, 0.4, 0.6, 0], [0, 0, 0.3, 0.7], [0.25] * 4])
    assert name_sets(sets, matrix, classes, PARENTS).tolist() == ["CD4", "T", "mono | CD8", "unknown"]


def test_parents_come_from_columns_and_must_be_a_hierarchy():
    obs = pd.DataFrame({"coarse": ["T", "T", "B"], "fine": ["CD4", "CD8", "B"]})
    assert parents_of(obs, ["coarse", "fine"]) == {"CD4": "T", "CD8": "T"}
    with pytest.raises(NoLabels, match="not a hierarchy"):
        parents_of(pd.DataFrame({"coarse": ["T", "B"], "fine": ["x", "x"]}), ["coarse", "fine"])
    with pytest.raises(NoLabels, match="no column"):
        parents_of(obs, ["coarse", "finer"])


def test_coverage_across_groups_is_that_of_each_alone():
    """Three groups that are alike are covered as declared; one whose classes are mixed up is not, and shows."""
    rng = np.random.default_rng(0)

    def group(wrong):
        matrix = rng.dirichlet([0.3] * 4, size=2000)
        true = (rng.random((2000, 1)) > matrix.cumsum(axis=1)).sum(axis=1)
        return matrix, np.where(rng.random(2000) < wrong, rng.integers(0, 4, 2000), true)

    alike = coverage_across([group(0.0) for _ in range(3)])
    low, _ = binom.interval(1 - 1e-9, 2000, 0.9)
    assert len(alike) == 3 and all(share >= low / 2000 for share in alike)
    mixed = coverage_across([group(0.0), group(0.0), group(0.6)])
    assert mixed[2] < 0.85 < mixed[0]
    assert np.isnan(coverage_across([group(0.0)])).all()


@given(st.floats(0.05, 0.9), st.integers(0, 100))
def test_cells_that_differ_by_rounding_fit_equally_well(probability, seed):
    """A vote that is the same for all cells excludes none: the last bits of float32 must not decide."""
    noise = np.random.default_rng(seed).integers(-2, 3, 60) * np.spacing(np.float32(1.0))
    scores = (1 - probability + noise).astype(np.float32)
    pvalues = conformal_pvalues(np.array([[probability]], np.float32), scores, np.zeros(60, int))
    assert pvalues[0, 0] == 1
