"""The parts of a large mapping on disk: each is written whole or not at all, and listed with its hash.

A run that was killed goes on from the parts that are listed; a run that was not would have written the same bytes. Parts may be
made by several runs, each with a list of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files import schema
from scgraft.files.atomic import new_file
from scgraft.files.npz import Array, read_npz, read_one
from scgraft.files.text import visible
from scgraft.values.mapping import MappedQuery

if TYPE_CHECKING:
    import pandas as pd

# What each array of a part is; the others are columns of its table.
WRITTEN = {
    "rows": Array("iu", 1),
    "latent": Array("f", 2, finite=False),
    "cells": Array("U", 1),
    "columns": Array("U", 0),
}
COLUMN = Array("iufbU", 1, finite=False)


@dataclass(frozen=True)
class Part:
    """What was found of a run of cells.

    Parameters
    ----------
    rows
        Their positions in the file, (n,): those that were left out are missing.
    latent
        Posterior means, (n, d) float32.
    table
        One row for each cell, as in labels.csv.
    """

    rows: np.ndarray
    latent: np.ndarray
    table: pd.DataFrame


@dataclass(frozen=True)
class Parts:
    """A folder of parts, and the list that this run keeps: ``parts.json``, or one for each shard.

    Parameters
    ----------
    folder
        The folder.
    shard, of
        Which of how many runs this is, counted from 0: it makes every `of`-th part.
    """

    folder: Path
    shard: int = 0
    of: int = 1

    @property
    def list_path(self) -> Path:
        """Where this run lists its parts."""
        return self.folder / ("parts.json" if self.of == 1 else f"parts-{self.shard + 1}-of-{self.of}.json")

    def finished(self) -> dict[str, str]:
        """Hash of each part that this run has listed and that is there, unchanged."""
        if not self.list_path.exists():
            return {}
        listed = read_list(self.list_path)
        return {name: digest for name, digest in listed.items() if digest_of(self.folder / name) == digest}

    def unfinished(self, n_parts: int) -> list[int]:
        """Numbers of the parts that this run still has to make."""
        done = self.finished()
        return [i for i in range(self.shard, n_parts, self.of) if part_name(i) not in done]

    def add(self, number: int, part: Part) -> None:
        """Write a part, and list it."""
        self.list_part(number, self.write(number, part))

    def write(self, number: int, part: Part) -> str:
        """Write a part, which is whole when it has its name: its hash."""
        path = self.folder / part_name(number)
        with new_file(path, force=True) as new:
            write_part(new, part)
        return str(digest_of(path))

    def list_part(self, number: int, digest: str) -> None:
        """List a part that is written."""
        listed = (read_list(self.list_path) if self.list_path.exists() else {}) | {part_name(number): digest}
        with new_file(self.list_path, force=True) as new:
            new.write_text(json.dumps(dict(sorted(listed.items())), indent=1) + "\n", encoding="utf-8")


def digest_of(path: Path) -> str | None:
    """sha256 of a file, in hex; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def part_name(number: int) -> str:
    """File of a part."""
    return f"{number:05d}.npz"


def read_list(path: Path) -> dict[str, str]:
    """Hashes of parts by name.

    Raises
    ------
    CorruptFile
        It is no such list.
    """
    try:
        listed: dict[str, str] = schema.parse(path.read_bytes(), schema.table(schema.text), path.name)
        return listed
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} is cut or damaged ({error}). Remove it; its parts are made again.") from error


def all_finished(folder: Path, n_parts: int) -> list[Path]:
    """Every part of a mapping, in order, whoever made it.

    Raises
    ------
    CorruptFile
        Some are missing or changed.
    """
    listed: dict[str, str] = {}
    for path in sorted(folder.glob("parts*.json")):
        listed |= read_list(path)
    names = [part_name(i) for i in range(n_parts)]
    wrong = [name for name in names if name not in listed or digest_of(folder / name) != listed[name]]
    if wrong:
        raise CorruptFile(
            f"{len(wrong)} of {n_parts} parts in {folder} are missing, cut or changed: {', '.join(wrong[:5])}. Run the same "
            "`scgraft map` again: it makes these parts and leaves the others."
        )
    return [folder / name for name in names]


def part_of(rows: slice, cells: np.ndarray, mapped: MappedQuery, distance: np.ndarray | None) -> Part:
    """The part of a run of cells with given names, from their mapping and their distance to the reference's clusters."""
    import pandas as pd

    table = mapped.to_frame()
    # Of all cells, which no part knows: it is added where the parts are put together.
    table = table.drop(columns=[f"{key}_cluster" for key in mapped.labels if f"{key}_cluster" in table])
    if distance is not None:
        table["map_distance"] = distance
    return Part(rows.start + pd.Index(cells).get_indexer(table.index), mapped.latent.mean, table)


def write_part(path: Path, part: Part) -> None:
    """Arrays of a part, text as codes into its distinct values."""
    import pandas as pd

    arrays: dict[str, Any] = {"rows": part.rows, "latent": part.latent, "cells": part.table.index.to_numpy(str)}
    text = []
    for i, name in enumerate(part.table.columns):
        column = part.table[name]
        if column.dtype.kind in "biuf":
            arrays[f"column_{i}"] = column.to_numpy()
            continue
        codes, values = pd.factorize(column, sort=True)
        arrays |= {f"column_{i}": codes.astype(np.int32), f"values_{i}": np.asarray(values, dtype=str)}
        text.append(i)
    arrays["columns"] = np.array(json.dumps([list(map(str, part.table.columns)), text]))
    with path.open("wb") as handle:
        np.savez(handle, **arrays)


def read_part(path: Path) -> Part:
    """A part; its columns of text are categorical."""
    import pandas as pd

    arrays = read_npz(path, WRITTEN, others=COLUMN)
    names, text = _columns(arrays["columns"], path)
    table = pd.DataFrame(index=pd.Index(arrays["cells"].astype(object), name="barcode"))
    rows, latent = arrays["rows"], arrays["latent"]
    if not len(rows) == len(latent) == len(table):
        raise CorruptFile(f"{path} has {len(rows)} rows, {len(latent)} latents and {len(table)} cells.")
    for i, name in enumerate(names):
        table[name] = _column(arrays.get, i, i in text, len(rows), path)
    return Part(rows, latent, table)


def read_latent(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows and latents of a part, and nothing else of it."""
    rows, latent = (read_one(path, name, WRITTEN[name]) for name in ("rows", "latent"))
    return rows, latent


def read_column(path: Path, name: str) -> tuple[np.ndarray, Any]:
    """Rows and one column of a part's table, and nothing else of it."""
    names, text = _columns(read_one(path, "columns", WRITTEN["columns"]), path)
    if name not in names:
        raise CorruptFile(f"{path} has no column {visible(name)}.")
    rows, i = read_one(path, "rows", WRITTEN["rows"]), names.index(name)
    return rows, _column(lambda name: read_one(path, name, COLUMN), i, i in text, len(rows), path)


def _columns(array: np.ndarray, path: Path) -> tuple[list[str], list[int]]:
    """Names of the columns of a part, and which of them are text."""
    said = schema.each(schema.distinct, schema.items(schema.whole))
    try:
        names, text = schema.parse(str(array), said, "its list of columns")
    except schema.Unfit as error:
        raise CorruptFile(f"{path} is cut or damaged: {error}.") from error
    return names, text


def column_names(path: Path) -> list[str]:
    """Names of the columns of a part's table."""
    return _columns(read_one(path, "columns", WRITTEN["columns"]), path)[0]


def _column(read: Callable[[str], np.ndarray | None], i: int, text: bool, n: int, path: Path) -> Any:
    import pandas as pd

    column, values = read(f"column_{i}"), read(f"values_{i}") if text else np.zeros(0)
    if column is not None and values is not None and column.shape == (n,):
        if not text:
            return column
        within = column.dtype.kind in "iu" and (not n or -1 <= column.min() <= column.max() < len(values))
        if within and len(set(values.tolist())) == len(values):
            return pd.Categorical.from_codes(column, pd.Index(values.astype(object)))
    raise CorruptFile(f"{path} has a column that is not one value for each of its {n} cells.")
