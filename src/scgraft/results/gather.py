"""The parts of a large mapping, put together in memory that does not grow with the cells."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import QueryError
from scgraft.files.write_h5 import writing_h5
from scgraft.query.on_disk import opened, row_names
from scgraft.results.parts import column_names, read_column, read_latent, read_part
from scgraft.results.summary import safe_table
from scgraft.results.writable import as_key
from scgraft.values.colours import in_order

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 4  # of gzip: half the time of the default for files that are a few per cent larger


def common_calls(parts: Sequence[Path]) -> dict[str, Mapping[int, str]]:
    """For each label column the most common call in each query cluster, over the cells of all parts; of equals the first."""
    names = column_names(parts[0])
    found: dict[str, Mapping[int, str]] = {}
    for name in names:
        key = name.removesuffix("_call")
        if key == name or "cluster" not in names:
            continue
        number = Counter[tuple[int, str]]()
        for part in parts:
            cluster, call = read_column(part, "cluster")[1], np.asarray(read_column(part, name)[1]).astype(str)
            number.update(zip(cluster.tolist(), call.tolist(), strict=True))
        best: dict[int, str] = {}
        for (group, called), n in sorted(number.items()):
            if group not in best or n > number[group, best[group]]:
                best[group] = called
        found[key] = best
    return found


def with_clusters(table: pd.DataFrame, common: Mapping[str, Mapping[int, str]]) -> pd.DataFrame:
    """The table of a part with the most common call of each cell's cluster, where ``MappedQuery.to_frame`` has it."""
    for key, of_cluster in common.items():
        at = max(i for i, name in enumerate(table.columns) if name in (f"{key}_set", f"{key}_unknown")) + 1
        table.insert(at, f"{key}_cluster", [of_cluster[group] for group in table["cluster"].tolist()])
    return table


def write_labels(parts: Sequence[Path], path: Path) -> None:
    """``labels.csv.gz``: one row for each cell, in the order of the file; the same bytes for the same parts."""
    common = common_calls(parts)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as packed:
        for i, part in enumerate(parts):
            text = safe_table(with_clusters(read_part(part).table, common)).to_csv(
                header=i == 0, float_format="%.6g", lineterminator="\n"
            )
            packed.write(text.encode())


def write_parquet(parts: Sequence[Path], path: Path) -> bool:
    """``labels.parquet`` with the same columns, where pyarrow is installed; False where it is not."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return False
    writer, common = None, common_calls(parts)
    for part in parts:
        table = with_clusters(read_part(part).table, common)
        text = [name for name in table if table[name].dtype.kind not in "biuf"]
        rows = pyarrow.Table.from_pandas(table.astype(dict.fromkeys(text, str)), preserve_index=True)
        rows = rows.replace_schema_metadata(None)
        writer = writer or parquet.ParquetWriter(path, rows.schema)
        writer.write_table(rows)
    if writer is not None:
        writer.close()
    return True


def write_cells(
    parts: Sequence[Path], source: Path, path: Path, *, columns: Sequence[str], uns: Any, counts: bool = False
) -> None:
    """``mapped.h5ad``: the cells' own annotation, their latents and some columns of the parts.

    Parameters
    ----------
    parts
        In the order of the file.
    source
        The file that was mapped.
    path
        Where to write.
    columns
        Columns of the parts' tables, which become ``obs["scgraft_<name>"]``; a slash becomes "_", as no file has it in a name.
    uns
        What becomes ``uns["scgraft"]``.
    counts
        Keep everything else that the file holds, too: its counts first of all.

    Raises
    ------
    QueryError
        Counts are wanted of a file that is no .h5ad.
    """
    if counts and source.suffix != ".h5ad":
        raise QueryError(
            f"Counts can be copied from an .h5ad file only, and {source} is none. Leave --with-counts out."
        )
    if counts:
        with opened(source):  # looked through before it is written to
            shutil.copyfile(source, path)
    with writing_h5(path, "r+" if counts else "w") as new:
        if not counts:
            _empty_cells(source, new)
        _replace(new["uns"], "scgraft", uns)
        n, width = int(row_names(new["obs"]).shape[0]), read_latent(parts[0])[1].shape[1]
        latent = np.full((n, width), np.nan, np.float32)
        for rows, means in map(read_latent, parts):
            latent[rows] = means
        _replace(new["obsm"], "X_scgraft", latent)
        common = common_calls(parts)
        for name in columns:
            key = name.removesuffix("_cluster")
            if key != name and key in common:
                column = _clusters(parts, common[key], n)
            else:
                column = _column(parts, name, n)
            _replace(new["obs"], as_key(f"scgraft_{name}"), column)
        order = [str(name) for name in new["obs"].attrs["column-order"]]
        added = [as_key(f"scgraft_{name}") for name in columns]
        new["obs"].attrs["column-order"] = np.array([*(c for c in order if c not in added), *added], dtype=object)


def _column(parts: Sequence[Path], name: str, n: int) -> Any:
    """A column of all parts for n cells; a cell that was left out has no text, NaN, or is unknown and not novel."""
    import pandas as pd

    found = [read_column(part, name) for part in parts]
    rows = np.concatenate([rows for rows, _ in found])
    columns = [column for _, column in found]
    if isinstance(columns[0], np.ndarray) and columns[0].dtype.kind in "bf":
        values = np.concatenate(columns)
        blank: Any = np.nan if values.dtype.kind == "f" else name.endswith("_unknown")
        out = np.full(n, blank, bool if values.dtype.kind == "b" else np.float32)
        out[rows] = values
        return out
    if isinstance(columns[0], np.ndarray):  # numbers that are names, as those of clusters
        return _named(np.concatenate(columns).astype(str), rows, n)
    names = pd.Index(sorted({str(value) for column in columns for value in column.categories}))
    codes = np.full(n, -1, np.int32)
    codes[rows] = np.concatenate([names.get_indexer(column.categories)[column.codes] for column in columns])
    return pd.Categorical.from_codes(codes, names)


def _clusters(parts: Sequence[Path], of_cluster: Mapping[int, str], n: int) -> Any:
    """The most common call of each cell's cluster, for n cells."""
    found = [read_column(part, "cluster") for part in parts]
    rows = np.concatenate([rows for rows, _ in found])
    names = [of_cluster[group] for _, groups in found for group in groups.tolist()]
    return _named(np.array(names, dtype=str), rows, n)


def _named(text: np.ndarray, rows: np.ndarray, n: int) -> Any:
    """Text of some of n cells as a categorical of all of them."""
    import pandas as pd

    names, codes = in_order(text), np.full(n, -1, np.int32)
    codes[rows] = pd.Index(names).get_indexer(pd.Index(text))
    return pd.Categorical.from_codes(codes, pd.Index(names))


def _empty_cells(source: Path, new: Any) -> None:
    """Cells with their annotation and without genes."""
    import pandas as pd
    from anndata.io import read_elem, write_elem

    with opened(source) as old:
        if source.suffix == ".h5ad":
            old.copy("obs", new)
        else:
            write_elem(new, "obs", read_elem(old["obs"]))
    write_elem(new, "var", pd.DataFrame(index=pd.Index([], dtype=str)))
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        write_elem(new, name, {})
    new.attrs["encoding-type"], new.attrs["encoding-version"] = "anndata", "0.1.0"


def _replace(group: Any, name: str, value: Any) -> None:
    from anndata.io import write_elem

    if name in group:
        del group[name]
    write_elem(group, name, value)
