"""What a stranger's name may do to a terminal, a spreadsheet and a page: nothing."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgraft.cli.text import say
from scgraft.files.text import from_table, lines_visible, table_text, visible

ANY = st.text(st.characters(codec=None, exclude_categories=()))
# Moves the cursor, changes colours or the title, rings, reorders, hides, or cannot be encoded.
HOSTILE = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b[31mred", "a\rb", "a\bb", "\x07", "\x9b31m", "\u202eabc", "\u2066a", "\u200bb",
    "\ufeffa", "\ud800", "a\udfffb", "\x00", "\x7f", "tab\tb", "line\nbreak", "\u2028", "\U000e0041",
]  # fmt: skip
FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    '=HYPERLINK("x")',
    "+cell",
    "-cell",
    "@x",
    "'=1",
    "''+a",
]


@given(ANY)
def test_what_is_shown_is_printable_and_stays_so(text):
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    shown.encode("utf-8")
    assert text != shown or text.isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_control_characters_stand_as_escapes(name, capsys):
    assert "\\" in visible(name)
    say(f"label {visible(name)}")
    assert capsys.readouterr().out.rstrip("\n").isprintable()


def test_lines_stay_lines():
    assert lines_visible("a\x1b[0m\nb") == "a\\x1b[0m\nb"


@given(ANY)
def test_a_table_gives_the_visible_text_back(text):
    assert from_table(table_text(text)) == visible(text)


@given(ANY)
def test_no_cell_starts_a_formula(text):
    cell = table_text(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or float(cell) is not None


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_quoted(text):
    assert table_text(text) == f"'{text}"
    row = io.StringIO()
    csv.writer(row).writerow([table_text(text)])
    assert from_table(next(csv.reader(io.StringIO(row.getvalue())))[0]) == text


@pytest.mark.parametrize("text", ["-1", "+2.5", "-1e-3", "CD4+ T", "a=b", "AAAC-1", "x@y"])
def test_numbers_and_common_names_stay(text):
    assert table_text(text) == text
