"""The classifier on genes, and the blend of both votes, against slow versions; how many cells teach it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scgraft.labels.classifier import GENERATED, STORED, few_of_each, predict, training_cells
from scgraft.labels.votes import blend
from scgraft.values.calibration import GeneClassifier

seeds = st.integers(0, 10_000)


def classifier_of(rng, n_classes, n_genes, genes):
    weights = np.where(genes, rng.standard_normal((n_classes, n_genes)), 0).astype(np.float32)
    none = csr_matrix((0, n_genes), dtype=np.float32)
    names = tuple("abcdef"[:n_classes])
    intercept = rng.standard_normal(n_classes).astype(np.float32)
    return GeneClassifier(names, weights, intercept, genes, "made up", none, np.zeros(0, np.int64))


@given(seeds, st.integers(1, 5), st.integers(1, 12), st.sampled_from([1, 5, 1024]))
def test_probabilities_are_the_softmax_of_weighted_log_expression(seed, n_classes, n, block):
    """Per ten thousand counts of the genes used, one cell at a time; how many are held at once changes nothing."""
    rng = np.random.default_rng(seed)
    genes = np.array([True, True, False, True, True, True])
    made, counts = classifier_of(rng, n_classes, 6, genes), rng.poisson(3, (n, 6)).astype(np.float32) + 1
    found = predict(made, csr_matrix(counts), block=block)
    for cell, row in zip(counts, found, strict=True):
        x = np.log1p(cell[genes] / cell[genes].sum() * 1e4)
        score = [w[genes] @ x + b for w, b in zip(made.coefficient, made.intercept, strict=True)]
        slow = np.exp(np.array(score) - max(score))
        assert np.allclose(row, slow / slow.sum(), atol=1e-5)


@given(seeds, st.integers(1, 6), st.integers(1, 8))
def test_the_blend_is_the_product_with_a_floor_of_a_tenth_under_the_neighbours(seed, n_classes, n):
    latent, genes = np.random.default_rng(seed).dirichlet(np.ones(n_classes), (2, n)).astype(np.float32)
    for i, row in enumerate(blend(latent, genes)):
        slow = [(latent[i, c] + 0.1) * genes[i, c] for c in range(n_classes)]
        assert np.allclose(row, np.array(slow) / sum(slow), atol=1e-6)


def test_a_classifier_that_is_sure_overrules_neighbours_by_how_sure_it_is():
    """All neighbours against the genes: eleven to one is the point where they are even."""
    latent = np.array([[1.0, 0.0]] * 2, np.float32)
    genes = np.array([[1 / 11.5, 10.5 / 11.5], [1 / 12.5, 11.5 / 12.5]], np.float32)
    assert blend(latent, genes).argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("recipe", "sizes", "expected"),
    [
        (GENERATED, [500, 100], [1500, 300]),  # three draws of each
        (GENERATED, [100, 20], [300, 300]),  # but 300 of each class at least
        (GENERATED, [8000, 2000], [4000, 1000]),  # and 5,000 in all
        (STORED, [500, 30], [500, 100]),
        (STORED, [16_000, 4000], [4000, 1000]),
        (STORED, [10] * 250, [50] * 250),  # with very many classes 50 of each are enough
        (GENERATED, [10] * 50, [200] * 50),  # with fifty, 10,000 / 50
    ],
)
def test_cells_that_teach_are_as_many_as_the_recipe_says(recipe, sizes, expected):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    drawn = training_cells(codes, 0, recipe)
    assert np.bincount(codes[drawn]).tolist() == expected and (np.diff(drawn) >= 0).all()
    for code, size in enumerate(sizes):  # as evenly as can be: no cell twice before every cell of its class once
        times = np.bincount(drawn[codes[drawn] == code] - np.flatnonzero(codes == code)[0], minlength=size)
        assert times.max() - times.min() <= 1


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([100, 5], 60, [60, 5]),
        ([100] * 50, 60, [40] * 50),  # 2,000 in all
        ([100] * 200, 60, [20] * 200),  # but 20 of each at least
        ([300, 300], 250, [250, 250]),
    ],
)
def test_few_of_each_class_are_its_share_of_two_thousand(sizes, most, expected):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    found = few_of_each(codes, 0, most=most)
    assert np.bincount(codes[found]).tolist() == expected and len(set(found.tolist())) == len(found)
    assert (np.diff(found) > 0).all() and np.array_equal(found, few_of_each(codes, 0, most=most))
