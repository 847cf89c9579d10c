"""The sample that a large query is learnt from: the same cells in whatever order they come, in memory and from a file."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import scgraft
from scgraft.judgement import measures
from scgraft.mapping import calibrated, freeze, map, stream
from scgraft.mapping.freeze import choose_sample, strata
from scgraft.numerics.order import name_keys
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.query import AlignOptions
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")
FIT = scgraft.FitConfig(max_steps=3, device="cpu")
MOST = 60


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(1, 60), st.integers(0, 3), st.data())
def test_a_permuted_query_has_the_same_sample(batch, most, seed, data):
    """Also where the batches come in another order, and have other codes."""
    batch, names = np.array(batch), np.array([f"cell {i}" for i in range(len(batch))])
    order = np.array(data.draw(st.permutations(range(len(batch)))))
    recoded = np.array(data.draw(st.permutations(range(5))))
    one = choose_sample(batch, name_keys(names, seed), most=most)
    two = choose_sample(recoded[batch[order]], name_keys(names[order], seed), most=most)
    assert set(names[one]) == set(names[order][two])
    assert (
        np.array_equal(one, np.unique(one))
        and len(one) <= max(most, 0) + 2 * len(np.unique(batch))
        or len(one) == len(batch)
    )


@given(st.integers(0, 20))
def test_each_batch_has_its_share_and_a_small_one_is_not_missed(seed):
    batch = np.repeat([0, 1, 2], [9000, 990, 10])
    chosen = choose_sample(batch, name_keys(np.arange(10_000).astype(str), seed), most=600)
    number = np.bincount(batch[chosen])
    # Half is 100 for each batch, half is 3 % of its cells; the batch of 10 gives all that it has.
    assert number.tolist() == [370, 130, 10]


def test_the_sample_is_random_and_another_seed_gives_another():
    batch, names = np.zeros(20_000, int), np.arange(20_000).astype(str)
    first, second = (choose_sample(batch, name_keys(names, seed), most=2000) for seed in (0, 1))
    assert abs(first.mean() - 10_000) < 5 * 20_000 / np.sqrt(12 * 2000)
    assert abs(len(np.intersect1d(first, second)) - 200) < 5 * np.sqrt(200)


@pytest.fixture
def small(monkeypatch):
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", MOST)
    monkeypatch.setattr(freeze, "CELLS", 50)


@pytest.mark.usefixtures("small")
def test_a_permuted_query_is_mapped_by_the_same_graft(tmp_path):
    """Whole, permuted, and from a file: what is learnt from the sample, and each cell's latent, are the same."""
    reference = reference_of(CONFIG)
    adata = tiny_query(CONFIG, n_cells=160, batches=("big", "small"))
    adata.obs["batch"] = np.where(np.arange(160) < 150, "big", "small")
    order = np.random.default_rng(0).permutation(160)
    one, two = (
        scgraft.map_query(reference, part, batch_key="batch", config=FIT, calibration=None)
        for part in (adata, adata[order].copy())
    )
    assert len(one.latent.cells) == 160
    back = np.argsort(order)
    np.testing.assert_allclose(two.latent.mean[back], one.latent.mean, atol=1e-4)
    np.testing.assert_array_equal(two.labels["cell_type"].label[back], one.labels["cell_type"].label)
    path = tmp_path / "permuted.h5ad"
    adata[order].copy().write_h5ad(path)
    options = AlignOptions("batch")
    surveyed = stream.survey(reference, stream.open_query(reference, path, options), options, seed=FIT.seed)
    query = scgraft.align(reference, adata, batch_key="batch")
    chosen = choose_sample(strata(query.codes), name_keys(query.cells, FIT.seed), most=MOST)
    assert set(surveyed.query.cells) == set(query.cells[chosen]) and len(chosen) < 160


def test_a_permuted_query_has_the_same_labels_novelty_and_verdict(monkeypatch, tmp_path):
    """Also where only some of its cells are measured: these are the same cells. What teaches the classifier: test_adaptation."""
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path))
    for module, name, few in (
        (calibrated, "JUDGED", 25), (measures, "CELLS", 30), (measures, "REFERENCE_CELLS", 40),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, few)
    reference = reference_of(replace(CONFIG, n_cells=120))
    adata = tiny_query(CONFIG, n_cells=150, batches=("one", "two"))
    order = np.random.default_rng(1).permutation(150)
    one, two = (
        scgraft.map_query(reference, part, batch_key="batch", config=FIT) for part in (adata, adata[order].copy())
    )
    back = np.argsort(order)
    np.testing.assert_allclose(two.labels["cell_type"].matrix[back], one.labels["cell_type"].matrix, atol=1e-3)
    np.testing.assert_array_equal(two.novelty.novel[back], one.novelty.novel)
    assert [m.light for m in two.verdict.measures] == [m.light for m in one.verdict.measures]
    np.testing.assert_allclose(
        [m.value for m in two.verdict.measures], [m.value for m in one.verdict.measures], atol=1e-3
    )


@pytest.mark.usefixtures("small")
def test_cells_without_counts_take_no_place_in_the_sample(tmp_path):
    """In memory and from a file: the sample is of the cells that are mapped, also where one batch has all of the empty ones."""
    reference = reference_of(CONFIG)
    adata = tiny_query(CONFIG, n_cells=200, batches=("big", "small"))
    adata.obs["batch"] = np.where(np.arange(200) < 150, "big", "small")
    counts = np.array(adata.X.todense() if hasattr(adata.X, "todense") else adata.X)
    counts[40:90] = 0
    counts[40:50, 0] = 3  # in a gene that the reference does not know
    names = [f"alien {i}" if i == 0 else name for i, name in enumerate(adata.var_names)]
    adata = anndata.AnnData(sparse.csr_matrix(counts), obs=adata.obs, var=pd.DataFrame(index=names))
    adata.write_h5ad(tmp_path / "holes.h5ad")
    options = AlignOptions("batch", drop_empty=True)
    surveyed = stream.survey(
        reference, stream.open_query(reference, tmp_path / "holes.h5ad", options), options, seed=FIT.seed
    )
    query = scgraft.align(reference, adata, batch_key="batch", drop_empty=True)
    chosen = choose_sample(strata(query.codes), name_keys(query.cells, FIT.seed), most=MOST)
    assert surveyed.query.cells.tolist() == query.cells[chosen].tolist() and len(chosen) == MOST
    assert (surveyed.alignment.n_cells, set(surveyed.alignment.dropped)) == (150, set(query.alignment.dropped))
