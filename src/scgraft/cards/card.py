"""Model cards of the scvi-hub, and of grafts: values whose text has the form that scvi-tools 1.2.2 and later gives cards.

:mod:`scgraft.cards.reading` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scgraft.cards.metrics import Agreement, ModelMetrics
from scgraft.files.atomic import new_file
from scgraft.reference.scvi_registry import model_options
from scgraft.values.graft import Graft
from scgraft.values.reference import Reference
from scgraft.values.shown import fields_as_html, fields_as_text

ABSENT = "Not provided by uploader"
ROWS = (
    ("Mean Absolute Error", "mae"), ("Pearson Correlation", "pearson"), ("Spearman Correlation", "spearman"),
    ("R² (R-Squared)", "r2"),
)  # fmt: skip
COLUMNS = ("gene_f1", "lfc_mae", "lfc_pearson", "lfc_spearman", "roc_auc", "pr_auc", "n_cells")
PARTS = {"training": "Training Value", "validation": "Validation Value", "all": "All Cells"}
STYLES = {
    "corrected": "corrected (R2 of the model against the counts; Wilcoxon test; areas over the size of the score)",
    "legacy": "legacy (as scvi-tools 1.2 to 1.4 computes them: R2 with the model as truth; t-test; areas over the "
    "signed score)",
}


@dataclass(frozen=True)
class Card:
    """A model card.

    ``str(card)`` is its text, and :func:`scgraft.write_card` writes it to a file.

    Parameters
    ----------
    header
        The YAML header: licence, tags, library.
    description, references
        Free text.
    parameters, setup
        Options of the model, and the arguments that its data was set up with.
    registry, statistics
        Where each field is in the AnnData, and the numbers of cells, genes, batches...
    minified
        Whether the card says that the data is minified; None where it says nothing.
    training_data, training_code
        Links, or None.
    metrics
        The metrics tables; None where the card has none.
    """

    header: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, Any] = field(default_factory=dict)
    registry: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, int] = field(default_factory=dict)
    minified: bool | None = None
    training_data: str | None = None
    training_code: str | None = None
    references: str = ""
    metrics: ModelMetrics | None = None

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the form ``name:value``."""
        tags = self.header.get("tags")
        pairs = [str(tag).split(":", 1) for tag in (tags if isinstance(tags, list) else [])]
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def __str__(self) -> str:
        return _text(self)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def reference_card(
    reference: Reference,
    *,
    description: str = "",
    license: str = "",
    tags: Sequence[str] = (),
    metrics: ModelMetrics | None = None,
    training_data: str | None = None,
    training_code: str | None = None,
    references: str = "",
) -> Card:
    """A card of a reference with everything that its files say; the rest is the author's.

    Parameters
    ----------
    reference
        The reference.
    description, license, training_data, training_code, references
        As on the card; a licence is an identifier such as ``"cc-by-4.0"``.
    tags
        More tags, for example ``"tissue:lung"``.
    metrics
        From :func:`scgraft.evaluate`.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> card = scgraft.reference_card(reference, license="cc-by-4.0", tags=["tissue:lung"])
    >>> card.header["license"], card.minified
    ('cc-by-4.0', True)
    """
    schema = reference.schema
    fields = reference.registry.get("field_registries") or {}
    places = {key: entry.get("data_registry") or {} for key, entry in fields.items()}
    statistics = {k: int(v) for entry in fields.values() for k, v in (entry.get("summary_stats") or {}).items()}
    own = ["biology", "genomics", "single-cell", f"model_cls_name:{reference.base.family}"]
    own += [f"scvi_version:{reference.scvi_version}", "modality:rna", f"annotated:{schema.labels_key is not None}"]
    return Card(
        header={"library_name": "scvi-tools"} | ({"license": license} if license else {}) | {"tags": [*own, *tags]},
        description=description,
        parameters={k: v for k, v in model_options(reference).items() if v is not None},
        setup=dict(reference.registry.get("setup_args") or {}),
        registry={key: _place(place) for key, place in sorted(places.items()) if place.get("attr_name")},
        statistics=dict(sorted(statistics.items())),
        minified=reference.minified is not None,
        training_data=training_data,
        training_code=training_code,
        references=references,
        metrics=metrics,
    )


def _place(place: Mapping[str, Any]) -> str:
    key = place.get("attr_key")
    return f"adata.{place['attr_name']}" + (f"['{key}']" if key else "")


def metric_tables(metrics: ModelMetrics) -> dict[str, str]:
    """The three tables of the metrics as Markdown, keyed as in a repository's ``metrics.json``."""
    gene = {} if metrics.gene_wise is None else {"training": metrics.gene_wise}
    rows = [[name, *(_two(getattr(row, column)) for column in COLUMNS)] for name, row in metrics.diff_exp.items()]
    return {
        "cell_wise_cv": _agreement_table(metrics.cell_wise),
        "gene_wise_cv": _agreement_table(gene),
        "diff_exp": _table(["Index", *COLUMNS], rows) if rows else ABSENT,
    }


def _agreement_table(parts: Mapping[str, Agreement]) -> str:
    if not parts:
        return ABSENT
    rows = [[title, *(_two(getattr(part, name)) for part in parts.values())] for title, name in ROWS]
    return _table(["Metric", *(PARTS[name] for name in parts)], rows)


def _two(value: float) -> str:
    return f"{value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_card(card: Card | GraftCard, path: str | Path, *, force: bool = False) -> Path:
    """Write a card to a file, usually ``README.md`` of the repository.

    Parameters
    ----------
    card
        From :func:`scgraft.reference_card` or :func:`scgraft.graft_card`.
    path
        The file.
    force
        Replace a file that exists.

    Returns
    -------
    Path
        The file, which appears when it is complete.

    Raises
    ------
    OutputExists
        The file exists and `force` is off.
    CannotWrite
        The place cannot be written to.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> card = scgraft.reference_card(reference, license="cc-by-4.0")
    >>> path = scgraft.write_card(card, folder / "README.md", force=True)
    >>> scgraft.read_card(path).header["license"]
    'cc-by-4.0'
    """
    path = Path(path)
    with new_file(path, force=force) as new:
        new.write_text(str(card), encoding="utf-8")
    return path


def _text(card: Card) -> str:
    """Text of a card, with the headings and blocks that scvi-tools 1.2.2 and later gives it."""
    tables = dict.fromkeys(("cell_wise_cv", "gene_wise_cv", "diff_exp"), ABSENT)
    numbers = []
    if card.metrics is not None:
        tables = metric_tables(card.metrics)
        numbers = [f"Numbers: {STYLES.get(card.metrics.style, card.metrics.style)}.", ""]
    cell, gene, diff = tables["cell_wise_cv"], tables["gene_wise_cv"], tables["diff_exp"]
    registry = _table(["Registry Key", "scvi-tools Location"], [[k, v] for k, v in card.registry.items()])
    statistics = _table(["Summary Stat Key", "Value"], [[k, str(v)] for k, v in card.statistics.items()])
    minified = "Unknown" if card.minified is None else card.minified
    wise = [
        "**Cell-wise Coefficient of Variation**:",
        "",
        cell,
        "",
        "**Gene-wise Coefficient of Variation**:",
        "",
        gene,
    ]
    links = [
        f"**Training data url**: {card.training_data or ABSENT}",
        "",
        f"**Training Code URL**: {card.training_code or ABSENT}",
    ]
    lines = [
        *_yaml_header(card.header),
        *["# Model Description", "", card.description or "To be added...", ""],
        *["# Metrics", "", *numbers],
        *_block("Coefficient of variation", wise),
        *_block("Differential expression metric", ["**Differential expression**:", "", diff]),
        *["# Model Properties", ""],
        *_block("Model Parameters", ["```json", _json(card.parameters), "```"]),
        *_block("Setup Data Arguments", ["```json", _json(card.setup), "```"]),
        *_block("Data Registry", [registry, "", f"- **Data is Minified**: {minified}"]),
        *_block("Summary Statistics", [statistics]),
        *_block("Training", links),
        *["# References", "", card.references or "To be added...", ""],
    ]
    return "\n".join(lines)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), indent=4, default=str)


def _block(title: str, lines: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary><strong>{title}</strong></summary>", "", *lines, "", "</details>", ""]


def _yaml_header(header: Mapping[str, Any]) -> list[str]:
    import yaml

    return ["---", yaml.safe_dump(dict(header), sort_keys=False).strip(), "---", ""]


@dataclass(frozen=True)
class GraftCard:
    """The card of a graft: base and commit, batches, cells, the receipt of the fit, the mapping in numbers, licence.

    ``str(card)`` is its text, and :func:`scgraft.write_card` writes it to a file.

    Parameters
    ----------
    graft
        The graft.
    cells_per_batch, summary
        Cells by batch, and numbers on the mapping; None where they are not known.
    license, description
        Identifier of the licence of the graft, and free text.
    """

    graft: Graft
    cells_per_batch: Mapping[str, int] | None = None
    summary: Mapping[str, Any] | None = None
    license: str = ""
    description: str = ""

    @property
    def header(self) -> dict[str, Any]:
        """The YAML header: licence, base model, tags, library."""
        base = self.graft.base
        own = [f"model_cls_name:{base.family}", f"scgraft_format:{self.graft.format}"]
        header: dict[str, Any] = {"library_name": "scgraft"} | ({"license": self.license} if self.license else {})
        header |= {} if base.revision == "local" else {"base_model": base.repo}
        return header | {"tags": ["biology", "genomics", "single-cell", *own]}

    def __str__(self) -> str:
        return _graft_text(self)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def graft_card(
    graft: Graft,
    *,
    cells_per_batch: Mapping[str, int] | None = None,
    summary: Mapping[str, Any] | None = None,
    license: str = "",
    description: str = "",
) -> GraftCard:
    """A card of a graft: base and commit, batches, cells, the receipt of the fit, the mapping in numbers, licence.

    ``str(card)`` is its text, and :func:`scgraft.write_card` writes it to a file.

    Parameters
    ----------
    graft
        The graft.
    cells_per_batch, summary
        From the mapping: ``mapped.alignment.cells_per_batch`` and ``mapped.summary``.
    license
        Identifier of the licence of the graft.
    description
        What the cells are, and how to name whoever made it.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> card = scgraft.graft_card(graft, license="cc0-1.0", description="Forty simulated cells.")
    >>> card.header["license"], "Forty simulated cells." in str(card)
    ('cc0-1.0', True)
    """
    return GraftCard(graft, cells_per_batch, summary, license, description)


def _graft_text(card: GraftCard) -> str:
    graft = card.graft
    base, record = graft.base, graft.record
    known = card.cells_per_batch or {}
    batches = [[b, str(known.get(b, "unknown")), _moved(record.moved.get(b))] for b in graft.batches]
    receipt = asdict(record) | {"loss": list(record.loss[-1:])}
    for key in ("moved", "reference_unchanged"):
        receipt.pop(key)
    others = {k.removeprefix("covariate:"): list(v) for k, v in graft.levels.items() if k != "batch"}
    unchanged = "yes, by hash" if len(set(record.reference_unchanged)) == 1 else "unknown"
    facts = [
        ["base", base.repo], ["commit", base.revision], ["sha256 of model.pt", base.sha256], ["class", base.family],
        ["cells", str(record.n_cells)], ["trained numbers", str(record.n_parameters)],
        ["reference unchanged", unchanged],
    ]  # fmt: skip
    lines = [
        *_yaml_header(card.header),
        *["# Graft", "", card.description or "To be added...", ""],
        *[
            "A graft holds new columns for the reference below, one set for each batch of the query. It was made by scgraft and holds no counts.",
            "",
        ],
        *[_table(["", ""], facts), "", "# Batches", ""],
        *[_table(["batch", "cells", "moved by the fit"], batches), ""],
        *([f"New levels of other covariates: {json.dumps(others)}", ""] if others else []),
        *_block("Receipt of the fit", ["```json", _json(receipt), "```"]),
        *(_block("The mapping in numbers", ["```json", _json(card.summary), "```"]) if card.summary else []),
        *["# Use", "", "```python", f"reference = scgraft.load_reference({base.repo!r}, revision={base.revision!r})"],
        *['graft = scgraft.load_graft("THIS REPOSITORY", reference=reference)', "```", ""],
        *["# License", "", card.license or "To be added...", ""],
    ]
    return "\n".join(lines)


def _moved(distance: float | None) -> str:
    return "unknown" if distance is None else f"{distance:.3f}"
