"""The one door of every zarr store, of a reference or of a query: walked before any array of it is read.

An array that was never written is zeros of any size: what is declared is compared with the bytes that are there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.files.links import MAX_DEPTH, MAX_OBJECTS, check_folder
from scgraft.files.structure import MAX_RATIO, MOST_UNSTORED, PARTS, SMALL
from scgraft.files.text import visible


def open_store(
    folder: Path, *, also: Path | None = None, budget: Budget | None = None, parts: Iterable[str] = PARTS
) -> Any:
    """The root group of a store, for reading.

    Parameters
    ----------
    folder
        The store.
    also
        A folder that its links may lead to, too (:func:`scgraft.files.links.check_folder`).

    budget
        What the arrays of `parts` are paid from; None for what stays on disk.

    Raises
    ------
    UnsafeFile
        A link leads out of it.
    CorruptFile
        It declares far more than it stores, has too many or too deep groups, or its documents cannot be read.
    """
    import zarr

    check_folder(folder, also=also)
    try:
        root = zarr.open_group(folder, mode="r")
        declared = _check_arrays(root, folder)
        if budget is not None:
            budget.spend(sum(n for part, n in declared.items() if part in set(parts)), folder.name)
    except CorruptFile:
        raise
    except Exception as error:
        raise CorruptFile(f"{folder.name} cannot be read as a zarr store: {type(error).__name__}: {error}.") from error
    return root


def _check_arrays(root: Any, folder: Path) -> dict[str, int]:
    """Bytes that the arrays of each part declare."""
    total: dict[str, int] = {}
    todo, seen, unstored = [(root, "", 0)], 0, 0
    while todo:
        group, place, depth = todo.pop()
        for name in group:
            item, at = group[name], f"{place}{name}"
            seen += 1
            if seen > MAX_OBJECTS or depth > MAX_DEPTH:
                raise CorruptFile(
                    f"{folder.name} holds more than {MAX_OBJECTS} objects, or groups deeper than {MAX_DEPTH}."
                )
            if not hasattr(item, "shape"):
                todo.append((item, f"{at}/", depth + 1))
                continue
            width = item.dtype.itemsize
            declared = width * max(math.prod(item.shape), math.prod(getattr(item, "chunks", None) or (1,)))
            part = at.partition("/")[0]
            total[part] = total.get(part, 0) + declared
            stored = _stored(folder / at) if declared > SMALL // MAX_RATIO else declared
            if declared <= MAX_RATIO * stored:
                continue
            if declared > SMALL:
                raise CorruptFile(
                    f"{visible(at)} in {folder.name} declares {declared / 1e9:.1f} GB ({item.shape}), but {stored} bytes of it are "
                    "stored."
                )
            unstored += declared
    if unstored > MOST_UNSTORED:
        raise CorruptFile(f"{folder.name} declares {unstored / 1e9:.1f} GB of numbers that are not stored in it.")
    return total


def _stored(folder: Path) -> int:
    """Bytes of an array's files, its own documents included."""
    return sum(os.stat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)
