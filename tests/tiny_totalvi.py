"""A tiny TOTALVI model with random weights, set up on AnnData or on MuData, with its cells beside it."""

from collections import OrderedDict

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata.io import write_elem
from scipy.sparse import csr_matrix

from scgraft.model.families.totalvi import read_hyper, tensors
from scgraft.values.blocks import PROTEINS, Block
from scgraft.values.reference import Schema

GENES = [f"g{i}" for i in range(20)]
NAMES = ["CD3_TotalSeqB", "CD4_TotalSeqB", "CD19_TotalSeqB", "IgG1_control_TotalSeqB"]
TYPES = ("T", "B", "NK")


def field(attr_name, attr_key, state, mod=None):
    place = {"attr_name": attr_name, "attr_key": attr_key} | ({"mod_key": mod} if mod else {})
    return {"data_registry": place, "state_registry": state, "summary_stats": {}}


def draw(n, batches, *, seed=1):
    """Cells with genes in X, and proteins in obsm under the reference's names."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    kind = rng.permutation(np.arange(n) % len(TYPES))
    rate = np.exp(shared.standard_normal((len(TYPES), len(GENES))))[kind]
    signal = np.exp(1 + 2 * shared.random((len(TYPES), len(NAMES))))[kind]
    names = pd.Index([f"c{seed}_{i}" for i in range(n)])
    obs = pd.DataFrame(
        {"batch": np.array(batches)[np.arange(n) % len(batches)], "cell_type": np.array(TYPES)[kind]}, index=names
    )
    x = csr_matrix(rng.poisson(5 * rate).astype(np.float32))
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES))
    adata.obsm["protein_expression"] = pd.DataFrame(rng.poisson(signal).astype(np.float32), index=names, columns=NAMES)
    return adata


def write_h5mu(adata, path):
    """The cells as a MuData file, its second modality the proteins."""
    own = adata.obsm["protein_expression"]
    parts = {
        "rna": anndata.AnnData(adata.X, obs=pd.DataFrame(index=adata.obs_names), var=adata.var),
        "prot": anndata.AnnData(own.to_numpy(), obs=pd.DataFrame(index=own.index), var=pd.DataFrame(index=own.columns)),
    }
    with h5py.File(path, "w") as file:
        write_elem(file, "obs", adata.obs)
        write_elem(file, "var", pd.DataFrame(index=[*GENES, *own.columns]))
        modalities = file.create_group("mod")
        for name, part in parts.items():
            write_elem(modalities, name, part)
        file["mod"].attrs["mod-order"] = list(parts)
    return path


def write_totalvi_folder(folder, *, mudata=False, version="1.4.2", masked=False, seed=0):
    """``model.pt`` and ``adata.h5ad`` or ``mdata.h5mu``; a version before 1.3.1 has no efficiency."""
    folder.mkdir(parents=True)
    schema = Schema(np.array(GENES), "batch", ("b0", "b1"), blocks=(Block(PROTEINS, tuple(NAMES)),))
    options = {"n_latent": 4, "n_hidden": 8, "scvi_version": version}
    new = tuple(map(int, version.split("."))) >= (1, 3, 1)
    hyper = read_hyper(options, {"log_per_batch_efficiency": np.zeros(1)} if new else {}, schema)
    hyper = type(hyper)(**{**hyper.__dict__, "n_latent": 4, "n_hidden": 8})
    rng, state = np.random.default_rng(seed), OrderedDict()
    expected = tensors(hyper, schema)
    for key, shape in (expected.needed | expected.spare).items():
        if key.startswith("library") or key.endswith("num_batches_tracked"):
            continue
        values = rng.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 else 1)
        values = rng.uniform(0.5, 1.5, shape) if key.endswith(("running_var", ".1.weight")) else values
        values = values * (0.1 if "log_beta" in key else 1.0)  # its exponential is a standard deviation of a logarithm
        state[key] = torch.tensor(values, dtype=torch.float32)
    mod = "prot" if mudata else None
    proteins = {"column_names": np.array(NAMES, object)}
    if masked:
        proteins["protein_batch_mask"] = {"0": np.matrix([True, True, False, True]), "1": np.matrix([True] * 4)}
    registry = {
        "scvi_version": version, "model_name": "TOTALVI",
        "setup_method_name": "setup_mudata" if mudata else "setup_anndata", "setup_args": {"batch_key": "batch"},
        "field_registries": {
            "X": field("X", None, {"column_names": np.array(GENES, object)}, "rna" if mudata else None),
            "labels": field("obs", "_scvi_labels", {"categorical_mapping": np.array([0]), "original_key": "_scvi_labels"}),
            "batch": field("obs", "_scvi_batch", {"categorical_mapping": np.array(["b0", "b1"], object), "original_key": "batch"}),
            "proteins": field("X" if mudata else "obsm", None if mudata else "protein_expression", proteins, mod),
        },
    }  # fmt: skip
    init = {"non_kwargs": {"n_latent": 4}, "kwargs": {"model_kwargs": {"n_hidden": 8}}}
    names = {"rna": np.array(GENES, object), "prot": np.array(NAMES, object)} if mudata else np.array(GENES, object)
    attributes = {"registry_": registry, "init_params_": init, "is_trained_": True}
    torch.save({"model_state_dict": state, "var_names": names, "attr_dict": attributes}, folder / "model.pt")
    cells = draw(60, ("b0", "b1"), seed=0)
    if masked:
        cells.obsm["protein_expression"].loc[(cells.obs["batch"] == "b0").to_numpy(), NAMES[2]] = 0
    if mudata:
        write_h5mu(cells, folder / "mdata.h5mu")
    else:
        cells.write_h5ad(folder / "adata.h5ad")
    return folder
