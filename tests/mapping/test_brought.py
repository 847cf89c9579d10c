"""What people bring, through check, map and the files that are written."""

import json
import logging
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

import scgraft
from case_files import case, hub_reference, plain_query
from scgraft.errors import BatchColumn, EmptyCells, GenesNotFound
from scgraft.mapping.check import _types
from scgraft.mapping.cost import judge_missing_genes
from scgraft.mapping.stream import open_query
from scgraft.query.align import align
from scgraft.query.given import some_cells
from scgraft.query.read import read_query
from scgraft.reference.cells import reference_classes
from scgraft.reference.describe import describe
from scgraft.results.annotate import annotate
from scgraft.results.folder import write
from scgraft.results.writable import write_annotated
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.query import AlignOptions

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")


@pytest.fixture(scope="module")
def mapped_tiny(tmp_path_factory):
    reference = scgraft.load_reference(write_hub_folder(tmp_path_factory.mktemp("r") / "reference", CONFIG))
    adata = tiny_query(CONFIG, n_cells=60, batches=("new 1", "new 2"))
    bare = scgraft.map_query(
        reference, adata, batch_key="batch", config=scgraft.FitConfig(epochs=0), calibration=None, min_found=0
    )
    return reference, adata, bare


@pytest.mark.parametrize("name", ["seurat_disk", "nullable_strings"])
def test_files_of_other_tools_are_mapped_and_written(name, tmp_path):
    reference = hub_reference("pbmc-10x-scanvi")
    adata = read_query(case(name))
    options = {"batch_key": "batch", "config": scgraft.FitConfig(epochs=0), "calibration": None}
    mapped = scgraft.map_query(reference, adata, **options)
    plain = scgraft.map_query(reference, plain_query("pbmc-10x-scanvi")[mapped.latent.cells].copy(), **options)
    key = next(iter(plain.labels))
    assert mapped.labels[key].label.tolist() == plain.labels[key].label.tolist()
    write(mapped, adata, tmp_path / "out", page=False)
    written = anndata.read_h5ad(tmp_path / "out/mapped.h5ad")
    assert written.obs[f"scgraft_{key}_call"].astype(str).tolist() == mapped.labels[key].label.tolist()
    assert written.shape == adata.shape and (written.X != adata.X).nnz == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    if name == "seurat_disk":  # newer versions of anndata write nullable strings as they are
        assert any("'_index'] is called 'index_'" in said for said in summary["left_out"])


def test_what_no_file_can_hold_is_left_out_and_the_rest_is_there(mapped_tiny, tmp_path, caplog):
    _, adata, mapped = mapped_tiny
    odd = adata.copy()
    odd.uns["function"], odd.uns["fine"] = print, {"a": 1}
    odd.obs["mixed"] = pd.Series([("a", 1)] + [{1}] * (odd.n_obs - 1), index=odd.obs_names, dtype=object)
    odd.obsm["X_pca"] = np.zeros((odd.n_obs, 2))
    with caplog.at_level(logging.WARNING):
        write(mapped, odd, tmp_path / "out", page=False)
    written = anndata.read_h5ad(tmp_path / "out/mapped.h5ad")
    assert "X_pca" in written.obsm and "function" not in written.uns and int(written.uns["fine"]["a"]) == 1
    assert "uns['function']" in caplog.text and {"labels.csv", "graft"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert write_annotated(adata, tmp_path / "bare.h5ad", counts=False) == ()
    assert anndata.read_h5ad(tmp_path / "bare.h5ad").X is None


def test_a_second_mapping_leaves_nothing_of_the_first(mapped_tiny, caplog):
    _, adata, mapped = mapped_tiny
    once, twice = annotate(adata.copy(), mapped), adata.copy()
    twice.obs["scgraft_old_set"], twice.obs["scgraft_novelty"], twice.obs["scgraft_source"] = "x", 1.0, "query"
    twice.obsm["X_scgraft_map"] = np.zeros((adata.n_obs, 2))
    with caplog.at_level(logging.WARNING):
        annotate(twice, mapped)
    assert set(twice.obs) == {*once.obs, "scgraft_source"} and set(twice.obsm) == set(once.obsm)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "earlier mapping" in said[0] and len(said[0]) < 140 and "scgraft_novelty" not in said[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        annotate(twice, mapped)  # the same mapping once more: nothing of another is lost
    assert not caplog.records and set(twice.obs) == {*once.obs, "scgraft_source"}


def test_check_finds_what_map_refuses_outside_its_sample():
    reference, adata = hub_reference("pbmc-10x-scanvi"), anndata.read_h5ad(case("hidden_fault"), backed="r")
    found = scgraft.check(reference, adata, batch_key="batch")
    with pytest.raises(BatchColumn) as caught:
        align(reference, adata, batch_key="batch")
    adata.file.close()
    assert found.grade == "stop" and found.findings[-1].sentence == str(caught.value)


def test_a_panel_is_mapped_with_the_measured_cost_and_genes_found_by_accident_are_not():
    reference, panel = hub_reference("pbmc-10x-scanvi"), anndata.read_h5ad(case("panel_300"))
    found = align(reference, panel, batch_key="batch", min_found=0, drop_empty=True)
    assert found.alignment.found_weight < 0.5
    assert "accuracy falls from" in judge_missing_genes(reference, found)
    few = align(
        reference, panel[:, found.alignment.n_genes % 7 :: 60].copy(), batch_key="batch", min_found=0, drop_empty=True
    )
    with pytest.raises(GenesNotFound, match="accuracy falls from"):
        judge_missing_genes(reference, few)


def test_check_lists_the_labels_that_a_mapping_can_give_and_no_others():
    reference = hub_reference("pbmc-10x-scanvi")
    key, obs = reference.schema.labels_key, reference.obs.copy()
    names = obs[key].astype(object)
    names.iloc[:7], names.iloc[7:9] = np.nan, reference.schema.unlabeled
    changed = replace(reference, obs=obs.assign(**{key: names}))
    finding = _types(changed, describe(changed).labels)
    classes, codes = reference_classes(changed, key)
    assert set(finding.values["cells"]) == set(classes.tolist()) and not {"nan", "Unknown"} & set(classes.tolist())
    assert f"can give {len(classes)} labels" in finding.sentence and int((codes < 0).sum()) >= 9
    assert f"{int((codes < 0).sum()):,} cells of the reference have no label" in finding.sentence


def test_check_gives_no_all_clear_to_cells_that_are_all_unseen():
    """Lines of which the reference has none: their own scale hides that they are unknown, and the model's errors show it."""
    reference, unseen = hub_reference("lung-lines-scvi"), anndata.read_h5ad(case("only_unseen"))
    (found,) = [f for f in scgraft.check(reference, unseen, batch_key="batch").findings if f.name == "unknown cells"]
    assert found.grade == "warning" and ("no all-clear" in found.sentence or found.values["share"] > 0.1)
    cells = plain_query("pbmc-10x-scanvi")[:600].copy()
    findings = scgraft.check(hub_reference("pbmc-10x-scanvi"), cells, batch_key="batch").findings
    assert [f.grade for f in findings if f.name == "unknown cells"] == ["ok"]


def test_check_stops_at_cells_without_counts_where_a_mapping_refuses_them(mapped_tiny):
    reference, adata, _ = mapped_tiny
    empty = adata.copy()
    keep = np.ones((adata.n_obs, 1))
    keep[[3, 9]] = 0
    empty.X = adata.X.multiply(keep).tocsr()
    found = {f.name: f for f in scgraft.check(reference, empty, batch_key="batch").findings}["empty cells"]
    assert found.grade == "stop" and f"{empty.obs_names[3]}, {empty.obs_names[9]}" in found.sentence
    with pytest.raises(EmptyCells):
        align(reference, empty, batch_key="batch")
    left = scgraft.check(reference, empty, batch_key="batch", drop_empty=True)
    assert {f.name: f.grade for f in left.findings}["empty cells"] == "repaired" and left.grade != "stop"
    assert "empty cells" not in {f.name for f in scgraft.check(reference, adata, batch_key="batch").findings}


@pytest.mark.parametrize(("least", "refused"), [(0.9, True), (0.0, False)])
def test_check_and_map_refuse_genes_alike(mapped_tiny, least, refused):
    reference, adata, _ = mapped_tiny
    few = adata[:, : adata.n_vars // 3].copy()
    options = {"batch_key": "batch", "min_found": least, "drop_empty": True}
    found = scgraft.check(reference, few, **options)
    assert (found.grade == "stop") == refused
    if refused:
        with pytest.raises(GenesNotFound) as caught:
            align(reference, few, **options)
        assert found.findings[-1].sentence == str(caught.value)


def _in_obsm(adata):
    adata.obsm["spatial"] = np.zeros((adata.n_obs, 2))


def _in_uns(adata):
    adata.uns["spatialdata_attrs"] = {"region": "slide"}


def _in_obs(adata):
    adata.obs["in_tissue"] = 1


@pytest.mark.parametrize("write_places", [_in_obsm, _in_uns, _in_obs])
@pytest.mark.parametrize("way", ["memory", "backed", "lazy", "parts"])
def test_a_spatial_file_is_told_so_whatever_way_it_is_read(mapped_tiny, write_places, way, tmp_path):
    reference, adata, _ = mapped_tiny
    slide, path = adata.copy(), tmp_path / "slide.h5ad"
    write_places(slide)
    slide.write_h5ad(path)
    if way == "parts":
        file = open_query(reference, path, AlignOptions("batch"))
        assert any("is spatial" in note for note in file.notes)
        return
    given = {
        "memory": lambda: anndata.read_h5ad(path),
        "backed": lambda: read_query(path, backed=True),
        "lazy": lambda: anndata.experimental.read_lazy(path),
    }[way]()
    assert "spatial" in {f.name for f in scgraft.check(reference, given, batch_key="batch").findings}
    assert any("is spatial" in said for said in align(reference, given, batch_key="batch").alignment.messages)


def test_check_sees_proteins_in_obsm():
    """The sample of cells that is looked at has what the cells have beside their genes."""
    adata = anndata.AnnData(np.ones((6, 2), np.float32))
    adata.obsm["protein"] = pd.DataFrame({"CD3": range(6)}, index=adata.obs_names)
    adata.obsm["X_pca"], adata.uns["names"] = np.arange(12.0).reshape(6, 2), ["CD3"]
    some = some_cells(adata, np.array([1, 4]))
    assert some.obsm["protein"]["CD3"].tolist() == [1, 4] and some.obsm["X_pca"].tolist() == [[2, 3], [8, 9]]
    assert list(some.uns["names"]) == ["CD3"]
