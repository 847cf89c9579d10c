"""What a reference is, and what surgery can do with it: the value of :func:`scgraft.describe`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scgraft.files.text import visible
from scgraft.values.reference import BaseId
from scgraft.values.shown import Rows, as_html, fields_as_text

NAME_WIDTH = 14  # a layout: the longest name of a line, "query needs", and a gap


@dataclass(frozen=True)
class GeneFacts:
    """Genes of a reference: their number, the kind of their identifiers, and the first few."""

    number: int
    identifier: str
    examples: tuple[str, ...]

    __repr__ = fields_as_text


@dataclass(frozen=True)
class BatchFacts:
    """obs column of a reference's batches (None when it was trained without one), and their names in code order."""

    key: str | None
    levels: tuple[str, ...]

    __repr__ = fields_as_text


@dataclass(frozen=True)
class LabelFacts:
    """Labels of a reference.

    Parameters
    ----------
    key, classes
        obs column of the labels, and the classes that the model's registry declares.
    cells
        Number of cells of each label, the most common first; empty where the repository holds no cells.
    without_cells
        Declared classes that no cell has; they are never predicted.
    in_one_batch
        Labels that only one of several batches has: no held-out batch can tell how they are found in a new one.
    """

    key: str | None
    classes: tuple[str, ...]
    cells: Mapping[str, int]
    without_cells: tuple[str, ...]
    in_one_batch: tuple[str, ...]

    __repr__ = fields_as_text


@dataclass(frozen=True)
class CovariateFacts:
    """Extra covariates: levels of the categorical ones, names of the continuous ones, and the column of size factors or None."""

    categorical: Mapping[str, tuple[str, ...]]
    continuous: tuple[str, ...]
    size_factor: str | None

    __repr__ = fields_as_text


@dataclass(frozen=True)
class Surgery:
    """What a new batch does to a reference.

    Parameters
    ----------
    can_move_latent
        Whether the encoder sees the batch at all. If not, training is skipped, as projection is the exact answer.
    numbers_per_new_batch
        Numbers that a new batch adds to the model.
    query_needs
        What a query must bring, in words.
    refusal
        Why no query can be mapped onto this reference; None where queries can be.
    """

    can_move_latent: bool
    numbers_per_new_batch: int
    query_needs: tuple[str, ...]
    refusal: str | None

    __repr__ = fields_as_text


@dataclass(frozen=True)
class Description:
    """Facts about a reference. ``print(description)`` shows them as lines, ``to_dict()`` gives plain values for JSON.

    Parameters
    ----------
    base, scvi_version
        Identity of the model, and the version of scvi-tools that saved it.
    genes, batch, labels, covariates
        What the model was trained on.
    layer
        Layer that held the counts, None for X.
    cells, latent, minified
        Number of cells with a latent, where the latent comes from, in words, and the minify type of the file or None.
    hyper
        The family's hyper-parameters by name.
    surgery
        What a new batch does, and what a query must bring.
    notes, remarks
        What is odd about the files, and what of them was left out, a sentence each.
    loadings
        For LinearSCVI, the genes with the largest loadings of each latent dimension: ``"up"`` and ``"down"``, each with its
        loading by gene. Empty for other families.
    """

    base: BaseId
    scvi_version: str
    genes: GeneFacts
    batch: BatchFacts
    labels: LabelFacts
    covariates: CovariateFacts
    layer: str | None
    cells: int
    latent: str
    minified: str | None
    hyper: Mapping[str, Any]
    surgery: Surgery
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    loadings: tuple[Mapping[str, Mapping[str, float]], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The facts as plain values, ready for JSON; "loadings" only where there are any.

        Examples
        --------
        >>> import scgraft
        >>> folder, adata = scgraft.testing.example()
        >>> scgraft.describe(scgraft.load_reference(folder)).to_dict()["surgery"]["can_move_latent"]
        True
        """
        found = asdict(self)
        if not self.loadings:
            del found["loadings"]
        return found

    def _shown(self) -> tuple[str, Rows]:
        base, genes, batches = self.base, self.genes, self.batch.levels
        label = self.labels
        rows: Rows = [
            (
                "commit",
                f"{'none, a folder' if base.revision == 'local' else base.revision}   model.pt sha256 {base.sha256[:16]}",
            ),
            ("saved by", f"scvi-tools {self.scvi_version}"),
            ("genes", f"{genes.number} ({genes.identifier}; {', '.join(genes.examples)}, ...)"),
            (
                "batch",
                f"{self.batch.key or 'none: trained without a batch column'}: {len(batches)} "
                f"level{'s' if len(batches) != 1 else ''} ({_few(batches)})",
            ),
            ("labels", "none" if label.key is None else f"{label.key}: {len(label.classes)} classes"),
            *(("", f"  {n:7d}  {name}") for name, n in label.cells.items()),
        ]
        if label.without_cells:
            rows.append(("", f"  declared but without cells, never predicted: {_few(label.without_cells)}"))
        if label.in_one_batch:
            rows.append(("", f"  in one batch only: {_few(label.in_one_batch)}"))
        rows += [("covariate", f"{key}: {_few(levels)}") for key, levels in self.covariates.categorical.items()]
        rows += [("covariate", f"{key} (continuous)") for key in self.covariates.continuous]
        rows.append(("cells", f"{self.cells} with a latent ({self.latent}); minified: {self.minified or 'no'}"))
        rows.append(("surgery", self._surgery()))
        for i, ends in enumerate(self.loadings):
            rows.append((f"dimension {i}", f"up: {_few(list(ends['up']))}; down: {_few(list(ends['down']))}"))
        rows += [("query needs", need) for need in self.surgery.query_needs]
        rows += [("left out", remark) for remark in self.remarks]
        rows += [("note", note) for note in self.notes]
        return f"{base.family} model {base.title}", rows

    def _surgery(self) -> str:
        added = self.surgery.numbers_per_new_batch
        if self.surgery.refusal:
            return f"no query can be mapped: {self.surgery.refusal}"
        if self.surgery.can_move_latent:
            return f"a new batch adds {added} numbers; training moves the latent"
        return (
            "the encoder does not see the batch: fine-tuning cannot change the latent and is skipped; projection is the exact answer "
            f"(a new batch adds {added} numbers, decoder only)"
        )

    def __str__(self) -> str:
        title, rows = self._shown()
        return "\n".join([visible(title), *(f"  {visible(name):{NAME_WIDTH}s}{visible(text)}" for name, text in rows)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return as_html(*self._shown())


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
