"""Depth: what must not look like novelty."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from scgraft.novelty.score import at_common_depth, shared_residual

seeds = st.integers(0, 10_000)


@given(seeds)
def test_what_a_model_gets_wrong_stands_out_no_more_in_deep_cells(seed):
    """Poisson counts, every gene's rate wrong by a fifth: the deeper half has no higher score once at a common depth."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(1.0, size=200) + 0.2
    depth = np.repeat([1.0, 1.0, 1.0, 16.0], 50)
    expected = depth[:, None] * rate
    counts = rng.poisson(expected * np.exp(0.2 * rng.standard_normal(200)))
    residual = ((counts - expected) / np.sqrt(expected)).astype(np.float32)
    alone, batch = np.arange(200)[:, None], np.zeros(200, int)
    raw = shared_residual(residual, alone, batch, {})
    made = shared_residual(at_common_depth(residual, csr_matrix(counts)), alone, batch, {})
    deep = depth > 1
    assert np.median(raw[deep]) > 1.2 * np.median(raw[~deep]) and np.median(made[deep]) < np.median(made[~deep])
    assert np.allclose(made[~deep], raw[~deep], rtol=0.5)


def test_cells_of_one_depth_stay_as_they_are():
    residual = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    assert np.array_equal(at_common_depth(residual, csr_matrix(np.full((20, 8), 3.0))), residual)
