"""What the app does for a visitor, without a web server."""

import logging
import threading
from importlib.resources import files
from pathlib import Path

import pytest

from scgraft import errors
from scgraft.app import visit

DEMO = files("scgraft") / "_demo"


def test_no_folder_of_the_machine_can_be_asked_for(tmp_path, monkeypatch):
    (tmp_path / "org" / "secret").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    offered = (str(DEMO / "reference"),)
    assert visit.source_of(f" {offered[0]} ", offered) == offered[0]
    assert visit.source_of("org/name", offered) == "org/name"
    for choice in ("org/secret", "/etc", "../x", "", "~/atlas", str(tmp_path), "org/name/more"):
        with pytest.raises(errors.BadOption, match="not a reference"):
            visit.source_of(choice, offered)


def test_from_a_file_to_results(tmp_path):
    query, source = Path(str(DEMO / "query.h5ad")), str(DEMO / "reference")
    choices, first = visit.batch_columns(query)
    assert first == "well" and choices[0] == visit.NO_BATCHES
    html = visit.findings_html(visit.check_query(query, source, first))
    assert "<table" in html and "counts" in html
    lines: list[str] = []
    with visit.heard(lines.append):
        made = visit.map_query_file(query, source, first, tmp_path)
    assert {path.name for path in made.files} == {
        "labels.csv",
        "mapped.h5ad",
        "report.html",
        "summary.json",
        "graft.zip",
    }
    assert made.sentence and made.page.startswith("<!") and lines
    frame = visit.framed('<p class="x">"&\'</p>')
    assert 'sandbox="allow-scripts"' in frame and "<p class" not in frame


def test_a_visitor_hears_the_own_steps_only():
    heard: list[str] = []
    log = logging.getLogger("scgraft")
    before = (log.level, list(log.handlers))
    with visit.heard(heard.append):
        log.info("mine")
        other = threading.Thread(target=log.info, args=("somebody else's",))
        other.start()
        other.join()
    assert heard == ["mine"] and (log.level, list(log.handlers)) == before


def test_the_last_file_counts_and_one_taken_back_is_gone(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(errors.BadOption, match="no file yet"):
        visit.kept_query(own)
    for name in ("a.h5ad", "b.h5ad"):
        (tmp_path / name).write_text(name)
        visit.keep_upload(str(tmp_path / name), own)
    assert visit.kept_query(own).read_text() == "b.h5ad" and not (tmp_path / "b.h5ad").exists()
    assert visit.keep_upload(None, own) is None and not (own / "query").exists()
