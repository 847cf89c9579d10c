"""How a value looks in a notebook or a terminal: a title and a few rows, never the arrays themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

import numpy as np

from scgraft.files.text import visible

# Entries of a list, and characters of a text, that are shown before the rest is counted.
ENTRIES, CHARACTERS = 5, 160
Rows = list[tuple[str, str]]


def as_text(title: str, rows: Rows) -> str:
    """Title and rows as lines, the rows' names in a column of their own."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join([visible(title), *(f"  {visible(name):{width}s}  {visible(text)}" for name, text in rows)])


def as_html(title: str, rows: Rows) -> str:
    """Title and rows as a table; every name is escaped, as it may come from a stranger's file."""
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left;vertical-align:top">{escape(visible(name))}</th>'
        f'<td style="text-align:left">{escape(visible(text))}</td></tr>'
        for name, text in rows
    )
    return f"<div><p><b>{escape(visible(title))}</b></p><table>{cells}</table></div>"


def field_rows(value: Any) -> Rows:
    """One row for each field of a dataclass."""
    return [(f.name, short(getattr(value, f.name))) for f in fields(value)]


def fields_as_text(value: Any) -> str:
    """Text of a value that has no words of its own."""
    return as_text(type(value).__name__, field_rows(value))


def fields_as_html(value: Any) -> str:
    """The same as a table."""
    return as_html(type(value).__name__, field_rows(value))


def short(value: Any) -> str:
    """A field in a few words: arrays by type and shape, long lists by their first entries and their number."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.dtype} array of shape {value.shape}"
    if hasattr(value, "shape") and hasattr(value, "nnz"):
        return f"{value.dtype} sparse matrix of shape {value.shape} with {value.nnz:,} values"
    if hasattr(value, "columns") and hasattr(value, "index"):
        return f"table of {len(value):,} rows and {len(value.columns)} columns"
    if isinstance(value, Mapping):
        return "{" + some(f"{k}: {short(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "(" + some(short(v) for v in value) + ")"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, str):
        return cut(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    return cut(repr(value))


def some(entries: Iterable[str]) -> str:
    """The first few entries, and how many there are in all."""
    listed = list(entries)
    more = f", ... ({len(listed):,} in all)" if len(listed) > ENTRIES else ""
    return ", ".join(map(cut, listed[:ENTRIES])) + more


def cut(text: str) -> str:
    """A text that is too long to show, cut."""
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def shares(names: np.ndarray) -> str:
    """The most common names with their shares."""
    number = Counter(names.astype(str).tolist())
    return some(f"{name} {n / len(names):.0%}" for name, n in number.most_common())
