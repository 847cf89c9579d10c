"""Makes the small references of two tutorials: a TOTALVI model (CITE-seq) and a scPoli model, with their cells and a query each.

::

    python tutorials/make_references.py cite      # needs scvi-tools 1.4
    python tutorials/make_references.py scpoli    # needs scArches 0.6

The cells are drawn (seeded): five types of blood cells, whose genes and surface proteins have made-up levels, from three donors with
effects of their own, and a query of a fourth donor. They show how the commands are used, and not how well any model does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

DATA = Path(__file__).resolve().parent / "data"
TYPES = ("CD4 T", "CD8 T", "B", "NK", "Monocyte")
COARSE = ("T", "T", "B", "NK", "Monocyte")
PROTEINS = ("CD3", "CD4", "CD8a", "CD19", "CD56", "CD14", "CD16", "CD45RA")
# Which types carry which protein, in the order of TYPES.
CARRIED = ("11000", "10001", "01010", "00100", "00010", "00001", "00011", "11110")
N_GENES, SHARED_GENES = 100, 0.8
CELLS, QUERY = 90, 100  # of each donor of the reference, and of the query


def draw(n, donor, rng, *, novel=0):
    """Cells of one donor, with proteins in obsm; the last `novel` are plasma cells, a type of its own."""
    fixed = np.random.default_rng(7)
    base = fixed.gamma(0.5, 2.0, N_GENES)
    own = base * np.exp(SHARED_GENES * fixed.standard_normal((len(TYPES) + 1, N_GENES)))
    own[1] = own[0] * np.exp(0.5 * fixed.standard_normal(N_GENES))  # T cells are like each other
    kind = rng.integers(len(TYPES), size=n)
    kind[n - novel :] = len(TYPES)
    effect = np.exp(0.2 * np.random.default_rng([8, donor]).standard_normal(N_GENES))
    share = own[kind] * effect
    share /= share.sum(axis=1, keepdims=True)
    depth = np.exp(rng.normal(6.2, 0.3, n))[:, None]
    counts = rng.poisson(rng.gamma(8.0, share * depth / 8.0))
    carried = np.array([[int(c) for c in row] + [0] for row in CARRIED]).T[kind]
    level = np.array([60, 80, 90, 50, 30, 70, 25, 40]) * np.exp(
        0.2 * np.random.default_rng([9, donor]).standard_normal(8)
    )
    proteins = rng.poisson(
        3 * np.exp(0.3 * rng.standard_normal((n, 1))) + carried * rng.gamma(5.0, level / 5.0, (n, 8))
    )
    names = [*TYPES, "Plasma"], [*COARSE, "B"]
    obs = pd.DataFrame(
        {"donor": f"donor {donor}", "cell_type": np.array(names[0])[kind], "coarse": np.array(names[1])[kind]},
        index=[f"d{donor}_{i}" for i in range(n)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(N_GENES)])
    adata = anndata.AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    adata.obsm["protein"] = pd.DataFrame(proteins.astype(np.int16), index=obs.index, columns=PROTEINS)
    return adata


def reference_cells():
    """Cells of three donors."""
    rng = np.random.default_rng(1)
    return anndata.concat([draw(CELLS, donor, rng) for donor in (1, 2, 3)])


def make_cite(folder):
    """A TOTALVI model, its cells, and a query."""
    import scvi

    scvi.settings.seed = 0
    cells, query = reference_cells(), draw(QUERY, 4, np.random.default_rng(2))
    scvi.model.TOTALVI.setup_anndata(cells, batch_key="donor", protein_expression_obsm_key="protein")
    model = scvi.model.TOTALVI(cells, n_latent=8, n_hidden=24)
    model.train(max_epochs=200, batch_size=64, early_stopping=False, accelerator="cpu", enable_progress_bar=False)
    model.save(str(folder), overwrite=True)
    write(cells, folder / "adata.h5ad")
    write(query, folder.parent / "cite_query.h5ad")


def make_scpoli(folder):
    """A scPoli model with two levels of labels, its cells, and a query that holds a type of its own."""
    import torch
    from scarches.models.scpoli import scPoli

    torch.manual_seed(0)
    cells, query = reference_cells(), draw(QUERY, 4, np.random.default_rng(3), novel=20)
    cells.X = cells.X.toarray()
    model = scPoli(
        adata=cells, condition_keys="donor", cell_type_keys=["cell_type", "coarse"], embedding_dims=3, hidden_layer_sizes=[24],
        latent_dim=8, recon_loss="nb",
    )  # fmt: skip
    model.train(n_epochs=300, pretraining_epochs=240, eta=20, batch_size=64)
    model.save(str(folder), overwrite=True)
    cells.X = csr_matrix(cells.X)
    write(cells, folder / "adata.h5ad")
    write(query, folder.parent / "scpoli_query.h5ad")


def write(adata, path):
    """The cells without what a package noted in them."""
    made = anndata.AnnData(
        adata.X.astype(np.float32), obs=adata.obs[["donor", "cell_type", "coarse"]], var=adata.var[[]]
    )
    if "cite" in path.as_posix():
        made.obsm["protein"] = adata.obsm["protein"]
    made.write_h5ad(path, compression="gzip", compression_opts=9)


if __name__ == "__main__":
    kind = sys.argv[1]
    DATA.mkdir(exist_ok=True)
    {"cite": make_cite, "scpoli": make_scpoli}[kind](DATA / kind)
