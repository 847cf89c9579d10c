"""The commands that map a query, put the parts of a large one together, and write the page of a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scgraft.cli.options import DEVICE, DROP_EMPTY, GENE_MAP, METHOD, MIN_FOUND, TABLE, Device, Shard, Size
from scgraft.cli.text import report_lines, say

OBJECTIVES = ("match", "atlas", "elbo")


@click.command("map")
@click.argument("query", type=click.Path(exists=True, path_type=Path))
@click.option("--reference", "source", required=True, help="Hub repository (org/name) or folder.")
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--batch-key", help="obs column of the query's batches; without it the query is one new batch.")
@click.option("--labels", multiple=True, help="Label column of the reference (repeatable); default: the registry's.")
@click.option("--label-method", "method", help=METHOD)
@click.option("--no-labels", is_flag=True, help="Map without labels.")
@click.option("--layer", help="Where the counts are ('X', 'raw' or a layer); default: they are looked for.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--graft", "graft_source", help="Graft to apply again instead of fitting one: a folder, or org/name[@revision]."
)
@click.option(
    "--calibration",
    "calibration_folder",
    type=click.Path(path_type=Path),
    help="Folder of a calibration that was saved; default: the one in the cache, else a new one.",
)
@click.option(
    "--no-calibration",
    is_flag=True,
    help="Give bare shares of the votes: no calibrated probabilities, prediction sets, novelty or verdict.",
)
@click.option("--no-report", is_flag=True, help="Write neither the map nor the page.")
@click.option(
    "--epochs", type=click.IntRange(0), help="Number of passes over the query at most; 0 maps without training."
)
@click.option(
    "--max-steps", type=click.IntRange(0), help="Number of steps of the fit at most; 0 maps without training."
)
@click.option("--objective", type=click.Choice(OBJECTIVES), help="What the new columns are fitted to; default: match.")
@click.option(
    "--learning-rate", type=click.FloatRange(0), help="Learning rate of the fit; lower it where the fit diverges."
)
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--device", type=Device(), default="auto", show_default=True, help=DEVICE)
@click.option("--drop-empty", is_flag=True, help=DROP_EMPTY)
@click.option(
    "--memory", type=Size(), help="A larger query is mapped in parts (4G); default: a quarter of what is free."
)
@click.option("--with-counts", is_flag=True, help="Keep the counts in mapped.h5ad when the query is mapped in parts.")
@click.option("--shard", type=Shard(), help="Make one share of the parts (3/16), for `scgraft gather`.")
@click.option(
    "--scheduler",
    help="Let the workers of a dask cluster make the parts: the scheduler's address (tcp://host:8786), or its file.",
)
@click.option("--without-counts", is_flag=True, help="Write mapped.h5ad without X, layers and raw.")
@click.option("--min-found", type=click.FloatRange(0, 1), help=MIN_FOUND)
@click.option("--gene-map", type=TABLE, help=GENE_MAP)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.pass_obj
def map_command(
    quiet: bool,
    query: Path,
    source: str,
    revision: str | None,
    batch_key: str | None,
    labels: tuple[str, ...],
    method: str | None,
    no_labels: bool,
    layer: str | None,
    out: Path,
    graft_source: str | None,
    calibration_folder: Path | None,
    no_calibration: bool,
    no_report: bool,
    epochs: int | None,
    max_steps: int | None,
    objective: str | None,
    learning_rate: float | None,
    seed: int,
    device: str,
    drop_empty: bool,
    memory: int | None,
    with_counts: bool,
    shard: tuple[int, int] | None,
    scheduler: str | None,
    without_counts: bool,
    min_found: float | None,
    gene_map: Path | None,
    force: bool,
) -> None:
    """Map QUERY (.h5ad, .zarr, 10x .h5 or folder, .h5mu, .loom, .csv) onto a reference and write the results to OUT.

    A query that would take more than --memory is read from its file piece by piece; a run that was interrupted goes on where
    it was.
    """
    from scgraft.calibration.store import load_calibration
    from scgraft.files.text import visible
    from scgraft.mapping.cluster import connect
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query
    from scgraft.query.cell_file import bytes_in_memory, can_stream, free_memory
    from scgraft.query.gene_map import read_gene_map
    from scgraft.query.read import read_query
    from scgraft.results.folder import check_free, write
    from scgraft.results.stream import Job, map_in_parts
    from scgraft.sharing.load import load_graft
    from scgraft.values.graft import FitConfig
    from scgraft.values.query import AlignOptions

    check_free(out, force=force)
    reference = load_reference(source, revision, device=device)
    graft = None if graft_source is None else load_graft(graft_source, reference=reference)
    made = None if calibration_folder is None else load_calibration(calibration_folder, reference=reference)
    wanted: Any = None if no_labels else list(labels) or "auto"
    chosen = {"max_steps": max_steps, "objective": objective, "learning_rate": learning_rate}
    settings: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    config = FitConfig(epochs=epochs, seed=seed, device=device, **settings)
    trusted: Any = None if no_calibration else made or "auto"
    genes = None if gene_map is None else read_gene_map(gene_map)
    client = None if scheduler is None else connect(scheduler)
    in_parts = shard is not None or client is not None
    if in_parts or can_stream(query) and bytes_in_memory(query) > (memory or free_memory() // 4):
        options = AlignOptions(batch_key, layer, drop_empty, min_found, genes)
        job = Job(query, options, wanted, config, graft, trusted, page=not no_report, method=method)
        lines = _silent if quiet else say
        written = map_in_parts(
            reference, job, out, counts=with_counts, shard=shard, force=force, say=lines, client=client
        )
    else:
        adata = read_query(query)
        mapped = map_query(
            reference,
            adata,
            batch_key=batch_key,
            labels=wanted,
            method=method,
            config=config,
            graft=graft,
            layer=layer,
            drop_empty=drop_empty,
            min_found=min_found,
            gene_map=genes,
            calibration=trusted,
        )
        written = write(
            mapped, adata, out, reference=reference, page=not no_report, counts=not without_counts, force=force
        )
        for line in [] if quiet else report_lines(mapped):
            say(visible(line))
    if not quiet:
        _say_written(written)


def _silent(line: str) -> None:
    pass


def _say_written(folder: Path) -> None:
    say(f"Written to {folder}: {', '.join(sorted(p.name + '/' * p.is_dir() for p in folder.iterdir()))}")


@click.command("gather")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--with-counts", is_flag=True, help="Keep the counts in mapped.h5ad.")
@click.option("--force", is_flag=True, help="Replace the result if it exists.")
@click.pass_obj
def gather_command(quiet: bool, folder: Path, with_counts: bool, force: bool) -> None:
    """Put together the parts in FOLDER (<OUT>.parts), which runs of `scgraft map --shard` have made."""
    from scgraft.results.stream import gather

    written = gather(folder, counts=with_counts, force=force)
    if not quiet:
        _say_written(written)


@click.command("report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report_command(folder: Path) -> None:
    """Write report.html of FOLDER, which `scgraft map` has written: one page that opens offline."""
    from scgraft.results.page import report

    say(f"Written: {report(folder)}")


COMMANDS: dict[str, click.Command] = {"map": map_command, "gather": gather_command, "report": report_command}
