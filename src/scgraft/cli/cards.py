"""``scgraft card``: look at, compute for, and write model cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scgraft.cli.text import say
from scgraft.errors import OutputExists

if TYPE_CHECKING:
    from scgraft.cards.metrics import ModelMetrics
    from scgraft.values.reference import Reference

STYLE = click.Choice(["corrected", "legacy"])


@click.group("card")
def card_group() -> None:
    """Model cards: find contradictions, compute the metrics, write one."""


@card_group.command("lint")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def lint_command(ctx: click.Context, source: str, revision: str | None, as_json: bool) -> None:
    """Say what the card of SOURCE (hub repository or folder) gets wrong; exits with 9 where it contradicts its files."""
    from dataclasses import asdict

    from scgraft.cards.lint import lint_card
    from scgraft.reference.hub import fetch
    from scgraft.reference.read import read

    found = lint_card(read(fetch(source, revision)))
    if as_json:
        say(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            say(str(finding))
        say("Nothing to say." if not found else f"{len(found)} findings")
    if any(finding.severity == "error" for finding in found):
        ctx.exit(9)


@card_group.command("metrics")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option(
    "--counts",
    type=click.Path(exists=True, path_type=Path),
    help="AnnData file with the counts of the reference's cells, if it holds none itself.",
)
@click.option("--label-key", help="obs column of the classes; default: the registry's.")
@click.option("--style", type=STYLE, default="corrected", show_default=True, help="How the metrics are computed.")
@click.option("--samples", default=5, show_default=True, type=click.IntRange(1), help="Draws of counts for each cell.")
@click.option("--seed", default=0, show_default=True, help="Seed of the draws.")
def metrics_command(
    source: str, revision: str | None, counts: Path | None, label_key: str | None, style: str, samples: int, seed: int
) -> None:
    """Compute the metrics of a card for SOURCE and print its tables."""
    from scgraft.cards.card import STYLES, metric_tables
    from scgraft.mapping.load import load_reference

    reference = load_reference(source, revision)
    found = _metrics(reference, counts, labels=label_key, style=style, n_samples=samples, seed=seed)
    say(f"Numbers: {STYLES[style]}.")
    for name, table in metric_tables(found).items():
        say(f"\n{name}\n\n{table}")


@card_group.command("write")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write (README.md).")
@click.option("--license", "license_name", default="", help="Licence of the model, for example cc-by-4.0.")
@click.option("--description", default="", help="What the data is, in a few sentences.")
@click.option("--tag", "tags", multiple=True, help="Tag of the card, for example tissue:lung (repeatable).")
@click.option("--metrics", is_flag=True, help="Compute the metrics; needs counts.")
@click.option(
    "--counts",
    type=click.Path(exists=True, path_type=Path),
    help="AnnData file with the counts of the reference's cells, if it holds none itself.",
)
@click.option("--style", type=STYLE, default="corrected", show_default=True, help="How the metrics are computed.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def write_command(
    source: str,
    revision: str | None,
    out: Path,
    license_name: str,
    description: str,
    tags: tuple[str, ...],
    metrics: bool,
    counts: Path | None,
    style: str,
    force: bool,
) -> None:
    """Write a card for SOURCE, with everything that its files say."""
    from scgraft.cards.card import reference_card, write_card
    from scgraft.mapping.load import load_reference

    if out.exists() and not force:
        raise OutputExists(f"{out} exists already. Choose another --out, or use --force to replace it.")
    reference = load_reference(source, revision)
    found = _metrics(reference, counts, style=style) if metrics or counts is not None else None
    card = reference_card(reference, description=description, license=license_name, tags=tags, metrics=found)
    write_card(card, out, force=force)
    say(f"Written to {out}")


def _metrics(reference: Reference, counts: Path | None, **options: Any) -> ModelMetrics:
    from scgraft.expression.evaluate import evaluate
    from scgraft.query.read import read_query

    return evaluate(reference, None if counts is None else read_query(counts), **options)
