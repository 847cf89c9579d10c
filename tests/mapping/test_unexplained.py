"""A check says nothing well that the verdict of the same query then calls bad."""

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

import scgraft
from case_files import case, hub_reference
from scgraft.judgement.lines import FOUND
from scgraft.mapping.unexplained import _findings
from scgraft.values.novelty import Novelty
from shared_files import shared

# What the verdict says of the same thing as a finding of the check does.
LINES = {"unknown cells": ("novelty", "reconstruction", "mixtures", "ambient"), "genes": ("genes",)}


def pbmc(n=400):
    adata = anndata.read_h5ad(shared("query", "pbmc-10x-scanvi.h5ad"))
    return adata[np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:n])].copy()


def with_counts(adata, counts):
    out = adata.copy()
    out.X = csr_matrix(counts.astype(np.float32))
    return out


def shallow(adata):
    """100 counts a cell."""
    counts = adata.X.toarray().astype(np.int64)
    kept = np.minimum(100 / counts.sum(axis=1, keepdims=True), 1)
    return with_counts(adata, np.random.default_rng(0).binomial(counts, kept))


def soiled(adata, share=0.6):
    """A share of every cell's counts from the mean cell."""
    rng, counts = np.random.default_rng(0), adata.X.toarray().astype(np.int64)
    kept = rng.binomial(counts, 1 - share)
    lost = (counts - kept).sum(axis=1, keepdims=True)
    return with_counts(adata, kept + rng.poisson(lost * counts.sum(axis=0) / counts.sum()))


def stimulated(adata):
    """Forty genes, of those that cells have, ten times as high in all cells, as an interferon would make them."""
    rng, counts = np.random.default_rng(0), adata.X.toarray()
    genes = rng.choice(np.argsort(-counts.sum(axis=0))[50:400], 40, replace=False)
    counts[:, genes] = rng.poisson(10 * counts[:, genes].mean(axis=0) + counts[:, genes])
    return with_counts(adata, counts)


@pytest.mark.parametrize(
    "changed", [shallow, soiled, stimulated, None], ids=["100 UMI", "60 % ambient", "stimulated", "unseen"]
)
def test_no_good_line_of_a_check_is_revoked_by_the_verdict(changed):
    if changed is None:
        reference, adata = hub_reference("lung-lines-scvi"), anndata.read_h5ad(case("only_unseen"))
    else:
        reference, adata = hub_reference("pbmc-10x-scanvi"), changed(pbmc())
    findings = {f.name: f for f in scgraft.check(reference, adata, batch_key="batch").findings}
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    lights = {m.name: m.light for m in mapped.verdict.measures}
    if changed is soiled:
        assert lights["ambient"] == "amber" and "ambient RNA" in findings["unknown cells"].sentence
    for name, lines in LINES.items():
        if name in findings and findings[name].grade == "ok":
            assert not {line: lights[line] for line in lines if lights.get(line) in ("amber", "red")}, findings[
                name
            ].sentence


def novelty(share, *, mixed=0.0, misfit=1.0, soup=0.0, groups=()):
    n = 200
    novel = np.arange(n) < share * n
    zero = np.zeros(n, np.float32)
    mixture = np.where(np.arange(n) < mixed * n, 2.0, 0.5).astype(np.float32)
    return Novelty(zero, misfit, zero, zero, novel, zero, 0.05, np.zeros(n, int), groups, (), mixture, {"b": soup})


@pytest.mark.parametrize(
    ("share", "other", "grade"),
    [
        (0.0, {}, "ok"), (0.05, {}, "ok"),
        (0.06, {}, None), (0.1, {}, None),  # good, but by too little for a sample before the fit
        (0.11, {}, "warning"), (0.0, {"misfit": 3.0}, "warning"), (0.0, {"mixed": 0.2}, "warning"), (0.0, {"soup": 0.3}, "warning"),
    ],
)  # fmt: skip
def test_a_check_says_ok_only_where_every_line_is_good(share, other, grade):
    found = _findings(novelty(share, **other), (1.0, 1.1), (0.0, 0.0))
    assert [f.grade for f in found] == ([] if grade is None else [grade])
    if other:
        assert "no all-clear" in found[0].sentence and found[0].action


def test_genes_of_the_weight_at_which_a_verdict_warns_are_no_good_line():
    from types import SimpleNamespace

    from scgraft.mapping.check import _genes

    for weight, grade in ((FOUND + 0.01, "ok"), (FOUND, "warning")):
        aligned = SimpleNamespace(n_found=9, n_genes=10, found_weight=weight, messages=(), matched_by=("var_names",))
        assert _genes(SimpleNamespace(alignment=aligned)).grade == grade
