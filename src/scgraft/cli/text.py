"""Texts that only a terminal sees: a check, the lines of a finished mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scgraft.files.text import lines_visible, visible

if TYPE_CHECKING:
    from scgraft.values.quality import Check


# The time that a check expects is that of the mapping; a command also has to load Python's libraries.
STARTING = {"resources": " The start of the command takes a few seconds more."}


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
        lines += [f"State: {state.sentence}" for state in mapped.novelty.states]
    for key, result in mapped.labels.items():
        lines.append(f"Labels {key} ({result.method}): {result.unknown.mean():.1%} unknown")
    return lines


def check_text(result: Check) -> str:
    """The findings as lines for a person."""
    lines = []
    for finding in result.findings:
        lines.append(
            visible(f"{finding.grade.upper():8s} {finding.name}: {finding.sentence}{STARTING.get(finding.name, '')}")
        )
        if finding.action:
            lines.append(visible(f"         -> {finding.action}"))
    return "\n".join(lines)


def say(text: str, *, err: bool = False) -> None:
    """Print lines, in which what would move a cursor or change a colour stands as its escape."""
    click.echo(lines_visible(text), err=err)
