"""What names of genes are - Ensembl ids, symbols, of which species - and how names that were mangled are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})(\.\d+)?(_PAR_Y)?")
# An id and a symbol in one name, in either order: "ENSG00000141510_TP53", "TP53|ENSG00000141510.7".
JOINED = re.compile(
    r"(?P<id>ENS[A-Z]*G\d{11}(?:\.\d+)?)[_|:;\-](?P<symbol>.+)|(?P<symbol2>.+)[_|:;\-](?P<id2>ENS[A-Z]*G\d{11}(?:\.\d+)?)"
)
# The genome that aligners of several species write before each gene: "GRCh38_TP53", "mm10___Trp53", "hg19_TP53".
GENOME = re.compile(r"(GRCh\d+|hg\d+|b37|GRCm\d+|mm\d+|Rnor\w*?\d|rn\d+)[_\-.:]+(?=[^_\-.:])", re.IGNORECASE)
SPECIES_OF_GENOME = (
    ("human", re.compile(r"GRCh|hg|b37", re.IGNORECASE)),
    ("mouse", re.compile(r"GRCm|mm", re.IGNORECASE)),
)
SYMBOL = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][\w.\-/@()':*+]{0,39}")
NO_SYMBOL = re.compile(r"(chr)?[\dXYMT]{1,2}[:_\-]\d+.*|[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)
ABSENT = frozenset({"", "nan", "NaN", "None", "<NA>", "NA", "-"})
SAMPLED = 2000  # enough names to tell a species, few enough to be fast
# Shares of a column's names: most of a column of ids are ids (a few rows are spike-ins); nearly every symbol looks like one.
IDS, SYMBOLS = 0.5, 0.9
DISTINCT = 0.5  # a column that tells less than half of the genes apart is an attribute of theirs, not their name

Kind = Literal["ids", "symbols"]


def identifier_kind(names: Sequence[str] | np.ndarray) -> str:
    """What the names are: ``"Ensembl ids (ENSG)"``, ``"Ensembl ids with versions (ENSG)"`` or ``"symbols"``."""
    found = [m for m in (ENSEMBL.fullmatch(str(n)) for n in names[:200]) if m]
    if len(found) < min(len(names), 200) / 2:
        return "symbols"
    versioned = sum(m.group(2) is not None for m in found) > len(found) / 2
    prefix = re.sub(r"\d+", "", found[0].group(1))
    return f"Ensembl ids{' with versions' if versioned else ''} ({prefix})"


def kind_of_names(names: np.ndarray) -> Kind | None:
    """Whether names identify genes: ids, symbols, or None for anything else (numbers, places, categories).

    Parameters
    ----------
    names
        Shape (m,), str. Empty names do not count.
    """
    said = [name for name in names.tolist() if name not in ABSENT]
    if not said or len(set(said)) <= DISTINCT * len(said):
        return None
    if sum(ENSEMBL.fullmatch(name) is not None for name in said) > IDS * len(said):
        return "ids"
    looks = sum(SYMBOL.fullmatch(name) is not None and NO_SYMBOL.fullmatch(name) is None for name in said)
    return "symbols" if looks >= SYMBOLS * len(said) else None


def strip_version(name: str) -> str:
    """An Ensembl id without its version, and without the mark of its copy on Y; other names unchanged."""
    match = ENSEMBL.fullmatch(name)
    return match.group(1) if match else name


def plain_letters(name: str) -> str:
    """A name as R and Seurat leave it: ``HLA-A``, ``HLA.A`` and ``HLA_A`` are one, and so are ``7SK`` and ``X7SK``."""
    return re.sub(r"^X(?=\d)", "", re.sub(r"[^A-Za-z0-9]", ".", strip_version(name)))


def any_case(name: str) -> str:
    """A name without regard to case, punctuation and version."""
    return plain_letters(name).casefold()


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


def trimmed(names: np.ndarray) -> np.ndarray:
    """Names without blanks and quotes around them, (m,)."""
    return np.array([name.strip().strip("\"'").strip() for name in names.tolist()], dtype=str)


def genomes(names: np.ndarray) -> np.ndarray:
    """The genome written before each name, (m,), "" where there is none; all "" unless most names have one."""
    found = [GENOME.match(name) for name in names.tolist()]
    if not _most(found, names):
        return np.full(len(names), "", dtype=str)
    return np.array([m.group(1) if m else "" for m in found], dtype=str)


def without_genome(names: np.ndarray) -> np.ndarray:
    """Names without the genome before them, (m,)."""
    return np.array([GENOME.sub("", name, count=1) for name in names.tolist()], dtype=str)


def species_of_genome(genome: str) -> str | None:
    """Species of a genome's name: ``"human"`` for GRCh38."""
    return next((species for species, pattern in SPECIES_OF_GENOME if pattern.match(genome)), None)


def split_joined(names: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Ids and symbols of names that hold both, each (m,); None unless most names do."""
    found = [JOINED.fullmatch(name) for name in names.tolist()]
    if not _most(found, names):
        return None
    ids = [(m["id"] or m["id2"]) if m else "" for m in found]
    symbols = [(m["symbol"] or m["symbol2"]) if m else name for m, name in zip(found, names.tolist(), strict=True)]
    return np.array(ids, dtype=str), np.array(symbols, dtype=str)


def _most(found: list[re.Match[str] | None], names: np.ndarray) -> bool:
    """Whether most of the names that are there were matched."""
    return sum(m is not None for m in found) > 0.5 * int((names != "").sum())
