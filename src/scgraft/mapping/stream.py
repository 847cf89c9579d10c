"""Map a file of cells without ever holding all of it: one pass learns, another maps, in memory that does not grow.

The first pass checks every count and draws a sample over the whole file. What is learnt from it is frozen (`freeze`), and maps
each run of cells alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import QueryError, ScgraftError
from scgraft.mapping.cost import judge_missing_genes
from scgraft.mapping.freeze import SAMPLE, Frozen, choose_sample, map_cells, pieces, strata
from scgraft.numerics.heap import give_back
from scgraft.numerics.order import name_keys
from scgraft.query.align import align_as, gene_messages, of_molecules
from scgraft.query.cell_file import CellFile, open_cells, stacked
from scgraft.query.features import Genes, gene_finder, gene_weight, require_features
from scgraft.query.kept import KeptCounts
from scgraft.query.lazy import open_lazy
from scgraft.query.places import Place
from scgraft.values.mapping import MappedQuery
from scgraft.values.query import Alignment, AlignOptions, Query
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


LOOKED = 4096  # cells that are checked at a time: the sample lies beside them, and so few of 540 counts each take 20 MB


@dataclass(frozen=True)
class Surveyed:
    """A sample of a file's cells.

    Parameters
    ----------
    obs
        Annotation of the sample's cells.
    query
        Their counts.
    alignment
        How the whole file was brought into the reference's genes and batches.
    """

    obs: pd.DataFrame
    query: Query
    alignment: Alignment


def open_query(
    reference: Reference, source: Path | AnnData, options: AlignOptions, *, by_cells: Path | None = None
) -> CellFile:
    """Cells on disk (a file, or an AnnData that is not in memory), of which the reference's genes and columns of obs are read.

    Matrices that the file of an AnnData stores gene by gene are read from the file `by_cells`.
    """
    schema = reference.schema
    if schema.blocks:
        raise QueryError(
            f"This reference takes {' and '.join(block.name for block in schema.blocks)} beside genes, and cells that are read in "
            "pieces have their genes only. Give it enough memory to read them whole, or map batch by batch."
        )
    keys = [options.batch_key, schema.batch_key, schema.labels_key, schema.size_factor_key, *schema.continuous]
    columns = [key for key in (*keys, *(c.key for c in schema.categorical if not c.of)) if key is not None]
    genes_of = gene_finder(reference, options.gene_map)
    file = (open_cells if isinstance(source, Path) else partial(open_lazy, by_cells=by_cells))(
        source,
        columns,
        layer=options.layer,
        prefer=schema.layer,
        used=lambda place: (genes_of(place).match.column, genes_of(place).share),
        molecules=of_molecules(reference),
    )
    own, found = schema.genes.astype(str), genes_of(file.where)
    require_features(reference, found, file.where.genes, options.min_found)
    said = gene_messages(found.match, gene_weight(reference), schema, file.where.genes[~found.usable])
    return replace(file.matched(found.match, own), notes=(*file.notes, *said))


def survey(
    reference: Reference,
    file: CellFile,
    options: AlignOptions,
    *,
    seed: int = 0,
    device: str = "auto",
    step: Callable[[int], object] = lambda n: None,
) -> Surveyed:
    """Read the whole file once: every cell is checked, and a sample of every batch is kept, by the names of the cells (seeded).

    With `drop_empty` a file that is larger than the sample is read once more before, to know which cells the sample is drawn from.

    `step` is called with the number of cells after each run of them. What was read is kept where the file says so.

    Raises
    ------
    QueryError
        As :func:`scgraft.align` does, for the first run of cells where something is wrong.
    """
    import pandas as pd

    assert file.match is not None
    keys = np.concatenate([name_keys(file.names(rows), seed) for rows in pieces(file.n_cells)])
    can = _with_counts(file) if options.drop_empty and file.n_cells > SAMPLE else np.arange(file.n_cells)
    chosen = can[choose_sample(_strata(reference.schema, file, options.batch_key)[can], keys[can], most=SAMPLE)]
    # Without the genes of each run, which would take 200 kB for every run of the file.
    taken, hashes, number, dropped, genes = [], [], Counter[str](), list[str](), own_genes(reference, file)

    def look(rows: slice) -> None:
        cells = _kept(file, rows)
        found = _checked(reference, file, rows, cells, options, genes).alignment
        number.update(found.cells_per_batch)
        dropped.extend(found.dropped)
        hashes.append(pd.util.hash_array(np.asarray(cells.obs_names, dtype=object), categorize=False))
        first, last = np.searchsorted(chosen, (rows.start, rows.stop))
        at = chosen[first:last] - rows.start
        taken.append((cells.obs.iloc[at], cells.X[at]))

    # Read ahead, the sample and two runs of cells would be there at once: on 100,000 cells 0.35 GB more, and no less of the processor.
    for rows in pieces(file.n_cells, LOOKED):
        look(rows)
        give_back()
        step(rows.stop - rows.start)
    if len(np.unique(np.concatenate(hashes))) < file.n_cells:
        raise QueryError(
            "Cell names (obs_names) are not unique; results are keyed by them. Call obs_names_make_unique() and write the "
            "file again."
        )
    sample = stacked(taken, file.var_of_run)
    obs, query = sample.obs, _aligned(reference, sample, options, genes)
    of_sample = replace(
        query.alignment,
        counts_from=file.source,
        matched_by=file.match.matched_by,
        summed=file.match.summed,
        n_unused=len(file.var) - len(file.match.column),
        options=options,
        messages=tuple(dict.fromkeys((*file.notes, *query.alignment.messages))),
    )
    if options.min_found is None and (cost := judge_missing_genes(reference, query, device=device)):
        of_sample = replace(of_sample, messages=(*of_sample.messages, cost))
    whole = replace(
        of_sample, n_cells=file.n_cells - len(dropped), cells_per_batch=dict(number), dropped=tuple(dropped)
    )
    kept = obs.index.isin(query.cells)
    return Surveyed(obs.loc[kept], replace(query, alignment=of_sample), whole)


def keeping(file: CellFile, folder: Path) -> CellFile:
    """The same file, whose first reading keeps the counts in a folder, for the second one."""
    return replace(file, kept=KeptCounts(folder.resolve(), next(pieces(file.n_cells, LOOKED)).stop))


def map_file(
    reference: Reference,
    frozen: Frozen,
    file: CellFile,
    options: AlignOptions,
    *,
    wanted: Sequence[int] | None = None,
    device: str = "auto",
) -> Iterator[tuple[int, slice, MappedQuery]]:
    """Map runs of a file's cells (all, or those with some numbers), one after the other: number, rows, mapping."""
    runs, genes = list(pieces(file.n_cells)), own_genes(reference, file)
    numbers = range(len(runs)) if wanted is None else wanted
    for i, (rows, cells) in zip(numbers, _ahead(file, [runs[i] for i in numbers]), strict=True):
        yield (
            i,
            rows,
            map_cells(reference, frozen, _checked(reference, file, rows, cells, options, genes), device=device),
        )
        give_back()


def map_rows(
    reference: Reference, frozen: Frozen, file: CellFile, options: AlignOptions, device: str, rows: slice
) -> MappedQuery:
    """Map one run of a file's cells."""
    return map_cells(reference, frozen, read_run(reference, file, rows, options), device=device)


def _ahead(file: CellFile, runs: Sequence[slice]) -> Iterator[tuple[slice, AnnData]]:
    """Runs of cells; the next one is read, by a thread of its own, while the last one is worked on."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, thread_name_prefix="scgraft-reader") as reader:
        coming = [reader.submit(file.read, rows) for rows in runs[:1]]
        for i, rows in enumerate(runs):
            coming += [reader.submit(file.read, after) for after in runs[i + 1 : i + 2]]
            yield rows, coming.pop(0).result()


def own_genes(reference: Reference, file: CellFile) -> Genes:
    """The genes of the runs of a file, which are read by the reference's own names: the same for all of them."""
    return gene_finder(reference, None)(Place("X", None, file.var_of_run))


def read_run(reference: Reference, file: CellFile, rows: slice, options: AlignOptions) -> Query:
    """One run of a file's cells, read, checked and aligned."""
    return _checked(reference, file, rows, file.read(rows), options, own_genes(reference, file))


def _checked(
    reference: Reference, file: CellFile, rows: slice, cells: AnnData, options: AlignOptions, genes: Genes
) -> Query:
    try:
        return _aligned(reference, cells, options, genes)
    except ScgraftError as error:
        error.add_note(f"Seen in cells {rows.start} to {rows.stop - 1} of {file.path}, in {file.source}.")
        raise


def _aligned(reference: Reference, cells: AnnData, options: AlignOptions, genes: Genes) -> Query:
    return align_as(reference, cells, replace(options, layer="X", gene_map=None), genes=genes)


def _with_counts(file: CellFile) -> np.ndarray:
    """Positions of the cells that have a count in the reference's genes: the sample is drawn among them, as in memory."""
    found = [np.unique(_kept(file, rows).X.nonzero()[0]) + rows.start for rows in pieces(file.n_cells, LOOKED)]
    return np.concatenate(found).astype(np.int64)


def _kept(file: CellFile, rows: slice) -> AnnData:
    """A run of cells, read; its counts are kept for the next time where the file says so."""
    cells = file.read(rows)
    if file.kept is not None:
        file.kept.write(rows, cells.X)
    return cells


def _strata(schema: Schema, file: CellFile, batch_key: str | None) -> np.ndarray:
    """Code of each cell's batch and covariates, (n,); a missing value is -1, and a missing column one level: aligning names the error."""
    import pandas as pd

    keys = [batch_key, *(c.key for c in schema.categorical if not c.of)]
    columns = [pd.factorize(file.obs[key])[0] for key in keys if key is not None and key in file.obs]
    return strata(np.stack(columns or [np.zeros(file.n_cells, np.int8)], axis=1))
