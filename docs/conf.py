"""The documentation site: Sphinx over the Markdown files of this folder; ``make docs`` builds it."""

import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from scgraft import __version__

project = "scgraft"
author = "The scgraft developers"
copyright = "The scgraft developers"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb"}
myst_enable_extensions = ["deflist", "colon_fence"]
# Headings that other pages link to.
myst_heading_anchors = 3
html_theme = "furo"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_title = f"scgraft {release}"
autodoc_typehints = "signature"
napoleon_google_docstring = False
exclude_patterns = ["_build"]
# Files outside this folder that the pages name (the licence, the change log) are not pages of the site.
# A page that only a link leads to is a page too.
suppress_warnings = ["myst.xref_missing", "toc.not_included"]

# The tutorials run each time that the site is built, from nothing but the embedded data; one that fails ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
os.environ.pop("MPLBACKEND", None)  # the kernels' own backend, which shows the figures
os.environ.setdefault("TQDM_DISABLE", "1")  # no bars among the results


def linked(text: str) -> str:
    """A page whose links to tutorials the site finds: MyST follows ``docs/tutorials`` to where the files lie, outside of this folder."""
    return re.sub(
        r"\[([^\]]+)\]\(tutorials/(\w+)\.md\)", lambda m: f"{{doc}}`{' '.join(m[1].split())} </tutorials/{m[2]}>`", text
    )


def _read(app: Any, name: str, source: list[str]) -> None:
    source[0] = linked(source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read)
