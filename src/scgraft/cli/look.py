"""The commands that look before anything is trained: what a reference is, and what a query will run into."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scgraft.cli.options import DEVICE, DROP_EMPTY, GENE_MAP, MIN_FOUND, TABLE, Device
from scgraft.cli.text import say


@click.command("describe")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def describe_command(source: str, revision: str | None, as_json: bool) -> None:
    """Say what the reference SOURCE (hub repository or folder) is, and what surgery can do with it."""
    from scgraft.mapping.load import load_reference
    from scgraft.reference.describe import describe

    reference = load_reference(source, revision)
    found = describe(reference)
    say(json.dumps(found.to_dict(), indent=2) if as_json else str(found))


@click.command("check")
@click.argument("query", type=click.Path(exists=True, path_type=Path))
@click.option("--reference", "source", required=True, help="Hub repository (org/name) or folder.")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--batch-key", help="obs column of the query's batches.")
@click.option("--layer", help="Where the counts are ('X', 'raw' or a layer); default: they are looked for.")
@click.option("--drop-empty", is_flag=True, help=DROP_EMPTY)
@click.option("--min-found", type=click.FloatRange(0, 1), help=MIN_FOUND)
@click.option("--gene-map", type=TABLE, help=GENE_MAP)
@click.option("--device", type=Device(), default="auto", show_default=True, help=DEVICE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def check_command(
    ctx: click.Context,
    query: Path,
    source: str,
    revision: str | None,
    batch_key: str | None,
    layer: str | None,
    drop_empty: bool,
    min_found: float | None,
    gene_map: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Say what mapping QUERY onto a reference will run into, before any training.

    The exit code is 0 (ok or repaired), 11 (a warning) or 3 (it cannot be mapped as it is).
    """
    from dataclasses import asdict

    from scgraft.cli.text import check_text
    from scgraft.mapping.check import check
    from scgraft.mapping.load import load_reference
    from scgraft.query.gene_map import read_gene_map
    from scgraft.query.read import read_query

    reference, adata = load_reference(source, revision, device=device), read_query(query, backed=True)
    genes = None if gene_map is None else read_gene_map(gene_map)
    result = check(
        reference,
        adata,
        batch_key=batch_key,
        layer=layer,
        drop_empty=drop_empty,
        min_found=min_found,
        gene_map=genes,
        device=device,
    )
    document = {"grade": result.grade, "findings": [asdict(finding) for finding in result.findings]}
    say(json.dumps(document, indent=2) if as_json else check_text(result))
    ctx.exit({"warning": 11, "stop": 3}.get(result.grade, 0))


COMMANDS: dict[str, click.Command] = {"describe": describe_command, "check": check_command}
