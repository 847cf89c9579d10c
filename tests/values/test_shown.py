"""Values look short and harmless, whatever they hold."""

import dataclasses
import inspect
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scgraft
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.shown import as_html, as_text, short
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=60, n_genes=30)
PUBLIC = [
    name
    for name in scgraft.__all__
    if inspect.isclass(getattr(scgraft, name)) and dataclasses.is_dataclass(getattr(scgraft, name))
]


class Tags(HTMLParser):
    """The tags of a text, as a browser would read it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_value_has_a_table_for_notebooks(name):
    assert callable(getattr(scgraft, name)._repr_html_)


def test_a_mapping_and_what_it_holds_are_shown_in_a_few_lines():
    reference, query = reference_of(CONFIG), tiny_query(CONFIG, n_cells=50)
    mapped = scgraft.map_query(reference, query, batch_key="batch", config=scgraft.FitConfig(max_steps=5))
    key = next(iter(mapped.labels))
    shown = [
        mapped, reference, mapped.graft, mapped.graft.record, mapped.labels[key], mapped.latent, mapped.novelty,
        mapped.verdict, mapped.alignment, mapped.calibration[key], mapped.base,
    ]  # fmt: skip
    for value in shown:
        assert len(repr(value)) < 3000 and len(value._repr_html_()) < 6000
    text = repr(mapped)
    assert text.startswith("50 cells mapped onto SCVI") and f"labels {key}" in text and mapped.verdict.light in text
    most = max(set(mapped.labels[key].label), key=mapped.labels[key].label.tolist().count)
    assert most in text and len(text.splitlines()) < 12
    frame = mapped.to_frame()
    assert frame.index.tolist() == mapped.latent.cells.tolist()
    assert frame[f"{key}_call"].tolist() == mapped.labels[key].label.tolist()
    assert frame[key].tolist() == np.where(mapped.labels[key].unknown, "unknown", mapped.labels[key].label).tolist()
    assert {f"{key}_probability", f"{key}_unknown", f"{key}_set", "novelty", "cluster", "map_distance"} <= set(frame)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4), st.text())
def test_names_from_strangers_do_no_harm(rows, title):
    html, text = as_html(title, rows), as_text(title, rows)
    assert set(Tags(html).found) <= {"div", "p", "b", "table", "tr", "th", "td"}
    assert len(text.split("\n")) == 1 + len(rows) and all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((3, 2), np.float32), "float32 array of shape (3, 2)"),
        ({"a": 1.23456, "b": "x"}, "{a: 1.235, b: x}"),
        (tuple(range(7)), "(0, 1, 2, 3, 4, ... (7 in all))"),
        ("x" * 500, "x" * 159 + "…"),
        (None, "None"),
    ],
)
def test_fields_are_short(value, expected):
    assert short(value) == expected
