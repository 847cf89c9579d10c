"""Train the embedded demo reference with scvi-tools, and cut the embedded query.

Run where scvi-tools 1.4.2 is installed: ``python benchmarks/make_demo_reference.py``. The cells are scanpy's packaged
``pbmc68k_reduced``: 700 PBMC, 765 genes, log1p-normalised; the raw counts are recovered exactly. The suffix of a barcode
is its 10x GEM well, which is the batch: wells 1-6 are the reference, 7 and 8 the query.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import scvi
import torch
from scipy import sparse

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "scgraft"
OUT = PACKAGE / "_demo"


def cells() -> anndata.AnnData:
    """All cells with raw counts in X, their well and their label."""
    sys.path.insert(0, str(PACKAGE.parent))
    from scgraft.query.counts import find_counts

    source = sc.datasets.pbmc68k_reduced()
    counts = find_counts(source, layer="raw")
    print(counts.source)
    obs = source.obs[["bulk_labels", "louvain"]].copy()
    obs["bulk_labels"] = obs["bulk_labels"].astype(str).astype("category")
    obs["well"] = [f"well {name.rsplit('-', 1)[1]}" for name in source.obs_names]
    obs["well"] = obs["well"].astype("category")
    adata = anndata.AnnData(sparse.csr_matrix(counts.matrix), obs=obs)
    adata.var_names = counts.genes
    adata.obsm["X_umap"] = source.obsm["X_umap"].astype(np.float32)
    return adata


def main() -> None:
    """Write the reference repository and the query."""
    torch.set_num_threads(1)
    scvi.settings.seed = 0
    adata = cells()
    is_query = adata.obs["well"].isin(["well 7", "well 8"]).to_numpy()
    reference, query = adata[~is_query].copy(), adata[is_query].copy()
    for part in (reference, query):
        part.obs["well"] = part.obs["well"].cat.remove_unused_categories()
    scvi.model.SCVI.setup_anndata(reference, batch_key="well", labels_key="bulk_labels")
    model = scvi.model.SCVI(
        reference,
        n_hidden=80,
        n_layers=2,
        n_latent=10,
        gene_likelihood="nb",
        encode_covariates=True,
        use_layer_norm="both",
        use_batch_norm="none",
    )
    model.train(
        max_epochs=300,
        plan_kwargs={"n_epochs_kl_warmup": 100},
        accelerator="cpu",
        enable_progress_bar=False,
        logger=False,
    )
    qzm, qzv = model.get_latent_representation(return_dist=True)
    reference.obsm["X_latent_qzm"], reference.obsm["X_latent_qzv"] = qzm, qzv
    model.minify_adata()
    with tempfile.TemporaryDirectory() as tmp:
        model.save(tmp, prefix="", overwrite=True, save_anndata=False)
        folder = OUT / "reference"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(Path(tmp) / "model.pt", folder / "model.pt")
    minified = model.adata.copy()
    minified.obs = minified.obs.drop(columns=[c for c in minified.obs if c.startswith("_scvi")])
    minified.write_h5ad(folder / "adata.h5ad", compression="gzip")
    metadata = {
        "scvi_version": scvi.__version__,
        "anndata_version": anndata.__version__,
        "model_cls_name": "SCVI",
        "training_data_url": None,
        "model_parent_module": "scvi.model",
    }
    (folder / "_scvi_required_metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    card = f"""---
library_name: scvi-tools
license: bsd-3-clause
tags:
- biology
- genomics
- single-cell
- model_cls_name:SCVI
- scvi_version:{scvi.__version__}
- anndata_version:{anndata.__version__}
- modality:rna
- tissue:blood
- annotated:True
---

# PBMC, six 10x GEM wells

SCVI on {reference.n_obs} peripheral blood mononuclear cells and {reference.n_vars} genes of scanpy's packaged `pbmc68k_reduced`
(10x Genomics, Zheng et al. 2017, doi:10.1038/ncomms14049), wells 1 to 6; labels `bulk_labels`. The data is minified.
A small model for demonstrations, not for research.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")
    query.obs = query.obs[["well", "bulk_labels"]]
    del query.obsm["X_umap"]
    query.write_h5ad(OUT / "query.h5ad", compression="gzip")
    for path in sorted(OUT.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(OUT)}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
