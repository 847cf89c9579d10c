"""What the lines of the verdict advise helps where it is followed, on real cells.

`fitting` (map without a fit) and `agreement` on other data are in docs/trust-evidence.md; `preservation`, `reconstruction`, `novelty` and
`state` say what to read, not what to change.
"""

import anndata
import numpy as np
from scipy.sparse import csr_matrix

import scgraft
from case_files import hub_reference
from scgraft.judgement.verdict import AGREEMENT
from shared_files import shared

CELLS = 360


def pbmc():
    adata = anndata.read_h5ad(shared("query", "pbmc-10x-scanvi.h5ad"))
    return adata[np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:CELLS])].copy()


def mapped(adata, *, batch_key="batch"):
    """Light by line, value by line, labels, and which are right."""
    reference = hub_reference("pbmc-10x-scanvi")
    found = scgraft.map_query(reference, adata, batch_key=batch_key)
    labels = found.labels[reference.schema.labels_key]
    lines = {m.name: m for m in found.verdict.measures}
    return lines, labels, labels.label == adata.obs["cell_type"].astype(str).to_numpy(), found


def test_without_its_ambient_rna_a_query_keeps_more_labels():
    adata, rng = pbmc(), np.random.default_rng(0)
    counts = adata.X.toarray().astype(np.int64)
    kept = rng.binomial(counts, 0.6)
    lost = (counts - kept).sum(axis=1, keepdims=True)
    soiled, removed = adata.copy(), adata.copy()
    soiled.X = csr_matrix((kept + rng.poisson(lost * counts.sum(axis=0) / counts.sum())).astype(np.float32))
    removed.X = csr_matrix(kept.astype(np.float32))
    (before, was, _, _), (after, is_, right, _) = mapped(soiled), mapped(removed)
    assert before["ambient"].light == "amber" and "SoupX" in before["ambient"].action
    assert after["ambient"].light == "green"
    assert is_.unknown.mean() < was.unknown.mean() and right[~is_.unknown].mean() > 0.95


def test_without_the_cells_that_are_mixed_a_query_has_fewer_doublets():
    adata, rng = pbmc(), np.random.default_rng(0)
    types, batch, counts = (
        adata.obs["cell_type"].astype(str).to_numpy(),
        adata.obs["batch"].astype(str),
        adata.X.toarray(),
    )
    pairs = rng.integers(0, CELLS, size=(20 * CELLS, 2))
    good = (types[pairs[:, 0]] != types[pairs[:, 1]]) & (
        batch.iloc[pairs[:, 0]].to_numpy() == batch.iloc[pairs[:, 1]].to_numpy()
    )
    first, second = pairs[good][: CELLS // 3].T
    double = anndata.AnnData(
        csr_matrix(counts[first] + counts[second]),
        obs=adata.obs.iloc[first].set_axis([f"double {i}" for i in range(len(first))]),
        var=adata.var.copy(),
    )
    both = anndata.concat([adata, double])
    is_double = np.arange(len(both)) >= CELLS
    before, _, _, found = mapped(both)
    assert before["mixtures"].light == "amber" and "Remove doublets" in before["mixtures"].action
    rest = ~found.novelty.mixed
    after = mapped(both[rest].copy())[0]
    assert after["mixtures"].light == "green" and is_double[rest].mean() < 0.75 * is_double.mean()
    assert rest[~is_double].mean() > 0.95


def test_with_finer_batches_the_votes_agree_more_often_and_where_they_agree_they_are_right():
    adata, rng = pbmc(), np.random.default_rng(0)
    half, counts = rng.random(CELLS) < 0.5, adata.X.toarray()
    factor = rng.lognormal(0, 2.5, adata.n_vars)  # the chemistry of half of the cells
    counts[half] = rng.poisson(counts[half] * factor / np.average(factor, weights=counts.mean(axis=0)))
    adata.X = csr_matrix(counts.astype(np.float32))
    adata.obs["whole"], adata.obs["fine"] = "query", np.where(half, "one", "other")
    glued, labels, right, _ = mapped(adata, batch_key="whole")
    fine, _, better, _ = mapped(adata, batch_key="fine")
    assert "batch_key" in AGREEMENT[3]
    assert fine["agreement"].value > glued["agreement"].value and better.mean() >= right.mean()
    agree = labels.votes["latent"].argmax(axis=1) == labels.votes["genes"].argmax(axis=1)
    assert (~agree).sum() > 10 and right[agree].mean() > right[~agree].mean()
