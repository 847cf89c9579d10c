"""Cells on disk, mapped as a query in memory is: what is global from a sample, then piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scgraft.mapping.cluster import each_on, once_on
from scgraft.mapping.freeze import Frozen, joined, pieces
from scgraft.mapping.stream import map_file, map_rows, survey
from scgraft.progress import step
from scgraft.query.cell_file import CellFile
from scgraft.query.lazy import for_workers
from scgraft.values.graft import FitConfig
from scgraft.values.mapping import MappedQuery
from scgraft.values.query import Alignment, AlignOptions, Query
from scgraft.values.reference import Reference

# The mapping of a sample, and what it taught.
Learning = Callable[[Reference, Query], tuple[MappedQuery, Frozen]]


def map_lazy(
    reference: Reference,
    file: CellFile,
    options: AlignOptions,
    learning: Learning,
    config: FitConfig,
    *,
    client: Any = None,
) -> MappedQuery:
    """Map cells on disk; only what is found of them, and the counts of one piece, are in memory.

    Parameters
    ----------
    reference, file, options
        The reference, its genes of the cells, and how they are aligned.
    learning
        What is learnt from the counts of a sample.
    config
        Its seed draws the sample.
    client
        A ``distributed.Client``, whose workers do both.
    """
    if client is not None:
        return _map_on(client, reference, for_workers(file), options, learning, config)
    made, frozen, whole = learn_lazy(reference, file, options, learning, config)
    if len(made.latent.cells) == whole.n_cells:
        return replace(made, alignment=whole)
    parts = []
    with step("mapping all cells", file.n_cells, "cell") as advance:
        for _, rows, part in map_file(reference, frozen, file, options, device=config.device):
            parts.append(part)
            advance(rows.stop - rows.start)
    return joined(reference, made, parts, whole)


def _map_on(
    client: Any, reference: Reference, file: CellFile, options: AlignOptions, learning: Learning, config: FitConfig
) -> MappedQuery:
    given = (reference, file, options, learning, config)
    made, frozen, whole = once_on(client, learn_lazy, *given)
    if len(made.latent.cells) == whole.n_cells:
        return replace(made, alignment=whole)
    runs, found = list(pieces(file.n_cells)), {}
    with step("mapping all cells", file.n_cells, "cell") as advance:
        shared = (reference, frozen, file, options, config.device)
        for i, part in each_on(client, map_rows, shared, [(rows,) for rows in runs]):
            found[i] = part
            advance(runs[i].stop - runs[i].start)
    return joined(reference, made, [found[i] for i in range(len(runs))], whole)


def learn_lazy(
    reference: Reference, file: CellFile, options: AlignOptions, learning: Learning, config: FitConfig
) -> tuple[MappedQuery, Frozen, Alignment]:
    """The mapping of a sample of cells on disk, what maps the others, and how all of them were aligned."""
    with step("checking all cells", file.n_cells, "cell") as advance:
        surveyed = survey(reference, file, options, seed=config.seed, device=config.device, step=advance)
    return *learning(reference, surveyed.query), surveyed.alignment
