"""What a query that is read in pieces may hold, where the reference takes more than genes and one batch."""

from dataclasses import replace

import numpy as np
import pytest

import scgraft
from scgraft.errors import QueryError, UnknownBatch
from scgraft.mapping import freeze, map, stream
from scgraft.mapping.freeze import choose_sample, strata, with_levels
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from scgraft.values.graft import FitConfig
from tiny_multivi import draw, write_multivi_folder
from tiny_totalvi import draw as draw_proteins
from tiny_totalvi import write_totalvi_folder

FIT = FitConfig(device="cpu", max_steps=3, progress=False)


def backed(adata, path):
    import anndata

    adata.write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")


def two_conditions(n=60):
    adata = tiny_query(TinyConfig(), n_cells=n, batches=("q0", "q1"))
    adata.obs["donor"] = np.where(np.arange(n) % 2, "d0", "dnew")
    last = np.flatnonzero(adata.obs["batch"] == "q0")[-1]
    adata.obs.loc[adata.obs_names[last], "donor"] = "rare"  # one cell alone has this combination
    return adata


def test_a_combination_that_one_cell_has_is_in_the_sample_of_a_stream(tmp_path, monkeypatch):
    reference = scgraft.load_reference(write_scpoli_folder(tmp_path / "model", two=True))
    adata = two_conditions()
    for module in (map, stream):
        monkeypatch.setattr(module, "SAMPLE", 8)
    monkeypatch.setattr(freeze, "CELLS", 16)
    made = scgraft.map_query(
        reference, backed(adata, tmp_path / "q.h5ad"), batch_key="batch", config=FIT, memory=0, calibration=None
    )
    assert "rare" in made.graft.levels["covariate:donor"]
    assert any(level.endswith("_rare") for name in made.graft.levels for level in made.graft.levels[name])
    whole = scgraft.map_query(reference, adata, batch_key="batch", graft=made.graft, calibration=None)
    np.testing.assert_array_equal(made.latent.mean, whole.latent.mean)


def test_a_sample_has_every_batch_with_every_level():
    codes = np.zeros((1000, 2), np.int32)
    codes[500:, 0], codes[7, 1], codes[990, 1] = 1, 1, 2
    chosen = choose_sample(strata(codes), np.random.default_rng(0).permutation(1000), most=20)
    assert {7, 990} <= set(chosen.tolist()) and len(chosen) < 40
    np.testing.assert_array_equal(strata(codes[:, :1]), codes[:, 0])


def test_a_combination_that_was_not_learnt_is_named(tmp_path):
    reference = scgraft.load_reference(write_scpoli_folder(tmp_path / "model", two=True))
    query = scgraft.align(reference, two_conditions(), batch_key="batch")
    levels = {name: tuple(level for level in own if "rare" not in level) for name, own in query.levels.items()}
    with pytest.raises(
        UnknownBatch, match=r"1 cells have the donor 'rare', which the sample .* Map the whole query again"
    ):
        with_levels(query, levels)
    assert with_levels(query, query.levels) is query
    more = {name: (*own, "more") for name, own in query.levels.items()}
    np.testing.assert_array_equal(with_levels(query, more).codes, query.codes)
    assert replace(query, levels=more).codes is query.codes


def test_cells_with_proteins_are_not_read_in_pieces(tmp_path):
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "model"))
    query = backed(draw_proteins(30, ("q0",)), tmp_path / "q.h5ad")
    with pytest.raises(
        QueryError, match="takes proteins beside genes, and cells that are read in pieces have their genes only"
    ):
        scgraft.map_query(reference, query, batch_key="batch", config=FIT, memory=0)


@pytest.mark.parametrize("kind", ["both", "genes"])
def test_genes_and_regions_are_read_in_pieces(tmp_path, monkeypatch, kind):
    reference = scgraft.load_reference(write_multivi_folder(tmp_path / "model"))
    adata = draw(60, ("q0", "q1"), seed=9, paired=kind == "genes")
    adata = adata[:, adata.var["feature_types"] == "Gene Expression"].copy() if kind == "genes" else adata
    whole = scgraft.map_query(reference, adata, batch_key="batch", config=FIT, calibration=None)
    monkeypatch.setattr(freeze, "CELLS", 16)
    made = scgraft.map_query(
        reference, backed(adata, tmp_path / "q.h5ad"), batch_key="batch", config=FIT, memory=0, calibration=None
    )
    np.testing.assert_allclose(made.latent.mean, whole.latent.mean, atol=1e-6)
    assert made.alignment.lacking == whole.alignment.lacking == (("regions",) if kind == "genes" else ())
