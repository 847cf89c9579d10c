"""Whether a graft belongs to a reference, and codes of a query's levels among the two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scgraft.errors import BaseMismatch, BatchClash, CorruptGraft, UnknownBatch
from scgraft.model.families import family_of
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH
from scgraft.values.query import Query
from scgraft.values.reference import BaseId, Reference, Schema


def level_codes(query: Query, schema: Schema, new_levels: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """Codes (n, 1 + c), int64, of the query's cells among the reference's levels followed by `new_levels`.

    Raises
    ------
    UnknownBatch
        A cell has a level that neither the reference nor the graft knows.
    """
    columns = []
    for i, (name, known) in enumerate(schema.levels.items()):
        names = [*known, *new_levels.get(name, ())]
        position = {level: code for code, level in enumerate(names)}
        used = np.unique(query.codes[:, i])
        unknown = [query.levels[name][c] for c in used if query.levels[name][c] not in position]
        if unknown:
            what = "batch" if name == BATCH else name.removeprefix("covariate:")
            raise UnknownBatch(
                f"The query has {what} {', '.join(map(repr, unknown[:5]))}, which neither the reference nor the graft "
                f"knows (known: {', '.join(names[:8])}). Fit a graft to this query, or use the graft that was."
            )
        lookup = np.zeros(len(query.levels[name]), np.int64)
        lookup[used] = [position[query.levels[name][c]] for c in used]
        columns.append(lookup[query.codes[:, i]])
    return np.stack(columns, axis=1)


def check_graft(reference: Reference, graft: Graft | None) -> None:
    """Refuse a graft that was made for another reference, or whose columns do not fit into this one.

    Raises
    ------
    BaseMismatch, BatchClash
        As :func:`check_base`.
    CorruptGraft
        A slot's columns are missing, or have another shape than its tensor and the number of new levels ask for.
    """
    check_base(reference, graft)
    if graft is None:
        return
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    unknown = sorted(graft.rows.keys() - {slot.name for slot in slots})
    if unknown or graft.levels.keys() - reference.schema.levels.keys():
        raise CorruptGraft(
            f"The graft has columns or levels for what the reference does not have: {unknown[:5]}. It was changed, or written by "
            "something else: copy it again, or fit again."
        )
    for slot in slots:
        shape = list(reference.weights[slot.key].shape)
        shape[slot.axis] = len(graft.levels.get(slot.covariate, ()))
        row = graft.rows.get(slot.name)
        if (row is None and shape[slot.axis]) or (row is not None and row.shape != tuple(shape)):
            found = "is missing" if row is None else f"has the shape {row.shape}"
            raise CorruptGraft(
                f"The graft's columns {slot.name!r}: {found}; {tuple(shape)} was expected. Fit it again."
            )
        if row is not None and (row.dtype != np.float32 or not np.isfinite(row).all()):
            raise CorruptGraft(f"The graft's columns {slot.name!r} are not finite float32 numbers. Fit it again.")


def check_base(reference: Reference, graft: Graft | None) -> None:
    """Refuse a graft that was made for another reference, or that names a level which the reference has itself."""
    if graft is None:
        return
    for name, known in reference.schema.levels.items():
        twice = sorted(set(known) & set(graft.levels.get(name, ())))
        if twice and graft.base.sha256 == reference.base.sha256:
            raise BatchClash(
                f"The graft adds {name.removeprefix('covariate:')} {', '.join(map(repr, twice[:5]))}, which the reference "
                "has itself. Give the graft's another name (scgraft.rename_levels, scgraft merge --rename)."
            )
    if graft.base.sha256 != reference.base.sha256:
        made, found = graft.base, reference.base
        raise BaseMismatch(
            f"The graft was made for {made.repo} at {made.revision[:12]} (model sha256 {made.sha256[:12]}), but "
            f"the reference is {found.repo} at {found.revision[:12]} (model sha256 {found.sha256[:12]}). "
            f"Load the reference with revision={made.revision!r} (--revision), or fit again."
        )
    if other_cells(graft.base, reference.base):
        raise BaseMismatch(
            f"The graft was made when the cells of {graft.base.repo} (adata.h5ad) had the sha256 {graft.base.cells[:12]}; those "
            f"of {reference.base.repo} have {reference.base.cells[:12]}: the file was changed. Bring back the cells, or fit again."
        )


def other_cells(a: BaseId, b: BaseId) -> bool:
    """Whether two references of one model are known to have other cells; where one of them is not a folder, nobody knows."""
    return bool(a.cells and b.cells and a.cells != b.cells)
