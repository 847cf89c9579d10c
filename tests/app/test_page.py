"""The app from upload to download in headless Chromium, and that nothing leaves the machine or stays on it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from browser import browser, needed

DEMO = files("scgraft") / "_demo"
SECONDS = 240  # on a machine with other work


@pytest.fixture
def app(tmp_path):
    """The address of `scgraft app`, and the folder that holds its temporary files."""
    pytest.importorskip("gradio", reason="the app needs the extra scgraft[app]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path / "temporary"
    home.mkdir()
    program = "import sys; from scgraft.cli.main import run; run()"
    asked = ["app", "--references", str(DEMO / "reference"), "--port", str(port), "--no-browser", "--max-size", "20M"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRADIO_")} | {"TMPDIR": str(home)}
    process = subprocess.Popen([sys.executable, "-c", program, *asked], env=environment, stderr=subprocess.DEVNULL)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                break
        except OSError:
            time.sleep(0.3)
    yield address, home
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    assert not list(home.glob("scgraft-app-*"))  # nothing of a visitor stays


def until(look, what):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {SECONDS} s: {what}")


def test_from_upload_to_download(app, tmp_path):
    needed()
    address, home = app
    with browser(tmp_path / "profile") as window:
        window.get(address)
        pick = until(lambda: window.find_elements("css selector", "#query input[type=file]"), "the upload")[0]
        pick.send_keys(str(DEMO / "query.h5ad"))
        shown = "return document.querySelector('#batch input').value"
        until(lambda: window.execute_script(shown) == "well", "the column of batches")
        window.find_element("css selector", "#check").click()
        table = until(lambda: window.find_elements("css selector", "#findings"), "the check")[0].text
        assert "counts" in table and "genes" in table
        window.find_element("css selector", "#map").click()
        until(lambda: window.find_elements("css selector", "#report"), "the report")
        assert window.find_element("css selector", "#verdict").text
        links = {a.text or a.get_attribute("download"): a.get_attribute("href") for a in window.find_elements("css selector", "#files a")}  # fmt: skip
        wanted = next(href for href in links.values() if href.endswith("labels.csv"))
        with urllib.request.urlopen(wanted) as answer:
            labels = pd.read_csv(answer)
        assert (
            len(labels) == 181 and "barcode" in labels and any(href.endswith("mapped.h5ad") for href in links.values())
        )
        window.switch_to.frame("report")
        assert "Verdict" in window.find_element("css selector", "body").text
        window.switch_to.default_content()
        sent = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        away = [url for url in asked if not url.startswith((address, "data:", "blob:", "about:", "chrome:"))]
        assert away == []
        visitors = next(home.glob("scgraft-app-*")) / "visitors"
        assert len(list(visitors.iterdir())) == 1
        window.get("about:blank")
        until(lambda: not list(visitors.iterdir()), "the visitor's folder removed")


def test_what_cannot_be_read_is_said(app, tmp_path):
    needed()
    address, _ = app
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(b"no cells")
    with browser(tmp_path / "profile") as window:
        window.get(address)
        pick = until(lambda: window.find_elements("css selector", "#query input[type=file]"), "the upload")[0]
        pick.send_keys(str(broken))
        until(lambda: "cannot be read" in window.find_element("css selector", "body").text, "the error in words")


def test_bound_to_this_machine_with_everything_off():
    pytest.importorskip("gradio", reason="the app needs the extra scgraft[app]")
    from scgraft.app.page import MOST_BYTES, options

    told = options("127.0.0.1", None, MOST_BYTES)
    assert told["share"] is False and told["server_name"] == "127.0.0.1" and told["max_file_size"] == MOST_BYTES
    assert told["theme"]._stylesheets == []  # no web fonts: a theme of gradio's own brings them from a server


def test_a_space_is_documented_with_the_lines_that_run():
    page = Path(__file__).parents[2] / "docs" / "app.md"
    block = page.read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    compile(block, "app.py", "exec")
    assert "serve(" in block
