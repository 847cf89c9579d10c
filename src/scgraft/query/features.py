"""Which features of a query are which of a reference's: genes, and regions of chromatin beside them, each by the rules of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.files.regions import are_regions, regions_among
from scgraft.model.families import family_of
from scgraft.model.kinds import cell_weights_message
from scgraft.query.genes import GeneMatch, both, expression_rows, match_genes, require_genes
from scgraft.query.places import Place
from scgraft.query.regions import match_regions, require_regions, spelled_as
from scgraft.values.names import column_text
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd

# Least share of the weight of regions, where the user names none: fewer are found by accident in any two sets of peaks. By eye.
OTHER_PEAKS = 0.1


def match_query(
    reference: Reference, var: pd.DataFrame, genes: np.ndarray, gene_map: Mapping[str, str] | None
) -> tuple[GeneMatch, np.ndarray]:
    """Which column of a query is which gene, from names (m,) and a table of its genes; and which columns are expression."""
    own, names, n_regions = reference.schema.genes, genes.astype(str), reference.schema.n_regions
    if not n_regions:
        usable = np.ones(len(var), bool) if are_regions(own) else expression_rows(var)
        mine = {"var_names": spelled_as(own, names)} | _text_columns(var)
        return match_genes(reference_names(reference), mine, gene_map=gene_map, usable=usable), usable
    at, of_regions = reference.schema.kinds["regions"], regions_among(names)
    regions = match_regions(own[at], np.where(of_regions, names, ""))
    if at.start == 0:
        return regions, of_regions
    usable = expression_rows(var) & ~of_regions
    theirs = {source: column[: at.start] for source, column in reference_names(reference).items()}
    of_genes = match_genes(theirs, {"var_names": names} | _text_columns(var), gene_map=gene_map, usable=usable)
    return both(of_genes, regions, at.start), usable | of_regions


def reference_names(reference: Reference) -> dict[str, np.ndarray]:
    """The model's gene names, and every other column of the reference's var that names genes."""
    own = reference.schema.genes.astype(str)
    names = {"var_names": own}
    var = reference.var
    if var is not None and len(var) == len(own) and np.array_equal(np.asarray(var.index.astype(str)), own):
        names |= _text_columns(var)
    return names


@dataclass(frozen=True)
class Genes:
    """How the genes of one matrix meet the reference's; `usable` (m,) are those that are genes, `share` the found weight.

    Where the reference takes genes and regions, `shares` has that of each kind, and `lacking` are kinds that the query has none of:
    these are not in `share`.
    """

    match: GeneMatch
    usable: np.ndarray
    share: float
    shares: Mapping[str, float]
    lacking: tuple[str, ...] = ()


def found_genes(reference: Reference, match: GeneMatch, usable: np.ndarray, names: np.ndarray) -> Genes:
    """What a match (of columns with some names) finds of each kind of features, by weight."""
    weight, schema = gene_weight(reference), reference.schema
    if not schema.n_regions:
        share = float(weight[np.unique(match.gene)].sum())
        return Genes(match, usable, share, {"genes": share})
    there = np.zeros(len(weight), bool)
    there[match.gene] = True
    shares = {kind: float(weight[at][there[at]].sum() / weight[at].sum()) for kind, at in schema.kinds.items()}
    of_regions = regions_among(names)
    given_ = {"regions": bool(of_regions.any()), "genes": bool((usable & ~of_regions).any())}
    lacking = tuple(kind for kind in shares if not given_[kind])
    kept = [share for kind, share in shares.items() if kind not in lacking]
    return Genes(match, usable, float(np.mean(kept)) if kept else 0.0, shares, lacking)


def require_features(reference: Reference, found: Genes, names: np.ndarray, min_found: float | None) -> None:
    """Refuse a query that has too few of the reference's genes or regions; a kind that it lacks altogether is none of them.

    Raises
    ------
    GenesNotFound
        Less than `min_found` of the weight of a kind was found; of regions, less than a tenth where that is None.
    """
    own, match = reference.schema.genes, found.match
    for kind, at in reference.schema.kinds.items():
        if kind in found.lacking and len(found.lacking) < len(found.shares):
            continue
        part = own[at]
        n_found = len(np.unique(match.gene[(match.gene >= at.start) & (match.gene < at.stop)]))
        require_regions(n_found, found.shares[kind], OTHER_PEAKS if min_found is None else min_found, part, names)
        require_genes(match, part, names, found.shares[kind], min_found=min_found or 0.0, n_found=n_found)


def kind_messages(reference: Reference, lacking: tuple[str, ...]) -> list[str]:
    """What to know of kinds of features that the query lacks, and of the weights that its cells get."""
    said = [
        f"The query has no {kind}, which the reference takes beside {' and '.join(k for k in reference.schema.kinds if k != kind)}: its "
        "cells are mapped by what they have, as the model maps cells of its own that lack a kind."
        for kind in lacking
    ]
    return [*said, *filter(None, [cell_weights_message(reference)])]


def gene_finder(reference: Reference, gene_map: Mapping[str, str] | None) -> Callable[[Place], Genes]:
    """What finds the genes of a place; X and the layers have the same, which are looked up once."""
    met = dict[bool, Genes]()

    def genes_of(place: Place) -> Genes:
        raw = place.source == "raw.X"
        if raw not in met:
            match, usable = match_query(reference, place.var, place.genes, gene_map)
            met[raw] = found_genes(reference, match, usable, place.genes)
        return met[raw]

    return genes_of


def _text_columns(var: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns that are not numbers, as text."""
    plain = [i for i, kind in enumerate(var.dtypes) if kind.kind not in "biufcmM" and str(kind) != "boolean"]
    return {f"var[{var.columns[i]!r}]": column_text(var.iloc[:, i]) for i in plain}


def gene_weight(reference: Reference) -> np.ndarray:
    """How much each gene matters to the encoder, (G,), summing to one: the norm of its column in the first layer.

    Genes and regions that have encoders of their own have half of the weight each.
    """
    family, parts = family_of(reference.base.family), []
    kinds = reference.schema.kinds
    for kind, at in kinds.items():
        n, key = at.stop - at.start, family.region_weight if kind == "regions" else family.encoder_weight
        first = None if key is None else reference.weights.get(key)
        norm = np.ones(n) if first is None else np.linalg.norm(first[:, :n].astype(np.float64), axis=0)
        parts.append(norm / (norm.sum() or 1.0))
    return parts[0] if len(parts) == 1 else np.concatenate(parts) / len(parts)
