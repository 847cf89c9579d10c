"""The tables and documents of a mapping's folder, read back: what ``scgraft map`` wrote, or a named error.

A folder may have been edited, cut, or made by somebody else; the page is drawn from what is checked here.
"""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, FormatTooNew
from scgraft.files import schema
from scgraft.files.npz import Array, read_npz
from scgraft.files.text import from_table, visible
from scgraft.results.summary_format import SUMMARY, parse_summary
from scgraft.values.graft import FitRecord
from scgraft.values.novelty import Dossier, State
from scgraft.values.query import Alignment

if TYPE_CHECKING:
    import pandas as pd

LABELS, POINTS = "labels.csv", "map.npz"
# What map.npz holds; other arrays of it say more about the same cells.
WRITTEN = {
    "reference": Array("f", 2),
    "query": Array("f", 2),
    "tray": Array("b", 1),
    "batch": Array("U", 1),
    "source": Array("U", 0),
}
OTHERS = Array("iufbU", (0, 1))


def read_stored(folder: Path) -> tuple[dict[str, Any], pd.DataFrame, dict[str, np.ndarray]]:
    """Summary, table of cells (all columns as text, by barcode) and points of the map ({} without one).

    Raises
    ------
    CorruptFile
        The folder is not the output of ``scgraft map``, or a file of it is cut, changed, or of another run.
    FormatTooNew
        A newer version of scgraft wrote it.
    """
    try:
        summary = read_summary(folder)
        cells = read_cells(folder / LABELS, str(folder / LABELS), summary)
    except (CorruptFile, FormatTooNew):
        raise
    except Exception as error:
        raise CorruptFile(
            f"{folder} is not the output of `scgraft map`, or is damaged ({visible(str(error))[:300]})."
        ) from error
    points = read_npz(folder / POINTS, WRITTEN, others=OTHERS) if (folder / POINTS).exists() else {}
    if points:
        n = len(cells)
        shapes = {"query": (n, 2), "tray": (n,), "batch": (n,), "reference": (len(points["reference"]), 2)}
        if wrong := [name for name, shape in shapes.items() if points[name].shape != shape]:
            raise CorruptFile(f"{folder / POINTS} does not belong to the {n} cells of {LABELS} ({', '.join(wrong)}).")
        _check_types(points, folder / POINTS)
        _check_genes(points, folder / POINTS)
    return summary, cells, points


def read_summary(folder: Path) -> dict[str, Any]:
    """Summary of a mapping's folder.

    Raises
    ------
    CorruptFile
        The folder is not the output of ``scgraft map``, or its summary is damaged.
    FormatTooNew
        A newer version of scgraft wrote it.
    """
    return parse_summary(folder / SUMMARY, written)


def label_keys(folder: Path) -> list[str]:
    """Label columns of a mapping's folder, as the heading of its table of cells has them."""
    import pandas as pd

    path = folder / LABELS
    heading = pd.read_csv(path if path.exists() else folder / f"{LABELS}.gz", nrows=0).columns
    ending = "_probability"
    return [from_table(str(name)).removesuffix(ending) for name in heading if str(name).endswith(ending)]


def _check_types(points: dict[str, np.ndarray], path: Path) -> None:
    """The reference's types: names by label column, and a position in them for each reference cell."""
    if "types" not in points:
        return  # written by a version that did not store them
    try:
        names = json.loads(str(points["types"]))
        for i, listed in enumerate(names.values()):
            codes = points[f"types_{i}"]
            right = codes.shape == (len(points["reference"]),) and codes.dtype.kind in "iu"
            if not right or not all(isinstance(name, str) for name in listed):
                raise ValueError(f"types_{i} is not one position for each reference cell")
            if len(codes) and not 0 <= codes.min() <= codes.max() < len(listed):
                raise ValueError(f"types_{i} names a type that is not listed")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{path} holds types that cannot be read ({visible(str(error))[:300]}).") from error


def _check_genes(points: dict[str, np.ndarray], path: Path) -> None:
    """Expression of a few genes: a name each, and a finite number for each cell of the query and of the reference."""
    if "genes" not in points:
        return  # without counts, or by a version that did not store them
    try:
        names = schema.parse(str(points["genes"]), schema.distinct, "genes")
        for i in range(len(names)):
            for table in ("query", "reference"):
                values = points[f"gene_{i}_{table}"]
                if values.shape != (len(points[table]),) or values.dtype.kind != "f" or not np.isfinite(values).all():
                    raise ValueError(f"gene_{i}_{table} is not one number for each cell")
    except (ValueError, KeyError) as error:
        raise CorruptFile(f"{path} holds expression that cannot be read ({visible(str(error))[:300]}).") from error


def written(value: Any, place: str) -> None:
    """What a page shows of summary.json; it may hold more."""
    measure = {"light": _light(), "name": schema.text, "sentence": schema.text, "action": schema.text}
    method = {"name": schema.text, "calibrated": schema.flag, "sentence": schema.text}
    verdict = {"light": _light(), "sentence": schema.text, "measures": schema.items(schema.record(measure, more=True))}
    schema.record(
        {
            "scgraft": schema.text,
            "base": schema.record(dict.fromkeys(("repo", "revision", "sha256", "family"), schema.text), more=True),
            "alignment": schema.of(Alignment, more=True),
            "record": schema.of(FitRecord, more=True),
            "batches": schema.distinct,
            "summary": schema.record(
                {"labels": schema.table(schema.record({}, more=True)), "label_method": schema.record(method)},
                optional={"label_method"},
                more=True,
            ),
            "verdict": schema.maybe(schema.record(verdict, more=True)),
            "novelty_threshold": schema.maybe(schema.number(0)),
            "unknown_groups": schema.items(schema.of(Dossier, more=True)),
            "states": schema.items(schema.of(State, more=True)),
            "clusters": schema.items(schema.record({}, more=True)),
            "calibration": schema.table(_calibration),
        },
        optional={"states"},  # older versions did not write them
        more=True,
    )(value, place)
    if value["record"]["trained"]:
        schema.record({"seed": schema.whole}, more=True)(value["record"]["config"], f"{place}.record.config")
    labelled = bool(value["summary"]["labels"])
    schema.items(_cluster(labelled=labelled))(value["clusters"], f"{place}.clusters")


def _cluster(*, labelled: bool) -> schema.Check:
    """How one cluster of the query was mapped, with its most common label where the mapping has labels."""
    share = schema.number(0, 1)
    cluster = {
        "cluster": schema.whole,
        "cells": schema.whole,
        "novel": share,
        "distance": schema.number(),
        "preservation": schema.maybe(schema.number()),
    }
    label = {"label": schema.text, "share": share, "probability": schema.number()}
    return schema.record(cluster | (label if labelled else {}), more=True)


def _calibration(value: Any, place: str) -> None:
    """What is said of a calibration; older versions did not write the weights of classes and what the classifier learnt from."""
    schema.record({"guarantee": schema.text, "expected_error": schema.number(0, 1)}, more=True)(value, place)
    for name, check in {
        "class_weights": schema.table(schema.number(0)),
        "learnt_from": schema.maybe(schema.text),
    }.items():
        if name in value:
            check(value[name], f"{place}.{name}")


def _light() -> schema.Check:
    return schema.one_of("grey", "green", "amber", "red")


def read_cells(source: Path | StringIO, path: str, summary: dict[str, Any]) -> pd.DataFrame:
    """The table of cells, all columns as text, from a file or from text in memory that messages call `path`."""
    import pandas as pd

    cells = pd.read_csv(source, dtype=str, keep_default_na=False).set_index("barcode")
    cells = cells.apply(lambda column: column.map(from_table))
    cells.index = cells.index.map(from_table)
    cells.columns = cells.columns.map(from_table)
    cells = _calls(cells)
    if len(cells) != summary["alignment"]["n_cells"]:
        raise CorruptFile(f"{path} has {len(cells)} cells; {SUMMARY} says {summary['alignment']['n_cells']}.")
    for key in summary["summary"]["labels"]:
        if key in cells:
            _expect(cells, path, numbers=(f"{key}_probability",), flags=(f"{key}_unknown",))
    if "novelty" in cells:
        _expect(cells, path, numbers=("novelty", "cluster"), flags=("novel",))
    return cells


def _calls(cells: pd.DataFrame) -> pd.DataFrame:
    """The table as the page draws it: under a label column's name the call in any case, as beside it stands what is unknown.

    Versions before 0.2 wrote it so; what is common in a cell's query cluster is in the table of clusters.
    """
    keys = [name.removesuffix("_probability") for name in cells.columns if name.endswith("_probability")]
    for key in keys:
        if {key, f"{key}_call"} <= set(cells.columns):
            cells[key] = cells[f"{key}_call"]
    twice = [name for key in keys for name in (f"{key}_call", f"{key}_cluster")]
    return cells.drop(columns=[name for name in twice if name in cells.columns])


def _expect(cells: pd.DataFrame, path: str, *, numbers: tuple[str, ...], flags: tuple[str, ...]) -> None:
    """Columns that hold numbers (or nothing), and columns that hold True or False."""
    import pandas as pd

    for name in (*numbers, *flags):
        if name not in cells:
            raise CorruptFile(f"{path} lacks the column {visible(name)}.")
    for name in numbers:
        values = cells[name].replace("", "nan")
        if (pd.to_numeric(values, errors="coerce").isna() & (values != "nan")).any():
            raise CorruptFile(f"{path} has a {visible(name)} that is no number.")
    for name in flags:
        if not cells[name].isin(("True", "False")).all():
            raise CorruptFile(f"{path} has a {visible(name)} that is neither True nor False.")
