"""Train the references of benchmarks/trust.py that lack some cell types on purpose.

Run where scvi-tools 1.4.2 is installed: ``python benchmarks/make_trust_references.py DATA OUT``, with DATA the folder of
labelled cells. Each reference is minified, as on the hub; the query beside it holds the left-out types too.
"""

import json
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
import scanpy as sc
import scvi
import torch

# name: file, batches of the reference (a share: a random part of the cells), types left out of it, label column
SPLITS = {
    "pbmc-v1-out": ("pbmc_10x_4batch", ("10x_V2", "10x_V3", "10x_VDJ"), ("DC", "Platelet"), "cell_type"),
    "pbmc3k-no-nk": ("pbmc3k_labelled", 0.6, ("NK", "Platelet"), "cell_type"),
    "endocrine-no-epsilon": ("mouse_endocrinogenesis_e15", 0.6, ("Epsilon",), "cell_type"),
    "pancreas-no-gamma": (
        "pancreas_segerstolpe_1k",
        ("Non_T2D_1", "Non_T2D_3", "Non_T2D_4", "Non_T2D_5"),
        ("gamma", "mast"),
        "cell_type",
    ),
}


def split(data: Path, name: str) -> tuple[anndata.AnnData, anndata.AnnData]:
    file, batches, left_out, _ = SPLITS[name]
    adata = anndata.read_h5ad(data / f"{file}.h5ad")
    if isinstance(batches, float):
        inside = np.random.default_rng(0).random(adata.n_obs) < batches
    else:
        inside = adata.obs["batch"].isin(batches).to_numpy()
    known = ~adata.obs["cell_type"].isin(left_out).to_numpy()
    reference, query = adata[inside & known].copy(), adata[~inside].copy()
    if isinstance(batches, float):
        query.obs["batch"] = "query"
    top = min(2000, adata.n_vars)
    logged = sc.pp.log1p(sc.pp.normalize_total(reference, target_sum=1e4, copy=True), copy=True)
    sc.pp.highly_variable_genes(logged, n_top_genes=top)
    reference = reference[:, logged.var["highly_variable"]].copy()
    reference = reference[np.asarray(reference.X.sum(1)).ravel() > 0].copy()
    for part in (reference, query):
        for column in part.obs.select_dtypes("category"):
            part.obs[column] = part.obs[column].cat.remove_unused_categories()
    return reference, query


def train(reference: anndata.AnnData, out: Path) -> None:
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(reference, batch_key="batch", labels_key="cell_type")
    model = scvi.model.SCVI(
        reference,
        n_layers=2,
        n_latent=10,
        gene_likelihood="nb",
        encode_covariates=True,
        use_layer_norm="both",
        use_batch_norm="none",
    )
    model.train(max_epochs=120, accelerator="cpu", enable_progress_bar=False, logger=False)
    mean, variance = model.get_latent_representation(return_dist=True)
    reference.obsm["X_latent_qzm"], reference.obsm["X_latent_qzv"] = mean, variance
    model.minify_adata()
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, overwrite=True, save_anndata=False)
        (out / "model.pt").write_bytes((Path(folder) / "model.pt").read_bytes())
    minified = model.adata.copy()
    minified.obs = minified.obs.drop(columns=[c for c in minified.obs if c.startswith("_scvi")])
    minified.uns.pop("source", None)
    minified.write_h5ad(out / "adata.h5ad", compression="gzip")
    metadata = {
        "scvi_version": scvi.__version__,
        "anndata_version": anndata.__version__,
        "model_cls_name": "SCVI",
        "training_data_url": None,
        "model_parent_module": "scvi.model",
    }
    (out / "_scvi_required_metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    (out / "README.md").write_text(f"---\nlibrary_name: scvi-tools\n---\n\n{out.name}\n", encoding="utf-8")


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    for name in SPLITS:
        if (out / name).exists():
            continue
        reference, query = split(data, name)
        query.uns.pop("source", None)
        print(name, reference.shape, query.shape, flush=True)
        query.write_h5ad(out / f"{name}.h5ad", compression="gzip")
        train(reference, out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
