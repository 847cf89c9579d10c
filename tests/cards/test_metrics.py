"""The numbers of a card: scvi-tools' own in legacy style, and the corrected ones against scanpy, scipy and sklearn."""

import json
import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from scgraft.cards.metrics import Agreement, agreement, class_metrics, metrics_from_draws
from scgraft.numerics.lognorm import log_normalised
from scgraft.numerics.ranking import correlation, pr_auc, rank_groups, roc_auc, top_genes
from shared_files import shared


def draws_of(samples, step=64):
    for start in range(0, len(samples), step):
        block = slice(start, min(start + step, len(samples)))
        for i in range(samples.shape[2]):
            yield block, i, samples[block, :, i].astype(np.float32)


def numbers(table):
    """Values of a published table, row by row, without the names."""
    rows = [line.split("|")[2:-1] for line in table.splitlines()[2:]]
    return [[float(re.sub(r"\s", "", cell)) for cell in row] for row in rows]


def test_legacy_numbers_are_those_that_scvi_tools_published():
    folder = shared("golden", "criticism__1.4.2")
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    with np.load(folder / "samples.npz") as file:
        samples, train, validation = file["samples"], file["train"], file["validation"]
    found = metrics_from_draws(
        sparse.csr_matrix(adata.X), draws_of(samples), n_samples=samples.shape[2],
        labels=adata.obs["cell_type"].astype(str), train=train, validation=validation, style="legacy",
    )  # fmt: skip
    tables = json.loads((folder / "cv_tables.json").read_text())
    for row, name in zip(numbers(tables["cell_wise"]), ("mae", "pearson", "spearman", "r2"), strict=True):
        parts = [getattr(found.cell_wise[part], name) for part in ("training", "validation")]
        assert [round(value, 2) for value in parts] == row
    for row, name in zip(numbers(tables["gene_wise"]), ("mae", "pearson", "spearman", "r2"), strict=True):
        assert [round(getattr(found.gene_wise, name), 2)] == row
    expected = pd.read_csv(folder / "diff_exp.csv", index_col="group")
    assert list(found.diff_exp) == expected.sort_values("n_cells", ascending=False).index.tolist()
    for group, row in found.diff_exp.items():
        for name in ("gene_f1", "lfc_mae", "lfc_pearson", "lfc_spearman", "roc_auc", "pr_auc", "n_cells"):
            assert getattr(row, name) == pytest.approx(expected.loc[group, name], abs=2e-5), (group, name)


def test_the_corrected_numbers_of_the_same_case_differ_where_they_should():
    folder = shared("golden", "criticism__1.4.2")
    adata = anndata.read_h5ad(folder / "adata.h5ad")
    with np.load(folder / "samples.npz") as file:
        samples = file["samples"]
    options = {"n_samples": samples.shape[2], "labels": adata.obs["cell_type"].astype(str)}
    counts = sparse.csr_matrix(adata.X)
    legacy = metrics_from_draws(counts, draws_of(samples), style="legacy", **options)
    fair = metrics_from_draws(counts, draws_of(samples), **options)
    cell = pd.read_csv(folder / "cv_cell.csv")
    assert fair.cell_wise["all"].r2 == pytest.approx(r2_score(cell["Raw"], cell["model"]), abs=1e-4)
    assert legacy.cell_wise["all"].r2 == pytest.approx(r2_score(cell["model"], cell["Raw"]), abs=1e-4)
    assert fair.cell_wise["all"].pearson == pytest.approx(legacy.cell_wise["all"].pearson)
    assert fair.style == "corrected" and list(fair.diff_exp) == list(legacy.diff_exp)


def simulated(seed=0, n=400, genes=60):
    rng = np.random.default_rng(seed)
    labels = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    profile = np.exp(rng.standard_normal((3, genes)))
    rate = profile[np.unique(labels, return_inverse=True)[1]]
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), labels, rate, rng


def test_a_perfect_model_has_perfect_numbers_and_a_shuffled_one_has_none():
    counts, labels, rate, rng = simulated()
    same = metrics_from_draws(counts, draws_of(counts.toarray()[:, :, None]), n_samples=1, labels=labels)
    assert same.gene_wise == Agreement(pytest.approx(0, abs=1e-9), *[pytest.approx(1)] * 3)
    assert all(
        row.gene_f1 == 1 and row.roc_auc == 1 and row.pr_auc == pytest.approx(1) for row in same.diff_exp.values()
    )
    good = metrics_from_draws(counts, draws_of(rng.poisson(rate)[:, :, None]), n_samples=1, labels=labels)
    assert good.gene_wise.r2 > 0.9 and min(row.roc_auc for row in good.diff_exp.values()) > 0.9
    shuffled = rng.permuted(rate, axis=0)
    poor = metrics_from_draws(counts, draws_of(rng.poisson(shuffled)[:, :, None]), n_samples=1, labels=labels)
    assert max(row.lfc_pearson for row in poor.diff_exp.values()) < 0.6


def test_a_gene_that_is_lower_in_a_class_is_a_hit():
    """What the published area gets wrong: half of the true genes have the most negative scores."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 300)
    rate = np.ones((600, 100)) * 3
    rate[:300, :10] *= 0.3
    rate[:300, 10:20] *= 1.7
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    drawn = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    fair, legacy = (class_metrics(counts, drawn, labels, style)["a"] for style in ("corrected", "legacy"))
    assert fair.roc_auc > 0.95 and fair.pr_auc > 0.9
    assert legacy.roc_auc < 0.7


@pytest.mark.parametrize(("test", "options"), [("t-test", {}), ("wilcoxon", {"tie_correct": True})])
def test_rankings_equal_scanpys(test, options):
    counts, labels, _, _ = simulated(3)
    adata = anndata.AnnData(
        counts.copy(), obs=pd.DataFrame({"label": pd.Categorical(labels)}, index=map(str, range(400)))
    )
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    assert np.allclose(log_normalised(counts).toarray(), adata.X.toarray(), rtol=1e-5)
    adata.X = log_normalised(counts)  # equal to the last bit, so that ties are the same
    sc.tl.rank_genes_groups(adata, "label", method=test, use_raw=False, **options)
    classes, codes = np.unique(labels, return_inverse=True)
    for name, own in zip(classes, rank_groups(log_normalised(counts), codes, 3, test=test), strict=True):
        table = sc.get.rank_genes_groups_df(adata, group=name).set_index("names").loc[adata.var_names]
        assert np.allclose(own.score, table["scores"], rtol=1e-4, atol=1e-4)
        assert np.allclose(own.log2_change, table["logfoldchanges"], rtol=1e-4, atol=1e-4)
        assert np.allclose(own.adjusted, table["pvals_adj"], rtol=1e-3, atol=1e-12)


def test_a_group_of_one_cell_is_left_out():
    counts, labels, _, _ = simulated()
    labels = labels.astype(object)
    labels[0] = "alone"
    found = class_metrics(counts, counts, labels.astype(str), "corrected")
    assert set(found) == {"a", "b", "c"} and list(found.values())[0].n_cells >= list(found.values())[-1].n_cells


scores = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40)


@given(scores)
def test_areas_equal_sklearns(pairs):
    score, truth = np.array([s for s, _ in pairs], float), np.array([t for _, t in pairs])
    if truth.all() or not truth.any():
        assert np.isnan(roc_auc(truth, score))
        return
    assert roc_auc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert pr_auc(truth, score) == pytest.approx(average_precision_score(truth, score))


def test_small_things():
    assert np.isnan(correlation([1, 1], [1, 2])) and correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert top_genes(np.array([0.1, 3, 2, -1]), 2).tolist() == [1, 2]
    empty = agreement(np.array([np.nan, 1.0]), np.array([1.0, 2.0]), "corrected")
    assert np.isnan([empty.mae, empty.r2]).all()
