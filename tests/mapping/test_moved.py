"""A value needs no file once it is loaded; the one exception, counts of a reference, is named."""

import os

import numpy as np
import pytest

import scgraft
from scgraft.errors import MovedFile
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

MINIFIED = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=60)
QUERY = {"n_cells": 40, "batches": ("new",)}


def everything(reference, adata, graft, calibration):
    """What can be done with a reference, a graft and a calibration that are loaded."""
    mapped = scgraft.map_query(reference, adata, batch_key="batch", graft=graft, calibration=calibration)
    query = scgraft.align(reference, adata, batch_key="batch")
    cells = scgraft.query_cells(reference, query, graft)
    own, labels = scgraft.reference_cells(reference), mapped.labels["cell_type"]
    return [
        mapped.to_frame(),
        scgraft.verdict(reference, adata, mapped),
        scgraft.explain(reference, mapped, adata.obs_names[0], adata=adata).sentence,
        scgraft.describe(reference).to_dict(),
        scgraft.check(reference, adata, batch_key="batch").grade,
        scgraft.normalized_expression(reference, own),
        scgraft.normalized_expression(reference, cells, graft),
        scgraft.compare_expression(reference, cells, graft, labels.label, str(labels.label[0]), n_pairs=20),
        scgraft.calibrate(reference)["cell_type"].temperature,
        [str(finding) for finding in scgraft.lint_card(reference)],
        str(scgraft.reference_card(reference)),
        scgraft.fit(reference, query, scgraft.FitConfig(max_steps=2)).batches,
    ]


@pytest.mark.filterwarnings("ignore:The comparison of")  # the tiny card has no metrics
def test_everything_runs_after_all_folders_were_moved(tmp_path):
    folder = write_hub_folder(tmp_path / "reference", MINIFIED)
    adata = tiny_query(MINIFIED, **QUERY)
    reference = scgraft.load_reference(folder)
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    scgraft.save_graft(mapped.graft, tmp_path / "graft")
    scgraft.save_calibration(mapped.calibration, tmp_path / "calibration")
    graft = scgraft.load_graft(tmp_path / "graft", reference=reference)
    calibration = scgraft.load_calibration(tmp_path / "calibration", reference=reference)
    before = everything(reference, adata, graft, calibration)
    for name in ("reference", "graft", "calibration"):
        (tmp_path / name).rename(tmp_path / f"{name} elsewhere")
    after = everything(reference, adata, graft, calibration)
    assert before[0].equals(after[0]) and repr(before[1:]) == repr(after[1:])


@pytest.mark.parametrize("minified", [None, "latent_posterior_parameters_with_counts"])
def test_counts_are_read_when_they_are_needed_and_a_file_that_is_gone_is_named(tmp_path, minified):
    config = TinyConfig(encode_covariates=True, minified=minified, n_cells=60)
    folder = write_hub_folder(tmp_path / "reference", config)
    adata, reference = tiny_query(config, **QUERY), scgraft.load_reference(folder)
    whole = scgraft.map_query(reference, adata, batch_key="batch", calibration=None)
    folder.rename(tmp_path / "elsewhere")
    bare = scgraft.map_query(reference, adata, batch_key="batch", calibration=None)
    assert np.array_equal(bare.latent.mean, whole.latent.mean) and bare.to_frame().equals(whole.to_frame())
    for use in (scgraft.calibrate, scgraft.evaluate):
        with pytest.raises(MovedFile, match=r"adata\.h5ad was there when .* load_reference\(folder\)"):
            use(reference)
    (tmp_path / "elsewhere").rename(folder)
    assert scgraft.calibrate(reference)["cell_type"].source == "stored counts"


def test_another_working_folder_changes_nothing(tmp_path, monkeypatch):
    config = TinyConfig(encode_covariates=True, n_cells=60)
    write_hub_folder(tmp_path / "reference", config)
    monkeypatch.chdir(tmp_path)
    reference = scgraft.load_reference("reference")
    os.mkdir("inner")
    monkeypatch.chdir("inner")
    assert scgraft.calibrate(reference)["cell_type"].source == "stored counts"
