"""Expression of a few genes on the map: measured in the query's cells, decoded by the model for the reference's.

The reference's cells are often stored without counts; their decoded expression is what the model knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import QueryError
from scgraft.expression.cells import reference_cells
from scgraft.expression.decode import gene_positions, normalized_expression
from scgraft.query.align import align_as, options_as_found
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

TOTAL = 1e4  # counts of a cell that expression is shown for, the field's convention


def decoded_in_reference(reference: Reference, genes: Sequence[str], cells: np.ndarray | None = None) -> np.ndarray:
    """log1p of decoded counts per ten thousand, (n, g) float32, of reference cells (positions; None for all).

    A model of normally distributed values or of accessibility decodes what it was trained on, and that is shown as it is. Computed on
    the CPU: these are a few genes for a picture.
    """
    chosen = reference_cells(reference)
    if cells is not None:
        chosen = chosen.take(cells)
    size = TOTAL if _counts(reference) else 1.0
    found = normalized_expression(reference, chosen, genes=genes, library_size=size, device="cpu")
    return np.log1p(found) if _counts(reference) else found


def measured_in_query(reference: Reference, mapped: MappedQuery, adata: AnnData, genes: Sequence[str]) -> np.ndarray:
    """log1p of counts per ten thousand over the reference's genes, (m, g) float32, of the mapped cells in their order.

    Raises
    ------
    QueryError
        The cells of the mapping are not all in `adata`, or its counts cannot be found.
    """
    query = align_as(reference, adata, options_as_found(mapped.alignment), judged=True)
    position = {name: i for i, name in enumerate(query.cells)}
    absent = [name for name in mapped.latent.cells if name not in position]
    if absent:
        raise QueryError(f"Cells {', '.join(map(str, absent[:3]))} of the mapping are not in this AnnData.")
    counts = query.counts[[position[name] for name in mapped.latent.cells]]
    few = counts[:, gene_positions(reference, genes)].toarray().astype(np.float32)
    if not _counts(reference):
        return few
    total = np.asarray(counts.sum(axis=1), np.float32).ravel()[:, None]
    return np.log1p(few / np.maximum(total, 1.0) * np.float32(TOTAL))


def _counts(reference: Reference) -> bool:
    """Whether the model is of counts of molecules, which cells have different numbers of."""
    return reference.hyper.gene_likelihood not in ("normal", "bernoulli")


def telling_genes(reference: Reference, mapped: MappedQuery, *, most: int) -> list[str]:
    """Genes that say most, at most so many: those that unknown groups have more of, and those that tell labels apart.

    One of each unknown group, then one of each label, then a second of each, and so on.
    """
    groups = [[gene for gene, _ in d.genes] for d in (mapped.novelty.dossiers if mapped.novelty is not None else ())]
    labels: list[list[str]] = []
    for calibration in mapped.calibration.values():
        used = calibration.classifier.coefficient[np.isfinite(calibration.classifier.intercept)]
        if len(used) > 1:
            apart = used - (used.sum(axis=0) - used) / (len(used) - 1)
            labels += [
                reference.schema.genes[np.argsort(-row, kind="stable")[:most]].astype(str).tolist() for row in apart
            ]
    turns = [genes[i] for i in range(most) for genes in (*groups, *labels) if i < len(genes)]
    return list(dict.fromkeys(turns))[:most]
