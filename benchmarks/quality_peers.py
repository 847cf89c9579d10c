"""Methods without a variational autoencoder, for the quality benchmark: they see the reference's own counts.

Run by `quality.py` where celltypist and symphonypy are installed, with one argument: a JSON file of jobs.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc

METHODS = ("logistic", "celltypist", "symphony")


def prepared(path: Path, genes: list[str] | None = None) -> anndata.AnnData:
    """Cells in log1p(CP10k); total counts are over the genes that are used."""
    adata = anndata.read_h5ad(path)
    if genes is not None:
        adata = adata[:, genes].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def logistic(reference: anndata.AnnData, query: anndata.AnnData) -> dict[str, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500, C=0.1).fit(reference.X, reference.obs["cell_type"].astype(str))
    return {"classes": model.classes_.astype(str), "probability": model.predict_proba(query.X)}


def celltypist(reference: anndata.AnnData, query: anndata.AnnData) -> dict[str, np.ndarray]:
    import celltypist as ct

    ct.logger.set_level(40)
    model = ct.train(reference, labels="cell_type", check_expression=False, n_jobs=1, max_iter=200)
    probability = ct.annotate(query, model=model).probability_matrix
    return {"classes": probability.columns.to_numpy().astype(str), "probability": probability.to_numpy()}


def symphony(reference: anndata.AnnData, query: anndata.AnnData) -> dict[str, np.ndarray]:
    import symphonypy as sp

    reference, query = reference.copy(), query.copy()
    reference.var["highly_variable"] = True
    sc.pp.scale(reference, max_value=10)
    sc.pp.pca(reference, n_comps=20, zero_center=False)
    several = reference.obs["batch"].nunique() > 1
    if several:
        sp.pp.harmony_integrate(reference, key="batch", verbose=False)
    else:
        reference.obsm["X_pca_harmony"] = reference.obsm["X_pca"]
        sp.pp.harmony_integrate(reference, key="batch", verbose=False)
    sp.tl.map_embedding(query, reference, key="batch" if query.obs["batch"].nunique() > 1 else None)
    sp.tl.transfer_labels_kNN(query, reference, "cell_type")
    return {
        "latent": np.asarray(query.obsm["X_pca_harmony"]),
        "reference": np.asarray(reference.obsm["X_pca_harmony"]),
        "label": query.obs["cell_type"].to_numpy().astype(str),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        reference = prepared(Path(job["reference"]) / "cells.h5ad")
        for query_folder in map(Path, job["queries"]):
            out = query_folder / "none"
            out.mkdir(exist_ok=True)
            query = prepared(query_folder / "query.h5ad", list(reference.var_names))
            del query.obs["cell_type"]
            for name in METHODS:
                path = out / f"{name}.npz"
                if path.exists():
                    continue
                began = time.process_time()
                try:
                    content = globals()[name](reference, query)
                except Exception as error:  # noqa: BLE001 - a peer that cannot do a split leaves a hole in the table
                    print(f"FAILED {name} {query_folder}: {type(error).__name__}: {error}", flush=True)
                    continue
                with path.with_suffix(".part").open("wb") as file:
                    np.savez(file, seconds=np.array(time.process_time() - began), **content)
                os.replace(path.with_suffix(".part"), path)
        print(job["reference"], flush=True)


if __name__ == "__main__":
    main()
