"""One golden folder for each format of a file: what an earlier version wrote is read, or made anew where that is the promise."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import scgraft
from scgraft.calibration.store import FORMAT
from scgraft.errors import CorruptFile
from scgraft.graft.store import load_graft
from scgraft.mapping.freeze import map_cells
from scgraft.mapping.frozen_store import FROZEN_FORMAT, load_frozen
from scgraft.results.stored import read_stored
from scgraft.results.summary_format import SUMMARY_FORMAT

FORMATS = Path(__file__).parent / "formats"
CLASSES = ("alpha", "beta", "delta")


def folders(kind: str) -> list[Path]:
    return sorted((FORMATS / kind).iterdir())


def example(base):
    """The reference of the examples under the identity that the golden folders were made for."""
    folder, adata = scgraft.testing.example()
    return replace(scgraft.load_reference(folder), base=base), adata


@pytest.mark.parametrize(
    ("kind", "version"), [("summary", SUMMARY_FORMAT), ("calibration", FORMAT), ("frozen", FROZEN_FORMAT)]
)
def test_the_present_format_has_a_folder(kind, version):
    """If it has none: raise no format without ``python tests/make_formats.py``."""
    assert str(version) in {path.name for path in folders(kind)}
    assert sum(path.stat().st_size for path in FORMATS.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("folder", folders("summary"), ids=lambda path: path.name)
def test_a_page_is_drawn_of_every_summary(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "out")
    summary, cells, points = read_stored(out)
    assert summary["format"] == SUMMARY_FORMAT and "quality" not in summary
    assert summary["summary"]["cells"] == len(cells) == len(points["query"]) == 40
    assert "org/example" in scgraft.report(out).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", folders("calibration"), ids=lambda path: path.name)
def test_a_calibration_of_the_present_format_is_read_and_an_older_one_is_made_anew(folder):
    if int(folder.name) < FORMAT:
        with pytest.raises(CorruptFile, match="older scgraft"):
            scgraft.load_calibration(folder)
        return
    made = scgraft.load_calibration(folder)["cell_type"]
    assert made.classes == CLASSES and made.folds == (("b0",), ("b1",)) and len(made.scores)


@pytest.mark.parametrize("folder", folders("frozen"), ids=lambda path: path.name)
def test_a_frozen_mapping_of_the_present_format_maps_and_an_older_one_is_made_anew(folder):
    reference, adata = example(load_graft(folder / "graft").base)
    if int(folder.name) < FROZEN_FORMAT or not (folder / "calibration").exists():
        with pytest.raises(CorruptFile, match="made anew"):
            load_frozen(folder, reference)
        return
    frozen = load_frozen(folder, reference)
    query = scgraft.align(reference, adata, batch_key="batch")
    mapped = map_cells(reference, frozen, query, device="cpu")
    assert np.isfinite(mapped.latent.mean).all() and set(mapped.labels["cell_type"].label) <= set(CLASSES)
    assert mapped.novelty is not None and mapped.labels["cell_type"].pvalues is not None
