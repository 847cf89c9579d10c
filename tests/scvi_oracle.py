"""Runs with an interpreter that has scvi-tools: opens exported folders and writes what scvi-tools makes of them.

``python scvi_oracle.py FOLDER...``: each folder holds ``export/`` and maybe ``counts.h5ad``; ``oracle.npz`` is written.
"""

import sys
import warnings
from pathlib import Path

import anndata
import numpy as np

warnings.filterwarnings("ignore")


def no_spread(adata):
    """The posterior at its mean: scvi-tools always draws from it."""
    for key in adata.obsm:
        if key.endswith("latent_qzv"):
            adata.obsm[key] = np.full_like(adata.obsm[key], 1e-20)
    return adata


def cells_of(folder):
    """The cells, as MuData where each modality has a file ``mod_<number>.h5ad`` of its own."""
    adata, parts = anndata.read_h5ad(folder / "counts.h5ad"), sorted(folder.glob("mod_*.h5ad"))
    if not parts:
        return adata
    import mudata
    import torch

    names = torch.load(folder / "export/model.pt", weights_only=False)["var_names"]
    mudata.set_options(pull_on_update=False)
    mdata = mudata.MuData({name: anndata.read_h5ad(part) for name, part in zip(names, parts, strict=True)})
    mdata.obs = adata.obs.loc[mdata.obs_names]
    return mdata


def main(folder: Path) -> None:
    import json

    import scvi

    name = json.loads((folder / "export/_scvi_required_metadata.json").read_text())["model_cls_name"]
    model_class = getattr(scvi.model, name, None) or getattr(scvi.external, name)
    found = {}
    if (folder / "export/adata.h5ad").exists():
        try:
            from scvi.hub import HubModel
        except ImportError:  # scvi-tools without its extra "hub"
            pass
        else:
            found["hub_cells"] = np.array(HubModel(str(folder / "export")).model.adata.n_obs)
        plain = model_class.load(str(folder / "export"))
        model = model_class.load(
            str(folder / "export"), adata=no_spread(anndata.read_h5ad(folder / "export/adata.h5ad"))
        )
        found["minified"] = np.array(str(model.minified_data_type))
        mean, variance = plain.get_latent_representation(return_dist=True)
        found |= {"latent": mean, "variance": variance}
        found["scale"] = model.get_normalized_expression(return_numpy=True)
        batch = model.registry_["field_registries"]["batch"]["state_registry"]["categorical_mapping"][-1]
        found["scale_last_batch"] = model.get_normalized_expression(return_numpy=True, transform_batch=batch)
        if name == "SCANVI":
            # Its own predict fails on minified cells in 1.4.2: classify() takes no qzm.
            import torch

            with torch.inference_mode():
                logits = plain.module.classifier(torch.as_tensor(mean))
                found["predict"] = torch.softmax(logits, dim=-1).numpy()
    if (folder / "counts.h5ad").exists():
        model = model_class.load(str(folder / "export"), adata=cells_of(folder))
        try:
            mean, variance = model.get_latent_representation(return_dist=True)
        except TypeError:  # PEAKVI, MULTIVI: the mean alone
            found["counts_latent"] = model.get_latent_representation()
        else:
            found |= {"counts_latent": mean, "counts_variance": variance}
        if name == "SCANVI":
            found["counts_predict"] = model.predict(soft=True).to_numpy()
    np.savez(folder / "oracle.npz", **found)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        try:
            main(Path(argument))
        except Exception:  # noqa: BLE001  the test shows the reason of each folder on its own
            import traceback

            Path(argument, "oracle.txt").write_text(traceback.format_exc())
