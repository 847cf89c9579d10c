"""The laws that every model family keeps, as one call: for the tests of a family of your own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.graft.merge import merge_grafts
from scgraft.graft.store import load_graft, save_graft
from scgraft.model.build import take_cells
from scgraft.model.families import family_of
from scgraft.model.slots import split, widen
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.names import BATCH, covariate_name
from scgraft.values.query import Query
from scgraft.values.reference import Reference

# A few steps on a CPU: enough to move every column that can move.
QUICK = FitConfig(max_steps=5, batch_size=16, device="cpu", force=True)
# Blocks of another size round the last bits of float32 differently.
ROUNDING = 1e-5


def check_laws(reference: Reference, query: Query) -> None:
    """Fit a graft and hold the family of a reference to the laws of the package.

    1. Taking the graft's columns out of the widened model gives back the reference and the graft, bit for bit.
    2. Cells of the reference keep their latent, bit for bit, whatever the graft.
    3. A merged graft embeds each query as its own graft does, bit for bit.
    4. A saved graft loads as it was, bit for bit.
    5. Cells that are permuted, or mapped in parts, get the same latents, to the rounding of float32.
    6. The same seed gives the same graft, whatever the order of the cells.
    7. A fit changes trainable columns and nothing else.
    8. Where no encoder sees the batch, the latent does not depend on the graft.
    9. The widened model, read as a model of its own that knows the new batches, gives the latents of the graft, to rounding.

    Parameters
    ----------
    reference
        A reference of the family, from :func:`scgraft.load_reference`.
    query
        Aligned cells with raw counts in at least one batch that the reference does not have, from :func:`scgraft.align`.

    Raises
    ------
    AssertionError
        A law is broken; the message says which.

    Examples
    --------
    >>> import scgraft
    >>> from scgraft.testing import check_laws, example
    >>> folder, adata = example()
    >>> reference = scgraft.load_reference(folder)
    >>> check_laws(reference, scgraft.align(reference, adata, batch_key="batch"))
    """
    before = {name: array.copy() for name, array in reference.weights.items()}
    start, graft = fit(reference, query, replace(QUICK, epochs=0)), fit(reference, query, QUICK)
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    wide = widen(reference.weights, slots, graft.rows)
    base, rows = split(wide, slots, {name: len(levels) for name, levels in graft.levels.items()})
    hold(
        same(base, before) and same(rows, graft.rows),
        "1: the columns of a graft come out of a widened model as they went in",
    )
    known = replace(query, codes=np.zeros_like(query.codes), levels=reference.schema.levels)
    hold(same_latent(reference, known, None, graft), "2: cells of the reference keep their latent")
    own = embed(widened(reference, graft, wide), query, device="cpu").mean
    hold(
        np.allclose(own, embed(reference, query, graft, device="cpu").mean, atol=ROUNDING),
        "9: the widened model gives the latents of the graft",
    )
    merges(reference, query, graft)
    with tempfile.TemporaryDirectory() as folder:
        save_graft(graft, Path(folder) / "graft")
        loaded = load_graft(Path(folder) / "graft", reference=reference)
    hold(same(loaded.rows, graft.rows) and loaded.levels == graft.levels, "4: a saved graft loads as it was")
    cells_are_independent(reference, query, graft)
    order = np.random.default_rng(0).permutation(len(query.cells))
    hold(
        same(fit(reference, take_cells(query, order), QUICK).rows, graft.rows),
        "6: the same cells and seed give the same graft",
    )
    changed = {name for name, row in graft.rows.items() if not np.array_equal(row, start.rows[name])}
    hold(same(reference.weights, before), "7: a fit leaves the weights of the reference alone")
    hold(changed <= {slot.name for slot in slots if slot.trainable}, "7: a fit changes trainable columns only")
    if not any(slot.role == "encoder" for slot in slots):
        other = replace(graft, rows={name: row + 1 for name, row in graft.rows.items()})
        hold(
            same_latent(reference, query, graft, other),
            "8: without an encoder's column the latent does not depend on the graft",
        )


def widened(reference: Reference, graft: Graft, weights: Mapping[str, np.ndarray]) -> Reference:
    """The reference that knows the graft's levels itself."""
    schema = reference.schema
    categorical = tuple(
        replace(c, levels=(*c.levels, *graft.levels.get(covariate_name(c.key), ()))) for c in schema.categorical
    )
    batches = (*schema.batches, *graft.levels.get(BATCH, ()))
    return replace(reference, weights=weights, schema=replace(schema, batches=batches, categorical=categorical))


def merges(reference: Reference, query: Query, graft: Graft) -> None:
    """Law 3, with a second graft of the same cells under other names."""
    if set(graft.levels) != {
        "batch"
    }:  # what two grafts add to another covariate cannot be told apart by renaming batches
        return
    renamed = {name: f"{name} again" for name in graft.batches}
    levels = {**query.levels, BATCH: tuple(renamed.get(name, name) for name in query.levels[BATCH])}
    alignment = replace(query.alignment, new_levels={BATCH: tuple(renamed[name] for name in graft.batches)})
    again = replace(query, levels=levels, alignment=alignment)
    second = fit(reference, again, replace(QUICK, seed=1))
    merged = merge_grafts([graft, second], reference=reference)
    for cells, own in ((query, graft), (again, second)):
        hold(same_latent(reference, cells, own, merged), "3: a merged graft embeds each query as its own graft does")


def cells_are_independent(reference: Reference, query: Query, graft: Graft) -> None:
    """Law 5."""
    whole = embed(reference, query, graft, device="cpu").mean
    order = np.random.default_rng(0).permutation(len(query.cells))
    moved = embed(reference, take_cells(query, order), graft, device="cpu").mean
    half = len(query.cells) // 2
    parts = [take_cells(query, slice(a, b)) for a, b in ((0, half), (half, None)) if len(query.cells[a:b])]
    pieces = np.concatenate([embed(reference, part, graft, device="cpu").mean for part in parts])
    for found, expected in ((moved, whole[order]), (pieces, whole)):
        hold(np.allclose(found, expected, atol=ROUNDING), "5: a cell's latent does not depend on the other cells")


def hold(condition: bool, law: str) -> None:
    """Raise unless a law holds."""
    if not condition:
        raise AssertionError(f"Law {law}; it does not here.")


def same(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> bool:
    """Whether two sets of named arrays are equal, bit for bit."""
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def same_latent(reference: Reference, cells: Query, one: Graft | None, two: Graft | None) -> bool:
    """Whether cells have the same posterior under two grafts, bit for bit."""
    a, b = (embed(reference, cells, graft, device="cpu") for graft in (one, two))
    return np.array_equal(a.mean, b.mean) and np.array_equal(a.variance, b.variance)
