"""What the app does for one visitor, in a folder of the visitor's own: plain functions that know of no web server."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from scgraft.errors import BadOption
from scgraft.files.text import visible
from scgraft.reference.hub import REPOSITORY
from scgraft.values.quality import Check

NO_BATCHES = "(all cells are one batch)"
BATCH_LIKE = ("batch", "sample", "donor", "library", "well", "run")


@dataclass(frozen=True)
class Results:
    """What a visitor gets: the verdict in a sentence, the page as HTML, and the files to take home."""

    sentence: str
    page: str
    files: tuple[Path, ...]


def source_of(choice: str, offered: Sequence[str]) -> str:
    """The reference that a visitor chose: one that is offered, or a repository of the hub, and no folder of this machine.

    Raises
    ------
    BadOption
        It is neither.
    """
    choice = (choice or "").strip()
    if choice in offered:
        return choice
    if REPOSITORY.fullmatch(choice) and not Path(choice).exists():
        return choice
    raise BadOption(
        f"{choice!r} is not a reference. Choose one of the list, or write the name of a repository such as "
        "'scvi-tools/human-lung-cell-atlas'."
    )


def keep_upload(upload: str | None, folder: Path) -> Path | None:
    """Move a file that arrived into the visitor's folder, in place of the one before; None where it was taken back."""
    home = folder / "query"
    shutil.rmtree(home, ignore_errors=True)
    if upload is None:
        return None
    home.mkdir()
    return Path(shutil.move(upload, home / Path(upload).name))


def kept_query(folder: Path) -> Path:
    """The file that the visitor brought.

    Raises
    ------
    BadOption
        None yet.
    """
    found = sorted((folder / "query").glob("*"))
    if not found:
        raise BadOption("There is no file yet: drop one into the box first.")
    return found[0]


def batch_columns(query: Path) -> tuple[list[str], str]:
    """Columns that may name the batches, and the one to begin with: the first that is called like a batch."""
    from scgraft.query.read import read_query

    adata = read_query(query, backed=True)
    names = [str(name) for name in adata.obs]
    likely = [name for name in names if any(word in name.lower() for word in BATCH_LIKE)]
    return [NO_BATCHES, *names], (likely or [NO_BATCHES])[0]


def check_query(query: Path, source: str, batch_key: str | None) -> Check:
    """What a mapping will run into (:func:`scgraft.check`)."""
    from scgraft.mapping.check import check
    from scgraft.mapping.load import load_reference
    from scgraft.query.read import read_query

    return check(load_reference(source), read_query(query, backed=True), batch_key=batch_key)


def findings_html(result: Check) -> str:
    """A check as a table; every text is escaped, as it may come from a stranger's file."""
    rows = "".join(
        f"<tr><td><b>{escape(f.grade)}</b></td><td>{escape(visible(f.name))}</td><td>{escape(visible(f.sentence))}"
        f"{f'<br><i>{escape(visible(f.action))}</i>' if f.action else ''}</td></tr>"
        for f in result.findings
    )
    return (
        f"<p>Check: <b>{escape(result.grade)}</b></p>"
        f'<div style="overflow-x:auto"><table id="findings" style="width:100%;margin:0">{rows}</table></div>'
    )


def map_query_file(query: Path, source: str, batch_key: str | None, folder: Path) -> Results:
    """Map a query and write everything that ``scgraft map`` writes into a new folder within the visitor's own."""
    from scgraft.mapping.load import load_reference
    from scgraft.mapping.map import map_query
    from scgraft.query.read import read_query
    from scgraft.results.folder import write

    reference, adata = load_reference(source), read_query(query)
    mapped = map_query(reference, adata, batch_key=batch_key)
    out = write(mapped, adata, folder / "results", reference=reference, force=True)
    graft = Path(shutil.make_archive(str(folder / "graft"), "zip", out / "graft"))
    files = (out / "labels.csv", out / "mapped.h5ad", out / "report.html", out / "summary.json", graft)
    sentence = "Mapped, without a verdict." if mapped.verdict is None else mapped.verdict.sentence
    page = (out / "report.html").read_text(encoding="utf-8")
    return Results(sentence, page, tuple(path for path in files if path.exists()))


def framed(page: str) -> str:
    """The page of a mapping in a frame of its own, in which its scripts reach neither this site nor its cookies."""
    return (
        f'<iframe id="report" title="The report" sandbox="allow-scripts" style="width:100%;height:85vh;border:0" '
        f'srcdoc="{escape(page, quote=True)}"></iframe>'
    )


@contextmanager
def heard(say: Callable[[str], object]) -> Iterator[None]:
    """Within, each step that this thread logs is passed on: the steps of other visitors are not."""
    log, own = logging.getLogger("scgraft"), threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == own:
                say(record.getMessage())

    listener, before = Listener(logging.INFO), log.level
    log.addHandler(listener)
    log.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(before)
