"""Names come from strangers' files: how they are shown on a terminal and written into a table."""

from __future__ import annotations

import re

# What a spreadsheet takes for a formula (OWASP, "CSV Injection"), with the quotes that an earlier writing put before it.
FORMULA = re.compile(r"'*[=+\-@]")


def visible(text: str) -> str:
    r"""Text in which every character that is not printable stands as its escape: ``\x1b`` for ESC, ``\ud800`` for a surrogate.

    Nothing that it returns moves a cursor, changes a colour, reorders a line, or cannot be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def lines_visible(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(visible(line) for line in text.split("\n"))


def table_text(text: str) -> str:
    """Text of one cell of a CSV file: visible, and with a quote before what a spreadsheet would run as a formula.

    A number stays as it is. :func:`from_table` takes the quote away again.
    """
    text = visible(text)
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def from_table(text: str) -> str:
    """The visible text that :func:`table_text` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
