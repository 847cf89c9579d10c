"""Cells of a MuData file as one AnnData: genes and regions of chromatin in X, other modalities in obsm. mudata is not needed.

Source of the layout: the specification of MuData (muon): an AnnData group for each modality under ``mod``, and annotation of all
cells beside it. A cell that a modality lacks has missing values there; in X, which is sparse, it has no counts of the regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.files.h5ad import open_h5, packed_budget
from scgraft.files.regions import are_regions
from scgraft.files.structure import check_matrices, check_structure

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

GENES = ("rna", "gex", "gene_expression", "gene expression")


def read_h5mu(
    path: Path, *, modality: str | None = None, regions: str | None = None, budget: Budget | None = None
) -> AnnData:
    """Read a MuData file; `modality` and `regions` are those of genes and of regions of chromatin, looked for where not given.

    All of it is read within a budget (None: the file's own).

    Raises
    ------
    UnsafeFile
        A link, a virtual dataset or a storage leads out of the file.
    CorruptFile
        Cut, damaged, or not a MuData file.
    """
    from anndata.io import read_elem

    budget = budget or packed_budget(path)
    with open_h5(path, budget) as file:
        check_structure(file, ("obs", "uns"), budget=budget)
        if "mod" not in file or not len(file["mod"]):
            raise CorruptFile("it has no modalities under mod, as a MuData file has")
        parts = dict(file["mod"].items())
        for group in parts.values():
            check_structure(group, budget=budget)
        mods = {name: read_elem(group) for name, group in parts.items()}
        obs = read_elem(file["obs"])
    return joined(mods, obs, path.name, modality, regions)


def joined(
    mods: Mapping[str, AnnData],
    obs: pd.DataFrame,
    name: str,
    modality: str | None = None,
    regions: str | None = None,
) -> AnnData:
    """One AnnData of the modalities of a MuData, with the cells of `obs`.

    Regions of chromatin stand in X beside the genes, as features of the type ``Peaks``: there may be a million of them.

    Raises
    ------
    CorruptFile
        There is neither a modality of genes nor one of regions.
    """
    import anndata
    import pandas as pd

    for part in mods.values():
        check_matrices(part)
    first = modality or next((key for key in mods if key.lower() in GENES), None)
    second = regions or next((key for key, part in mods.items() if key != first and are_regions(part.var_names)), None)
    features = [key for key in (first, second) if key is not None and key in mods]
    if not features or modality is not None and modality not in mods:
        raise CorruptFile(
            f"{name} has the modalities {', '.join(mods)}, and none of them is called 'rna'. Rename that of the genes."
        )
    at = {key: pd.Index(part.obs_names).get_indexer(obs.index) for key, part in mods.items()}
    if len(features) == 1 and first in features and (at[features[0]] < 0).any():
        raise CorruptFile(
            f"{int((at[features[0]] < 0).sum())} cells of {name} have no row in the modality {first!r}; genes are needed for every cell."
        )
    own = obs
    for key in [*features, *(key for key in mods if key not in features)]:
        own = with_columns(own, mods[key].obs)
    parts = [mods[key] for key in features]
    layers = {
        key for part in parts for key in part.layers if key is not None
    }  # anndata 0.13 lists X as a layer named None
    rows = [at[key] for key in features]
    adata = anndata.AnnData(
        _beside([part.X for part in parts], rows),
        obs=own,
        var=_var(parts, [key == second for key in features]),
        layers={key: _beside([p.layers[key] if key in p.layers else p.X for p in parts], rows) for key in layers},
    )
    for key, part in mods.items():
        if key in features:
            continue
        values = np.full((len(obs), part.n_vars), np.nan, np.float32)
        dense = part.X.toarray() if hasattr(part.X, "toarray") else np.asarray(part.X)
        values[at[key] >= 0] = dense[at[key][at[key] >= 0]]
        adata.obsm[key] = pd.DataFrame(values, index=obs.index, columns=part.var_names.astype(str))
    return adata


def with_columns(obs: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Annotation of all cells, and the columns that a modality has of its own cells; missing for those that it lacks."""
    import pandas as pd

    return pd.concat([obs, more[[c for c in more if c not in obs]].reindex(obs.index)], axis=1)


def _beside(matrices: Sequence[Any], rows: Sequence[np.ndarray]) -> Any:
    """Columns of several matrices side by side, each with its rows for every cell; a cell that a matrix lacks has zeros there."""
    from scipy import sparse

    if len(matrices) == 1 and (rows[0] >= 0).all():
        return matrices[0][rows[0]]
    taken = []
    for matrix, at in zip(matrices, rows, strict=True):
        there = np.flatnonzero(at >= 0)
        place = sparse.csr_matrix(
            (np.ones(len(there), np.float32), (there, at[there])), shape=(len(at), matrix.shape[0]), dtype=np.float32
        )
        taken.append(place @ sparse.csr_matrix(matrix))
    return sparse.hstack(taken, format="csr")


def _var(parts: Sequence[AnnData], of_regions: Sequence[bool]) -> pd.DataFrame:
    """Annotation of the features; where there are regions, with their type."""
    import pandas as pd

    if not any(of_regions):
        return parts[0].var.copy()
    tables = []
    for part, regions in zip(parts, of_regions, strict=True):
        table = part.var.copy()
        if regions or "feature_types" not in table:
            table["feature_types"] = "Peaks" if regions else "Gene Expression"
        tables.append(table)
    return pd.concat(tables)
