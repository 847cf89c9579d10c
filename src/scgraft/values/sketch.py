"""A small map for notebooks: some cells of the reference in grey, some of the query in the colours of their labels, as one SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from scgraft.files.text import visible
from scgraft.numerics.index import Near
from scgraft.numerics.places import K, among, in_tray
from scgraft.values.colours import COLOURS, GREY, SILENT, in_order, palette
from scgraft.values.hierarchy import no_label

if TYPE_CHECKING:
    from scgraft.values.labels import Labels

WIDTH, HEIGHT, EDGE = 460, 320, 6  # pixels; chosen by eye, not measured
# Cells of the reference and of the query that are drawn: more take room (8 bytes each) and show nothing more at this size; chosen by eye.
SHOWN = 2000
LISTED = 12  # names of the legend: that of the largest groups; chosen by eye, not measured


def sketch(points: np.ndarray, near: Near, labels: Labels | None, novel: np.ndarray, groups: np.ndarray | None) -> str:
    """A map of at most 60 kB, drawn without any library of figures.

    Parameters
    ----------
    points
        Places of the reference's cells, (n, 2).
    near
        Nearest reference cells of the query's, (m, k).
    labels
        Of the cells; None draws all in one colour.
    novel
        Cells that the reference does not explain, (m,): they stand in a tray beside the map, in rows by their `groups` (m,).

    Returns
    -------
    str
        HTML: an SVG with its legend; empty where there is nothing to draw.
    """
    if not len(points) or not len(novel):
        return ""
    of_reference, of_query = _some(len(points)), _some(len(novel))
    found = among(points[near.found.indices[of_query, :K]], near.found.distances[of_query, :K]).astype(np.float32)
    beside = novel[of_query]
    if beside.any():
        rows = np.zeros(int(beside.sum()), int) if groups is None else groups[of_query][beside]
        found[beside] = in_tray(points, rows)
    both = np.concatenate([points[of_reference], found])
    low, width = both.min(axis=0), np.maximum(np.ptp(both, axis=0), 1e-6)
    scale = min((WIDTH - 2 * EDGE) / width[0], (HEIGHT - 2 * EDGE) / width[1])
    places = np.rint((both - low) * scale + EDGE).astype(int)
    places[:, 1] = HEIGHT - places[:, 1]
    shown, marks = places[len(of_reference) :], [_dots(places[: len(of_reference)], GREY, 2)]
    if labels is None:
        marks.append(_dots(shown, COLOURS[0], 4))
        return _framed(marks, [], len(of_query))
    believed = labels.believed
    names, colours = in_order(believed), palette([*labels.classes, no_label(labels.classes)])
    last = sorted(names, key=lambda name: name != no_label(labels.classes))  # what is not believed lies below
    marks += [_dots(shown[believed[of_query] == name], colours[name], 4) for name in last]
    number = {name: int((believed == name).sum()) for name in names}
    listed = sorted(names, key=lambda name: (-number[name], name))[:LISTED]
    legend = [(name, colours[name], number[name]) for name in listed]
    rest = len(believed) - sum(number[name] for name in listed)
    return _framed(marks, legend + ([(f"{len(names) - LISTED} more", SILENT, rest)] if rest else []), len(of_query))


def _some(n: int) -> np.ndarray:
    """Positions of at most SHOWN of n cells, the same every time."""
    return np.sort(np.random.default_rng(0).permutation(n)[:SHOWN])


def _dots(places: np.ndarray, colour: str, size: int) -> str:
    """Points as one path of lines without length; a place is drawn once."""
    if not len(places):
        return ""
    line = "".join(f"M{x} {y}h0" for x, y in np.unique(places, axis=0).tolist())
    return f'<path d="{line}" stroke="{colour}" stroke-width="{size}"/>'


def _framed(marks: list[str], legend: list[tuple[str, str, int]], n: int) -> str:
    said = f"{n:,} query cells in colour among cells of the reference in grey"
    entries = "".join(
        f'<span style="white-space:nowrap;margin-right:1em"><span style="color:{colour}">&#9679;</span> {escape(visible(name))} ({number:,})</span> '
        for name, colour, number in legend
    )
    return (
        f'<div><svg role="img" aria-label="Map: {said}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'style="max-width:100%;height:auto" fill="none" stroke-linecap="round">{"".join(marks)}</svg>'
        f'<div style="max-width:{2 * WIDTH}px">{entries}</div></div>'
    )
