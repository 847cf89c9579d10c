"""Columns of cells as bytes that a page can carry: quantised, interned, compressed once.

A hundred thousand cells with their coordinates, labels and scores take about two megabytes; written out as text for every
colouring of the map they took thirty. The page unpacks them with what every browser has (``DecompressionStream``).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# The largest 16-bit number says that a value is missing.
MISSING = 65_535
# Steps of a colour; fewer would be seen as bands, more take room. Chosen by eye, not measured.
SHADES = 64


@dataclass(frozen=True)
class Column:
    """One column, ready for the page.

    Parameters
    ----------
    name, title, meaning
        Its name in ``labels.csv``, and what a reader sees: a title with its unit, and a sentence.
    kind
        ``"text"``: a JSON list; ``"level"``: 16-bit positions in `names`; ``"number"``: 16 bits between `low` and `high`;
        ``"shade"``: one byte between `low` and `high`, for a colour; ``"flag"``: one byte.
    data
        Its bytes, little-endian.
    names, low, high
        As `kind` needs them.
    """

    name: str
    title: str
    meaning: str
    kind: Literal["text", "level", "number", "shade", "flag"]
    data: bytes
    names: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0


def text_column(name: str, values: Sequence[str], title: str = "", meaning: str = "") -> Column:
    """Text that hardly repeats, as barcodes."""
    listed = json.dumps([str(value) for value in values], ensure_ascii=False, separators=(",", ":"))
    return Column(name, title or name, meaning, "text", listed.encode("utf-8", "replace"))


def level_column(
    name: str, values: np.ndarray, title: str = "", meaning: str = "", names: Sequence[str] | None = None
) -> Column:
    """Text of at most 65,535 different values, each stored once; `names` gives their order."""
    values = np.asarray(values).astype(str)
    known = np.unique(values) if names is None else np.asarray(names, dtype=str)
    order = np.argsort(known, kind="stable")
    codes = order[np.searchsorted(known, values, sorter=order)] if len(known) else np.zeros(0, int)
    return Column(
        name, title or name, meaning, "level", codes.astype("<u2").tobytes(), tuple(known.tolist())
    )  # fmt: skip


def number_column(name: str, values: np.ndarray, title: str = "", meaning: str = "") -> Column:
    """Numbers to a 65,534th of their range; what is not finite is missing."""
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0)
    # Where all values are one, any width serves: every code is then 0.
    width = high - low or 1.0
    codes = np.full(len(values), MISSING)
    codes[finite] = np.round((values[finite] - low) / width * (MISSING - 1)).astype(int)
    return Column(name, title or name, meaning, "number", codes.astype("<u2").tobytes(), (), low, low + width)


def shade_column(name: str, values: np.ndarray, title: str = "", meaning: str = "", *, high: float = 1.0) -> Column:
    """Numbers between 0 and `high` that are seen as colours: 64 steps, as many as an eye tells apart; larger ones are `high`."""
    share = np.clip(np.nan_to_num(np.asarray(values, np.float64)) / high, 0, 1)
    return Column(
        name, title or name, meaning, "shade", np.rint(share * (SHADES - 1)).astype("u1").tobytes(), (), 0.0, high
    )


def flag_column(name: str, values: np.ndarray, title: str = "", meaning: str = "") -> Column:
    """True or false."""
    return Column(name, title or name, meaning, "flag", np.asarray(values, bool).astype("u1").tobytes())


def column_of(name: str, values: pd.Series[Any], title: str, meaning: str) -> Column:
    """The kind that fits a column of ``labels.csv``, which holds text."""
    import pandas as pd

    text = values.to_numpy().astype(str)
    found = set(np.unique(text).tolist())
    if found and found <= {"True", "False"}:
        return flag_column(name, text == "True", title, meaning)
    numbers = pd.to_numeric(values.replace("", "nan"), errors="coerce").to_numpy(np.float64)
    if np.isfinite(numbers).any() and found - {"", "nan"} and np.isfinite(numbers).sum() == np.sum(~_empty(text)):
        whole = np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()
        # A cluster's number is a name.
        return level_column(name, text, title, meaning) if whole and len(found) < 1000 else number_column(
            name, numbers, title, meaning
        )  # fmt: skip
    if len(found) < MISSING:
        return level_column(name, text, title, meaning)
    return text_column(name, text.tolist(), title, meaning)


def _empty(text: np.ndarray) -> np.ndarray:
    return np.isin(text, ["", "nan"])


def pack(tables: Mapping[str, Sequence[Column]]) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Tables of columns as a heading (plain values, for JSON) and one compressed text in base64.

    The heading says of each column where its bytes are: ``start`` and ``end`` in what the text holds once it is inflated.
    """
    parts: list[bytes] = []
    at, heading = 0, {}
    for table, columns in tables.items():
        listed = []
        for column in columns:
            # 16-bit numbers must start at an even place.
            data = column.data + b"\0" * (len(column.data) % 2)
            listed.append(
                {
                    "name": column.name, "title": column.title, "meaning": column.meaning, "kind": column.kind,
                    "names": list(column.names), "low": column.low, "high": column.high,
                    "start": at, "end": at + len(column.data),
                }
            )  # fmt: skip
            parts.append(data)
            at += len(data)
        heading[table] = listed
    return heading, squeezed(b"".join(parts))


def squeezed(data: bytes) -> str:
    """Bytes compressed (zlib) as base64, which a script of the page can hold."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")
