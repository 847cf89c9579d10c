"""Colours of cell types: twenty that stay apart for colour-blind readers, then the same with other shapes."""

from __future__ import annotations

from collections.abc import Iterable

from scgraft.values.hierarchy import NO_LABEL, UNKNOWN

# Found by search: for a reader of ordinary sight and for one with protanopia, deuteranopia or tritanopia (Machado et al. 2009)
# any two are 11 units of CIEDE2000 apart, and each is 9 from the grey of "unknown" and 10 from white. A test measures it.
COLOURS = (
    "#2D7869", "#F0D21E", "#69E1FF", "#6900A5", "#870F0F", "#8769F0", "#D2690F", "#0000FF", "#87B496", "#A54B00",
    "#875A96", "#692D5A", "#B496FF", "#B4B45A", "#B478B4", "#2D5A3C", "#78965A", "#B4E1C3", "#4B9687", "#5A784B",
)  # fmt: skip
# Plotly's and matplotlib's names of the shape of the first, second, ... twenty types.
SHAPES = (("circle", "o"), ("diamond", "D"), ("square", "s"), ("triangle-up", "^"), ("star", "*"))
GREY, DARK, RED, SILENT = "#C3C9D0", "#22303C", "#B03A2E", "#99A3AE"


def in_order(names: Iterable[object]) -> list[str]:
    """Different names, sorted; numbers by their value."""
    found = {str(name) for name in names}
    return sorted(found, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def palette(names: Iterable[object]) -> dict[str, str]:
    """A colour for each name; grey for "unknown", or for what stands for it where a name is that. Above twenty they repeat, with another of :func:`shapes`."""
    ordered = in_order(names)
    nothing = NO_LABEL if NO_LABEL in ordered else UNKNOWN
    known = [name for name in ordered if name != nothing]
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(known)} | {nothing: SILENT}


def shapes(names: Iterable[object]) -> dict[str, int]:
    """Position in SHAPES for each name, so that colour and shape together are its own up to a hundred names."""
    ordered = in_order(names)
    nothing = NO_LABEL if NO_LABEL in ordered else UNKNOWN
    known = [name for name in ordered if name != nothing]
    return {name: i // len(COLOURS) % len(SHAPES) for i, name in enumerate(known)} | {nothing: 0}
