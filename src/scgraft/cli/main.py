"""The command line: each command a few lines around one public function, in the file of its idea beside this one.

Exit codes: 0 done; 1 an unexpected error; 2 wrong usage; 3 the query; 4 the hub; 5 the model's files; 6 the graft;
7 the output exists; 8 no labels, or the fit diverged; 9 a card contradicts its
files; 10 counts would be uploaded; 11 a warning of `scgraft check`, or no reference
of `scgraft match` fits;
12 the output cannot be written; 13 the cluster cannot be used;
129, 130 or 143: ended by a signal (SIGHUP, SIGINT, SIGTERM), nothing half-written left.
"""

from __future__ import annotations

import gc
import logging
import signal
import warnings
from pathlib import Path

import click

from scgraft import errors
from scgraft._version import __version__
from scgraft.cli import choose, kept, look, mapping, share
from scgraft.cli.text import say
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
    cls=_Group,
    commands=look.COMMANDS | mapping.COMMANDS | share.COMMANDS | choose.COMMANDS | kept.COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
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
