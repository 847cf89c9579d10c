"""What `scgraft map` wrote and somebody changed: each change is named, with the file; a stranger's names do nothing."""

import copy
import csv
import json
import shutil
from dataclasses import replace

import jinja2
import numpy as np
import pytest

from fuzz.conftest import NAMES
from fuzz.test_structured import put
from scgraft.calibration.store import load_calibration
from scgraft.errors import CorruptFile, ScgraftError
from scgraft.files.text import table_text, visible
from scgraft.results import page
from scgraft.results.page import read_report_data
from scgraft.results.stored import read_stored, written
from scgraft.results.summary_format import parse_summary


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound / "report", tmp_path / "report")


def test_names_stand_as_text_in_the_table(sound):
    with (sound / "out" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1 : len(NAMES) + 1]] == [table_text(name) for name in NAMES]
    assert all(cell.isprintable() for row in rows for cell in row)
    assert [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@")) and not _number(cell)] == []


def _number(cell):
    try:
        return float(cell) is not None
    except ValueError:
        return False


def test_names_come_back_and_the_page_shows_them(sound, folder):
    assert read_stored(folder)[1].index[: len(NAMES)].tolist() == [visible(name) for name in NAMES]
    page = (sound / "out" / "report.html").read_text(encoding="utf-8")
    own = page[: page.index("<script")] + page[page.index("</style>") : page.index("</style>") + 4000]
    assert "\x1b" not in page and "\u202e" not in own


CLUSTER = ("cluster", "cells", "novel", "distance", "preservation", "label", "share", "probability")


def _cluster(text, name, value):
    document = json.loads(text)
    if value is None:
        del document["clusters"][-1][name]
    else:
        document["clusters"][-1][name] = value
    return json.dumps(document)


SUMMARY = {
    "not JSON": lambda text: text[:-9],
    "a list": lambda text: "[]",
    "empty": lambda text: "",
    "deep": lambda text: "[" * 100_000,
    "no base": lambda text: _without(text, "base"),
    "no alignment": lambda text: _without(text, "alignment"),
    "no seed of the fit": lambda text: _without_seed(text),
    "no record": lambda text: _without(text, "record"),
    "base is text": lambda text: _with(text, base="x"),
    "batches are numbers": lambda text: _with(text, batches=[1, 2]),
    "verdict is text": lambda text: _with(text, verdict="good"),
    "a light that is none": lambda text: _with(text, verdict={"light": "blue", "sentence": "", "measures": []}),
    "groups are a table": lambda text: _with(text, unknown_groups={"a": 1}),
    "clusters are null": lambda text: _with(text, clusters=None),
    "a threshold that is text": lambda text: _with(text, novelty_threshold="x"),
    "labels that are numbers": lambda text: _with(text, summary={"labels": {"cell_type": 3}}),
    **{f"a cluster without {name}": lambda text, name=name: _cluster(text, name, None) for name in CLUSTER},
    **{f"a cluster with a wrong {name}": lambda text, name=name: _cluster(text, name, {}) for name in CLUSTER},
    "calibration without guarantee": lambda text: _with(text, calibration={"x": {}}),
    "half a character": lambda text: _with(text, scgraft="\ud800"),
}


def _with(text, **changes):
    return json.dumps(json.loads(text) | changes)


def _without_seed(text):
    document = json.loads(text)
    del document["record"]["config"]["seed"]
    return json.dumps(document)


def _without(text, name):
    document = json.loads(text)
    del document[name]
    return json.dumps(document)


@pytest.mark.parametrize("name", SUMMARY)
def test_a_changed_summary_is_named(folder, name):
    path = folder / "summary.json"
    path.write_text(SUMMARY[name](path.read_text()))
    with pytest.raises(CorruptFile, match=r"summary\.json"):
        read_stored(folder)


LABELS = {
    "empty": lambda rows: [],
    "no barcode": lambda rows: [row[1:] for row in rows],
    "a cell missing": lambda rows: rows[:-1],
    "a cell twice": lambda rows: [*rows, rows[-1]],
    "no probability": lambda rows: _column(rows, "cell_type_probability", None),
    "probability is text": lambda rows: _column(rows, "cell_type_probability", "high"),
    "no unknown": lambda rows: _column(rows, "cell_type_unknown", None),
    "unknown is a number": lambda rows: _column(rows, "cell_type_unknown", "2"),
    "novelty is text": lambda rows: _column(rows, "novelty", "x"),
    "novel is text": lambda rows: _column(rows, "novel", "maybe"),
    "cluster is text": lambda rows: _column(rows, "cluster", "c"),
    "a row too long": lambda rows: [*rows[:-1], [*rows[-1], "x", "y"]],
}


def _column(rows, name, value):
    at = rows[0].index(name)
    if value is None:
        return [row[:at] + row[at + 1 :] for row in rows]
    return [rows[0], *([*row[:at], value, *row[at + 1 :]] for row in rows[1:])]


@pytest.mark.parametrize("name", LABELS)
def test_a_changed_table_is_named(folder, name):
    path = folder / "labels.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(LABELS[name](rows))
    with pytest.raises(CorruptFile, match=r"labels\.csv|not the output"):
        read_stored(folder)


@pytest.mark.parametrize("array", ["query", "tray", "batch", "reference"])
@pytest.mark.parametrize(
    "change", [lambda a: a[:-1], lambda a: a[None], lambda a: a.astype("S"), lambda a: a[:0], None]
)
def test_a_changed_map_is_named(folder, array, change):
    with np.load(folder / "map.npz") as file:
        arrays = dict(file)
    if change is None:
        del arrays[array]
    else:
        arrays[array] = change(arrays[array])
    np.savez(folder / "map.npz", **arrays)
    with pytest.raises(CorruptFile, match=r"map\.npz"):
        read_stored(folder)


CALIBRATIONS = {
    "coefficient": lambda a: a[:-1],
    "intercept": lambda a: a[:-1],
    "genes": lambda a: a[:-1],
    "anchor_codes": lambda a: a + 99,
    "anchor_indices": lambda a: a + 10**6,
    "anchor_indptr": lambda a: a[::-1],
    "anchor_data": lambda a: a[:-1],
    "class_weights": lambda a: -a - 1,
    "scores": lambda a: a[:-1],
    "score_class": lambda a: a - 1000,
    "novelty": lambda a: np.concatenate([a, a - 1e6]),
    "distance": lambda a: np.concatenate([a, a - 1e6]),
    "reliability": lambda a: a[:, :2],
}


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_a_changed_calibration_is_named(sound, tmp_path, name):
    folder = shutil.copytree(sound / "calibration", tmp_path / "calibration")
    path = next(folder.iterdir())
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = CALIBRATIONS[name](arrays[name])
    np.savez_compressed(path, **arrays)
    with pytest.raises(CorruptFile, match="cut or damaged"):
        load_calibration(folder)


@pytest.mark.parametrize("name", ["anchor_data", "coefficient", "scores"])
@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f4", ">f8"])
def test_numbers_of_another_width_are_named_and_of_another_machine_turned(sound, tmp_path, name, dtype):
    folder = shutil.copytree(sound / "calibration", tmp_path / "calibration")
    path = next(folder.iterdir())
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {name: arrays[name].astype(dtype)})
    if np.dtype(dtype).itemsize not in (4, 8):
        with pytest.raises(CorruptFile, match=f"{name} has the type"):
            load_calibration(folder)
        return
    (made,) = load_calibration(folder).values()
    found = {
        "anchor_data": made.classifier.anchors.data,
        "coefficient": made.classifier.coefficient,
        "scores": made.scores,
    }
    assert found[name].dtype.isnative and np.array_equal(found[name], arrays[name])


ODD = (None, "x", {})


def _one_of_each(value, path=()):
    """Every place of a document; of a list only the first item, as the others are like it."""
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value[:1] if isinstance(value, list) else ())
    ):
        yield from _one_of_each(inner, (*path, key))


def test_every_single_change_of_a_summary_is_named_or_shown(sound, tmp_path, monkeypatch):
    """The page and its paragraph of methods read nothing that was not looked at before."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")
    data = read_report_data(sound / "report")
    # What takes long is made once, where the change does not concern it.
    draw, drawn, packed, keys = page._figures, page._figures(data), page.pack(page._tables(data)), page._keys(data)
    monkeypatch.setattr(page, "_figures", lambda data: drawn if page._keys(data) == keys else draw(data))
    monkeypatch.setattr(page, "pack", lambda tables: packed)
    codes, translate = {}, jinja2.Environment.compile

    def translated_once(environment, text):
        if text not in codes:
            codes[text] = translate(environment, text)
        return codes[text]

    monkeypatch.setattr(jinja2.Environment, "compile", translated_once)
    document = json.loads((sound / "report" / "summary.json").read_text())
    raw, n_named, n_shown = [], 0, 0
    for path in _one_of_each(document):
        for change in ("without", *ODD) if path else ODD:
            changed = (
                put(document, path[:-1], _taken_out(document, path))
                if change == "without"
                else put(document, path, change)
            )
            (tmp_path / "summary.json").write_text(json.dumps(changed))
            try:
                page.report_html(replace(data, summary=parse_summary(tmp_path / "summary.json", written)))
                n_shown += 1
            except ScgraftError:
                n_named += 1
            except Exception as error:  # noqa: BLE001 - all of them are told at once
                raw.append((path, change, f"{type(error).__name__}: {error}"))
    assert raw == []
    assert n_named > 200 and n_shown > 20


def _taken_out(document, path):
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner = copy.deepcopy(inner)
    del inner[path[-1]]
    return inner
