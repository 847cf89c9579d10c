"""A mapping's folder -> one self-contained HTML page that opens offline.

Everything is read from the files that ``scgraft map`` wrote, so a page can be made again at any time. jinja2 escapes the
text; plotly's script is inlined; the page's own policy forbids every connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft._version import __version__
from scgraft.calibration.store import load_calibration
from scgraft.errors import ScgraftError
from scgraft.files.atomic import new_file
from scgraft.files.text import visible
from scgraft.model.families import family_of
from scgraft.results import figures
from scgraft.results.stored import read_stored
from scgraft.values.calibration import Calibration
from scgraft.values.hierarchy import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

PAGE = "report.html"
TEMPLATE = "report.html.j2"
ROWS = 200


@dataclass(frozen=True)
class ReportData:
    """What a page shows: the documents and tables of a mapping's folder.

    `points` holds ``reference`` (n, 2), ``query`` (m, 2), ``tray`` (m,), ``batch`` (m,) and ``source``.
    """

    summary: dict[str, Any]
    cells: pd.DataFrame
    points: dict[str, np.ndarray]
    calibration: dict[str, Calibration]


def report(folder: str | Path) -> Path:
    """Write (or write again) ``report.html`` of a mapping's folder.

    Parameters
    ----------
    folder
        Written by ``scgraft map``.

    Returns
    -------
    pathlib.Path
        The page. It needs no network, and holds no counts.

    Raises
    ------
    CorruptFile
        The folder is not a mapping, or a file of it is damaged.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> from scgraft.results.folder import write_mapping  # what `scgraft map` does with a mapping
    >>> out = write_mapping(mapped, adata, folder.parent / "mapped", reference=reference)
    >>> scgraft.report(out).name
    'report.html'
    """
    folder = Path(folder)
    page = report_html(read_report_data(folder))
    with new_file(folder / PAGE, force=True) as new:
        new.write_text(page, encoding="utf-8")
    return folder / PAGE


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
    from plotly.offline import get_plotlyjs

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters["number"] = lambda value: "" if value is None else f"{value:,.3g}"
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    template = environment.from_string((files("scgraft.results") / TEMPLATE).read_text(encoding="utf-8"))
    drawn = {name: _json(figure.to_json()) for name, figure in _figures(data).items()}
    hover = _hover(data)
    return template.render(
        summary=data.summary,
        keys=_keys(data),
        tables={key: label_table(data.cells, key) for key in _keys(data)},
        cells=_cell_rows(data.cells),
        n_cells=len(data.cells),
        columns=list(data.cells.columns),
        figures=drawn,
        hover=_json(json.dumps(hover)),
        dense="map" in drawn and not hover,
        plotlyjs=get_plotlyjs(),
        methods=methods(data.summary),
        version=__version__,
        source=str(data.points["source"]) if "source" in data.points else "",
        tray=int(data.points["tray"].sum()) if "tray" in data.points else 0,
    )


def _shown(value: object) -> object:
    """Names of strangers without what would turn or hide the line; markup of the page's own stays."""
    return visible(value) if type(value) is str else value


def _json(text: str | None) -> str:
    """JSON that cannot close the script it stands in."""
    assert text is not None
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _keys(data: ReportData) -> list[str]:
    return [key for key in data.summary["quality"]["labels"] if key in data.cells]


def _numbers(cells: pd.DataFrame, column: str) -> np.ndarray:
    import pandas as pd

    return pd.to_numeric(cells[column], errors="coerce").to_numpy(np.float64)


def _figures(data: ReportData) -> dict[str, Figure]:
    cells, keys, out = data.cells, _keys(data), {}
    key = keys[0] if keys else ""
    if data.points.get("query") is not None and len(data.points["query"]):
        points = data.points
        out["map"] = figures.map_figure(
            points["reference"],
            points["query"],
            points["tray"],
            _colours(data, key),
        )
    unknown = (cells[f"{key}_unknown"] == "True").to_numpy() if key else np.zeros(len(cells), bool)
    if "novel" in cells:
        # pandas lends read-only arrays: nothing is changed in place.
        unknown = unknown | (cells["novel"] == "True").to_numpy()
    if key:
        believed = np.where(unknown, UNKNOWN, cells[key].to_numpy().astype(str))
        colours = figures.palette(cells[key])
        if "cluster" in cells:
            out["flow"] = figures.flow_figure(cells["cluster"].to_numpy(), believed, colours)
        if "batch" in data.points:
            out["composition"] = figures.composition_figure(data.points["batch"], believed, colours)
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


def _hover(data: ReportData) -> list[str]:
    """What is shown of each cell on the map; nothing where densities are drawn."""
    if "query" not in data.points or len(data.points["reference"]) + len(data.points["query"]) > figures.DRAWN:
        return []
    cells, batch, key = data.cells, data.points["batch"], next(iter(_keys(data)), "")
    columns = {"": cells.index.to_numpy(), "batch": batch}
    if key:
        columns |= {"label": cells[key].to_numpy(), "probability": _short(cells, f"{key}_probability")}
    if f"{key}_set" in cells:
        columns["set at 90 %"] = cells[f"{key}_set"].to_numpy()
    if "novelty" in cells:
        columns |= {"novelty (novel above 1)": _short(cells, "novelty"), "cluster": cells["cluster"].to_numpy()}
    lines = [
        [f"{name}: {figures.plain(v)}" if name else figures.plain(v) for v in values]
        for name, values in columns.items()
    ]
    return ["<br>".join(parts) for parts in zip(*lines, strict=True)]


def _short(cells: pd.DataFrame, column: str) -> np.ndarray:
    return np.array([f"{value:.3f}" for value in _numbers(cells, column)])


def _colours(data: ReportData, key: str) -> dict[str, np.ndarray]:
    cells = data.cells
    out: dict[str, np.ndarray] = {}
    if key:
        out["label"] = cells[key].to_numpy().astype(str)
    out["batch"] = data.points["batch"].astype(str)
    if "cluster" in cells:
        out["cluster"] = cells["cluster"].to_numpy().astype(str)
    if key:
        out["probability"] = _numbers(cells, f"{key}_probability").round(3)
    if "novelty" in cells:
        score = _numbers(cells, "novelty")
        out["novelty"] = np.minimum(score, np.quantile(score, 0.99)).round(3)
    return out


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


def _cell_rows(cells: pd.DataFrame) -> list[list[str]]:
    """The first rows of the table of cells, most novel first."""
    if "novelty" in cells:
        cells = cells.iloc[np.argsort(-_numbers(cells, "novelty"), kind="stable")]
    return [[str(name), *map(str, row)] for name, row in zip(cells.index[:ROWS], cells.to_numpy()[:ROWS], strict=True)]


def methods(summary: dict[str, Any]) -> str:
    """A paragraph for a paper, with versions and citations."""
    base, alignment, record = summary["base"], summary["alignment"], summary["record"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    said = (
        f"{alignment['n_cells']} cells were mapped onto the {base['family']} reference {base['repo']} (commit "
        f"{base['revision']}, sha256 of the weights {base['sha256'][:16]}) with scgraft {summary['scgraft']}. Raw counts were "
        f"taken from {alignment['counts_from']}; {alignment['n_found']} of {alignment['n_genes']} genes of the reference were "
        "found, and missing genes were set to zero. "
    )
    if record["trained"]:
        said += (
            f"Architectural surgery (Lotfollahi et al., Nat. Biotechnol. 2022, doi:10.1038/s41587-021-01001-7) trained "
            f"{record['n_parameters']} new numbers for {len(summary['batches'])} batches in {record['steps']} steps "
            f"(objective {record['objective']}, seed {record['config']['seed']}); all weights of the reference stayed as they "
            "are. "
        )
    else:
        said += f"No training took place: {record['reason']} "
    if summary.get("calibration"):
        said += (
            "Labels are the product of a weighted nearest-neighbour vote in the latent and of a multinomial logistic regression "
            "trained on cells of the reference, with a temperature (Guo et al., ICML 2017) and class-conditional split-conformal "
            "prediction sets (Sadinle et al., JASA 2019, doi:10.1080/01621459.2017.1395341) from held-out reference batches. "
            + "".join(value["guarantee"].rstrip(".") + ". " for value in summary["calibration"].values())
            + "A cell was called novel if the errors of the model that it shares with similar cells exceed a limit, or if its "
            "distance to the reference in the latent does. Both limits come from held-out cells, scaled to the query (an "
            "empirical null; Efron, JASA 2004, doi:10.1198/016214504000000089). The limit of the errors also allows for the "
            "misfit of the whole query, and is not above what a cell half of the way to other types of the reference would show. "
            "Clusters of the query are Louvain communities (Blondel et al., J. Stat. Mech. 2008). "
        )
    cited = "; ".join(family_of(base["family"]).citations)
    return said + f"The model is described by {cited}. Software: {versions}."
