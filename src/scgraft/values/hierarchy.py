"""Labels from coarse to fine: child -> parent, and the nearest common parent of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import NoLabels

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN, NO_LABEL = "unknown", "unknown (no label fits)"


def parents_of(obs: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Child -> parent from label columns, coarse to fine.

    A class of the same name in two columns is its own parent and is left out.

    Raises
    ------
    NoLabels
        A column is absent, or a class has several parents.

    Examples
    --------
    >>> import pandas as pd
    >>> import scgraft
    >>> obs = pd.DataFrame({"coarse": ["T cell", "T cell", "B cell"], "fine": ["CD4 T", "CD8 T", "naive B"]})
    >>> scgraft.parents_of(obs, ["coarse", "fine"])
    {'CD4 T': 'T cell', 'CD8 T': 'T cell', 'naive B': 'B cell'}
    """
    missing = [name for name in columns if name not in obs]
    if missing:
        there = ", ".join(map(str, obs.columns))
        raise NoLabels(f"The reference has no column {', '.join(missing)}; it has {there}. Name columns that it has.")
    parents: dict[str, str] = {}
    for coarse, fine in zip(columns, columns[1:], strict=False):
        pairs = obs[[coarse, fine]].dropna().astype(str).drop_duplicates()
        several = pairs[fine][pairs[fine].duplicated()].unique()
        if len(several):
            above = pairs[coarse][pairs[fine] == several[0]].tolist()
            raise NoLabels(
                f"{fine}={several[0]!r} lies under {' and '.join(sorted(above))} in {coarse!r}: these columns are not a "
                "hierarchy. Correct the labels, or give the parents as a mapping."
            )
        parents |= {child: parent for parent, child in pairs.itertuples(index=False) if child != parent}
    return parents


def ancestors(label: str, parents: Mapping[str, str]) -> list[str]:
    """The label and everything above it, nearest first; a circle ends where it closes."""
    line = [label]
    while line[-1] in parents and parents[line[-1]] not in line:
        line.append(parents[line[-1]])
    return line


def common_parent(labels: Sequence[str], parents: Mapping[str, str]) -> str | None:
    """Nearest class above all of the labels, or None."""
    lines = [ancestors(label, parents) for label in labels]
    return next((name for name in lines[0] if all(name in line for line in lines[1:])), None)


def no_label(classes: Sequence[str]) -> str:
    """What is written where no class fits: "unknown", and more words where the reference has a class of that name."""
    return NO_LABEL if UNKNOWN in classes else UNKNOWN


def name_sets(sets: np.ndarray, matrix: np.ndarray, classes: Sequence[str], parents: Mapping[str, str]) -> np.ndarray:
    """Name of each prediction set (n, C): its class, its classes' common parent, all of them, or :func:`no_label`."""
    out, nothing = np.empty(len(sets), object), no_label(classes)
    known: dict[bytes, str] = {}
    for i, row in enumerate(sets):
        inside = np.flatnonzero(row)
        if not len(inside):
            out[i] = nothing
            continue
        if len(inside) == 1:
            out[i] = classes[int(inside[0])]
            continue
        if row.tobytes() not in known:
            known[row.tobytes()] = common_parent([classes[int(c)] for c in inside], parents) or ""
        order = inside[np.argsort(-matrix[i, inside], kind="stable")]
        out[i] = known[row.tobytes()] or " | ".join(classes[int(c)] for c in order)
    return out.astype(str)
