"""Tables of text, loom files and zipped stores: the same cells, whatever wrote them."""

import gzip
import shutil
import tracemalloc

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgraft.errors import CorruptFile, QueryError
from scgraft.query.read import read_query
from scgraft.query.tables import read_table

GENES = ["ACTB", "GAPDH", "B2M", "RPL3", "RPS6", "MT-CO1", "CD3E", "NKG7"]
IDS = [f"ENSG{i:011d}" for i in range(len(GENES))]
CELLS = ["AAACCTGAGAAACCAT-1", "AAACCTGAGCGTGAAC-1", "AAACCTGCACTTGGAT-1"]
COUNTS = np.random.default_rng(0).poisson(1.5, (len(CELLS), len(GENES))).astype(np.float32)


def same(found):
    assert found.obs_names.tolist() == CELLS and found.var_names.tolist() == GENES
    assert np.array_equal(sp.csr_matrix(found.X).toarray(), COUNTS)
    return found


def table(turned=False):
    frame = pd.DataFrame(COUNTS.astype(int), CELLS, GENES)
    return frame.T if turned else frame


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("name", "mark"),
    [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", "\t"), ("a.csv", ";"), ("a.csv.gz", ","), ("a.tsv.gz", "\t")],
)
def test_a_table_is_read_whichever_side_the_genes_are(tmp_path, turned, name, mark):
    table(turned).to_csv(tmp_path / name, sep=mark)
    same(read_query(tmp_path / name))


def test_a_table_as_r_writes_it_and_one_with_annotation(tmp_path):
    rows = [" ".join(CELLS).replace(" ", "\t")]  # write.table: the first line has one name less
    rows += ["\t".join([f'"{g}"', *map(str, COUNTS[:, i].astype(int))]) for i, g in enumerate(GENES)]
    (tmp_path / "r.txt").write_text("\n".join(rows) + "\n")
    same(read_query(tmp_path / "r.txt"))
    table().assign(donor=["d1", "d2", "d2"]).to_csv(tmp_path / "cells.csv")
    assert same(read_query(tmp_path / "cells.csv")).obs["donor"].tolist() == ["d1", "d2", "d2"]
    table(True).assign(gene_ids=IDS).to_csv(tmp_path / "genes.csv")
    assert same(read_query(tmp_path / "genes.csv")).var["gene_ids"].tolist() == IDS


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("block", [1, 40, 97, 1000])
def test_a_table_is_the_same_in_blocks_of_any_size(tmp_path, turned, block):
    frame = table(turned)
    frame["cluster"] = (["7", "8", "a"] if not turned else ["1", "2", "x", "3", "", "5", "6", "7"])[: len(frame)]
    frame.to_csv(tmp_path / "a.csv", lineterminator="\r\n")
    found, whole = same(read_table(tmp_path / "a.csv", block)), same(read_table(tmp_path / "a.csv"))
    for one, other in ((found.obs, whole.obs), (found.var, whole.var)):
        assert one.fillna("-").astype(str).equals(other.fillna("-").astype(str))
    assert ("cluster" in found.var) is turned and ("cluster" in found.obs) is not turned


def _rows(name, line):
    with gzip.open(name, "wt", compresslevel=1) as file:
        file.write("g,ACTB,GAPDH,B2M,RPL3\n")
        for _ in range(200):
            file.write(line * 20_000)


def test_a_small_file_that_unpacks_to_a_large_one_does_not_fill_the_memory(tmp_path):
    _rows(tmp_path / "rows.csv.gz", "a,0,0,0,0\n")
    with gzip.open(tmp_path / "long.csv.gz", "wt", compresslevel=1) as file:
        file.write("g" + ",ACTB" * 10_000_000)
    with gzip.open(tmp_path / "wide.csv.gz", "wt", compresslevel=1) as file:
        file.write("g" + ",ACTB" * 2_000_000 + "\na" + ",0" * 2_000_000)
    for name, said in (
        ("rows", "more memory than its size"),
        ("long", "has a line of more"),
        ("wide", "more memory than"),
    ):
        assert (tmp_path / f"{name}.csv.gz").stat().st_size < 1_000_000
        tracemalloc.start()
        with pytest.raises(CorruptFile, match=said):
            read_table(tmp_path / f"{name}.csv.gz", 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 600 << 20
        tracemalloc.stop()
        with pytest.raises(QueryError, match=said):
            read_query(tmp_path / f"{name}.csv.gz")


def test_a_table_that_does_not_tell_or_is_none_is_named(tmp_path):
    pd.DataFrame(COUNTS, list("abc"), list("stuvwxyz")).to_csv(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("hello\n")
    pd.DataFrame({"x": ["a"], "y": ["b"]}).to_csv(tmp_path / "c.csv")
    (tmp_path / "d.csv.gz").write_bytes(b"no gzip")
    for name, said in (
        ("a", "which side"),
        ("b", "no table"),
        ("c", "no column of numbers"),
        ("d.csv.gz", "cannot be read"),
    ):
        with pytest.raises(QueryError, match=said):
            read_query(tmp_path / (name if "." in name else f"{name}.csv"))
    (tmp_path / "e.rds").write_bytes(b"x")
    with pytest.raises(QueryError, match="read by R"):
        read_query(tmp_path / "e.rds")


@pytest.mark.parametrize(("genes", "cells"), [("Gene", "CellID"), ("var_names", "obs_names"), ("gene_name", "barcode")])
def test_loom(tmp_path, genes, cells):
    with h5py.File(tmp_path / "a.loom", "w") as file:
        file["matrix"], file["layers/spliced"] = COUNTS.T, COUNTS.T * 2
        file[f"row_attrs/{genes}"], file["row_attrs/Accession"] = np.array(GENES, "S"), np.array(IDS, "S")
        file[f"col_attrs/{cells}"], file["col_attrs/batch"] = np.array(CELLS, "S"), np.array(["x", "y", "y"], "S")
        file["col_attrs/two"] = np.zeros((3, 2))
        file.create_group("row_graphs")
    found = same(read_query(tmp_path / "a.loom"))
    assert found.var["Accession"].tolist() == IDS and found.obs["batch"].tolist() == ["x", "y", "y"]
    assert np.array_equal(found.layers["spliced"].toarray(), COUNTS * 2) and list(found.obs) == ["batch"]
    with h5py.File(tmp_path / "a.loom", "a") as file:
        del file["row_attrs"]
    with pytest.raises(QueryError, match="no loom file"):
        read_query(tmp_path / "a.loom")


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data", "ignore:Duplicate name")
@pytest.mark.parametrize("top", ["", "x.zarr"])
def test_zarr_without_a_suffix_and_zipped(tmp_path, top):
    adata = anndata.AnnData(sp.csr_matrix(COUNTS), pd.DataFrame(index=CELLS), pd.DataFrame(index=GENES))
    adata.write_zarr(tmp_path / "in" / (top or "store"))
    same(read_query(tmp_path / "in" / (top or "store")))
    if not top:
        (tmp_path / "in/store").rename(tmp_path / "in/plain")
        same(read_query(tmp_path / "in/plain"))
    for name in ("a.zip", "a.zarr.zip"):
        made = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "in" if top else tmp_path / "in/plain")
        shutil.move(made, tmp_path / name)
        same(read_query(tmp_path / name))
    with gzip.open(tmp_path / "b.zip", "w") as file:
        file.write(b"x")
    with pytest.raises(QueryError, match="cannot be read"):
        read_query(tmp_path / "b.zip")
