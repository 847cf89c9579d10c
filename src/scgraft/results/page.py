"""A mapping's folder -> one self-contained HTML page that opens offline.

Everything is read from the files that ``scgraft map`` wrote, so a page can be made again at any time. jinja2 escapes the
text; plotly's script is inlined; the page's own policy forbids every connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft._version import __version__
from scgraft.calibration.store import load_calibration
from scgraft.errors import BadOption, ScgraftError
from scgraft.files.atomic import new_file
from scgraft.files.text import visible
from scgraft.results import figures
from scgraft.results.columns import (
    Column,
    column_of,
    level_column,
    number_column,
    pack,
    shade_column,
    squeezed,
    text_column,
)
from scgraft.results.meanings import explained
from scgraft.results.methods import bibtex, methods, reference_name, reference_source
from scgraft.results.points import map_points
from scgraft.results.stored import read_cells, read_stored
from scgraft.results.summary import cells_csv, summary_of
from scgraft.values.calibration import Calibration
from scgraft.values.colours import COLOURS, SHAPES, SILENT, in_order, palette
from scgraft.values.hierarchy import no_label
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from plotly.graph_objects import Figure

PAGE = "report.html"
TEMPLATE, STYLE, SCRIPTS = "report.html.j2", "report.css", ("map.js", "report.js")
SHADES_DRAWN = 64  # of a scale of colours on the map: as many as a column of shades holds
# Cells that the table shows at once, and that a page of very many cells holds at all.
ROWS = 200
# What a light is called beside its colour and shape.
WORDS = {"grey": "no yardstick", "green": "good", "amber": "with care", "red": "look first"}


@dataclass(frozen=True)
class ReportData:
    """What a page shows: the documents and tables of a mapping's folder.

    `points` holds ``reference`` (n, 2), ``query`` (m, 2), ``tray`` (m,), ``batch`` (m,) and ``source``; and, where they are
    known, ``types``, the reference cells' labels by column as JSON, with ``types_0`` (n,), ``types_1``... as codes into them.
    """

    summary: dict[str, Any]
    cells: pd.DataFrame
    points: dict[str, np.ndarray]
    calibration: dict[str, Calibration]


def report(
    source: str | Path | MappedQuery,
    path: str | Path | None = None,
    *,
    reference: Reference | None = None,
    adata: AnnData | None = None,
) -> Path:
    """Write the page of a mapping: one HTML file that opens offline.

    Parameters
    ----------
    source
        A folder that ``scgraft map`` or :func:`scgraft.write` has written, or a mapping from :func:`scgraft.map_query`.
    path
        File to write, replaced if it exists; None for ``report.html`` in the folder.
    reference, adata
        Of a mapping, its reference and its query: with both, the page shows the map.

    Returns
    -------
    pathlib.Path
        The page. It needs no network, and holds no counts.

    Raises
    ------
    CorruptFile
        The folder is not a mapping, or a file of it is damaged.
    BadOption
        A mapping is given without a path.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> out = scgraft.write(mapped, adata, folder.parent / "mapped", reference=reference)
    >>> scgraft.report(out).name
    'report.html'
    """
    if isinstance(source, MappedQuery):
        if path is None:
            raise BadOption(
                "A mapping has no folder of its own: say where to write the page, as report(mapped, 'page.html')."
            )
        page, data = Path(path), report_data(source, reference, adata)
    else:
        page, data = Path(source) / PAGE if path is None else Path(path), read_report_data(Path(source))
    text = report_html(data)
    with new_file(page, force=True) as new:
        new.write_text(text, encoding="utf-8")
    return page


def report_data(mapped: MappedQuery, reference: Reference | None = None, adata: AnnData | None = None) -> ReportData:
    """What a page shows, from a mapping in memory: the same as from the folder that it would be written to."""
    summary = json.loads(json.dumps(summary_of(mapped)))
    cells = read_cells(StringIO(cells_csv(mapped)), "the mapping", summary)
    points = {}
    if reference is not None and reference.latent is not None and adata is not None:
        points = map_points(mapped, adata, reference)
    return ReportData(summary, cells, points, dict(mapped.calibration))


def read_report_data(folder: Path) -> ReportData:
    """Read what a page shows from a mapping's folder."""
    summary, cells, points = read_stored(folder)
    try:
        calibration = load_calibration(folder / "calibration")
    except ScgraftError:
        calibration = {}  # a mapping without calibration
    return ReportData(summary, cells, points, calibration)


def report_html(data: ReportData) -> str:
    """The page as text."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup, escape
    from plotly.colors import sample_colorscale
    from plotly.offline import get_plotlyjs

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters["number"] = _number
    environment.filters["residual"] = lambda value: f"{value:+.2f}"
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    home = files("scgraft.results")
    template = environment.from_string((home / TEMPLATE).read_text(encoding="utf-8"))
    figures_drawn, keys = _figures(data), _keys(data)
    heading, packed = pack(_tables(data))
    drawn = {name: json.loads(figure.to_json() or "{}") for name, figure in figures_drawn.items()}
    document = {
        "columns": heading, "keys": keys, "rows": ROWS, "figures": drawn,
        "nothing": {key: no_label(_names(data, key)) for key in keys}, "colours": COLOURS, "shapes": [plotly for plotly, _ in SHAPES], "silent": SILENT,
        "viridis": sample_colorscale("Viridis", SHADES_DRAWN, colortype="rgb"),
        "tray": bool(len(data.points.get("tray", ())) and data.points["tray"].any()),
    }  # fmt: skip
    return template.render(
        summary=data.summary,
        name=reference_name(data.summary["base"]),
        origin=reference_source(data.summary["base"]),
        words=WORDS,
        keys=keys,
        tables={key: label_table(data.cells, key) for key in keys},
        columns=[column for column in heading["query"] if column["kind"] != "shade"],
        genes=any(column["kind"] == "shade" for column in heading["query"]),
        n_cells=len(data.cells),
        held=min(ROWS, len(data.cells)) if _dense(data) else len(data.cells),
        figures=drawn,
        has_map="query" in data.points and len(data.points["query"]) > 0,
        dense=_dense(data),
        many=max((len(palette(_shown_names(data, key))) - 1 for key in keys), default=0) > len(COLOURS),
        shares=_shares(data),
        document=_json(json.dumps(document)),
        packed=packed,
        style=(home / STYLE).read_text(encoding="utf-8"),
        script="".join((home / name).read_text(encoding="utf-8") for name in SCRIPTS),
        plotlyjs=squeezed(get_plotlyjs().encode()),
        methods=methods(data.summary),
        bibtex=Markup(escape(bibtex(data.summary))),
        version=__version__,
        source=str(data.points["source"]) if "source" in data.points else "",
        tray=int(data.points["tray"].sum()) if "tray" in data.points else 0,
    )


def _shown(value: object) -> object:
    """Names of strangers without what would turn or hide the line; markup of the page's own stays."""
    return visible(value) if type(value) is str else value


def _number(value: float | None) -> str:
    """Three digits, as the script of the page writes them (``show``): the numbers of a column end below each other."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _json(text: str) -> str:
    """JSON that cannot close the script it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _keys(data: ReportData) -> list[str]:
    return [key for key in data.summary["summary"]["labels"] if key in data.cells]


def _dense(data: ReportData) -> bool:
    """Whether there are too many cells to draw, and to carry, one by one."""
    return "query" in data.points and len(data.points["reference"]) + len(data.points["query"]) > figures.DRAWN


def _numbers(cells: pd.DataFrame, column: str) -> np.ndarray:
    import pandas as pd

    return pd.to_numeric(cells[column], errors="coerce").to_numpy(np.float64)


def _types(data: ReportData) -> dict[str, np.ndarray]:
    """Labels of the reference cells that the map shows, by column."""
    if "types" not in data.points:
        return {}
    names = json.loads(str(data.points["types"]))
    return {
        key: np.array([*listed, ""])[data.points[f"types_{i}"]] for i, (key, listed) in enumerate(names.items())
    }  # fmt: skip


def _names(data: ReportData, key: str) -> list[str]:
    """Every name that a label column has, in the reference or the query: a type has one colour in all figures."""
    return in_order(
        [*np.unique(data.cells[key].to_numpy().astype(str)), *np.unique(_types(data).get(key, np.zeros(0, str)))]
    )


def _shown_names(data: ReportData, key: str) -> list[str]:
    """Every name of a label column, and what stands where none is believed."""
    names = _names(data, key)
    return [*names, no_label(names)]


def _unknown(cells: pd.DataFrame, key: str) -> np.ndarray:
    """Cells whose label should not be believed: marked so, or novel."""
    unknown = (cells[f"{key}_unknown"] == "True").to_numpy() if key else np.zeros(len(cells), bool)
    # pandas lends read-only arrays: nothing is changed in place.
    return unknown | (cells["novel"] == "True").to_numpy() if "novel" in cells else unknown


def _figures(data: ReportData) -> dict[str, Figure]:
    cells, points, key, out = data.cells, data.points, next(iter(_keys(data)), ""), {}
    unknown = _unknown(cells, key)
    believed = np.where(unknown, no_label(_names(data, key)), cells[key].to_numpy().astype(str)) if key else None
    colours = palette(_shown_names(data, key)) if key else None
    if _dense(data):
        out["map"] = figures.density_figure(points["reference"], points["query"], points["tray"], believed, colours)
    if believed is not None:
        if "cluster" in cells:
            out["flow"] = figures.flow_figure(cells["cluster"].to_numpy(), believed, colours)
        if "batch" in points:
            out["composition"] = figures.composition_figure(points["batch"], believed, colours)
        # A calibrated probability needs no limit; a bare vote is called unknown below one half.
        title, limit = ("calibrated probability", None) if key in data.calibration else ("share of the vote", 0.5)
        out["probability"] = figures.histogram_figure(
            _numbers(cells, f"{key}_probability"), title, unknown, threshold=limit, said="unknown below", low=0.0
        )
    if "novelty" in cells:
        out["novelty"] = figures.histogram_figure(
            _numbers(cells, "novelty"),
            "novelty, as a multiple of its threshold",
            unknown,
            threshold=data.summary.get("novelty_threshold"),
            said="novel beyond",
            low=0.0,
        )
    if key in data.calibration and len(data.calibration[key].reliability):
        out["reliability"] = figures.reliability_figure(data.calibration[key].reliability)
    return out


def _shares(data: ReportData) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """What the figure of the batches shows, as a table: the batches, and each label's share in them."""
    keys = _keys(data)
    if not keys or "batch" not in data.points:
        return [], []
    batch = data.points["batch"].astype(str)
    believed = np.where(
        _unknown(data.cells, keys[0]), no_label(_names(data, keys[0])), data.cells[keys[0]].to_numpy().astype(str)
    )
    batches = in_order(batch)
    rows = [(name, [float((believed[batch == b] == name).mean()) for b in batches]) for name in in_order(believed)]
    return batches, rows


def _tables(data: ReportData) -> dict[str, list[Column]]:
    """What the page carries of each cell: of the query all that labels.csv says, of the reference its place and types."""
    cells, points, keys = data.cells, data.points, _keys(data)
    shown = _most_novel(cells)[:ROWS] if _dense(data) else np.arange(len(cells))
    query = [text_column("barcode", cells.index.to_numpy()[shown].astype(str).tolist(), meaning="The cell's name.")]
    if "batch" in points:
        query.append(
            level_column("batch", points["batch"][shown], meaning="The query's batch.", names=_levels(points["batch"]))
        )
    for name in cells.columns:
        title, meaning = explained(str(name), keys)
        values = cells[name].iloc[shown]
        if name in keys:
            query.append(
                level_column(str(name), values.to_numpy(), title, meaning, list(palette(_shown_names(data, str(name)))))
            )
        else:
            query.append(column_of(str(name), values, title, meaning))
    if "query" not in points or _dense(data):
        return {"query": query, "reference": []}
    query += [number_column(axis, points["query"][:, i]) for i, axis in enumerate("xy")]
    reference = [number_column(axis, points["reference"][:, i]) for i, axis in enumerate("xy")]
    for key, names in _types(data).items():
        reference.append(
            level_column(key, names, names=list(palette(_shown_names(data, key))) if key in keys else None)
        )
    for name, title, of_query, of_reference in _genes(points):
        # One scale for both, on which a few extreme cells do not make all others dark.
        high = max(float(np.quantile(values, 0.995)) for values in (of_query, of_reference)) or 1.0
        query.append(shade_column(name, of_query, title, high=high))
        reference.append(shade_column(name, of_reference, title, high=high))
    return {"query": query, "reference": reference}


def _genes(points: dict[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Of each gene that the map shows the name of its column, its own, and its expression in the query and the reference."""
    names = json.loads(str(points["genes"])) if "genes" in points else []
    for i, gene in enumerate(names):
        yield f"gene {i}", gene, points[f"gene_{i}_query"], points[f"gene_{i}_reference"]


def _levels(values: np.ndarray) -> list[str]:
    return in_order(np.unique(values.astype(str)))


def label_table(cells: pd.DataFrame, key: str) -> list[dict[str, object]]:
    """Rows (label, cells, share, mean probability, unknown) of one label column, most cells first."""
    unknown, probability = cells[f"{key}_unknown"] == "True", _numbers(cells, f"{key}_probability")
    rows = []
    for name, number in cells[key].value_counts().items():
        own = (cells[key] == name).to_numpy()
        rows.append(
            {
                "label": str(name),
                "cells": int(number),
                "share": float(number / len(cells)),
                "probability": float(np.nanmean(probability[own])),
                "unknown": float(unknown[own].mean()),
            }
        )
    return rows


def _most_novel(cells: pd.DataFrame) -> np.ndarray:
    if "novelty" not in cells:
        return np.arange(len(cells))
    return np.argsort(-np.nan_to_num(_numbers(cells, "novelty"), nan=-np.inf), kind="stable")
