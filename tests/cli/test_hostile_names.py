"""Labels, batches and cells whose names are formulas, cursor movements, turned text and markup, through every command."""

import csv
import gzip
import html
import re
import unicodedata

import pytest
from click.testing import CliRunner

from scgraft.app import visit
from scgraft.cli.main import main
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

LABELS = ("=HYPERLINK(1)", "\x1b[31mred", "\u202e<script>alert(1)</script>")
BATCHES = ("@b", "\x1b]0;t\x07")
CONFIG = TinyConfig(labels=LABELS, batches=BATCHES, minified="latent_posterior_parameters", encode_covariates=True)
CELLS = ("+1+1", "\x1b[2Jcell", "a\rb", "-x", "<b>&")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("hostile-names")
    write_hub_folder(home / "reference", CONFIG)
    query = tiny_query(CONFIG, n_cells=40, batches=("=new", "\x1b[2Jnew"))
    query.obs_names = [*CELLS, *query.obs_names[len(CELLS) :]]
    query.write_h5ad(home / "query.h5ad")
    return home


def harmless(text):
    """No control character but the ends of lines, and none that turns or hides what follows."""
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


def said(*line, code=(0,)):
    done = CliRunner().invoke(main, [str(word) for word in line])
    assert done.exit_code in code, done.output
    assert harmless(done.output), repr(done.output)
    return done.output


def own_text(page):
    """A page without its scripts: what the browser shows before they run."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)


def check_table(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    cells = [cell for row in rows for cell in row]
    assert all(cell.isprintable() for cell in cells)
    formulas = [
        c for c in cells if c.startswith(("=", "+", "-", "@")) and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", c)
    ]
    assert formulas == []
    return rows


def test_every_command_shows_them_harmlessly(home):
    reference, query, out = home / "reference", home / "query.h5ad", home / "out"
    assert "x1b" in said("describe", reference)
    said("check", query, "--reference", reference, "--batch-key", "batch", code=(0, 11))
    said("map", query, "--reference", reference, "--batch-key", "batch", "--out", out, "--epochs", "1")
    assert len(check_table(out / "labels.csv")) == 41
    page = (out / "report.html").read_text(encoding="utf-8")
    assert harmless(own_text(page).replace("\t", "").replace("\ufeff", ""))
    assert "<script>alert(1)</script>" not in html.unescape(own_text(page)) or "<script>alert" not in page
    assert "\x1b" not in page and "<script>alert(1)" not in page
    said("explain", "--query", query, out, "--", *CELLS)
    said("report", out)
    said("export", out / "graft", "--reference", reference, "--out", home / "export")
    said("join", "--reference", reference, "--out", home / "joint.h5ad", f"=lab={out / 'mapped.h5ad'}", code=(0, 2))
    said("join", "--reference", reference, "--out", home / "joint2.h5ad", f"lab={out / 'mapped.h5ad'}")


def test_a_mapping_in_parts_writes_them_harmlessly(home):
    out = home / "parts"
    said("map", home / "query.h5ad", "--reference", home / "reference", "--batch-key", "batch", "--out", out, "--epochs", "1",
         "--memory", "1K", "--no-report")  # fmt: skip
    check_table(next(out.glob("labels.csv*")))


def test_the_app_shows_them_harmlessly(home):
    found = visit.findings_html(visit.check_query(home / "query.h5ad", str(home / "reference"), "batch"))
    assert harmless(found) and "<script>" not in found
