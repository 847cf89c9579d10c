"""A random order of cells by their names, and one by their counts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import chisquare

from scgraft.numerics.order import order_by_content, order_by_name

NAMES = st.lists(st.text(st.characters(exclude_characters="\x00"), min_size=1, max_size=8), unique=True, min_size=1)


@given(NAMES, st.randoms(use_true_random=False), st.integers(0, 5))
def test_the_order_of_the_cells_changes_nothing(names, random, seed):
    shuffled = random.sample(names, len(names))
    one, two = (np.array(n)[order_by_name(np.array(n), seed)] for n in (names, shuffled))
    assert one.tolist() == two.tolist() and set(one.tolist()) == set(names)


@given(NAMES, st.integers(0, 5))
def test_other_cells_do_not_change_the_order_of_these(names, seed):
    """Also not cells with longer names, which make numpy store all of them wider."""
    more = np.array([*names, "a name that is longer than every other"])
    kept = [name for name in more[order_by_name(more, seed)] if name in set(names)]
    assert kept == np.array(names)[order_by_name(np.array(names), seed)].tolist()


def test_names_that_count_up_are_shuffled():
    """Of 20,000 numbered cells the first 2,000 in order are spread evenly over the numbers, and two seeds differ."""
    names = np.array([f"cell_{i}" for i in range(20_000)])
    first, second = (order_by_name(names, seed)[:2000] for seed in (0, 1))
    for chosen in (first, second):
        assert chisquare(np.bincount(chosen // 1000, minlength=20)).pvalue > 1e-4
        assert chisquare(np.bincount(chosen % 10, minlength=10)).pvalue > 1e-4
    assert abs(len(set(first) & set(second)) - 200) < 5 * np.sqrt(200)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_cells_with_the_same_counts_come_to_the_same_place_in_whatever_order_they_are_given(draw, n, genes, seed):
    rng = np.random.default_rng(draw)
    counts = csr_matrix(rng.poisson(0.5, (n, genes)).astype(np.float32))
    mixed = rng.permutation(n)
    one, two = (m[order_by_content(m, seed)].toarray() for m in (counts, counts[mixed]))
    assert np.array_equal(one, two)
    zeros = counts.copy()
    zeros.data[: len(zeros.data) // 2] = 0
    packed = zeros.copy()
    packed.eliminate_zeros()
    assert np.array_equal(order_by_content(zeros, seed), order_by_content(packed, seed))


def test_cells_that_differ_in_one_count_are_shuffled():
    """20,000 cells with one count that counts up, in blocks; the first 2,000 are spread evenly over them, and two seeds differ."""
    counts = csr_matrix(np.arange(1, 20_001, dtype=np.float32)[:, None] * np.array([[1, 0, 1]], np.float32))
    first, second = (order_by_content(counts, seed)[:2000] for seed in (0, 1))
    for chosen in (first, second):
        assert chisquare(np.bincount(chosen // 1000, minlength=20)).pvalue > 1e-4
        assert chisquare(np.bincount(chosen % 10, minlength=10)).pvalue > 1e-4
    assert abs(len(set(first) & set(second)) - 200) < 5 * np.sqrt(200)
