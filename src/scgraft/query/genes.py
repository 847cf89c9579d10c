"""Which column of the query is which gene of the reference: ids before names, exact before mangled, nothing by chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import AmbiguousGenes, GenesNotFound
from scgraft.query.identifiers import (
    ABSENT,
    any_case,
    genomes,
    kind_of_names,
    plain_letters,
    species_of,
    species_of_genome,
    split_joined,
    strip_version,
    trimmed,
    without_genome,
)
from scgraft.values.names import column_text

if TYPE_CHECKING:
    import pandas as pd

# Kinds of features beside genes where the column does not use Cell Ranger's words; "protein_coding" is a gene.
OTHER_FEATURE = re.compile(
    r"antibod|\bprotein\b|peak|crispr|guide|hashtag|multiplex|custom|\b(adt|hto|gdo|vdj)\b|antigen"
)
EXAMPLES = 5  # in a sentence; chosen by eye
# A column of names may contradict stronger ones for one gene in five (symbols change between releases); a column that is no
# name contradicts nearly all of them. Fewer than ten cases tell nothing.
AGREE, TOLD = 0.8, 10


@dataclass(frozen=True)
class GeneMatch:
    """Columns of a query in a reference's order.

    `column` (m,) are query columns and `gene` (m,) the reference genes that they are counted for; a gene occurs more
    than once where duplicates are summed. `matched_by` counts genes by the way they were found. `ambiguous` lists genes that
    several columns of different names and ids claim: none of them is taken. `other_species` are columns of a second genome.
    """

    column: np.ndarray
    gene: np.ndarray
    matched_by: Mapping[str, int]
    missing: tuple[str, ...]
    summed: Mapping[str, tuple[str, ...]]
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other_species: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Names:
    """One way to name the genes: `source` for the user, (m,) names ("" where there is none), and whether they are ids."""

    source: str
    names: np.ndarray
    ids: bool
    own: bool  # the names themselves, and not a column beside them


@dataclass(frozen=True)
class _Way:
    """One attempt: the names of both sides, and how they are compared."""

    label: str
    reference: _Names
    query: _Names
    key: Callable[[str], str] = str


def match_genes(
    reference: Mapping[str, np.ndarray],
    query: Mapping[str, np.ndarray],
    *,
    gene_map: Mapping[str, str] | None = None,
    usable: np.ndarray | None = None,
) -> GeneMatch:
    """Match the genes of a query to those of a reference.

    Parameters
    ----------
    reference
        Names of the reference's genes by source, each (G,); the first source holds the model's own names.
    query
        Names of the query's genes by source (``"var_names"``, ``"var['gene_ids']"``, ...), each (m,).
    gene_map
        Query name to reference name, taken before anything else.
    usable
        Columns of the query that are genes, (m,) bool; the others match nothing. None: all of them.

    Returns
    -------
    GeneMatch
        Ids are compared first, where both sides have them; then the names themselves; then columns that look like ids or
        symbols and that do not contradict what is known. In each, exact names come before ids without version, names
        whose punctuation R has changed, and names in another case, where these are unambiguous. Genomes written before
        names, blanks, quotes, and ids joined to symbols are taken apart.

    Raises
    ------
    GenesNotFound
        The identifiers are another species'.
    AmbiguousGenes
        The model's own genes are not unique.
    """
    own = next(iter(reference.values())).astype(str)
    names = next(iter(query.values())).astype(str)
    if len(set(own)) != len(own):
        raise AmbiguousGenes(
            "The reference lists a gene twice, so its genes cannot be told apart by name. Ask its author for a model with unique names."
        )
    usable = np.ones(len(names), bool) if usable is None else usable
    species = species_of(own)
    theirs = [
        n
        for source, values in reference.items()
        for n in _forms(source, values.astype(str), source == next(iter(reference)))
    ]
    shown = {source: np.where(usable, values.astype(str), "") for source, values in query.items()}
    foreign = _foreign(shown, species)
    shown = {source: np.where(foreign, "", values) for source, values in shown.items()}
    mine = [n for source, values in shown.items() for n in _forms(source, values, source == next(iter(query)))]
    _refuse_other_species(own, species, mine)
    ids = next((n.names for n in mine if n.ids), np.full(len(names), "", dtype=str))
    ids = np.array([strip_version(i) for i in ids.tolist()], dtype=str)
    owner, matched_by, ambiguous = np.full(len(names), -1, np.int64), dict[str, int](), dict[int, tuple[str, ...]]()
    for label, proposed, trusted in _proposals(own, names, theirs, mine, gene_map or {}):
        if not trusted and _contradicts(owner, proposed):
            continue
        new, several = _taken(owner, proposed, names, ids)
        ambiguous |= several
        if n := len(set(new.tolist()) - set(owner.tolist())):
            matched_by[label] = matched_by.get(label, 0) + n
        owner = new
    columns = np.flatnonzero(owner >= 0)
    counts = np.bincount(owner[columns], minlength=len(own))
    return GeneMatch(
        columns,
        owner[columns],
        matched_by,
        tuple(own[counts == 0]),
        {str(own[g]): tuple(names[owner == g].tolist()) for g in np.flatnonzero(counts > 1)},
        {str(own[g]): several for g, several in ambiguous.items() if not counts[g]},
        tuple(names[foreign].tolist()),
    )


def both(first: GeneMatch, second: GeneMatch, after: int) -> GeneMatch:
    """Two matches of the same columns as one; the features of the second stand `after` so many of the first."""
    ways, more = first.matched_by, second.matched_by
    return GeneMatch(
        np.concatenate([first.column, second.column]),
        np.concatenate([first.gene, second.gene + after]),
        {way: ways.get(way, 0) + more.get(way, 0) for way in {**ways, **more}},
        (*first.missing, *second.missing),
        {**first.summed, **second.summed},
        first.ambiguous,
        first.other_species,
    )


def _taken(
    owner: np.ndarray, proposed: np.ndarray, names: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, dict[int, tuple[str, ...]]]:
    """Owners, (m,), after free columns went to genes that no earlier way has found; and genes that several columns claim.

    Columns are summed where they have one name, or no two different ids.
    """
    free = np.flatnonzero((owner < 0) & (proposed >= 0) & ~np.isin(proposed, owner[owner >= 0]))
    order = free[np.argsort(proposed[free], kind="stable")]
    starts = np.flatnonzero(np.diff(proposed[order], prepend=-1))
    owner, several = owner.copy(), {}
    for columns in np.split(order, starts[1:]) if len(order) else []:
        gene = int(proposed[columns[0]])
        if len(set(names[columns].tolist())) == 1 or len(set(ids[columns].tolist()) - {""}) <= 1:
            owner[columns] = gene
        else:
            several[gene] = tuple(names[columns].tolist())
    return owner, several


def _contradicts(owner: np.ndarray, proposed: np.ndarray) -> bool:
    """Whether a column says otherwise than stronger names, where these have spoken."""
    known = (owner >= 0) & (proposed >= 0)
    return bool(known.sum() >= TOLD and (owner[known] == proposed[known]).mean() < AGREE)


def _proposals(
    own: np.ndarray, names: np.ndarray, theirs: list[_Names], mine: list[_Names], gene_map: Mapping[str, str]
) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Way, gene that each column would be (m,), -1 for none, and whether it is trusted without a test; the strongest first."""
    if gene_map:
        table = _table(own, str)
        yield "gene map", np.array([table.get(gene_map.get(n, ""), -1) for n in names.tolist()], np.int64), True
    for way in _ways(theirs, mine):
        yield way.label, _proposed(way), way.query.ids or way.query.own


def _forms(source: str, values: np.ndarray, own: bool) -> Iterator[_Names]:
    """The names of one source as they are, and taken apart where they were put together; nothing for what is no name."""
    kind = kind_of_names(values)
    if own or kind is not None:
        yield _Names(source, values, kind == "ids", own)
    plain = trimmed(values)
    if (plain != values).any():
        yield from _form(f"{source} without blanks and quotes", plain, own)
    if ((genome := genomes(plain)) != "").any():
        plain = without_genome(plain)
        said = ", ".join(sorted(set(genome.tolist()) - {""}))
        yield from _form(f"{source} without the genome {said}", plain, own)
    if (parts := split_joined(plain)) is not None:
        yield from _form(f"{source} taken apart, id", parts[0], own)
        yield from _form(f"{source} taken apart, symbol", parts[1], own)


def _form(source: str, values: np.ndarray, own: bool) -> Iterator[_Names]:
    kind = kind_of_names(values)
    if own or kind is not None:
        yield _Names(source, values, kind == "ids", own)


def _ways(theirs: list[_Names], mine: list[_Names]) -> Iterator[_Way]:
    """Every attempt, the strongest evidence first."""
    hits = {id(q): max(int(np.isin(q.names, r.names).sum()) for r in theirs) for q in mine}
    columns = sorted((n for n in mine if not n.own), key=lambda n: -hits[id(n)])
    ordered = [n for n in mine if n.own] + columns
    for key, how in ((str, ""), (strip_version, " without version")):
        for q in (n for n in ordered if n.ids):
            yield from (_Way(q.source + how, r, q, key) for r in theirs if r.ids)
    yield from (_Way(q.source, r, q) for q in mine if q.own for r in theirs if r.own)
    for key, how in ((str, ""), (plain_letters, " in R's spelling"), (any_case, " in another case")):
        for q in (n for n in ordered if not n.ids):
            yield from (_Way(q.source + how, r, q, key) for r in theirs if not r.ids)


def _proposed(way: _Way) -> np.ndarray:
    """Gene that each column would be, (m,), -1 for none. A changed name counts only where it is clear on both sides."""
    table = _table(way.reference.names, way.key)
    keys = [way.key(name) if name else "" for name in way.query.names.tolist()]
    if way.key not in (str, strip_version):
        clear = _unique(keys)
        keys = [key if key in clear else "" for key in keys]
    return np.array([table.get(key, -1) for key in keys], np.int64)


def _table(names: np.ndarray, key: Callable[[str], str]) -> dict[str, int]:
    """Gene of each name that answers for one gene only."""
    return _unique([key(name) if name else "" for name in names.tolist()])


def _unique(names: list[str]) -> dict[str, int]:
    """Position of each name that occurs once; names that are shared answer for nothing."""
    position: dict[str, int] = {}
    for i, name in enumerate(names):
        position[name] = -1 if name in position else i
    return {name: i for name, i in position.items() if i >= 0 and name not in ABSENT}


def _foreign(query: Mapping[str, np.ndarray], species: str | None) -> np.ndarray:
    """Columns that belong to a genome of another species, (m,) bool; none where only one genome is named."""
    none = np.zeros(len(next(iter(query.values()))), bool)
    for values in query.values():
        genome = genomes(trimmed(values))
        named = {g: species_of_genome(g) for g in set(genome.tolist()) - {""}}
        if len(named) > 1 and species in named.values():
            return np.isin(genome, [g for g, of in named.items() if of != species])
    return none


def _refuse_other_species(own: np.ndarray, expected: str | None, query: list[_Names]) -> None:
    seen = [(species_of([n for n in names.names.tolist() if n]), names.names) for names in query]
    known = [(species, names) for species, names in seen if species]
    if expected and known and expected not in [species for species, _ in known]:
        species, names = known[0]
        examples = ", ".join([n for n in names.tolist() if n][:EXAMPLES])
        raise GenesNotFound(
            f"The query's genes look like {species} ({examples}), the reference is "
            f"{expected} ({', '.join(own[:EXAMPLES])}). Choose a reference of the query's species, or translate the genes "
            "to orthologs first."
        )


def require_genes(
    match: GeneMatch, own: np.ndarray, names: np.ndarray, weight: float, *, min_found: float, n_found: int
) -> None:
    """Refuse a query that has too few of the reference's genes.

    Raises
    ------
    GenesNotFound
        The found genes carry less than `min_found` of the weight.
    """
    if n_found and weight >= min_found:
        return
    raise GenesNotFound(
        f"Only {n_found} of the reference's {len(own)} genes were found ({weight:.0%} by weight; at least {min_found:.0%} "
        f"are needed). The reference has {', '.join(own[:EXAMPLES])}, ...; the query has "
        f"{', '.join(map(str, names[:EXAMPLES]))}, .... Give the query the same identifiers (a column of .var will do), "
        "pass gene_map (--gene-map), or lower min_found (--min-found) if you know that these genes suffice."
    )


def expression_rows(var: pd.DataFrame) -> np.ndarray:
    """Rows of var that are genes and their expression, (m,) bool: not antibodies, peaks, guides or other features."""
    for name in ("feature_types", "feature_type"):
        if name in var:
            first = list(var.columns).index(name)  # a name may stand twice
            said = np.char.strip(np.char.lower(column_text(var.iloc[:, first])))
            genes = said == "gene expression"
            return genes if genes.any() else np.array([OTHER_FEATURE.search(t) is None for t in said.tolist()], bool)
    return np.ones(len(var), bool)
