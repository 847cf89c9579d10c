"""The command line: each command a few lines around one public function.

Exit codes: 0 done; 1 an unexpected error; 2 wrong usage; 3 the query; 4 the hub; 5 the model's files; 6 the graft;
7 the output exists; 8 no labels, or the fit diverged; 9 a card contradicts its
files; 10 counts would be uploaded; 11 a warning of `scgraft check`, or no reference
of `scgraft match` fits;
12 the output cannot be written; 13 the cluster cannot be used;
129, 130 or 143: ended by a signal (SIGHUP, SIGINT, SIGTERM), nothing half-written left.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import click

from scgraft import errors
from scgraft._version import __version__
from scgraft.cli import choose, share
from scgraft.cli.size import DEVICE, METHOD, Device, Shard, Size
from scgraft.cli.text import report_lines, say
from scgraft.progress import showing

# The first kind that an error is; the numbers are those of the README, and stay (docs/stability.md).
EXIT_CODES: tuple[tuple[type[errors.ScgraftError], int], ...] = (
    (errors.QueryError, 3),
    (errors.HubError, 4),
    (errors.UnsafeFile, 5),
    (errors.CorruptFile, 5),
    (errors.MovedFile, 5),
    (errors.UnsupportedModel, 5),
    (errors.GraftError, 6),
    (errors.BatchClash, 6),
    (errors.UnknownBatch, 6),
    (errors.OutputExists, 7),
    (errors.HoldsCounts, 10),
    (errors.CannotWrite, 12),
    (errors.ClusterError, 13),
    (errors.NoLabels, 8),
    (errors.FitDiverged, 8),
    (errors.BadOption, 2),
)


OBJECTIVES = ("match", "atlas", "elbo")
TABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
GENE_MAP = "Table (csv or tsv) of two columns without a header: gene of the query, gene of the reference."
DROP_EMPTY = "Leave out cells without any count in the reference's genes."
MIN_FOUND = "Least share of the reference's genes, by weight; default: what the missing ones cost decides."


class _Group(click.Group):
    """Turns scgraft's own errors into one sentence on standard error and a stable exit code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except errors.ScgraftError as error:
            say(f"scgraft: {type(error).__name__}: {error}", err=True)
            notes = getattr(error, "__notes__", [])
            for note in notes:
                say(f"  {note}", err=True)
            ctx.exit(next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1))
        except KeyboardInterrupt:
            say("scgraft: interrupted; what was there before is unchanged.", err=True)
            ctx.exit(128 + signal.SIGINT)


@click.group(
    cls=_Group, commands=share.COMMANDS | choose.COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="scgraft")
@click.option("-v", "--verbose", is_flag=True, help="Say each step, and how long it took, instead of progress bars.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def main(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Graft your cells onto a pretrained single-cell atlas."""
    ctx.obj = quiet
    ctx.with_resource(showing(False if quiet or verbose else None))
    logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING, format="%(message)s")
    logging.getLogger("scgraft").setLevel(logging.INFO if verbose else logging.NOTSET)
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)


@main.command("describe")
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


@main.command("check")
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


@main.command("map")
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


@main.command("gather")
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


@main.command("report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report_command(folder: Path) -> None:
    """Write report.html of FOLDER, which `scgraft map` has written: one page that opens offline."""
    from scgraft.results.page import report

    say(f"Written: {report(folder)}")


@main.group("cache")
def cache_group() -> None:
    """List or remove what is kept of references: calibrations, maps and indices, made anew where they are missing."""


@cache_group.command("list")
def cache_list_command() -> None:
    """Say what is kept, the last used first."""
    from datetime import datetime

    from scgraft.files.cache import LIMIT, cache_root, kept

    entries = kept()
    for entry in entries:
        say(f"{entry.path.name}  {entry.size / 1e6:8.1f} MB  used {datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}")
    total = sum(entry.size for entry in entries) / 1e6
    say(f"{len(entries)} references, {total:.1f} MB (at most {LIMIT / 1e6:.0f}), in {cache_root()}")


@cache_group.command("clear")
def cache_clear_command() -> None:
    """Remove all of it."""
    from scgraft.files.cache import cache_root, clear

    say(f"{clear() / 1e6:.1f} MB removed from {cache_root()}")


@main.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Folder to write."
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def demo_command(out: Path, force: bool) -> None:
    """Map the embedded query onto the embedded reference; no network."""
    from scgraft.cli.demo import run_demo

    run_demo(out, force=force, echo=say)


def _end(number: int, frame: object) -> None:
    """End as after an error: what is half-written is removed on the way out."""
    raise SystemExit(128 + number)


def run() -> None:
    """The program: `main`, in an interpreter that does not search what it imports for garbage.

    torch and anndata make a million objects that live until the end; searching them again and again while they are made, and
    once more at the end, takes a second. The collector still runs, after every 100,000 objects instead of 700.
    """
    gc.set_threshold(100_000, 20, 20)
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored, and it stays so
            signal.signal(number, _end)
    try:
        main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    run()
