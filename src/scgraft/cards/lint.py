"""What a card says against what its repository holds, and what its own numbers say of the decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scgraft.cards.card import Card
from scgraft.cards.metrics import ModelMetrics
from scgraft.cards.reading import parse_card
from scgraft.reference.scvi_registry import model_options
from scgraft.values.reference import Reference
from scgraft.values.shown import fields_as_html, fields_as_text

# The line that the hub's own cards draw: below it, generated data is not for downstream analysis.
LINE = 0.4
FEW_CELLS = 30  # of a class: the usual size from which a mean is called normal; chosen by eye, not measured
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class CardFinding:
    """One thing about a card: an ``"error"`` is a contradiction, a ``"warning"`` a reason for care, a ``"note"`` a fact."""

    severity: Severity
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.about}: {self.text}"

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def lint_card(reference: Reference) -> tuple[CardFinding, ...]:
    """Contradictions and weak spots of a reference's card; empty for a card without any.

    Parameters
    ----------
    reference
        With the text of its card. Nothing is computed from counts: the card's own numbers are read.

    Returns
    -------
    tuple of CardFinding
        Errors first, then warnings and notes.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> [finding.severity for finding in scgraft.lint_card(reference)]
    ['note']
    """
    if reference.card is None:
        return (CardFinding("error", "card", "The repository has no card (README.md)."),)
    card = parse_card(reference.card)
    found = [
        *_about_minified(card, reference),
        *_about_model(card, reference),
        *_about_statistics(card, reference),
        *_about_library(reference),
        *_about_text(card),
        *_about_metrics(card),
    ]
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def decoder_doubts(metrics: ModelMetrics | None, label: str | None = None) -> tuple[str, ...]:
    """Reasons not to trust what a model's decoder makes of cells (of one class), from the metrics on its card.

    Parameters
    ----------
    metrics
        Of the card, or from :func:`scgraft.evaluate`; None where there are none, which is a doubt too.
    label
        A class; None asks about all cells.

    Examples
    --------
    >>> import scgraft
    >>> scgraft.decoder_doubts(None)
    ("The reference's card has no metrics, so nothing is known of how good its decoder is.",)
    """
    if metrics is None or (metrics.gene_wise is None and not metrics.diff_exp):
        return ("The reference's card has no metrics, so nothing is known of how good its decoder is.",)
    found = []
    gene = metrics.gene_wise
    if gene is not None and (value := _lowest(gene.r2, gene.pearson)) is not None:
        found.append(f"Gene-wise coefficient of variation: {value}, below the card's own line of {LINE}.")
    for part, agreement in metrics.cell_wise.items():
        if part != "validation" and (value := _lowest(math.nan, agreement.pearson)) is not None:
            found.append(f"Cell-wise coefficient of variation ({part}): {value}, below the card's own line of {LINE}.")
    if label is not None:
        row = metrics.diff_exp.get(label)
        if row is None:
            found.append(f"The card has no differential expression metric for {label!r}.")
        else:
            if row.n_cells < FEW_CELLS:
                found.append(f"{label!r} has {row.n_cells} cells in the reference, fewer than {FEW_CELLS}.")
            if row.lfc_pearson < math.sqrt(LINE):
                found.append(f"Fold changes of {label!r}: correlation {row.lfc_pearson:.2f} with those of the counts.")
    return tuple(found)


def _lowest(r2: float, pearson: float) -> str | None:
    """The measure that is below the line, in words."""
    if not math.isnan(r2) and r2 < LINE:
        return f"R2 {r2:.2f}"
    squared = math.copysign(pearson * pearson, pearson)
    return f"squared correlation {squared:.2f}" if squared < LINE else None


def _about_minified(card: Card, reference: Reference) -> list[CardFinding]:
    registered = [key for key in ("latent_qzm", "latent_qzv", "minify_type") if key in card.registry]
    actual = reference.minified
    found = []
    if card.minified is False and registered:
        found.append(f"The card says 'Data is Minified: False', but its own data registry has {', '.join(registered)}.")
    if card.minified is True and card.registry and not registered:
        found.append("The card says 'Data is Minified: True', but its data registry has no latent.")
    if card.minified is False and actual is not None:
        state = "its counts were kept" if actual.endswith("with_counts") else "its counts were removed"
        found.append(f"The card says 'Data is Minified: False', but the data holds a stored posterior; {state}.")
    if card.minified is True and actual is None and reference.adata_path is not None:
        found.append("The card says 'Data is Minified: True', but the data holds no stored posterior.")
    notes = (
        []
        if card.minified is not None
        else [CardFinding("note", "minified", "The card does not say whether the data is minified.")]
    )
    return [*(CardFinding("error", "minified", text) for text in found), *notes]


def _about_model(card: Card, reference: Reference) -> list[CardFinding]:
    found = []
    for tag, actual in (("model_cls_name", reference.base.family), ("scvi_version", reference.scvi_version)):
        said = card.tags.get(tag)
        if said is not None and actual != "unknown" and said != actual:
            found.append(
                CardFinding(
                    "error", "tags", f"The tag says {tag}:{said}, and the model's file says {actual}. Correct the tag."
                )
            )
    annotated = card.tags.get("annotated")
    if annotated is not None and (annotated == "True") != (reference.schema.labels_key is not None):
        key = reference.schema.labels_key
        what = f"has the label column {key!r}" if key is not None else "has no label column"
        found.append(CardFinding("warning", "tags", f"The tag says annotated:{annotated}, but the model {what}."))
    found += _differences("model parameters", card.parameters, model_options(reference))
    setup = reference.registry.get("setup_args") or {}
    return found + _differences("setup arguments", card.setup, setup)


def _differences(about: str, said: Any, actual: Any) -> list[CardFinding]:
    return [
        CardFinding("error", about, f"The card says {key} = {said[key]!r}, and the model's file says {actual[key]!r}.")
        for key in said
        if key in actual and _plain(said[key]) != _plain(actual[key])
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _about_statistics(card: Card, reference: Reference) -> list[CardFinding]:
    schema, found = reference.schema, []
    actual = {"n_vars": len(schema.genes), "n_batch": len(schema.batches), "n_latent_qzm": reference.hyper.n_latent}
    if reference.obs is not None:
        actual["n_cells"] = len(reference.obs)
    for key, value in actual.items():
        said = card.statistics.get(key)
        if said is not None and said != value:
            found.append(
                CardFinding("error", "statistics", f"The card says {key} = {said}, and the files hold {value}.")
            )
    if schema.labels_key is not None and reference.obs is not None and schema.labels_key in reference.obs:
        present = set(reference.obs[schema.labels_key].astype(str))
        empty = sorted(set(schema.labels) - present)
        if empty:
            found.append(
                CardFinding(
                    "warning", "labels", f"These classes have no cell in the reference: {', '.join(empty[:8])}."
                )
            )
    return found


def _about_library(reference: Reference) -> list[CardFinding]:
    if reference.library is None or (np.asarray(reference.library) > 0).all():
        return []
    n = int((np.asarray(reference.library) <= 0).sum())
    text = (
        f"{n} of {len(reference.library)} cells have an observed library size of zero; expected counts are zero there."
    )
    return [CardFinding("error", "library size", text)]


def _about_text(card: Card) -> list[CardFinding]:
    found = []
    if not card.header:
        found.append(CardFinding("error", "header", "The card has no YAML header that can be read."))
    elif not card.header.get("license"):
        found.append(
            CardFinding(
                "warning",
                "licence",
                "The card names no licence, so nobody may use the model. Name one (`license:` in the header).",
            )
        )
    if not card.description:
        found.append(CardFinding("note", "description", "The card does not describe the data."))
    return found


def _about_metrics(card: Card) -> list[CardFinding]:
    metrics = card.metrics
    if metrics is None:
        return [
            CardFinding("note", "metrics", "The card has no metrics, so nothing is known of how good the decoder is.")
        ]
    found = [CardFinding("warning", "metrics", text) for text in decoder_doubts(metrics)]
    few = [f"{name} ({row.n_cells})" for name, row in metrics.diff_exp.items() if row.n_cells < FEW_CELLS]
    if few:
        text = f"These classes have fewer than {FEW_CELLS} cells, so their numbers say little: {', '.join(few)}."
        found.append(CardFinding("warning", "metrics", text))
    if metrics.diff_exp and card.statistics.get("n_cells") is not None:
        total, said = sum(row.n_cells for row in metrics.diff_exp.values()), card.statistics["n_cells"]
        if total > said:
            text = f"The classes of the metrics have {total} cells together, and the statistics say n_cells = {said}."
            found.append(CardFinding("error", "metrics", text))
    if metrics.style == "published":
        text = (
            "The numbers do not say how they were made. scvi-tools' own take the model for the truth in R2, use a t-test "
            "where the card says Wilcoxon, and count genes that are lower in a class as misses in the areas; "
            "scgraft.evaluate (scgraft card metrics) gives corrected ones."
        )
        found.append(CardFinding("note", "metrics", text))
    elif metrics.style == "legacy":
        found.append(CardFinding("note", "metrics", "The numbers are in the legacy style of scvi-tools."))
    return found
