"""Ambient RNA is in every cell of a batch: its share is read from the cells, and it makes no mixture of a single one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from mixed_cells import drawn, profiles
from scgraft.novelty.ambient import ambient_share, with_ambient
from scgraft.novelty.mixtures import Profiles

seeds = st.integers(0, 10_000)
LARGE = [0.4, 0.3, 0.2, 0.1]


def cells(rng, profile, share, *, n=200, doubles=0, depth=1500):
    """Cells of four types, the last of them sums of two, with a share of their counts from what all cells are."""
    types = rng.choice(len(profile), n, p=LARGE)
    own = profile[types].astype(float)
    other = (types + 1) % len(profile)
    own[n - doubles :] = (own[n - doubles :] + profile[other[n - doubles :]]) / 2
    soup = (np.array(LARGE) @ profile).astype(float)
    return csr_matrix(np.concatenate([drawn(rng, (1 - share) * one + share * soup, 1, depth) for one in own]))


@given(seeds, st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4]))
def test_the_share_that_was_added_is_found(seed, share):
    rng = np.random.default_rng(seed)
    profile = profiles(rng, n_genes=120)
    counts = cells(rng, profile, share)
    found = ambient_share(counts, profile, np.array(LARGE) @ profile)
    assert abs(found - share) <= 0.1
    order = rng.permutation(200)
    assert ambient_share(counts[order], profile, np.array(LARGE) @ profile) == found


@given(seeds)
def test_single_cells_with_ambient_rna_are_no_mixtures_and_doublets_still_are(seed):
    rng = np.random.default_rng(seed)
    profile = profiles(rng, n_genes=120)
    made = Profiles(np.arange(120), profile)
    counts, batch, double = cells(rng, profile, 0.3, doubles=20), np.zeros(200, np.int64), np.arange(200) >= 180
    held = made.gain(cells(rng, profile, 0.0), batch)
    limit = np.quantile(held, 0.98)
    before, after = (one.gain(counts, batch) > limit for one in (made, with_ambient(made, counts, batch)))
    assert before[~double].mean() > 0.3  # what it is there for
    assert after[~double].mean() < 0.12 and after[double].mean() > 0.8


def test_each_batch_has_its_own_share_and_small_ones_none():
    rng = np.random.default_rng(0)
    profile = profiles(rng, n_genes=120)
    made = Profiles(np.arange(120), profile)
    counts = csr_matrix(
        np.concatenate([cells(rng, profile, a, n=n).toarray() for a, n in ((0.3, 200), (0, 200), (0.3, 19))])
    )
    batch = np.repeat([7, 3, 5], [200, 200, 19])
    found = with_ambient(made, counts, batch)
    assert set(found.soup) == {3, 7} and found.soup[3].sum() == 0 and found.soup[7].sum() == pytest.approx(0.3, abs=0.1)
    rows = batch != 7
    assert np.array_equal(found.gain(counts[rows], batch[rows]), made.gain(counts[rows], batch[rows]))
    assert with_ambient(made, csr_matrix((30, 120), dtype=np.float32), np.zeros(30, np.int64)).soup == {}


def test_a_query_of_one_type_has_no_ambient_rna_of_its_own():
    rng = np.random.default_rng(0)
    profile = profiles(rng, n_genes=120)
    counts = csr_matrix(drawn(rng, profile[1], 100))
    made = with_ambient(Profiles(np.arange(120), profile), counts, np.zeros(100, np.int64))
    assert made.gain(counts, np.zeros(100, np.int64)).max() < 0.5
    assert replace(made, soup={}).gain(counts, np.zeros(100, np.int64)).max() < 0.5
