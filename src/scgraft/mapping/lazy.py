"""Cells on disk, mapped as a query in memory is: what is global from a sample, then piece by piece."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.errors import NotCounts
from scgraft.mapping.cluster import each_on, once_on
from scgraft.mapping.freeze import Frozen, joined, pieces
from scgraft.mapping.stream import map_file, map_rows, open_query, survey
from scgraft.progress import step
from scgraft.query.by_cells import NEEDED, places_by_genes, write_by_cells
from scgraft.query.cell_file import CellFile
from scgraft.query.lazy import for_workers
from scgraft.values.graft import FitConfig
from scgraft.values.mapping import MappedQuery
from scgraft.values.query import Alignment, AlignOptions, Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

# The mapping of a sample, and what it taught.
Learning = Callable[[Reference, Query], tuple[MappedQuery, Frozen]]


@contextmanager
def lazily_opened(
    reference: Reference, adata: AnnData, options: AlignOptions, *, shared: bool = False
) -> Iterator[CellFile]:
    """Cells that are not in memory, ready to be read in runs.

    Where their counts are stored gene by gene (CSC) and no others are there, they are written cell by cell first, into a folder for
    temporary files, and this is said among the messages; not for cells that are `shared` with other machines, which do not see it.

    Raises
    ------
    QueryError
        The query cannot be used as it is; the subclasses say why.
    """
    with tempfile.TemporaryDirectory(prefix="scgraft-") as folder:
        try:
            file = open_query(reference, adata, options)
        except NotCounts:
            by_genes = places_by_genes(Path(str(adata.filename))) if adata.isbacked and not shared else {}
            if not by_genes or shutil.disk_usage(folder).free < NEEDED * sum(by_genes.values()):
                raise
            made = Path(folder) / "by-cells.h5ad"
            with step("writing counts cell by cell", sum(by_genes.values()), "value") as advance:
                write_by_cells(Path(str(adata.filename)), made, advance=advance)
            file = open_query(reference, adata, options, by_cells=made)
            said = (
                f"{', '.join(by_genes)} of the file is stored gene by gene (CSC). It was written cell by cell first, into a temporary "
                "folder (TMPDIR), which takes time in every mapping: write the file so once (adata.X = adata.X.tocsr())."
            )
            file = replace(file, notes=(*file.notes, said))
        yield file


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
