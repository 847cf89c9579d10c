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
from many_cells import many_cells
from scgraft.results.folder import write
from scgraft.results.page import read_report_data, report_html

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


CELL = (
    "const m = document.getElementById('map-figure'), l = drawn.layers.find(one => one.told), i = l.cells[l.cells.length - 1];"
    "const k = view.most * view.zoom; return {name: columns.query.get('barcode').values[i], x: (l.x[i] - view.x) * k, y: -(l.y[i] - view.y) * k}"
)
SHOWN = "return drawn.layers.find(one => one.told).looks.filter((look, i, all) => !look.off && seen(i)).length"
SEEN = "const seen = i => { const l = drawn.layers.find(one => one.told); return l.start[i + 1] > l.start[i]; };"
LOOK = "return [view.x, view.y, view.zoom]"
CHOOSE = "const s = document.getElementById('colouring'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"


def test_the_map_answers(out, tmp_path):
    """The pointer on a cell tells it, the legend hides and isolates, and the view stays where it is."""
    from selenium.webdriver import ActionChains

    cells = pd.read_csv(out / "labels.csv", dtype=str, keep_default_na=False)
    with browser(tmp_path / "profile") as window:
        opened(window, out / "report.html")
        canvas = window.find_element("id", "map-figure")
        window.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        cell = window.execute_script(CELL)
        ActionChains(window).move_to_element_with_offset(canvas, round(cell["x"]), round(cell["y"])).perform()
        tip = window.find_element("id", "tip").text
        found = cells.set_index("barcode").loc[tip.split("\n")[0]]
        assert f"bulk_labels: {found['bulk_labels']}" in tip

        before = window.execute_script(LOOK)
        legend = window.find_elements("css selector", "#legend button")
        several = window.execute_script(SEEN + SHOWN)
        assert several == len([b for b in legend if not b.text.split("(")[-1].startswith("0;")])
        legend[0].click()
        assert window.execute_script(SEEN + SHOWN) == several - 1
        window.find_elements("css selector", "#legend button")[0].click()
        window.execute_script(
            "document.querySelector('#legend button').dispatchEvent(new MouseEvent('click', {shiftKey: true}))"
        )
        assert window.execute_script(SEEN + SHOWN) == 1 and window.execute_script(LOOK) == before
        counts = [b.text for b in window.find_elements("css selector", "#legend button")]
        n = sum(int(text.rsplit("(", 1)[1].split(";")[0].rstrip(")").replace(",", "")) for text in counts)
        assert n == len(cells)

        for name in ("novelty", "gene 0"):
            window.execute_script(CHOOSE, name)
            assert window.execute_script(SEEN + SHOWN) > 1 and window.execute_script(LOOK) == before
            drawn = window.execute_script("return drawn.layers.find(one => one.told).cells.length")
            assert drawn == len(cells) and window.execute_script("return drawn.scale.title")
        gene = "return [...document.querySelectorAll('#colouring optgroup option')].map(o => o.text)"
        assert len(window.execute_script(gene)) == 8
        assert complaints(window) == []


def test_the_map_zooms_and_moves_by_pointer_keys_and_buttons(out, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    with browser(tmp_path / "profile") as window:
        opened(window, out / "report.html")
        canvas = window.find_element("id", "map-figure")
        window.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        home = window.execute_script(LOOK)
        assert home[2] == 1
        canvas.send_keys("+")
        assert window.execute_script(LOOK) == [home[0], home[1], 1.5]
        canvas.send_keys(Keys.ARROW_RIGHT)
        assert window.execute_script(LOOK)[0] > home[0]
        canvas.send_keys("0")
        assert window.execute_script(LOOK) == home
        ActionChains(window).move_to_element(canvas).click_and_hold().move_by_offset(200, 120).release().perform()
        x, y, zoom = window.execute_script(LOOK)
        assert zoom > 2 and x > home[0] and y < home[1] and not window.find_element("id", "band").is_displayed()
        window.find_element("id", "zoom-out").click()
        assert window.execute_script(LOOK)[2] == pytest.approx(zoom / 1.5)
        window.find_element("id", "zoom-all").click()
        assert window.execute_script(LOOK) == home
        picture = window.execute_script("return arguments[0].toDataURL('image/png')", canvas)
        assert base64.b64decode(picture.split(",")[1]).startswith(b"\x89PNG")


def test_the_colours_of_a_hundred_thousand_cells_switch_within_a_second(out, tmp_path):
    """Script and drawing, without a graphics card; the best of three, as other programs run beside the test."""
    data = read_report_data(out)
    (tmp_path / "large.html").write_text(report_html(many_cells(data, 100_000)), encoding="utf-8")
    switch = (
        "const [name, done] = arguments, s = document.getElementById('colouring'), began = performance.now();"
        "s.value = name; s.dispatchEvent(new Event('change'));"
        "document.getElementById('map-figure').getContext('2d').getImageData(0, 0, 1, 1);"
        "requestAnimationFrame(() => requestAnimationFrame(() => done((performance.now() - began) / 1000)))"
    )
    with browser(tmp_path / "profile") as window:
        opened(window, tmp_path / "large.html", 240)
        for name in ("novelty", "gene 0", "batch", "bulk_labels"):
            spent = [window.execute_async_script(switch, name) for _ in range(3)]
            print(name, spent)
            assert min(spent) < 1.0


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
