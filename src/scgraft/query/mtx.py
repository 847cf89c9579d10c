"""Folders with a sparse matrix, its features and its barcodes, as Cell Ranger, STARsolo and archives lay them out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import QueryError
from scgraft.files.budget import Budget
from scgraft.files.unpacked import blocks_of

if TYPE_CHECKING:
    from anndata import AnnData

MATRIX = ("matrix.mtx", "matrix.mtx.gz")
FEATURES = ("features.tsv", "features.tsv.gz", "genes.tsv", "genes.tsv.gz")
BARCODES = ("barcodes.tsv", "barcodes.tsv.gz")
ROW = 114  # bytes of a row with one short name, as lists and texts of CPython have them
ENTRY = 24  # bytes of a count with its places, while it is read and turned
# Where tools put the folder of cells inside the folder that they are told to write.
INSIDE = (
    ".",
    "filtered_feature_bc_matrix",
    "outs/filtered_feature_bc_matrix",
    "outs/filtered_gene_bc_matrices",
    "filtered_gene_bc_matrices",
    "Gene/filtered",
    "Solo.out/Gene/filtered",
    "filtered",
)


def find_mtx(folder: Path) -> Path | None:
    """The matrix of a folder, by its name with any prefix; None where there is none.

    Raises
    ------
    QueryError
        There are several samples.
    """
    for inside in INSIDE:
        place = folder / inside
        places = [place, *sorted(p for p in place.glob("*") if p.is_dir())] if "matrices" in inside else [place]
        for where in places:
            found = sorted(p for p in where.glob("*") if p.name.endswith(MATRIX) and p.is_file())
            if len(found) > 1:
                names = ", ".join(p.name for p in found[:5])
                raise QueryError(
                    f"{where} holds several samples ({names}). Put each into a folder of its own, and map them one by one."
                )
            if found:
                return found[0]
    return None


def read_mtx(path: Path) -> AnnData:
    """Cells of a matrix (features x cells) and the two tables beside it, which have the same prefix.

    Features have one to three columns: id, name, type; the names become ``var_names``, ids and types columns of ``var``.

    Raises
    ------
    QueryError
        A table is not there, or does not have as many lines as the matrix.
    """
    import anndata
    import pandas as pd
    from scipy import sparse
    from scipy.io import mminfo, mmread

    prefix = path.name.removesuffix(".gz").removesuffix("matrix.mtx")
    features = _table(path.parent, prefix, FEATURES)
    cells = [row[0] for row in _table(path.parent, prefix, BARCODES)]
    *shape, stored = mminfo(path)[:3]
    if sorted(shape) != sorted((len(features), len(cells))):
        raise QueryError(
            f"{path} has {shape[0]:,} features and {shape[1]:,} cells, the tables beside it {len(features):,} and "
            f"{len(cells):,}. They do not belong together: copy the three files of one sample again."
        )
    # What the file says that it holds, before room is made for it.
    Budget(0, path.name, packed=path.stat().st_size).spend(ENTRY * stored)
    matrix = sparse.csr_matrix(mmread(path).T, dtype=np.float32)
    if matrix.shape == (len(features), len(cells)) != (len(cells), len(features)):
        matrix = matrix.T.tocsr()  # written as cells x features
    width = min(len(row) for row in features) if features else 0
    var = pd.DataFrame(index=[row[1 if width > 1 else 0] for row in features])
    if width > 1:
        var["gene_ids"] = [row[0] for row in features]
    if width > 2:
        var["feature_types"] = [row[2] for row in features]
    out = anndata.AnnData(matrix, obs=pd.DataFrame(index=cells), var=var)
    out.var_names_make_unique()
    return out


def _table(folder: Path, prefix: str, names: tuple[str, ...]) -> list[list[str]]:
    """Rows of the first table that is there."""
    for name in names:
        path = folder / f"{prefix}{name}"
        if path.is_file():
            budget, rows = Budget(0, path.name, packed=path.stat().st_size), []
            for block in blocks_of(path):
                lines = block.splitlines()
                budget.spend(ROW * len(lines) + len(block))
                rows += [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
            return rows
    said = f"{folder} has a matrix, and none of {', '.join(prefix + name for name in names)} beside it. Put that file there."
    raise QueryError(said)
