"""Two types at once: a sum of cells gains from a mixture of types, and a single cell gains what held-out ones do."""

from dataclasses import replace

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import scgraft
from case_files import case
from mixed_cells import drawn, profiles
from scgraft.novelty.mixtures import Profiles, mixture_gain, mixture_limit
from scgraft.numerics.conformal import denser_tail, threshold_at
from scgraft.query.spatial import spatial_messages
from shared_files import shared

seeds = st.integers(0, 10_000)


@given(seeds)
def test_a_sum_of_two_types_gains_and_a_single_cell_does_not(seed):
    rng = np.random.default_rng(seed)
    profile = profiles(rng)
    first, second = rng.choice(4, 2, replace=False)
    single = mixture_gain(drawn(rng, profile[first]), profile)
    double = mixture_gain(drawn(rng, profile[first] + profile[second]), profile)
    assert np.median(double) > single.max() and np.median(single) < 0.2


@given(seeds)
def test_a_gain_is_never_negative_and_knows_no_order(seed):
    rng = np.random.default_rng(seed)
    profile, counts = profiles(rng), rng.poisson(1.0, size=(20, 60)).astype(np.float32)
    gain, types, genes = mixture_gain(counts, profile), rng.permutation(4), rng.permutation(60)
    assert (gain >= 0).all() and np.isfinite(gain).all()
    assert np.allclose(mixture_gain(counts[:, genes], profile[types][:, genes]), gain, atol=1e-4)


@given(seeds, st.integers(1, 30))
def test_a_cell_is_judged_alone_as_in_company(seed, n):
    rng = np.random.default_rng(seed)
    made = Profiles(np.arange(60), profiles(rng), limit=0.1)
    counts = csr_matrix(rng.poisson(1.0, size=(30, 60)).astype(np.float32))
    rows = rng.choice(30, n, replace=False)
    batch = rng.integers(0, 3, 30)
    made = replace(made, soup={1: 0.3 * made.shares[0], 2: 0.1 * made.shares[1]})
    whole = made.strength(counts, batch)
    assert np.allclose(made.strength(counts[rows], batch[rows]), whole[rows], rtol=1e-4, atol=1e-5)
    assert np.allclose(whole, made.gain(counts, batch) / 0.1)


def test_cells_without_counts_and_types_that_are_one_gain_nothing():
    profile = profiles(np.random.default_rng(0))
    assert (mixture_gain(np.zeros((3, 60), np.float32), profile) == 0).all()
    assert (mixture_gain(drawn(np.random.default_rng(0), profile[0]), profile[:1]) < 1e-3).all()


@pytest.mark.parametrize(
    ("obsm", "uns", "obs", "n"),
    [
        (["spatial"], [], [], 1),
        (["X_pca", "X_spatial"], [], [], 1),
        ([], ["spatial"], [], 1),
        ([], ["spatialdata_attrs"], [], 1),
        ([], [], ["in_tissue"], 1),
        (["X_umap"], ["log1p"], ["batch"], 0),
    ],
)
def test_a_spatial_file_is_told_so(obsm, uns, obs, n):
    assert len(spatial_messages(obsm, uns, obs)) == n


def test_spots_of_three_cells_get_no_sure_label():
    """Real cells: a spot of several types is mixed in most cases, single cells are so as seldom as declared."""
    reference = scgraft.load_reference(shared("hub", "cells", "pbmc-10x-scanvi"))
    spots, cells = (
        anndata.read_h5ad(case("spots_of_three")),
        anndata.read_h5ad(shared("query", "pbmc-10x-scanvi.h5ad")),
    )
    several = spots.obs["types"].astype(str).str.contains("+", regex=False).to_numpy()
    mapped = scgraft.map_query(reference, spots, batch_key="batch")
    (labels,) = [made for key, made in mapped.labels.items() if not key.endswith("_classifier")]
    lights = {m.name: m.light for m in mapped.verdict.measures}
    # Seen: .80 and .83 of the 251 spots of several types, and .10 of the 49 of one type.
    assert mapped.novelty.mixed[several].mean() > 0.75 and lights["mixtures"] == "red"
    assert labels.unknown[several].mean() > 0.78 and labels.unknown[~several].mean() < 0.2
    assert any("spatial" in message for message in mapped.alignment.messages)
    single = scgraft.map_query(reference, cells[::4].copy(), batch_key="batch")
    assert single.novelty.mixed.mean() < 0.04  # .02 is declared; 4 of these 284 cells were seen


def test_where_most_spots_are_mixtures_one_is_called_by_what_is_likelier():
    rng = np.random.default_rng(0)
    held, single, double = rng.exponential(0.2, 5000), rng.exponential(0.2, 300), rng.normal(0.9, 0.3, 700)
    every = np.concatenate([single, double])
    strict, most = mixture_limit(single, held, spatial=True), mixture_limit(every, held, spatial=True)
    assert strict == threshold_at(held, 0.02) == mixture_limit(every[:400], held, spatial=True)
    assert strict == mixture_limit(every, held, spatial=False)
    assert most < strict and (double > most).mean() > (double > strict).mean() + 0.05
    # Beyond the limit lies exp(-limit / .2) of such cells, .052; of these 300 it is .043.
    assert (single > most).mean() == pytest.approx(np.exp(-most / 0.2), abs=0.02)


@given(seeds, st.integers(1, 40), st.integers(1, 40), st.floats(1.1, 5))
def test_a_denser_tail_is_the_one_that_a_slow_search_finds(seed, n, m, ratio):
    """The last corner of the majorant with a slope of the ratio: no later point is reached by as steep a line from any point before."""
    rng = np.random.default_rng(seed)
    values, null = rng.integers(0, 12, n) / 4, rng.integers(0, 12, m) / 4
    found = denser_tail(values, null, ratio)
    exceed = np.array([(1 + (null >= v).sum()) / (m + 1) for v in values])
    points = np.array([(0, 0), *sorted({(p, (exceed <= p).mean()) for p in exceed} | {(1.0, 1.0)})])
    height = (
        points[:, 1] - ratio * points[:, 0]
    )  # the last corner before the slope falls below the ratio is the highest point
    last = points[np.flatnonzero(height >= height.max() - 1e-12)[-1], 0]
    assert ((values > found) == (exceed <= last)).all()


def test_nothing_is_denser_where_there_is_nothing():
    assert denser_tail(np.zeros(0), np.ones(3), 2) == denser_tail(np.ones(3), np.zeros(0), 2) == float("inf")


def test_lines_of_which_the_reference_has_none_get_no_label():
    """Real cells: what would pass under limits that follow the query is not believed where nearly all of it is unexplained."""
    reference = scgraft.load_reference(shared("hub", "cells", "lung-lines-scvi"))
    mapped = scgraft.map_query(reference, anndata.read_h5ad(case("only_unseen")), batch_key="batch")
    assert mapped.verdict.light == "red" and all(made.unknown.all() for made in mapped.labels.values())
    known = anndata.read_h5ad(shared("query", "lung-lines-scvi.h5ad"))
    known = known[known.obs["cell_type"].isin(set(reference.obs["cell_type"]))].copy()
    mapped = scgraft.map_query(reference, known, batch_key="batch")
    assert all(made.unknown.mean() < 0.2 for made in mapped.labels.values())
