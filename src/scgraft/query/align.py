"""AnnData + Reference -> Query: counts, genes, batches and covariates in the reference's order; the AnnData stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from scipy import sparse

from scgraft.errors import EmptyCells, QueryError
from scgraft.files.regions import are_regions
from scgraft.model.families import require_mapping
from scgraft.query.counts import Counts, find_counts
from scgraft.query.features import Genes, gene_finder, gene_weight, kind_messages, require_features
from scgraft.query.find_values import find_values
from scgraft.query.genes import GeneMatch
from scgraft.query.given import as_anndata, given
from scgraft.query.levels import code_obs
from scgraft.query.places import Place
from scgraft.query.proteins import align_proteins
from scgraft.query.spatial import spatial_messages
from scgraft.values.blocks import BlockCounts
from scgraft.values.query import Alignment, AlignOptions, Query
from scgraft.values.reference import Reference, Schema

if TYPE_CHECKING:
    from anndata import AnnData

FEW = 5  # examples in a sentence; chosen by eye
# Models of open chromatin: zeros and ones, or two insertions for each fragment, are what they are trained on.
OF_REGIONS = ("PEAKVI", "POISSONVI", "MULTIVI")
# Insertions are twice as many as fragments, and counts cut to one are fewer than either: half of a factor of two apart.
OTHER_COUNTS = 2**0.5


def align(
    reference: Reference,
    adata: AnnData,
    *,
    batch_key: str | None = None,
    layer: str | None = None,
    drop_empty: bool = False,
    min_found: float = 0.5,  # as scgraft.AlignOptions has it
    gene_map: Mapping[str, str] | None = None,
) -> Query:
    """Bring a query into the reference's genes and batches.

    Parameters
    ----------
    reference
        The reference.
    adata
        The query, in memory or backed, a view or not; it is not changed. Raw UMI counts are looked for in X, the layers
        and raw.
    batch_key
        obs column of the query's batches, of any name. None makes the whole query one new batch.
    layer
        Where the counts are (``"X"``, ``"raw"`` or a layer), if they should not be looked for.
    drop_empty
        Leave out cells without any count in the reference's genes.
    min_found
        Least share of the reference's genes, by weight, that the query must have.
    gene_map
        Query gene to reference gene, taken before anything else.

    Returns
    -------
    Query
        Counts (n, G) CSR float32; `alignment` says what was found, repaired and missing.

    Raises
    ------
    NotCounts, GenesNotFound, AmbiguousGenes, CovariateMissing, BatchColumn, EmptyCells, QueryError
        What is wrong with the query, what was expected, and what to do.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> query.counts.shape, query.alignment.n_found, query.alignment.new_levels
    ((40, 30), 30, {'batch': ('q0', 'q1')})
    """
    options = AlignOptions(batch_key, layer, drop_empty, min_found, gene_map)
    return align_as(reference, adata, options)


def options_as_found(alignment: Alignment) -> AlignOptions:
    """The options of a mapping, with the place where it found the counts: a single cell cannot tell where they are."""
    place = re.search(r"\b(X|raw)\b|layers\[(['\"])(.+?)\2\]", alignment.counts_from)
    return replace(alignment.options, layer=alignment.options.layer or (place and (place[1] or place[3])) or None)


def align_as(
    reference: Reference, adata: AnnData, options: AlignOptions, *, judged: bool = False, genes: Genes | None = None
) -> Query:
    """:func:`align` with its options as one value, as a mapping carries them; `judged` counts are known to be counts.

    Where `genes` are given, X was read for the reference from a file: its counts were checked, and its columns are these.
    """
    require_mapping(reference.base.family)
    adata, spatial = _opened(adata, reference.schema)
    schema, batch_key = reference.schema, options.batch_key
    cells = cell_names(adata)
    weight = gene_weight(reference)
    whole = not getattr(reference.hyper, "takes_values", False) and genes is None
    if genes is None:
        found, genes = _look_for(reference, adata, options, judged)
    else:
        found = Counts(cast("sparse.csr_matrix", adata.X), "X", Place("X", None, adata.var))
    match, n_found = genes.match, len(set(genes.match.gene.tolist()))
    set_aside = found.genes[~genes.usable]
    require_features(reference, genes, found.genes, options.min_found)
    counts = select_genes(found.matrix, match, len(schema.genes), whole=whole)
    keep = np.diff(counts.indptr) > 0
    dropped = cells[~keep]
    if len(dropped) and not options.drop_empty:
        raise EmptyCells(
            f"{len(dropped)} cells have no count in any gene of the reference: {', '.join(dropped[:FEW])}. Filter them "
            "(scanpy.pp.filter_cells), or use drop_empty=True (--drop-empty) to leave them out."
        )
    if not keep.any():
        raise EmptyCells(
            "No cell has a count in any gene of the reference. Give another layer (--layer), or choose a reference of this tissue."
        )
    blocks, of_blocks = _align_blocks(adata, schema, found, genes, np.flatnonzero(keep))
    coded = code_obs(adata.obs if keep.all() else adata.obs[keep], schema, batch_key)
    levels, used = coded.levels, coded.cells_per_batch
    new_levels = {name: names[len(schema.levels[name]) :] for name, names in levels.items()}
    known = tuple(level for level in used if level in schema.batches)
    alignment = Alignment(
        counts_from=found.source,
        n_cells=int(keep.sum()),
        n_genes=len(schema.genes),
        n_found=n_found,
        found_weight=genes.share,
        matched_by=match.matched_by,
        missing=match.missing,
        summed=match.summed,
        n_unused=len(found.genes) - len(match.column),
        set_aside=tuple(set_aside.tolist()),
        options=options,
        new_levels={name: new for name, new in new_levels.items() if new},
        known_batches=known,
        cells_per_batch=used,
        dropped=tuple(dropped.tolist()),
        lacking=genes.lacking,
        messages=(
            *coded.messages,
            *found.notes,
            *kind_messages(reference, genes.lacking),
            *gene_messages(match, weight, schema, set_aside),
            *of_blocks,
            *known_messages(known),
            *count_messages(counts, reference),
            *spatial,
        ),
    )
    return Query(
        counts=counts[keep] if len(dropped) else counts,
        codes=coded.codes,
        levels=levels,
        continuous=coded.continuous,
        cells=cells[keep],
        size_factor=coded.size_factor,
        label_codes=coded.label_codes,
        alignment=alignment,
        blocks=blocks,
    )


def _look_for(reference: Reference, adata: AnnData, options: AlignOptions, judged: bool) -> tuple[Counts, Genes]:
    """The counts (or values, where the model takes these) of a query, and how the genes of their place meet the reference's."""
    genes_of = gene_finder(reference, options.gene_map)
    found = (
        find_values(adata, layer=options.layer)
        if getattr(reference.hyper, "takes_values", False)
        else find_counts(
            adata,
            layer=options.layer,
            prefer=reference.schema.layer,
            used=lambda place: (genes_of(place).match.column, genes_of(place).share),
            molecules=not judged and of_molecules(reference),
        )
    )
    return found, genes_of(found.place)


def of_molecules(reference: Reference) -> bool:
    """Whether a reference was trained on counts of molecules of genes; those of open chromatin have other laws."""
    return reference.base.family not in OF_REGIONS and not are_regions(reference.schema.genes)


def _opened(adata: AnnData, schema: Schema) -> tuple[AnnData, list[str]]:
    """The query as one AnnData, and what to tell the user of its place in a tissue.

    Of what is on disk :func:`given` leaves out obsm, where proteins can be: that is read whole.
    """
    whole = as_anndata(adata)
    told = spatial_messages(whole.obsm, whole.uns, whole.obs.columns)
    return given(whole.to_memory() if schema.blocks and whole.isbacked else whole), told


def _align_blocks(
    adata: AnnData, schema: Schema, found: Counts, genes: Genes, kept: np.ndarray
) -> tuple[dict[str, BlockCounts], list[str]]:
    """Inputs beside the genes of the cells that are kept, and what to tell the user; they can be features of X that are no genes."""
    blocks: dict[str, BlockCounts] = {}
    messages: list[str] = []
    for block in schema.blocks:
        others = (found.genes[~genes.usable], found.matrix[:, np.flatnonzero(~genes.usable)])
        own, told = align_proteins(adata, block, others)
        blocks[block.name] = own.take(kept)
        messages += told
    return blocks, messages


def cell_names(adata: AnnData) -> np.ndarray:
    """Names of the cells, (n,) str, which key all results.

    Raises
    ------
    QueryError
        There are no cells, or two of one name.
    """
    if adata.n_obs == 0:
        raise QueryError("The query has no cells; at least one is needed. Look at what was filtered out before.")
    cells = np.asarray(adata.obs_names.astype(str), dtype=str)
    if len(set(cells)) != len(cells):
        raise QueryError(
            "Cell names (obs_names) are not unique, and results are keyed by them. Call adata.obs_names_make_unique()."
        )
    return cells


def select_genes(matrix: sparse.csr_matrix, match: GeneMatch, n_genes: int, *, whole: bool = True) -> sparse.csr_matrix:
    """Counts in the reference's gene order, (n, G): missing genes stay empty, duplicates are summed, all sparse.

    They are rounded unless they need not be `whole`; where nothing is to be done, it is the same matrix.
    """
    target = np.full(matrix.shape[1], -1, np.int64)
    target[match.column] = match.gene
    if not whole and np.array_equal(target, np.arange(n_genes)):
        return matrix
    new, data, starts = target.astype(np.int32)[matrix.indices], matrix.data, matrix.indptr.copy()
    keep = np.flatnonzero(new >= 0)
    if len(keep) < len(new):
        starts = np.searchsorted(keep, starts)
        new, data = new[keep], data[keep]
    out = sparse.csr_matrix((np.rint(data) if whole else data, new, starts), shape=(matrix.shape[0], n_genes))
    if len(set(match.gene.tolist())) < len(match.gene):
        out.sum_duplicates()
    return out


def gene_messages(match: GeneMatch, weight: np.ndarray, schema: Schema, set_aside: np.ndarray) -> list[str]:
    """What the user should know of the genes."""
    messages = []
    if len(set_aside):
        messages.append(
            f"{len(set_aside)} features are not gene expression and were set aside: {_some(set_aside.tolist())}."
        )
    if match.other_species:
        messages.append(
            f"{len(match.other_species)} genes are another species' and were set aside: {_some(match.other_species)}."
        )
    if match.ambiguous:
        claimed = [f"{gene} ({' or '.join(names)})" for gene, names in match.ambiguous.items()]
        messages.append(
            f"{len(match.ambiguous)} genes are claimed by several names with different ids, and count as missing: {_some(claimed)}."
        )
    if match.missing:
        position = {g: i for i, g in enumerate(schema.genes.tolist())}
        worst = sorted(match.missing, key=lambda g: -weight[position[g]])[:FEW]
        messages.append(
            f"{len(match.missing)} genes of the reference are missing and count as zero; the most important are "
            f"{', '.join(worst)}."
        )
    if match.summed:
        first = ", ".join(f"{gene} ({' + '.join(names)})" for gene, names in list(match.summed.items())[:FEW])
        messages.append(f"{len(match.summed)} genes occur more than once in the query and were summed: {first}.")
    repaired = {way: n for way, n in match.matched_by.items() if way != "var_names"}
    if repaired:
        messages.append("Genes matched by " + ", ".join(f"{way} ({n})" for way, n in match.matched_by.items()) + ".")
    return messages


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")


def count_messages(counts: sparse.csr_matrix, reference: Reference) -> list[str]:
    """A warning where the encoder takes raw counts, and those of the query were counted in another way."""
    means, hyper = reference.mean_count, reference.hyper
    if means is None or hyper.log_variational:
        return []
    said = []
    for (kind, at), mean in zip(reference.schema.kinds.items(), means, strict=True):
        part = counts if counts.shape[1] == at.stop - at.start else counts[:, at]
        if not part.nnz or not mean:
            continue
        own = float(part.data.mean())
        if 1 / OTHER_COUNTS < own / mean < OTHER_COUNTS and not (part.data.max() == 1 and mean > 1):
            continue
        of = f" of {kind}" if len(means) > 1 else ""
        said.append(
            f"The query's counts{of} are {own:.2f} on average where they are not zero, those of the reference {mean:.2f}. The encoder "
            "of this reference takes the counts as they are, so its cells are shifted in the latent. Zeros and ones, fragments and "
            "insertions differ in this way: count the query as the reference was."
        )
    return said


def mean_counts(counts: sparse.csr_matrix, schema: Schema) -> tuple[float, ...]:
    """Mean of the counts (n, G) that are not zero, of each kind of features; 0 where there are none."""
    parts = [counts if len(schema.kinds) == 1 else counts[:, at] for at in schema.kinds.values()]
    return tuple(float(part.data.mean()) if part.nnz else 0.0 for part in parts)


def known_messages(known: tuple[str, ...]) -> list[str]:
    """What the user should know of batches that the reference has."""
    if not known:
        return []
    return [
        f"The reference knows the batch {', '.join(known[:FEW])}: these cells use the reference's own columns, which stay "
        "frozen. If they are new data, give the batch another name."
    ]
