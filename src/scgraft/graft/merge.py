"""Grafts of several labs -> one graft: their columns side by side, without a count and without the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from scgraft.errors import BaseMismatch, BatchClash, CorruptGraft, GraftError
from scgraft.graft.levels import check_graft, other_cells
from scgraft.values.graft import FitRecord, Graft
from scgraft.values.names import BATCH
from scgraft.values.reference import Reference

EMBEDDED = ("_embeddings_dict.", "embeddings.")  # tables of embeddings: of scvi-tools, and of scPoli


def merge_grafts(
    grafts: Sequence[Graft],
    *,
    rename: Mapping[int, Mapping[str, str]] | None = None,
    reference: Reference | None = None,
) -> Graft:
    """Join grafts that were made for the same reference.

    The columns are set side by side, so the merged graft embeds the cells of each part exactly as the part itself did.
    Merging is associative, and the order of the grafts is the order of the columns and changes nothing else.

    Parameters
    ----------
    grafts
        One or more grafts with the same base.
    rename
        New names of batches, by the position of their graft: ``{1: {"sample1": "sample1 of lab B"}}``. The cells of
        that graft must carry the new names when it is applied. See :func:`rename_levels` for other covariates.
    reference
        If given, the base and the names are checked against it too.

    Returns
    -------
    Graft
        Its record adds up the numbers of the parts; the settings are those of the first.

    Raises
    ------
    BatchClash
        Two grafts, or a graft and the reference, give a level the same name.
    BaseMismatch
        The grafts were made for different references.
    CorruptGraft
        A graft lacks columns for levels that it names.
    GraftError
        No graft was given, or `rename` names something that is not there.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> other = scgraft.rename_levels(graft, {"q0": "lab b 0", "q1": "lab b 1"})
    >>> scgraft.merge_grafts([graft, other], reference=reference).batches
    ('q0', 'q1', 'lab b 0', 'lab b 1')
    """
    if not grafts:
        raise GraftError("There is nothing to merge: give at least one graft.")
    names = dict(rename or {})
    if out := sorted(set(names) - set(range(len(grafts)))):
        raise GraftError(
            f"rename has graft {out[0]}, but there are {len(grafts)} grafts, counted from 0: name one from 0 to {len(grafts) - 1}."
        )
    parts = [rename_levels(graft, names.get(i, {})) for i, graft in enumerate(grafts)]
    for part in parts[1:]:
        _check_same_base(parts[0], part)
    levels = _joined_levels(parts)
    rows = {name: _joined_rows(name, parts) for name in dict.fromkeys(name for part in parts for name in part.rows)}
    merged = Graft(parts[0].base, levels, rows, _joined_record([part.record for part in parts]))
    if reference is not None:
        check_graft(reference, merged)
    return merged


def rename_levels(graft: Graft, names: Mapping[str, str], *, covariate: str = BATCH) -> Graft:
    """Give new levels of a graft other names: ``{old: new}``; its columns stay as they are.

    Parameters
    ----------
    graft
        The graft.
    names
        New names by old name.
    covariate
        ``"batch"``, or ``"covariate:<key>"`` for another categorical covariate.

    Raises
    ------
    GraftError
        The graft has no such level.
    BatchClash
        Two levels would have the same name.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> scgraft.rename_levels(graft, {"q0": "run 7"}).batches
    ('run 7', 'q1')
    """
    own = graft.levels.get(covariate, ())
    absent = [old for old in names if old not in own]
    if absent:
        raise GraftError(
            f"The graft has no new {_word(covariate)} {absent[0]!r} to rename; it has {', '.join(map(repr, own)) or 'none'}. "
            "Name one that it has."
        )
    renamed = tuple(names.get(level, level) for level in own)
    if len(set(renamed)) < len(renamed):
        twice = next(level for level in renamed if renamed.count(level) > 1)
        raise BatchClash(f"Renaming would give two levels of {_word(covariate)} the name {twice!r}. Choose another.")
    if not names:
        return graft
    record = graft.record
    if covariate == BATCH:
        record = replace(record, moved={names.get(batch, batch): far for batch, far in record.moved.items()})
    return replace(graft, levels={**graft.levels, covariate: renamed}, record=record)


def level_axis(slot_name: str) -> int:
    """Axis of a slot's rows that counts the levels: the last one, except in a table of embeddings."""
    return 0 if slot_name.startswith(EMBEDDED) else 1


def _word(covariate: str) -> str:
    return "batch" if covariate == BATCH else covariate.removeprefix("covariate:")


def _check_same_base(first: Graft, other: Graft) -> None:
    a, b = first.base, other.base
    if a.sha256 != b.sha256:
        raise BaseMismatch(
            f"These grafts do not belong to one reference: one was made for {a.repo} at {a.revision[:12]} (model sha256 "
            f"{a.sha256[:12]}), another for {b.repo} at {b.revision[:12]} ({b.sha256[:12]}). Fit one of them again on "
            "the other's reference."
        )
    if other_cells(a, b):
        raise BaseMismatch(
            f"These grafts were made with other cells of one model: the sha256 of adata.h5ad was {a.cells[:12]} for one and "
            f"{b.cells[:12]} for another. Fit one of them again with the other's reference."
        )


def _joined_levels(parts: Sequence[Graft]) -> dict[str, tuple[str, ...]]:
    joined: dict[str, tuple[str, ...]] = {}
    for i, part in enumerate(parts):
        for covariate, own in part.levels.items():
            twice = sorted(set(own) & set(joined.get(covariate, ())))
            if twice:
                way = (
                    f"rename={{{i}: {{{twice[0]!r}: 'another name'}}}} (scgraft merge --rename)"
                    if covariate == BATCH
                    else f"scgraft.rename_levels(graft, {{{twice[0]!r}: 'another name'}}, covariate={covariate!r}) "
                    "(scgraft merge --rename, with --covariate)"
                )
                raise BatchClash(
                    f"Graft {i} and one before it both add {_word(covariate)} {', '.join(map(repr, twice[:5]))}. Where "
                    f"these are different {_word(covariate)} levels, rename one: {way}. Where they are the same cells, "
                    "keep one graft."
                )
            joined[covariate] = (*joined.get(covariate, ()), *own)
    return joined


def _joined_rows(name: str, parts: Sequence[Graft]) -> np.ndarray:
    covariate, axis = name.rsplit("[", 1)[1].removesuffix("]"), level_axis(name)
    columns = []
    for part in parts:
        k = len(part.levels.get(covariate, ()))
        rows = part.rows.get(name)
        if (0 if rows is None else rows.shape[axis]) != k:
            raise CorruptGraft(
                f"A graft names {k} new levels of {_word(covariate)} but has {0 if rows is None else rows.shape[axis]} "
                f"columns for {name}. Fit it again."
            )
        if rows is not None:
            columns.append(rows)
    return np.concatenate(columns, axis=axis)


def _joined_record(records: Sequence[FitRecord]) -> FitRecord:
    if len(records) == 1:
        return records[0]
    first = records[0]
    packages = sorted({name for record in records for name in record.versions})
    return FitRecord(
        config=first.config,
        trained=any(record.trained for record in records),
        reason="Merged from several grafts; the receipt of each fit is in its own graft.",
        objective=_together(record.objective for record in records),
        steps=sum(record.steps for record in records),
        seconds=round(sum(record.seconds for record in records), 3),
        n_cells=sum(record.n_cells for record in records),
        n_fit_cells=sum(record.n_fit_cells for record in records),
        n_parameters=sum(record.n_parameters for record in records),
        reference_unchanged=next((r.reference_unchanged for r in records if r.reference_unchanged[0]), ("", "")),
        moved={batch: distance for record in records for batch, distance in record.moved.items()},
        versions={name: _together(r.versions[name] for r in records if name in r.versions) for name in packages},
    )


def _together(values: Iterable[str]) -> str:
    """Different values in one text, whatever was joined first."""
    return ", ".join(sorted({part for value in values for part in value.split(", ")}))
