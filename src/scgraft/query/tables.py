"""Cells from tables of text and from loom files, read without the packages that wrote them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, QueryError
from scgraft.files.budget import Budget
from scgraft.files.h5ad import open_h5
from scgraft.files.structure import check_element
from scgraft.files.unpacked import BLOCK, blocks_of
from scgraft.query.identifiers import ENSEMBL, trimmed

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

TABLES = (".csv", ".tsv", ".txt")
BARCODE = re.compile(r"[ACGTN]{8,}")
# Genes that nearly every count matrix of man or mouse has: ribosomal and mitochondrial ones, and a few that all cells express.
EVERYWHERE = re.compile(
    r"(RP[LS]P?\d+[AXYL]?|MT-[A-Z]+\d?|ACTB|GAPDH|B2M|MALAT1|EEF1A1|FTL|FTH1|TMSB4X|HLA-[A-Z]+\d?)", re.IGNORECASE
)
NAME = 58  # bytes of a short name as a text of CPython, which each of them is once, and of its place in a list
COLUMN = 540  # bytes that a column takes while a table is read: its name and what pandas keeps of it; measured on a million columns
FEW = 3  # of them on one side and none on the other tell which side the genes are; chosen by eye
GENE_NAMES = ("Gene", "gene_names", "gene_name", "GeneName", "var_names", "Symbol", "gene_symbols")
GENE_IDS = ("Accession", "gene_ids", "gene_id", "EnsemblID", "ensembl_id")
CELL_NAMES = ("CellID", "obs_names", "cell_names", "barcode", "Barcode")


def is_table(path: Path) -> bool:
    """Whether a file is called as tables of text are, compressed or not."""
    return path.name.lower().removesuffix(".gz").endswith(TABLES)


def read_table(path: Path, block: int = BLOCK) -> AnnData:
    """Cells from a table with names in its first row and column, genes in rows or in columns.

    Columns (of a table of cells) or rows' annotation (of a table of genes) that are no numbers go to obs or var. The file is read
    `block` characters at a time, and only what is not zero is kept.

    Raises
    ------
    CorruptFile
        It needs far more memory than its size explains.
    QueryError
        It is no table of numbers, or does not tell which side the genes are.
    """
    import anndata
    import pandas as pd
    from scipy import sparse

    mark, head, budget = "", "", Budget(0, path.name, packed=path.stat().st_size)
    parts: list[csr_matrix] = []
    texts: list[pd.DataFrame] = []
    for lines in blocks_of(path, block):
        if not mark:
            first = lines.partition("\n")[0]
            mark = _separator(path, first)
            budget.spend(COLUMN * first.count(mark))
        table = pd.read_csv(io.StringIO(head + lines), sep=mark, index_col=0, low_memory=False)
        head = f"{first}\n"
        if table.empty:
            continue
        numeric = np.array([kind.kind in "biuf" for kind in table.dtypes], bool)
        numbers = np.zeros(table.shape, np.float32)
        numbers[:, numeric] = table.loc[:, numeric].to_numpy(np.float32)
        parts.append(sparse.csr_matrix(numbers))
        texts.append(table.loc[:, ~numeric])
        text = int(texts[-1].memory_usage(index=False, deep=True).sum())
        budget.spend(2 * parts[-1].data.nbytes + text + NAME * len(table))
    if not parts:
        raise QueryError(
            f"{path.name} has no column of numbers: it is empty, or has one line or one column. A table of counts has names in its first row and column."
        )
    of_text = {name for part in texts for name in part}
    annotation = [name for name in table.columns if name in of_text]
    if len(annotation) == table.shape[1]:
        raise QueryError(
            f"{path.name} has no column of numbers. A table of counts has names in its first row and column."
        )
    place = {name: i for i, name in enumerate(table.columns)}
    others = pd.concat([_completed(text, part, annotation, place) for text, part in zip(texts, parts, strict=True)])
    matrix = sparse.vstack(parts, format="csr")[:, [i for name, i in place.items() if name not in of_text]]
    others.index = pd.Index(trimmed(np.asarray(others.index.astype(str))))
    others.columns = trimmed(np.asarray(others.columns.astype(str)))
    columns = pd.Index(trimmed(np.asarray(table.columns.drop(annotation).astype(str))))
    if _genes_in_rows(path, np.asarray(others.index), np.asarray(columns)):
        out = anndata.AnnData(matrix.T.tocsr(), obs=pd.DataFrame(index=columns), var=others)
    else:
        out = anndata.AnnData(matrix, obs=others, var=pd.DataFrame(index=columns))
    out.var_names_make_unique()
    return out


def _completed(text: pd.DataFrame, part: csr_matrix, columns: list[str], place: dict[str, int]) -> pd.DataFrame:
    """The columns of text of one block; one that looks like numbers there, and not elsewhere, is text there, too."""
    import pandas as pd

    made = {}
    for name in columns:
        numbers = None if name in text else part[:, [place[name]]].toarray()[:, 0]
        made[name] = text[name] if numbers is None else [None if np.isnan(v) else f"{v:g}" for v in numbers]
    return pd.DataFrame(made, index=text.index, columns=columns)


def read_loom(path: Path) -> AnnData:
    """Cells of a loom file: the main matrix in X, its other layers, attributes of rows in var and of columns in obs.

    Raises
    ------
    QueryError
        It is not laid out as loom files are.
    """
    import anndata
    from scipy import sparse

    with open_h5(path) as file:
        if not {"matrix", "row_attrs", "col_attrs"} <= set(file):
            raise QueryError(f"{path.name} is no loom file: it lacks matrix, row_attrs or col_attrs.")
        n_genes, n_cells = check_element(file["matrix"], "matrix")
        var = _attributes(file["row_attrs"], n_genes, (*GENE_NAMES, *GENE_IDS))
        obs = _attributes(file["col_attrs"], n_cells, CELL_NAMES)
        layers = {}
        for name in ("", *file.get("layers", ())):
            item = file[f"layers/{name}"] if name else file["matrix"]
            if check_element(item, f"layers/{name}") != (n_genes, n_cells):
                raise CorruptFile(f"layers/{name} is not of {n_genes} genes and {n_cells} cells.")
            layers[name] = sparse.csr_matrix(_sparse_rows(item).T, dtype=np.float32)
    out = anndata.AnnData(layers.pop(""), obs=obs, var=var, layers=layers)
    out.var_names_make_unique()
    return out


def _separator(path: Path, head: str) -> str:
    """Tab, comma or semicolon: what the first line has most of."""
    found = max("\t,;", key=head.count)
    if not head.count(found):
        raise QueryError(f"{path.name} is no table: its first line holds no tab, comma or semicolon.")
    return found


def _genes_in_rows(path: Path, rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether the rows are genes: told by ids, by genes that every matrix has, and by barcodes on the other side."""
    sides = [_evidence(names) for names in (rows, columns)]
    for genes, other in ((0, 1), (1, 0)):
        if sides[genes][0] >= FEW and sides[genes][0] > 3 * sides[other][0] or sides[other][1] and not sides[genes][1]:
            return genes == 0
    raise QueryError(
        f"{path.name} does not tell which side the genes are: rows are {', '.join(rows[:3])}, ..., columns "
        f"{', '.join(columns[:3])}, .... Give an .h5ad file: anndata.AnnData(table), cells in rows and genes in columns."
    )


def _evidence(names: np.ndarray) -> tuple[int, bool]:
    """How many names are ids or genes of every matrix, and whether most hold a barcode."""
    listed = [str(name) for name in names.tolist()]
    genes = sum(bool(ENSEMBL.match(name) or EVERYWHERE.fullmatch(name)) for name in listed)
    return genes, sum(BARCODE.search(name) is not None for name in listed) > len(listed) / 2


def _attributes(group: Any, n: int, names: tuple[str, ...]) -> pd.DataFrame:
    """Attributes of one value for each row, named by the first of `names` that is there."""
    import pandas as pd

    columns = {}
    for name in group:
        if check_element(group[name], name) == (n,):
            values = group[name]
            columns[name] = values.asstr()[:] if values.dtype.kind in "OS" else values[:]
    index = next((columns.pop(name) for name in names if name in columns), None)
    frame = pd.DataFrame(columns, index=None if index is None else pd.Index(np.asarray(index).astype(str)))
    return frame if index is not None else pd.DataFrame(columns, index=pd.RangeIndex(n).astype(str))


def _sparse_rows(dataset: Any, step: int = 2048) -> Any:
    """A dense dataset as CSR, read in runs of rows."""
    from scipy import sparse

    parts = [sparse.csr_matrix(dataset[start : start + step]) for start in range(0, dataset.shape[0], step)]
    return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix(dataset.shape)
