"""The page that explains every error and every line of a check and of a verdict names all of them, and nothing else."""

import ast
import gzip
import inspect
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.io import mmwrite
from scipy.sparse import csr_matrix

import scgraft
from scgraft import errors
from scgraft.query.read import read_query
from scgraft.testing.tiny_model import TinyConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "when-you-see-this.md"
SOURCES = ROOT / "src" / "scgraft"


def explained(heading: str) -> list[str]:
    """Terms below a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    part = re.split(r"^## ", text, flags=re.M)
    own = next(p for p in part if p.startswith(heading))
    return re.findall(r"^`([^`]+)`\n: ", own, flags=re.M)


def names_given(path: Path, calls: dict[str, int]) -> set[str]:
    """Constant names that a module gives to calls: the function, and the place of the name among its arguments."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls:
            place = calls[node.func.id]
            if len(node.args) > place and isinstance(node.args[place], ast.Constant):
                found.add(node.args[place].value)
    return found


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside these tests")
@pytest.mark.parametrize("what", ["errors", "check", "verdict"])
def test_the_page_explains_everything_that_can_be_seen(what):
    if what == "errors":
        classes = inspect.getmembers(errors, inspect.isclass)
        said, expected = explained("Errors"), {name for name, c in classes if issubclass(c, errors.ScgraftError)}
    elif what == "check":
        said = explained("Lines of `scgraft check`")
        expected = set().union(*(names_given(path, {"Finding": 0}) for path in SOURCES.rglob("*.py")))
    else:
        said = explained("Lines of the verdict")
        places = {"Measure": 0, "compared": 0, "_small": 2, "_large": 2}
        expected = set().union(*(names_given(path, places) for path in (SOURCES / "judgement").glob("*.py")))
    assert len(said) == len(set(said)) and set(said) == expected and len(expected) > 7


def test_the_folder_that_the_page_for_r_writes_is_read(tmp_path):
    """The same files as its few lines of R write, with the same columns."""
    adata = scgraft.testing.tiny_query(TinyConfig(), n_cells=12)
    mmwrite(tmp_path / "matrix.mtx", csr_matrix(adata.X).T.tocoo(), field="integer")
    (tmp_path / "barcodes.tsv").write_text("\n".join(adata.obs_names) + "\n")
    rows = [f"{gene}\t{gene}\tGene Expression" for gene in adata.var_names]
    (tmp_path / "features.tsv").write_text("\n".join(rows) + "\n")
    for path in list(tmp_path.iterdir()):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    read = read_query(tmp_path)
    assert read.obs_names.tolist() == adata.obs_names.tolist() and read.var_names.tolist() == adata.var_names.tolist()
    assert np.array_equal(csr_matrix(read.X).toarray(), csr_matrix(adata.X).toarray())


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside these tests")
def test_links_to_tutorials_are_links_on_the_site_too(monkeypatch):
    """Whoever reads the files follows a path; on the site that path leads out of the folder, and the link would be plain text."""
    for name in ("MPLBACKEND", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")  # conf.py sets them; they are put back
    linked = runpy.run_path(str(ROOT / "docs" / "conf.py"))["linked"]
    found = 0
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"\]\((?:\.\./)?tutorials/([^)#]+)", text)
        assert all((ROOT / "docs" / "tutorials" / name).is_file() for name in named), page.name
        made = linked(text)
        assert "](tutorials/" not in made and made.count("{doc}`") == len(named), page.name
        found += len(named)
    assert found > 5
    assert linked("see [two\nlabs](tutorials/a_b.md).") == "see {doc}`two labs </tutorials/a_b>`."
