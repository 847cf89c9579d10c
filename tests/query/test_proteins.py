"""Proteins of a query, wherever they are and whatever they are called; those that are not measured are not zero."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgraft.calibration.condition import condition_of
from scgraft.calibration.store import cache_folder
from scgraft.errors import CorruptFile, NotCounts
from scgraft.files.h5mu import read_h5mu
from scgraft.graft.embed import embed
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.query.align import align
from scgraft.query.proteins import match_names, protein_key
from scgraft.query.read import read_query
from scgraft.testing.laws import check_laws
from scgraft.values.blocks import PROTEINS
from tiny_totalvi import GENES, NAMES, draw, write_h5mu, write_totalvi_folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return load_reference(write_totalvi_folder(tmp_path_factory.mktemp("totalvi") / "reference"))


def query_of(n=30):
    return draw(n, ("q0", "q1"), seed=1)


def same(one, two):
    a, b = one.blocks[PROTEINS], two.blocks[PROTEINS]
    return (a.counts != b.counts).nnz == 0 and np.array_equal(a.measured, b.measured)


@pytest.mark.parametrize("mudata", [False, True])
@pytest.mark.parametrize("version", ["1.1.6", "1.4.2"])
def test_the_laws_hold(tmp_path, mudata, version):
    reference = load_reference(write_totalvi_folder(tmp_path / "reference", mudata=mudata, version=version))
    assert reference.schema.genes.tolist() == GENES and len(reference.latent.mean) == 60
    check_laws(reference, align(reference, query_of(), batch_key="batch"))


@pytest.mark.parametrize(
    "name", ["CD3", "cd3", "CD3-TotalSeqA", "anti-human_CD3", "adt_CD3", "CD3.ADT", "CD3_TotalSeq_C", "CD3_prot"]
)
def test_what_panels_write_around_a_name_does_not_matter(name):
    assert protein_key(name) == "cd3"


def test_names_that_are_not_clear_match_nothing():
    assert match_names(("CD3", "CD4"), ("cd3", "CD-3", "CD4")) == {1: 2}
    assert match_names(("CD3", "cd3"), ("CD3_TotalSeqB",)) == {}


def test_proteins_are_found_in_any_order_place_and_kind(reference, tmp_path):
    adata = query_of()
    own = align(reference, adata, batch_key="batch")
    assert own.blocks[PROTEINS].measured.all()
    table = adata.obsm["protein_expression"]
    other = adata.copy()
    other.obsm["adt"] = (
        other.obsm.pop("protein_expression").iloc[:, ::-1].rename(columns=lambda n: n.replace("_TotalSeqB", ""))
    )
    assert same(align(reference, other, batch_key="batch"), own)
    array = adata.copy()
    array.obsm["protein_expression"] = sparse.csr_matrix(table.to_numpy())
    assert same(align(reference, array, batch_key="batch"), own)
    array.obsm["protein_expression"] = table.to_numpy()[:, ::-1]
    array.uns["names"] = NAMES[::-1]
    assert same(align(reference, array, batch_key="batch"), own)
    rows = anndata.AnnData(
        sparse.hstack([adata.X, sparse.csr_matrix(table.to_numpy())]).tocsr(),
        obs=adata.obs,
        var=pd.DataFrame(
            {"feature_types": ["Gene Expression"] * 20 + ["Antibody Capture"] * 4}, index=[*GENES, *NAMES]
        ),
    )
    assert same(align(reference, rows, batch_key="batch"), own)
    read = read_query(write_h5mu(adata, tmp_path / "query.h5mu"))
    assert same(align(reference, read, batch_key="batch"), own)


class InMemory:
    """What scgraft needs of a MuData in memory."""

    def __init__(self, adata):
        table = adata.obsm["protein_expression"]
        self.obs, self.obsmap = adata.obs, {}
        self.mod = {
            "rna": adata,
            "prot": anndata.AnnData(
                table.to_numpy(), obs=pd.DataFrame(index=table.index), var=pd.DataFrame(index=table.columns)
            ),
        }


def test_a_mudata_in_memory_is_a_query(reference):
    adata = query_of()
    assert same(align(reference, InMemory(adata), batch_key="batch"), align(reference, adata, batch_key="batch"))


def test_what_was_not_measured_is_missing_and_said(reference):
    adata = query_of()
    adata.obsm["protein_expression"] = adata.obsm["protein_expression"].iloc[:, :2]
    adata.obsm["protein_expression"].iloc[3, 0] = np.nan
    query = align(reference, adata, batch_key="batch")
    measured = query.blocks[PROTEINS].measured
    assert not measured[:, 2:].any() and not measured[3, 0] and measured[:, :2].sum() == 2 * 30 - 1
    assert any("lacks count as missing" in m and "CD19" in m for m in query.alignment.messages)
    del adata.obsm["protein_expression"]
    query = align(reference, adata, batch_key="batch")
    assert not query.blocks[PROTEINS].measured.any() and not query.blocks[PROTEINS].counts.nnz
    assert any("by their genes alone" in m for m in query.alignment.messages)
    condition = condition_of(reference, query)
    assert not condition.as_reference and not condition.blocks[PROTEINS].any()
    assert cache_folder(reference, ["cell_type"], condition) != cache_folder(reference, ["cell_type"])


def test_cells_without_proteins_are_mapped_and_calibrated_without_them(reference):
    adata = query_of(60)
    del adata.obsm["protein_expression"]
    mapped = map_query(reference, adata, batch_key="batch", labels=["cell_type"])
    assert mapped.labels["cell_type"].pvalues is not None and mapped.verdict is not None


def test_a_protein_that_a_batch_lacks_is_masked_in_its_likelihood_only(tmp_path):
    import torch

    from scgraft.model.build import build, make_cells
    from scgraft.reference.counts import open_own, own_query

    reference = load_reference(write_totalvi_folder(tmp_path / "reference", masked=True))
    query, device = own_query(reference, open_own(reference)), torch.device("cpu")
    model = build(reference, device)
    mask = model.measured(make_cells(model, query, query.codes.astype(np.int64), device)).numpy()
    assert not mask[query.codes[:, 0] == 0, 2].any() and mask.sum() == mask.size - 30
    assert embed(reference, query).mean.shape == (60, 4)


def test_proteins_that_are_no_counts_are_an_error(reference):
    adata = query_of()
    adata.obsm["protein_expression"] = np.log1p(adata.obsm["protein_expression"])
    with pytest.raises(NotCounts, match="no raw counts.*without CLR"):
        align(reference, adata, batch_key="batch")


def test_a_mudata_without_genes_or_with_cells_that_have_none_is_named(tmp_path):
    import h5py

    path = write_h5mu(query_of(), tmp_path / "query.h5mu")
    with h5py.File(path, "a") as file:
        file.move("mod/rna", "mod/x")
    with pytest.raises(CorruptFile, match="none of them is called 'rna'"):
        read_h5mu(path)
    with h5py.File(path, "a") as file:
        del file["mod"]
    with pytest.raises(CorruptFile, match="no modalities"):
        read_h5mu(path)
