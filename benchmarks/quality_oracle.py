"""What scvi-tools does, for the quality benchmark: trains references, and maps queries by its own surgery.

Run by `quality.py` where scvi-tools is installed, with one argument: a JSON file of jobs. Each job names its folders;
what exists is not made again.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import scvi
import torch
from lightning.pytorch.callbacks import Callback

EPOCHS, KL_WARMUP, RATE = 150, 50, 2e-3
SNAPSHOTS = (10, 100, 200)
UNLABELLED = "Unknown"


def train_reference(folder: Path, seed: int, models: list[str]) -> None:
    """SCVI, and SCANVI from it, saved unminified for surgery (`full`) and minified as on the hub (`hub`)."""
    wanted = [m for m in models if not (folder / m / "hub" / "adata.h5ad").exists()]
    if not wanted:
        return
    scvi.settings.seed = seed
    adata = anndata.read_h5ad(folder / "cells.h5ad")
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = scvi.model.SCVI(
        adata,
        n_layers=2,
        n_latent=10,
        gene_likelihood="nb",
        encode_covariates=True,
        use_layer_norm="both",
        use_batch_norm="none",
    )
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    model.train(max_epochs=EPOCHS, plan_kwargs={"n_epochs_kl_warmup": KL_WARMUP, "lr": RATE}, **quiet)
    if "SCANVI" in wanted:
        labelled = scvi.model.SCANVI.from_scvi_model(model, UNLABELLED, labels_key="cell_type", adata=adata.copy())
        labelled.train(max_epochs=20, **quiet)
        save(labelled, folder / "SCANVI")
    if "SCVI" in wanted:
        save(model, folder / "SCVI")


def save(model: scvi.model.SCVI, folder: Path) -> None:
    model.save(str(folder / "full"), overwrite=True, save_anndata=False)
    mean, variance = model.get_latent_representation(return_dist=True)
    model.adata.obsm["X_latent_qzm"], model.adata.obsm["X_latent_qzv"] = mean, variance
    model.minify_adata()
    hub = folder / "hub"
    model.save(str(hub), overwrite=True, save_anndata=False)
    family = type(model).__name__
    metadata = {"scvi_version": scvi.__version__, "model_cls_name": family, "model_parent_module": "scvi.model"}
    metadata |= {"anndata_version": anndata.__version__, "training_data_url": None}
    (hub / "_scvi_required_metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    model.adata.write_h5ad(hub / "unfinished.h5ad")
    os.replace(hub / "unfinished.h5ad", hub / "adata.h5ad")


class Snapshots(Callback):
    """Latent, class probabilities and CPU seconds at chosen epochs of one training: none of it depends on the last."""

    def __init__(self, model: scvi.model.SCVI, folder: Path) -> None:
        self.model, self.folder, self.spent, self.mark = model, folder, 0.0, time.process_time()

    def on_train_epoch_end(self, trainer: object, pl_module: object) -> None:
        epoch = trainer.current_epoch + 1  # type: ignore[attr-defined]
        if epoch in SNAPSHOTS:
            self.spent += time.process_time() - self.mark
            self.model.is_trained_ = True
            write(self.model, self.folder / f"scvi-{epoch}.npz", self.spent)
            self.mark = time.process_time()


def write(model: scvi.model.SCVI, path: Path, spent: float) -> None:
    began = time.process_time()
    content = {"latent": model.get_latent_representation()}
    if type(model).__name__ == "SCANVI":
        soft = model.predict(soft=True)
        content |= {"classes": np.array(soft.columns, dtype=str), "probability": soft.to_numpy(np.float32)}
    content["seconds"] = np.array(spent + time.process_time() - began)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, **content)
    os.replace(partial, path)


def practise(folder: Path, query: Path, family: str, seed: int) -> None:
    """Surgery as published: random new columns, then 200 epochs with weight decay 0, looked at on the way."""
    out = query / family
    out.mkdir(exist_ok=True)
    if all((out / f"scvi-{e}.npz").exists() for e in SNAPSHOTS):
        return
    scvi.settings.seed = seed
    adata = anndata.read_h5ad(query / "query.h5ad")
    adata.obs["cell_type"] = UNLABELLED
    cls = getattr(scvi.model, family)
    cls.prepare_query_anndata(adata, str(folder / family / "full"))
    model = cls.load_query_data(adata, str(folder / family / "full"), accelerator="cpu")
    model.is_trained_ = True
    write(model, out / "random.npz", 0.0)
    model.train(
        max_epochs=max(SNAPSHOTS),
        plan_kwargs={"weight_decay": 0.0},
        callbacks=[Snapshots(model, out)],
        accelerator="cpu",
        enable_progress_bar=False,
        logger=False,
        enable_checkpointing=False,
    )


def main() -> None:
    torch.set_num_threads(1)
    scvi.settings.verbosity = 40
    logging.getLogger("lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        began = time.perf_counter()
        folder, seed = Path(job["reference"]), job["seed"]
        try:
            train_reference(folder, seed, job["models"])
            for query, models in job["queries"].items():
                for family in models:
                    practise(folder, Path(query), family, seed)
        except Exception as error:  # noqa: BLE001 - one broken job must not stop the others; it is reported
            print(f"FAILED {folder}: {type(error).__name__}: {error}", flush=True)
        print(f"{folder.parent.name} seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
