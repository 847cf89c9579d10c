"""A tiny MULTIVI model with random weights, set up on AnnData or on MuData, with paired and unpaired cells beside it."""

from collections import OrderedDict

import anndata
import h5py
import numpy as np
import pandas as pd
import torch
from anndata.io import write_elem
from scipy.sparse import csr_matrix, hstack

from scgraft.model.families.multivi import read_hyper, tensors
from scgraft.model.kinds import n_proteins
from scgraft.values.blocks import PROTEINS, Block
from scgraft.values.reference import Schema
from tiny_totalvi import field

GENES = [f"gene{i}" for i in range(24)]
REGIONS = [f"chr{1 + i % 3}:{1000 * i}-{1000 * i + 500}" for i in range(30)]
PROTEIN_NAMES = ["CD3", "CD4", "CD19"]
TYPES = ("T", "B", "NK")


def draw(n, batches, *, seed=1, paired=True, proteins=False):
    """Cells with genes and regions in X; with ``paired=False`` every third has genes alone, and every third regions alone."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    kind = rng.permutation(np.arange(n) % len(TYPES))
    rna = rng.poisson(3 * np.exp(1.5 * shared.standard_normal((len(TYPES), len(GENES))))[kind])
    atac = rng.poisson(2 * (shared.random((len(TYPES), len(REGIONS))) < 0.3)[kind] + 0.1)
    if not paired:
        rna[np.arange(n) % 3 == 1] = 0
        atac[np.arange(n) % 3 == 2] = 0
    names = pd.Index([f"c{seed}_{i}" for i in range(n)])
    obs = pd.DataFrame(
        {"batch": np.array(batches)[np.arange(n) // 3 % len(batches)], "cell_type": np.array(TYPES)[kind]}, index=names
    )
    x = hstack([csr_matrix(part.astype(np.float32)) for part in (rna, atac)], format="csr")
    kinds = ["Gene Expression"] * len(GENES) + ["Peaks"] * len(REGIONS)
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame({"feature_types": kinds}, index=[*GENES, *REGIONS]))
    if proteins:
        own = rng.poisson(np.exp(1 + 2 * shared.random((len(TYPES), len(PROTEIN_NAMES))))[kind]).astype(np.float32)
        adata.obsm["prot"] = pd.DataFrame(own, index=names, columns=PROTEIN_NAMES)
    return adata


def modalities(adata, *, genes=True):
    """Modalities of a MuData of the cells; cells without counts of a modality are not in it."""
    found = {}
    for name, columns in (("rna", GENES), ("atac", REGIONS))[not genes :]:
        part = adata[:, columns].copy()
        part = part[np.asarray(part.X.sum(axis=1)).ravel() > 0].copy()
        found[name] = anndata.AnnData(part.X, obs=pd.DataFrame(index=part.obs_names), var=pd.DataFrame(index=columns))
    if "prot" in adata.obsm:
        own = adata.obsm["prot"]
        found["prot"] = anndata.AnnData(
            own.to_numpy(), obs=pd.DataFrame(index=own.index), var=pd.DataFrame(index=own.columns)
        )
    return found


def write_h5mu(adata, path, *, genes=True):
    """The cells as a MuData file."""
    parts = modalities(adata, genes=genes)
    with h5py.File(path, "w") as file:
        write_elem(file, "obs", adata.obs)
        write_elem(file, "var", pd.DataFrame(index=[name for part in parts.values() for name in part.var_names]))
        group = file.create_group("mod")
        for name, part in parts.items():
            write_elem(group, name, part)
        group.attrs["mod-order"] = list(parts)
    return path


def write_10x(adata, path):
    """The cells as Cell Ranger ARC writes them: one matrix of genes and peaks, told apart by ``feature_type``."""
    x = csr_matrix(adata.X)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(adata.obs_names, dtype="S")
        group["data"], group["indices"], group["indptr"] = (
            x.data.astype(np.int32),
            x.indices.astype(np.int64),
            x.indptr.astype(np.int64),
        )
        group["shape"] = np.array(x.shape[::-1], np.int32)
        features = group.create_group("features")
        for key, values in (
            ("id", adata.var_names),
            ("name", adata.var_names),
            ("feature_type", adata.var["feature_types"]),
            ("genome", ["GRCh38"] * adata.n_vars),
        ):
            features[key] = np.array(list(values), dtype="S")
    return path


def write_multivi_folder(folder, *, mudata=False, proteins=False, weights="equal", encode=False, genes=True, seed=0):
    """``model.pt`` and ``adata.h5ad`` or ``mdata.h5mu`` of 90 cells; `weights` as the option ``modality_weights``.

    Without `genes`, which only the form on MuData can be, there are regions and perhaps proteins.
    """
    names = GENES if genes else []
    folder.mkdir(parents=True)
    blocks = (Block(PROTEINS, tuple(PROTEIN_NAMES)),) if proteins else ()
    schema = Schema(np.array([*names, *REGIONS]), "batch", ("b0", "b1"), blocks=blocks, n_regions=len(REGIONS))
    options = {
        "n_genes": len(names), "n_regions": len(REGIONS), "n_latent": 4, "n_hidden": 8, "n_layers_encoder": 1, "n_layers_decoder": 1,
        "gene_likelihood": "nb", "modality_weights": weights, "encode_covariates": encode,
    }  # fmt: skip
    cells = draw(90, ("b0", "b1"), seed=seed + 5, paired=False, proteins=proteins)
    saved = {"mod_weights": np.zeros((cells.n_obs, 3) if weights == "cell" else 3)}
    hyper, rng, state = read_hyper(options, saved, schema), np.random.default_rng(seed), OrderedDict()
    expected = tensors(hyper, schema)
    assert n_proteins(schema) == len(PROTEIN_NAMES) * proteins
    for key, shape in (expected.needed | expected.spare).items():
        values = rng.standard_normal(shape) / np.sqrt(shape[-1] if len(shape) > 1 and shape[-1] else 1)
        values = values * (0.1 if "log_beta" in key or "var_encoder" in key else 1.0)
        state[key] = torch.tensor(values, dtype=torch.float32)
    state["l_encoder_expression.output.0.bias"] += 4  # a library of some fifty counts
    mod = {"X": "rna", "atac": "atac", "proteins": "prot"} if mudata else {}
    own = {"column_names": np.array(names if mudata else [*names, *REGIONS], object)}
    fields = {
        "X": field("X", None, own, mod.get("X")),
        "labels": field("obs", "_scvi_labels", {"categorical_mapping": np.array([0]), "original_key": "_scvi_labels"}),
        "batch": field("obs", "_scvi_batch", {"categorical_mapping": np.array(["b0", "b1"], object), "original_key": "batch"}),
    }  # fmt: skip
    if not genes:
        del fields["X"]
    if mudata:
        fields["atac"] = field("X", None, {"column_names": np.array(REGIONS, object)}, "atac")
    if proteins:
        fields["proteins"] = field(
            "X" if mudata else "obsm", None if mudata else "prot", {"column_names": PROTEIN_NAMES}, mod.get("proteins")
        )
    registry = {
        "scvi_version": "1.4.2" if mudata else "1.2.1", "model_name": "MULTIVI",
        "setup_method_name": "setup_mudata" if mudata else "setup_anndata", "setup_args": {"batch_key": "batch"},
        "field_registries": fields,
    }  # fmt: skip
    modality = {"rna": names, "atac": REGIONS} if genes else {"atac": REGIONS}
    features = (
        {key: np.array(value, object) for key, value in modality.items()}
        if mudata
        else np.array([*names, *REGIONS], object)
    )
    attributes = {"registry_": registry, "init_params_": {"non_kwargs": options, "kwargs": {}}, "is_trained_": True}
    torch.save({"model_state_dict": state, "var_names": features, "attr_dict": attributes}, folder / "model.pt")
    if not genes:
        cells = cells[np.asarray(cells[:, REGIONS].X.sum(axis=1)).ravel() > 0].copy()
    if mudata:
        write_h5mu(cells, folder / "mdata.h5mu", genes=genes)
    else:
        cells.write_h5ad(folder / "adata.h5ad")
    return folder
