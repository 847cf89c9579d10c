"""The page as readers see it, in headless Chromium: laptop and phone, light and dark, hover, keys and clicks."""

import base64
import json
from importlib.resources import as_file, files
from pathlib import Path

import anndata
import pandas as pd
import pytest

import scgraft
from browser import LAPTOP, PHONE, browser, needed, opened
from scgraft.results.folder import write

# Every button of plotly's toolbars that the page may show. One that uploads is not among them.
BUTTONS = {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    needed()
    with as_file(files("scgraft") / "_demo") as folder:
        reference = scgraft.load_reference(folder / "reference")
        query = anndata.read_h5ad(folder / "query.h5ad")
    mapped = scgraft.map_query(reference, query, batch_key="well")
    return write(mapped, query, tmp_path_factory.mktemp("page") / "out", reference=reference)


def requests_of(window) -> list[str]:
    """Addresses that the page asked for, itself left out."""
    sent = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:", "chrome:"))]


def complaints(window) -> list[str]:
    """What the browser calls an error; software WebGL also says that it is slow."""
    return [e["message"] for e in window.get_log("browser") if e["level"] == "SEVERE"]


def violations(window) -> list[str]:
    """What axe-core finds."""
    home = pytest.importorskip("axe_core_python", reason="axe-core is not installed")
    script = next(Path(home.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")
    window.execute_script(script)
    ran = "const d = arguments[0]; axe.run().then(r => d(r.violations.map(v => v.id + ': ' + v.nodes[0].html)))"
    return window.execute_async_script(ran)


@pytest.mark.parametrize(("size", "dark"), [(LAPTOP, False), (LAPTOP, True), (PHONE, False)])
def test_the_page_draws_fits_and_asks_for_nothing(out, tmp_path, size, dark):
    with browser(tmp_path / "profile", size, dark=dark) as window:
        opened(window, out / "report.html")
        shown = window.execute_script("return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
        assert shown and set(shown) <= BUTTONS
        width = window.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1] == size[0]
        drawn = window.execute_script("return [...document.querySelectorAll('.figure')].map(f => f.offsetHeight)")
        assert len(drawn) == 6 and min(drawn) > 150
        paper = window.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(20, 25, 31)") == dark
        assert violations(window) == []
        picture = base64.b64decode(window.get_screenshot_as_base64())
        assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
        assert requests_of(window) == [] and complaints(window) == []


def test_the_map_answers(out, tmp_path):
    """Hover tells a cell, the legend hides and isolates, and the axes stay where they are."""
    cells = pd.read_csv(out / "labels.csv", dtype=str, keep_default_na=False)
    with browser(tmp_path / "profile") as window:
        opened(window, out / "report.html")
        # The first query trace's first cell, under the pointer.
        window.execute_script("document.getElementById('map-figure').scrollIntoView()")
        name = window.execute_script(
            "const t = rowsOf.findIndex(r => Array.isArray(r));"
            "document.getElementById('map-figure').emit('plotly_hover',"
            " {points: [{curveNumber: t, pointNumber: 0}], event: {clientX: 100, clientY: 100}});"
            "return columns.query.get('barcode').values[rowsOf[t][0]]"
        )
        tip = window.find_element("id", "tip").text
        label = cells.set_index("barcode").loc[name, "bulk_labels"]
        assert name in tip and f"bulk_labels: {label}" in tip

        state = "const m = document.getElementById('map-figure'); return [m._fullLayout.xaxis.range, m._fullLayout.yaxis.range]"
        before = window.execute_script(state)
        legend = window.find_elements("css selector", "#legend button")
        shown = (
            "return document.getElementById('map-figure').data.filter(t => t.visible && t.hoverinfo === 'none').length"
        )
        assert window.execute_script(shown) == len(legend) or "of the reference" in legend[-1].text
        several = window.execute_script(shown)
        legend[0].click()
        assert window.execute_script(shown) == several - 1
        window.find_elements("css selector", "#legend button")[0].click()
        window.execute_script(
            "document.querySelector('#legend button').dispatchEvent(new MouseEvent('click', {shiftKey: true}))"
        )
        assert window.execute_script(shown) == 1 and window.execute_script(state) == before
        counts = [b.text for b in window.find_elements("css selector", "#legend button")]
        n = sum(int(text.rsplit("(", 1)[1].split(";")[0].rstrip(")").replace(",", "")) for text in counts)
        assert n == len(cells)

        choose = "const s = arguments[0]; s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
        select = window.find_element("id", "colouring")
        window.execute_script(choose, select, "novelty")
        assert (
            1 <= window.execute_script(shown) <= 20 and window.execute_script(state) == before
        )  # a trace for each shade
        window.execute_script(choose, select, "gene 0")
        gene = "return [...document.querySelectorAll('#colouring optgroup option')].map(o => o.text)"
        assert len(window.execute_script(gene)) == 8 and window.execute_script(state) == before
        seen = "return document.getElementById('map-figure').data.filter(t => t.x.length > 1).map(t => t.x.length).reduce((a, b) => a + b)"
        assert window.execute_script(seen) >= len(cells)
        assert complaints(window) == []


def test_tables_sort_and_search(out, tmp_path):
    cells = pd.read_csv(out / "labels.csv", keep_default_na=False)
    with browser(tmp_path / "profile") as window:
        opened(window, out / "report.html")
        first = "return document.querySelector('#cell-table tbody').rows[0].cells[0].textContent"
        assert window.execute_script(first) == cells.loc[cells["novelty"].idxmax(), "barcode"]
        name = cells["barcode"][7]
        window.find_element("id", "search").send_keys(name)
        assert window.execute_script(first) == name and "1 of 1" in window.find_element("id", "found").text
        heading = window.find_element("css selector", "#labels th:nth-child(2)")
        column = "return [...document.querySelectorAll('#labels tbody tr')].map(r => Number(r.cells[1].textContent))"
        heading.find_element("css selector", "button").click()
        counts = window.execute_script(column)
        assert counts == sorted(counts, reverse=True) and heading.get_attribute("aria-sort") == "descending"
        heading.find_element("css selector", "button").click()
        assert window.execute_script(column) == counts[::-1]
