"""References to choose from, and how well each fits a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from scgraft.values.shown import Rows, as_html, as_text, cut, fields_as_html, fields_as_text

if TYPE_CHECKING:
    import pandas as pd

SurgeryKind = Literal["fit", "projection", "refused", "unknown"]


@dataclass(frozen=True)
class Listed:
    """One repository of a list, as its name, tags and card describe it. None where they say nothing.

    Parameters
    ----------
    repo, revision
        Name on the hub, and the commit that was read.
    family
        Class of the model, such as ``"SCANVI"``.
    tissue, species, modality, licence
        As tagged by the authors.
    cells, genes, batches, labels
        Numbers of the reference; `labels` counts the label names of the model's registry.
    label_key
        Label column of the registry.
    surgery
        "fit" (new batches are fitted), "projection" (the encoder does not see the batch, so that fitting changes nothing),
        "refused" (no query can be mapped), or "unknown" (the card does not say).
    size
        Bytes of the repository.
    gated, downloaded
        Whether an agreement is asked for, and whether the model is in this machine's cache.
    """

    repo: str
    revision: str | None = None
    family: str | None = None
    tissue: str | None = None
    species: str | None = None
    modality: str | None = None
    cells: int | None = None
    genes: int | None = None
    batches: int | None = None
    labels: int | None = None
    label_key: str | None = None
    surgery: SurgeryKind = "unknown"
    licence: str | None = None
    size: int | None = None
    gated: bool = False
    downloaded: bool = False

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Catalogue:
    """Repositories of the hub, or of this machine's cache: a sequence of :class:`Listed`; `note` says where they come from."""

    entries: tuple[Listed, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Listed]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Listed:
        return self.entries[index]

    def to_frame(self) -> pd.DataFrame:
        """One row for each repository, keyed by its name."""
        import pandas as pd

        names = list(Listed.__dataclass_fields__)
        return pd.DataFrame([asdict(entry) for entry in self.entries], columns=names).set_index("repo")

    @property
    def sentence(self) -> str:
        """How many there are, where they were looked for, and what to do if there is none."""
        n = len(self.entries)
        more = "" if n else " Try fewer or other words, or none for all."
        return f"{n} reference{'' if n == 1 else 's'}. {self.note}{more}".strip()

    def _shown(self) -> tuple[str, Rows]:
        rows = [(entry.repo, facts(entry)) for entry in self.entries]
        return self.sentence, rows

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())


def facts(entry: Listed) -> str:
    """The facts of one repository in a line."""
    said = [entry.family, entry.tissue, entry.species]
    said += [
        f"{n:,} {name}"
        for n, name in (
            (entry.cells, "cells"), (entry.genes, "genes"), (entry.batches, "batches"), (entry.labels, "labels"),
        )
        if n is not None
    ]  # fmt: skip
    said += ["" if entry.surgery == "unknown" else f"surgery: {entry.surgery}", entry.licence]
    said += [f"{entry.size / 1e6:,.0f} MB" if entry.size else "", "gated" if entry.gated else ""]
    return "; ".join(str(part) for part in [*said, "downloaded" if entry.downloaded else ""] if part)


@dataclass(frozen=True)
class Match:
    """How well one reference fits a query, measured on a sample of the query's cells.

    Parameters
    ----------
    source
        Repository or folder.
    fits
        Whether it can be used: at least half of the cells are explained, and at least half of the labels are expected right.
    sentence
        The result in words; for a reference that cannot be used, the reason.
    genes, genes_cost
        Share of the reference's genes that were found, by weight, and the accuracy that the missing ones cost on the mean of
        the types (NaN where it cannot be measured).
    unknown
        Share of the cells that the reference does not explain, less the false alarms that are declared.
    agreement, held_out_agreement
        Share of cells with the label of most cells in their own cluster of the query, and the same for held-out batches of the
        reference.
    accuracy, error
        Expected share of right labels among all cells, counting unexplained ones as wrong, and its standard error: how far the
        same forecast was off on held-out batches of the reference. NaN without labels.
    labels
        Share of the cells that get each label, the most common first.
    missing
        A sentence for each group of cells that the reference does not explain.
    """

    source: str
    fits: bool
    sentence: str
    genes: float = 0.0
    genes_cost: float = float("nan")
    unknown: float = float("nan")
    agreement: float = float("nan")
    held_out_agreement: float = float("nan")
    accuracy: float = float("nan")
    error: float = float("nan")
    labels: Mapping[str, float] | None = None
    missing: tuple[str, ...] = ()

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Matches:
    """References ranked for a query, the best first: a sequence of :class:`Match`. `best` is None where none fits."""

    entries: tuple[Match, ...]
    n_cells: int

    @property
    def best(self) -> Match | None:
        """The first reference that fits, or None."""
        return next((entry for entry in self.entries if entry.fits), None)

    @property
    def sentence(self) -> str:
        """The answer in words."""
        looked = f"({self.n_cells:,} cells were looked at)"
        if len(self.entries) == 1:
            return f"{self.entries[0].source} {'fits' if self.best else 'does not fit'} these cells {looked}."
        if self.best is None:
            return f"None of {len(self.entries)} references fits these cells {looked}."
        return f"{self.best.source} fits best of {len(self.entries)} references {looked}."

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Match:
        return self.entries[index]

    def to_frame(self) -> pd.DataFrame:
        """One row for each reference, keyed by its source, in the order of the ranks."""
        import pandas as pd

        rows = [{k: v for k, v in asdict(entry).items() if k != "labels"} for entry in self.entries]
        names = [name for name in Match.__dataclass_fields__ if name != "labels"]
        return pd.DataFrame(rows, columns=names).set_index("source")

    def _shown(self) -> tuple[str, Rows]:
        rows = [
            (f"{i}. {entry.source}", cut(f"{'' if entry.fits else 'does not fit: '}{entry.sentence}"))
            for i, entry in enumerate(self.entries, start=1)
        ]
        return self.sentence, rows

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())
