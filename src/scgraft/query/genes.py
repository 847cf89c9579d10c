"""Which column of the query is which gene of the reference: names, Ensembl ids, versions, case, duplicates, species."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scgraft.errors import AmbiguousGenes, GenesNotFound

ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(\.\d+)?")
SAMPLED = 2000
EXAMPLES = 5


@dataclass(frozen=True)
class GeneMatch:
    """Columns of a query in a reference's order.

    `column` (m,) are query columns and `gene` (m,) the reference genes that they are counted for; a gene occurs more
    than once where duplicates are summed. `matched_by` counts genes by the way they were found.
    """

    column: np.ndarray
    gene: np.ndarray
    matched_by: Mapping[str, int]
    missing: tuple[str, ...]
    summed: Mapping[str, tuple[str, ...]]


def identifier_kind(names: Sequence[str] | np.ndarray) -> str:
    """What the names are: ``"Ensembl ids (ENSG)"``, ``"Ensembl ids with versions (ENSG)"`` or ``"symbols"``."""
    found = [m for m in (ENSEMBL.fullmatch(str(n)) for n in names[:200]) if m]
    if len(found) < min(len(names), 200) / 2:
        return "symbols"
    versioned = sum(m.group(2) is not None for m in found) > len(found) / 2
    prefix = re.sub(r"\d+", "", found[0].group(1))
    return f"Ensembl ids{' with versions' if versioned else ''} ({prefix})"


def strip_version(name: str) -> str:
    """An Ensembl id without its version; other names unchanged."""
    match = ENSEMBL.fullmatch(name)
    return match.group(1) if match else name


def species_of(names: Sequence[str] | np.ndarray) -> str | None:
    """``"human"`` or ``"mouse"`` where the names tell: by Ensembl prefix, or by the case of symbols."""
    sample = [str(n) for n in names[:: max(1, len(names) // SAMPLED)]]
    ids = [m.group(1) for m in map(ENSEMBL.fullmatch, sample) if m]
    if len(ids) > len(sample) / 2:
        mouse = sum(i.startswith("ENSMUSG") for i in ids)
        human = sum(i.startswith("ENSG") for i in ids)
        return "mouse" if mouse > len(ids) / 2 else "human" if human > len(ids) / 2 else None
    words = [n for n in sample if len(n) > 2 and n[0].isalpha() and sum(c.isalpha() for c in n) > 2]
    if len(words) < 10:
        return None
    upper = sum(w.upper() == w for w in words) / len(words)
    title = sum(w[0].isupper() and w[1:].lower() == w[1:] for w in words) / len(words)
    return "human" if upper > 0.7 else "mouse" if title > 0.7 else None


def match_genes(
    reference: Mapping[str, np.ndarray],
    query: Mapping[str, np.ndarray],
    *,
    gene_map: Mapping[str, str] | None = None,
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

    Returns
    -------
    GeneMatch
        Exact names are taken first, then ids without version, then names without regard to case where that is
        unambiguous.

    Raises
    ------
    GenesNotFound
        The identifiers are another species'.
    AmbiguousGenes
        The model's own genes are not unique.
    """
    own = next(iter(reference.values())).astype(str)
    if len(set(own)) != len(own):
        raise AmbiguousGenes("The reference lists a gene twice; its model cannot be used with named genes.")
    _refuse_other_species(own, query)
    owner = np.full(len(next(iter(query.values()))), -1, np.int64)
    found = np.zeros(len(own), bool)
    matched_by: dict[str, int] = {}

    def take(way: str, targets: Mapping[str, int], names: Sequence[str]) -> None:
        """Give free columns to genes that no earlier way has found."""
        new: set[int] = set()
        for column, name in enumerate(names):
            gene = targets.get(name)
            if gene is not None and owner[column] < 0 and not found[gene]:
                owner[column] = gene
                new.add(gene)
        if new:
            found[list(new)] = True
            matched_by[way] = matched_by.get(way, 0) + len(new)

    tables = {source: _unique(names.astype(str)) for source, names in reference.items()}
    if gene_map:
        mapped = [gene_map.get(n, "") for n in next(iter(query.values())).astype(str)]
        take("gene map", tables[next(iter(tables))], mapped)
    sources = [(source, names.astype(str)) for source, names in query.items()]
    sources.sort(key=lambda item: -max(sum(n in table for n in item[1]) for table in tables.values()))
    for way, key in (("", str), (" without version", strip_version), (" in another case", str.casefold)):
        for source, names in sources:
            for table in tables.values():
                if found.all() or (owner >= 0).all():
                    break
                folded = _fold(table, key)
                if way == " in another case":
                    clear = _unique([key(strip_version(n)) for n in names])
                    keys = [key(strip_version(n)) if key(strip_version(n)) in clear else "" for n in names]
                else:
                    keys = [key(n) for n in names]
                take(source + way, folded, keys)
    columns = np.flatnonzero(owner >= 0)
    names = next(iter(query.values())).astype(str)
    counts = np.bincount(owner[columns], minlength=len(own))
    summed = {str(own[g]): tuple(names[owner == g]) for g in np.flatnonzero(counts > 1)}
    return GeneMatch(columns, owner[columns], matched_by, tuple(own[~found]), summed)


def _unique(names: Sequence[str] | np.ndarray) -> dict[str, int]:
    """Position of each name that occurs once; names that are shared answer for nothing."""
    position: dict[str, int] = {}
    for i, name in enumerate(names):
        position[name] = -1 if name in position else i
    return {name: i for name, i in position.items() if i >= 0 and name not in ("", "nan", "None")}


def _fold(table: Mapping[str, int], key: object) -> dict[str, int]:
    if key is str:
        return dict(table)
    folded: dict[str, int] = {}
    for name, gene in table.items():
        short = strip_version(name) if key is strip_version else strip_version(name).casefold()
        folded[short] = -1 if folded.get(short, gene) != gene else gene
    return {name: gene for name, gene in folded.items() if gene >= 0}


def _refuse_other_species(own: np.ndarray, query: Mapping[str, np.ndarray]) -> None:
    expected = species_of(own)
    seen = {source: species_of(names) for source, names in query.items()}
    known = [s for s in seen.values() if s]
    if expected and known and expected not in known:
        names = next(names for source, names in query.items() if seen[source])
        raise GenesNotFound(
            f"The query's genes look like {known[0]} ({', '.join(map(str, names[:EXAMPLES]))}), the reference is "
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
        "pass gene_map, or lower min_found if you know that these genes suffice."
    )
