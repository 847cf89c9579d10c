"""Cells of a MuData file as one AnnData: the genes in X, the other modalities in obsm. The package mudata is not needed.

Source of the layout: the specification of MuData (muon): an AnnData group for each modality under ``mod``, and annotation of all
cells beside it. A cell that a modality lacks has missing values there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.h5ad import open_h5
from scgraft.files.structure import check_matrices, check_structure

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

GENES = ("rna", "gex", "gene_expression", "gene expression")


def read_h5mu(path: Path, *, modality: str | None = None) -> AnnData:
    """Read a MuData file.

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        Cut, damaged, or not a MuData file.
    """
    from anndata.io import read_elem

    with open_h5(path) as file:
        check_structure(file, ("obs", "uns"))
        if "mod" not in file or not len(file["mod"]):
            raise CorruptFile("it has no modalities under mod, as a MuData file has")
        parts = dict(file["mod"].items())
        for group in parts.values():
            check_structure(group)
        mods = {name: read_elem(group) for name, group in parts.items()}
        obs = read_elem(file["obs"])
    return joined(mods, obs, path.name, modality)


def joined(mods: Mapping[str, AnnData], obs: pd.DataFrame, name: str, modality: str | None = None) -> AnnData:
    """One AnnData of the modalities of a MuData, with the cells of `obs`.

    Raises
    ------
    CorruptFile
        There is no modality of genes.
    """
    import anndata
    import pandas as pd

    first = modality or next((key for key in mods if key.lower() in GENES), None)
    if first is None or first not in mods:
        raise CorruptFile(
            f"{name} has the modalities {', '.join(mods)}, and none of them is called 'rna'. Rename that of the genes."
        )
    for part in mods.values():
        check_matrices(part)
    genes = mods[first]
    rows = pd.Index(genes.obs_names).get_indexer(obs.index)
    if (rows < 0).any():
        raise CorruptFile(
            f"{int((rows < 0).sum())} cells of {name} have no row in the modality {first!r}; genes are needed for every cell."
        )
    taken = genes[rows]
    own = pd.concat([obs, taken.obs[[c for c in taken.obs if c not in obs]].set_axis(obs.index)], axis=1)
    layers = {
        key: taken.layers[key] for key in taken.layers if key is not None
    }  # anndata 0.13 lists X as a layer named None
    adata = anndata.AnnData(taken.X, obs=own, var=taken.var.copy(), layers=layers)
    for key, part in mods.items():
        if key == first:
            continue
        at = pd.Index(part.obs_names).get_indexer(obs.index)
        values = np.full((len(obs), part.n_vars), np.nan, np.float32)
        dense = part.X.toarray() if hasattr(part.X, "toarray") else np.asarray(part.X)
        values[at >= 0] = dense[at[at >= 0]]
        adata.obsm[key] = pd.DataFrame(values, index=obs.index, columns=part.var_names.astype(str))
    return adata
