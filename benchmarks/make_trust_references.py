"""Train the references of benchmarks/trust.py, some of them without the types that their query has more of.

Run where scvi-tools 1.4.2 is installed: ``python benchmarks/make_trust_references.py DATA OUT``, with DATA the folder of
labelled cells. Each reference is minified, as on the hub; beside it lie the query, and the reference's cells with counts.
"""

import json
import sys
import tempfile
from pathlib import Path

import anndata
import scvi
import torch
from trust_splits import SPLITS, cells_of, folder_name


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
    model.train(max_epochs=60, accelerator="cpu", plan_kwargs={"lr": 3e-3}, enable_progress_bar=False, logger=False)
    mean, variance = model.get_latent_representation(return_dist=True)
    reference.obsm["X_latent_qzm"], reference.obsm["X_latent_qzv"] = mean, variance
    counts = reference.copy()
    counts.obs = counts.obs.drop(columns=[c for c in counts.obs if c.startswith("_scvi")])
    model.minify_adata()
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, overwrite=True, save_anndata=False)
        (out / "model.pt").write_bytes((Path(folder) / "model.pt").read_bytes())
    minified = model.adata.copy()
    minified.obs = minified.obs.drop(columns=[c for c in minified.obs if c.startswith("_scvi")])
    minified.write_h5ad(out / "adata.h5ad", compression="gzip")
    for key in [k for k in counts.uns if k.startswith("_scvi")]:
        del counts.uns[key]
    counts.write_h5ad(out.with_suffix(".cells.h5ad"), compression="gzip")
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
    for split in SPLITS:
        folder = out / folder_name(split.name)
        if folder.exists():
            continue
        reference, query = cells_of(split, data)
        print(split.name, reference.shape, query.shape, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        query.write_h5ad(folder.with_suffix(".h5ad"), compression="gzip")
        train(reference, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
