"""Counts that a file stores gene by gene (CSC), written cell by cell into a file of their own: once, in memory that does not grow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from scgraft.errors import QueryError
from scgraft.files.atomic import new_file
from scgraft.files.write_h5 import writing_h5
from scgraft.query.on_disk import members, opened

NEEDED = 24  # bytes on the disk for each value: once dealt out to the runs of cells, once written
VALUES = 1 << 22  # values that are sorted at a time: 0.15 GB with what is made of them; chosen by eye, not measured


def places_by_genes(path: Path) -> dict[str, int]:
    """Matrices of an .h5ad file or .zarr folder that are stored gene by gene, and how many values they hold."""
    with opened(path) as group:
        found = {"X": group.get("X"), **{f"layers/{name}": item for name, item in members(group, "layers").items()}}
        found["raw/X"] = members(group, "raw").get("X")
        return {
            place: int(item["data"].shape[0])
            for place, item in found.items()
            if hasattr(item, "keys") and item.attrs.get("encoding-type") == "csc_matrix"
        }


def write_by_cells(path: Path, out: Path, *, advance: Callable[[int], object] = lambda n: None) -> Path:
    """An .h5ad with the annotation of a file and its matrices that were stored gene by gene, now cell by cell.

    Parameters
    ----------
    path
        The file or .zarr folder.
    out
        Where to write; it appears when it is complete.
    advance
        Called with the number of values that were read since the last call.

    Raises
    ------
    QueryError
        A matrix points at cells that the file does not have.
    """
    from anndata.io import read_elem, write_elem

    places = places_by_genes(path)
    with opened(path) as old, new_file(out, force=True) as made, writing_h5(made) as new:
        new.attrs["encoding-type"], new.attrs["encoding-version"] = "anndata", "0.1.0"
        for name in ("obs", "var"):
            write_elem(new, name, read_elem(old[name]))
        for name in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            write_elem(new, name, {})
        if "raw/X" in places:
            raw = new.create_group("raw")
            write_elem(raw, "var", read_elem(old["raw/var"]))
            raw.attrs["encoding-type"], raw.attrs["encoding-version"] = "raw", "0.1.0"
        for place in places:
            with tempfile.TemporaryDirectory(prefix="by-cells-", dir=made.parent) as folder:
                _transpose(old[place], new.create_group(place), Path(folder), advance)
    return out


def _transpose(old: Any, new: Any, folder: Path, advance: Callable[[int], object]) -> None:
    """Values of runs of genes are dealt out to files, one for each run of cells; then each file is sorted."""
    n, m = (int(size) for size in old.attrs["shape"])
    ends = np.asarray(old["indptr"][:], np.int64)
    kind = np.dtype([("cell", np.int32), ("gene", np.int32), ("value", old["data"].dtype)])
    n_runs = max(-(-int(ends[-1]) // VALUES), 1)
    run = max(-(-n // n_runs), 1)
    first = 0
    while first < m:
        last = max(int(np.searchsorted(ends, ends[first] + VALUES, side="right")) - 1, first + 1)
        rows = slice(int(ends[first]), int(ends[last]))
        part = np.empty(rows.stop - rows.start, kind)
        part["cell"], part["value"] = old["indices"][rows], old["data"][rows]
        part["gene"] = np.repeat(np.arange(first, last, dtype=np.int32), np.diff(ends[first : last + 1]))
        if len(part) and not 0 <= part["cell"].min() <= part["cell"].max() < n:
            raise QueryError(f"The matrix stored gene by gene names cells that the file does not have (it has {n}).")
        part = part[np.argsort(part["cell"] // run, kind="stable")]
        starts = np.searchsorted(part["cell"] // run, np.arange(n_runs + 1))
        for i in np.flatnonzero(np.diff(starts)):
            with (folder / str(i)).open("ab") as file:
                part[starts[i] : starts[i + 1]].tofile(file)
        advance(len(part))
        first = last
    _write_runs(new, folder, kind, (n, m), run)


def _write_runs(new: Any, folder: Path, kind: np.dtype[Any], shape: tuple[int, int], run: int) -> None:
    """The runs of cells, sorted, one after the other, as a CSR matrix."""
    n, m = shape
    new.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array(shape)})
    # Runs of 262,144 values are a megabyte: what is read at a time anyway.
    stored = {
        name: new.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 18,))
        for name, dtype in (("data", kind["value"]), ("indices", np.dtype(np.int32)))
    }
    ends, total = [np.zeros(1, np.int64)], 0
    for i, start in enumerate(range(0, n, run)):
        size = min(run, n - start)
        path = folder / str(i)
        part = np.fromfile(path, kind) if path.exists() else np.empty(0, kind)
        counts = csr_matrix((part["value"], (part["cell"] - start, part["gene"])), shape=(size, m))
        for name, dataset in stored.items():
            dataset.resize((total + counts.nnz,))
            dataset[total:] = getattr(counts, name)
        ends.append(counts.indptr[1:].astype(np.int64) + total)
        total += counts.nnz
        path.unlink(missing_ok=True)
    new.create_dataset("indptr", data=np.concatenate(ends))
