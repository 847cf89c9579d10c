"""Texts that only a terminal sees: a check, a description, the lines of a finished mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scgraft.files.text import lines_visible, visible

if TYPE_CHECKING:
    from scgraft.values.quality import Check
    from scgraft.values.reference import Reference


def report_lines(mapped: object) -> list[str]:
    """What a mapping did, in a few lines."""
    from scgraft.values.mapping import MappedQuery

    assert isinstance(mapped, MappedQuery)
    alignment, record = mapped.alignment, mapped.graft.record
    lines = [
        f"Reference {mapped.base.repo} at {mapped.base.revision[:12]} ({mapped.base.family})",
        f"{alignment.n_cells} cells; counts from {alignment.counts_from}; "
        f"{alignment.n_found} of {alignment.n_genes} genes found ({alignment.found_weight:.1%} by weight)",
        *alignment.messages,
    ]
    if record.trained:
        lines.append(
            f"Trained {record.n_parameters} numbers for {len(mapped.graft.batches)} new batches "
            f"in {record.seconds:.1f} s ({record.steps} steps on {record.n_fit_cells} cells). {record.reason}"
        )
        lines.append("Moved: " + ", ".join(f"{batch} {distance:.3f}" for batch, distance in record.moved.items()))
        lines.append("The reference did not move: its weights have the same hash before and after.")
    else:
        lines.append(record.reason)
    if mapped.verdict is not None:
        lines.append(f"{mapped.verdict.light.upper()}: {mapped.verdict.sentence}")
        lines += [f"  {m.light} {m.name}: {m.sentence} {m.action}" for m in mapped.verdict.measures if m.action]
    if mapped.novelty is not None:
        lines += [f"Unknown: {dossier.sentence}" for dossier in mapped.novelty.dossiers]
    for key, result in mapped.labels.items():
        lines.append(f"Labels {key} ({result.method}): {result.unknown.mean():.1%} unknown")
    return lines


def check_text(result: Check) -> str:
    """The findings as lines for a person."""
    lines = []
    for finding in result.findings:
        lines.append(visible(f"{finding.grade.upper():8s} {finding.name}: {finding.sentence}"))
        if finding.action:
            lines.append(visible(f"         -> {finding.action}"))
    return "\n".join(lines)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, in which what would move a cursor or change a colour stands as its escape."""
    click.echo(lines_visible(text), err=err)


def describe_text(reference: Reference) -> str:
    """The same facts as lines for a person."""
    from scgraft.reference.describe import describe

    facts = describe(reference)
    base, surgery, labels, genes = facts["base"], facts["surgery"], facts["labels"], facts["genes"]
    added = surgery["numbers_per_new_batch"]
    batches = facts["batch"]["levels"]
    lines = [
        f"{base['family']} model {base['repo']}",
        f"  commit        {base['revision']}   model.pt sha256 {base['sha256'][:16]}",
        f"  saved by      scvi-tools {facts['scvi_version']}",
        f"  genes         {genes['number']} ({genes['identifier']}; {', '.join(genes['examples'])}, ...)",
        f"  batch         {facts['batch']['key'] or 'none: trained without a batch column'}: "
        f"{len(batches)} level{'s' if len(batches) != 1 else ''} ({_some(batches)})",
        f"  labels        {_labels_line(labels)}",
    ]
    lines += [f"                  {n:7d}  {name}" for name, n in labels["cells"].items()]
    if labels["without_cells"]:
        lines.append(f"                  declared but without cells, never predicted: {_some(labels['without_cells'])}")
    if labels["in_one_batch"]:
        lines.append(f"                  in one batch only: {_some(labels['in_one_batch'])}")
    for key, levels in facts["covariates"]["categorical"].items():
        lines.append(f"  covariate     {key}: {_some(levels)}")
    for key in facts["covariates"]["continuous"]:
        lines.append(f"  covariate     {key} (continuous)")
    lines.append(
        f"  cells         {facts['cells']} with a latent ({facts['latent']}); minified: {facts['minified'] or 'no'}"
    )
    if surgery["refusal"]:
        lines.append(f"  surgery       no query can be mapped: {surgery['refusal']}")
    elif surgery["can_move_latent"]:
        lines.append(f"  surgery       a new batch adds {added} numbers; training moves the latent")
    else:
        lines.append(
            "  surgery       the encoder does not see the batch: fine-tuning cannot change the latent and is skipped; "
            f"projection is the exact answer (a new batch adds {added} numbers, decoder only)"
        )
    for i, ends in enumerate(facts.get("loadings", [])):
        lines.append(f"  dimension {i:<3d} up: {_some(list(ends['up']))}; down: {_some(list(ends['down']))}")
    lines += [f"  query needs   {need}" for need in surgery["query_needs"]]
    lines += [f"  left out      {remark}" for remark in reference.remarks]
    lines += [f"  note          {note}" for note in reference.notes]
    return "\n".join(map(visible, lines))


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _labels_line(labels: dict[str, Any]) -> str:
    return "none" if labels["key"] is None else f"{labels['key']}: {len(labels['classes'])} classes"
