"""Pre-flight: what a mapping will run into, from a sample of the query, in seconds and before any training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import GenesNotFound, QueryError
from scgraft.judgement.lines import FOUND
from scgraft.mapping.cost import cost_of_missing_genes, judge_missing_genes
from scgraft.mapping.resources import NOTHING, resources
from scgraft.mapping.unexplained import unexplained
from scgraft.model.families import family_of
from scgraft.novelty.score import LEAST_BATCH, present_genes
from scgraft.progress import Advance, showing, step
from scgraft.query.align import align_as, cell_names
from scgraft.query.given import as_anndata, given, some_cells
from scgraft.query.levels import code_obs
from scgraft.query.spatial import spatial_messages
from scgraft.reference.cells import label_key, missing_columns, reference_classes
from scgraft.reference.describe import describe
from scgraft.values.description import LabelFacts, Surgery
from scgraft.values.names import column_text
from scgraft.values.quality import Check, Finding
from scgraft.values.query import AlignOptions, Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

CELLS = 2000  # of the query that are looked at: a check takes seconds at any size
FEW = 5  # names in a message, as many as fit on a line
LOSS = 0.05  # of a type's accuracy: a cell in twenty; chosen by eye, not measured
BIOLOGY = re.compile(
    r"disease|condition|diagnos|treat|stim|perturb|genotyp|phenotyp|status|tissue|cohort|"
    r"(?<![a-z])(?:age|sex|gender|stage|time)(?![ns])",
    re.IGNORECASE,
)


def check(
    reference: Reference,
    adata: AnnData,
    *,
    batch_key: str | None = None,
    layer: str | None = None,
    drop_empty: bool = False,
    min_found: float | None = None,
    gene_map: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Check:
    """Say what mapping a query onto a reference will run into, before anything is trained.

    Parameters
    ----------
    reference
        The reference.
    adata
        The query, in memory or backed; it is not changed. Counts are looked at in at most 2000 of its cells (seeded), obs in
        all of them.
    batch_key, layer, drop_empty, min_found, gene_map
        As for :func:`scgraft.map_query`: what a mapping with these refuses is a finding of grade "stop".
    seed
        Random are the cells that are sampled, and those that are generated to see what missing genes cost.
    device
        Where torch computes: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
    progress
        Show a progress bar; None shows it on a terminal and in a notebook.

    Returns
    -------
    Check
        One finding for each of: counts, genes, what missing genes cost, batches, confounding, training, types that the
        reference has, cells that it does not explain, time and memory. `grade` is the worst of them.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> check = scgraft.check(reference, adata, batch_key="batch")
    >>> check.grade in ("ok", "repaired", "warning", "stop"), check.findings[0].name
    (True, 'counts')
    """
    options = AlignOptions(batch_key, layer, drop_empty, min_found, gene_map)
    with showing(progress), step("checking", 4, "part") as advance:
        return Check(tuple(_findings(reference, adata, options, seed, device, advance)))


def _findings(
    reference: Reference, adata: AnnData, options: AlignOptions, seed: int, device: str, advance: Advance
) -> list[Finding]:
    batch_key = options.batch_key
    try:
        adata = as_anndata(adata)
        names = (adata.obsm, adata.uns, adata.obs.columns)
        adata = given(adata)
    except QueryError as error:
        return [_stop(error)]
    index = np.sort(np.random.default_rng(seed).permutation(adata.n_obs)[:CELLS])
    findings = [*_batch_column(adata, batch_key)]
    try:
        cell_names(adata)
        sample = some_cells(adata, index)
        size = code_obs(adata.obs, reference.schema, batch_key).cells_per_batch
        query = align_as(reference, sample, replace(options, drop_empty=True))
    except QueryError as error:
        return [*findings, _stop(error)]
    advance(1)
    findings = [*_counts(query, adata.n_obs, options.drop_empty), _genes(query), *findings]
    try:
        if options.min_found is None:
            judge_missing_genes(reference, query, seed=seed, device=device)
    except GenesNotFound as error:
        findings.append(Finding("missing genes", "stop", str(error), "Give the query the reference's gene names."))
        return findings
    lacking = missing_columns(reference) if reference.obs is not None else ()
    if lacking:
        findings.append(_annotation(lacking))
    if reference.latent is not None and reference.obs is not None and query.alignment.missing and not lacking:
        findings += _cost_of_missing_genes(reference, query, seed, device)
    findings += [*_batches(reference, size), *_confounding(sample, batch_key)]
    findings += [
        Finding("spatial", "warning", said, "Segmented cells can be mapped; spots need a deconvolution.")
        for said in spatial_messages(*names)
    ]
    facts = describe(reference)
    findings += [_training(facts.surgery), _types(reference, facts.labels)]
    advance(1)
    found, measured = ([], NOTHING) if lacking else unexplained(reference, query, seed, device)
    advance(1)
    return [*findings, *found, resources(reference, query, adata.n_obs, measured, device=device)]


def _annotation(lacking: tuple[str, ...]) -> Finding:
    said = f"The reference's cells have no column {', '.join(f'obs[{key!r}]' for key in lacking)}, which the model was trained with: "
    said += "labels are transferred, but not calibrated, and nothing is said of novelty."
    return Finding(
        "reference cells",
        "warning",
        said,
        "Add the column to the reference's AnnData file, or expect labels whose probabilities are not calibrated.",
    )


def _stop(error: QueryError) -> Finding:
    """What a mapping refuses, in its own words."""
    return Finding(type(error).__name__, "stop", str(error), "Correct this and check again.")


def _batch_column(adata: AnnData, batch_key: str | None) -> list[Finding]:
    if batch_key is not None:
        return []
    likely = [str(c) for c in adata.obs if re.search(r"batch|sample|donor|library|well|run", str(c), re.IGNORECASE)]
    said = "No batch column was named: the whole query counts as one new batch."
    return [
        Finding(
            "batch column", "warning" if likely else "ok", said, f"Name one: {', '.join(likely)}." if likely else ""
        )
    ]


def _counts(query: Query, n: int, drop_empty: bool) -> list[Finding]:
    source = query.alignment.counts_from
    sampled = len(query.cells) + len(query.alignment.dropped)
    looked = f" {sampled:,} of {n:,} cells were looked at." if sampled < n else ""
    notes = [m for m in query.alignment.messages if m.startswith((source, "The counts of "))]
    if "recovered" in source:
        found = Finding("counts", "repaired", f"Raw counts were {source}.{looked}")
    else:
        said = " ".join([f"Raw counts are in {source}.{looked}", *notes])
        doubted = any(m.startswith(source) for m in notes)
        action = "Look whether these are raw counts; name their place with layer=... (--layer)." if doubted else ""
        found = Finding("counts", "warning" if doubted else "ok", said, action)
    return [found, *_empty_cells(query, sampled, drop_empty)]


def _empty_cells(query: Query, sampled: int, drop_empty: bool) -> list[Finding]:
    """Cells without a count, which a mapping refuses unless it is told to leave them out."""
    dropped = query.alignment.dropped
    if not dropped:
        return []
    said = f"{len(dropped)} of {sampled:,} cells have no count in any gene of the reference: {', '.join(dropped[:FEW])}"
    said += ", ..." if len(dropped) > FEW else "."
    if drop_empty:
        return [Finding("empty cells", "repaired", f"{said} They are left out.")]
    action = "Filter them (scanpy.pp.filter_cells), or leave them out with drop_empty=True (--drop-empty)."
    return [Finding("empty cells", "stop", f"{said} A mapping refuses them.", action)]


def _genes(query: Query) -> Finding:
    found = query.alignment
    said = f"{found.n_found} of {found.n_genes} genes found ({found.found_weight:.1%} by weight)."
    said = " ".join([said, *(m for m in found.messages if "gene" in m.lower())])
    values = {"found": found.n_found, "of": found.n_genes, "weight": round(found.found_weight, 4)}
    if found.found_weight <= FOUND:
        return Finding("genes", "warning", said, "See what the missing genes cost, below.", values)
    exact = all(way.endswith(("var_names", "]")) for way in found.matched_by)
    return Finding("genes", "ok" if exact else "repaired", said, "", values)


def _cost_of_missing_genes(reference: Reference, query: Query, seed: int, device: str) -> list[Finding]:
    """Accuracy per type on generated reference cells, with all genes and without those that the query lacks."""
    key = label_key(reference.schema, reference.obs)
    if key is None:
        return []
    lost, accuracy = cost_of_missing_genes(reference, key, present_genes(reference, query), query, seed, device=device)
    worst = sorted(lost, key=lambda name: -lost[name])[:3]
    mean = float(np.mean(list(lost.values())))
    said = f"The {len(query.alignment.missing)} missing genes cost {mean:.1%} of accuracy on the mean of the types"
    said += ": " + ", ".join(f"{name} {lost[name]:.1%} (of {accuracy[name]:.0%})" for name in worst) + "."
    values = {"loss": {name: round(v, 4) for name, v in lost.items()}}
    costly = [name for name in sorted(lost, key=lambda name: -lost[name]) if lost[name] > LOSS]
    if costly:
        action = (
            f"Expect errors among {', '.join(costly[:5])}{', ...' if len(costly) > 5 else ''}: count these genes too."
        )
        return [Finding("missing genes", "warning", said, action, values)]
    return [Finding("missing genes", "ok", said, "", values)]


def _batches(reference: Reference, size: dict[str, int]) -> list[Finding]:
    new = [b for b in size if b not in reference.schema.batches]
    known = [b for b in size if b in reference.schema.batches]
    listed = ", ".join(f"{b} ({n})" for b, n in list(size.items())[:8]) + (", ..." if len(size) > 8 else "")
    out = [Finding("batches", "ok", f"{len(new)} new and {len(known)} known batches: {listed}.", "", {"cells": size})]
    if known:
        said = f"The reference knows {', '.join(known[:5])}; these cells are mapped with the columns that it has for it, which stay as they are."
        out.append(Finding("known batches", "warning", said, "If they are new data, give them other names."))
    tiny = [b for b in new if size[b] < LEAST_BATCH]
    if tiny:
        said = f"These batches have fewer than {LEAST_BATCH} cells: {', '.join(tiny[:5])}. New columns cannot be fitted well to so few."
        out.append(Finding("tiny batches", "warning", said, "Join them with batches of the same chemistry."))
    return out


def _confounding(sample: AnnData, batch_key: str | None) -> list[Finding]:
    """Columns that name biology and split the cells exactly as the batches do, and a batch that is biology itself."""
    if batch_key is None or batch_key not in sample.obs:
        return []
    batch, out = column_text(sample.obs[batch_key]), []
    action = "Use a finer batch (donor, sample) or map with FitConfig(epochs=0) (--epochs 0)."
    if BIOLOGY.search(batch_key):
        said = f"{batch_key!r} reads like biology: what differs between its levels is fitted as a batch effect, and can disappear."
        out.append(Finding("confounding", "warning", said, action))
    for i, column in enumerate(sample.obs):
        values = sample.obs.iloc[:, i]
        if column == batch_key or not BIOLOGY.search(str(column)) or values.nunique() < 2 or values.nunique() > 50:
            continue
        pairs = set(zip(batch, column_text(values), strict=True))
        if len(pairs) == len(set(batch)) == values.nunique():
            said = f"{batch_key!r} and {column!r} split the cells in the same way: what differs between the levels of {column!r} "
            said += "is fitted as a batch effect, and can disappear."
            out.append(Finding("confounding", "warning", said, action))
    return out


def _training(surgery: Surgery) -> Finding:
    if surgery.can_move_latent:
        return Finding(
            "training",
            "ok",
            f"A new batch adds {surgery.numbers_per_new_batch} numbers to the model; training them moves the latent.",
        )
    said = "The model's encoder does not see the batch, so training cannot move the latent: it is skipped, and nothing is lost."
    return Finding("training", "ok", said)


def _types(reference: Reference, labels: LabelFacts) -> Finding:
    if family_of(reference.base.family).has_classifier and label_key(reference.schema, reference.obs) is None:
        said = f"No cell of the reference has a label. The model's own classifier gives {len(labels.classes)} labels, and nothing "
        said += f"else: {', '.join(labels.classes)}."
        return Finding(
            "labels", "warning", said, "Its probabilities are not calibrated: look at markers before you believe it."
        )
    key = label_key(reference.schema, reference.obs)
    if key is None:
        return Finding("labels", "warning", "The reference has no labelled cells.", "Name another label column.")
    classes, codes = reference_classes(reference, key)  # as a mapping has them
    number = np.bincount(codes[codes >= 0], minlength=len(classes))
    cells = {str(classes[c]): int(number[c]) for c in np.argsort(-number, kind="stable")}
    rare = [name for name, n in cells.items() if n < LEAST_BATCH]
    said = f"The reference can give {len(cells)} labels, and nothing else: {', '.join(cells)}."
    if labels.without_cells:
        said += f" Labels that the model names, but none of its cells has, are never predicted: {', '.join(labels.without_cells)}."
    if silent := int((codes < 0).sum()):
        said += f" {silent:,} cells of the reference have no label and do not vote."
    if rare:
        said += f" Labels with fewer than {LEAST_BATCH} cells, which are easily missed: {', '.join(rare)}."
    if labels.in_one_batch:
        said += f" Only one batch of the reference has cells of {', '.join(labels.in_one_batch)}: the other batches may be annotated less "
        said += "finely."
    return Finding("labels", "ok", said, "", {"cells": cells})
