"""The small map of a mapping in a notebook."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import scgraft
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.colours import GREY, palette
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=60, n_genes=30)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def mapped():
    return scgraft.map_query(reference_of(CONFIG), tiny_query(CONFIG, n_cells=50), batch_key="batch", config=scgraft.FitConfig(max_steps=5))  # fmt: skip


def paths(html):
    return {a["stroke"]: a["d"] for tag, a in Tags(html).found if tag == "path"}


def test_every_label_has_its_colour_and_every_cell_its_place(mapped):
    key = next(iter(mapped.labels))
    drawn = paths(mapped._repr_html_())
    colours = palette([*mapped.labels[key].classes, "unknown"])
    assert set(drawn) == {GREY, *(colours[name] for name in set(mapped.labels[key].believed))}
    assert 40 <= drawn[GREY].count("M") <= 60
    places = [tuple(map(int, p)) for d in drawn.values() for p in re.findall(r"M(\d+) (\d+)h0", d)]
    assert all(0 <= x <= 460 and 0 <= y <= 320 for x, y in places)
    for name in set(mapped.labels[key].believed):
        assert f"{name} ({(mapped.labels[key].believed == name).sum():,})" in mapped._repr_html_()


def test_novel_cells_stand_beside_the_map(mapped):
    novel = np.arange(50) < 5
    apart = replace(mapped, novelty=replace(mapped.novelty, novel=novel), labels={})
    by = paths(apart._repr_html_())
    edge = max(int(x) for x in re.findall(r"M(\d+) ", by.pop(GREY)))
    (query,) = by.values()
    assert sum(int(x) > edge for x in re.findall(r"M(\d+) ", query)) == 5


def test_it_is_small_at_any_size_harmless_and_absent_without_a_map(mapped):
    key = next(iter(mapped.labels))
    rng, m, n = np.random.default_rng(0), 20_000, 30_000
    near = replace(mapped.near, found=replace(mapped.near.found, indices=rng.integers(n, size=(m, 15)), distances=np.sort(rng.random((m, 15)), axis=1)))  # fmt: skip
    classes = tuple(f"<img src=x onerror=alert({i})>" for i in range(80))
    labels = replace(mapped.labels[key], label=np.array(classes)[rng.integers(80, size=m)], classes=classes, unknown=rng.random(m) < 0.1)  # fmt: skip
    large = replace(
        mapped, map=rng.random((n, 2)), near=near, labels={key: labels}, novelty=None, latent=replace(mapped.latent, cells=np.arange(m).astype(str)),
    )  # fmt: skip
    html = large._repr_html_()
    assert len(html) < 60_000 and "more (" in html
    assert {tag for tag, _ in Tags(html).found} <= {"div", "p", "b", "table", "tr", "th", "td", "svg", "path", "span"}
    assert "<svg" in html and "<svg" not in replace(mapped, map=None)._repr_html_()
    without = replace(reference_of(CONFIG), maps={})
    assert scgraft.map_query(without, tiny_query(CONFIG, n_cells=50), batch_key="batch", config=scgraft.FitConfig(max_steps=5)).map is None  # fmt: skip
