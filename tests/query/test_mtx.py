"""Folders with a matrix, however a tool or an archive lays them out."""

import gzip

import numpy as np
import pytest
from scipy.io import mmwrite

from case_files import case, plain_query
from scgraft.errors import QueryError
from scgraft.query.gene_map import read_gene_map
from scgraft.query.read import read_query
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig

ADATA = tiny_query(TinyConfig(), n_cells=12)


def write(folder, *, prefix="", features="features.tsv", columns=3, packed=False, turned=False):
    import scipy.sparse as sp

    folder.mkdir(parents=True)
    matrix = sp.coo_matrix(ADATA.X)
    mmwrite(folder / "m.mtx", matrix if turned else matrix.T)
    rows = [[f"ENSG{i:011d}", g, "Gene Expression"] for i, g in enumerate(ADATA.var_names)]
    rows = [r[:columns] if columns > 1 else r[1:2] for r in rows]
    texts = {"matrix.mtx": (folder / "m.mtx").read_text(), features: "".join("\t".join(r) + "\n" for r in rows)}
    (folder / "m.mtx").unlink()
    texts["barcodes.tsv"] = "".join(f"{c}\n" for c in ADATA.obs_names)
    for name, text in texts.items():
        path = folder / f"{prefix}{name}{'.gz' * packed}"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


@pytest.mark.parametrize(
    ("inside", "options"),
    [
        (".", {}),
        (".", {"packed": True}),
        (".", {"prefix": "GSM1_x_", "packed": True}),
        (".", {"features": "genes.tsv", "columns": 2}),
        (".", {"features": "genes.tsv", "packed": True}),
        (".", {"columns": 1}),
        (".", {"turned": True}),
        ("outs/filtered_feature_bc_matrix", {"packed": True}),
        ("outs/filtered_gene_bc_matrices/GRCh38", {"features": "genes.tsv", "columns": 2}),
        ("Solo.out/Gene/filtered", {}),
    ],
)
def test_every_layout_gives_the_same_cells(tmp_path, inside, options):
    write(tmp_path / "sample" / inside if inside != "." else tmp_path / "sample", **options)
    found = read_query(tmp_path / "sample")
    assert np.array_equal(found.X.toarray(), np.asarray(ADATA.to_df()))
    assert found.obs_names.tolist() == ADATA.obs_names.tolist() and found.var_names.tolist() == ADATA.var_names.tolist()


def test_what_does_not_belong_together_is_named(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a/features.tsv").write_text("one\ttwo\n")
    with pytest.raises(QueryError, match="do not belong together"):
        read_query(tmp_path / "a")
    (tmp_path / "a/features.tsv").unlink()
    with pytest.raises(QueryError, match="none of features.tsv"):
        read_query(tmp_path / "a")
    write(tmp_path / "b/c", prefix="one_")
    for path in list((tmp_path / "b/c").iterdir()):
        path.rename(tmp_path / "b" / path.name)
        (tmp_path / "b" / path.name.replace("one_", "two_")).write_bytes((tmp_path / "b" / path.name).read_bytes())
    with pytest.raises(QueryError, match="several samples"):
        read_query(tmp_path / "b")


def test_what_a_matrix_says_it_holds_is_not_made_room_for(tmp_path):
    write(tmp_path / "a", packed=True)
    head = f"%%MatrixMarket matrix coordinate integer general\n{ADATA.n_vars} {ADATA.n_obs} "
    (tmp_path / "a/matrix.mtx.gz").write_bytes(gzip.compress(f"{head}900000000000\n1 1 1\n".encode()))
    with pytest.raises(QueryError, match="more memory than its size"):
        read_query(tmp_path / "a")
    (tmp_path / "a/barcodes.tsv.gz").write_bytes(gzip.compress(b"a\n" * 4_000_000))
    with pytest.raises(QueryError, match="barcodes.tsv.gz would need far more memory than its size"):
        read_query(tmp_path / "a")


@pytest.mark.parametrize("name", ["folder_starsolo", "folder_geo", "folder_two_columns"])
def test_real_folders(name):
    found = read_query(case(name))
    plain = plain_query("pbmc-10x-scanvi")[found.obs_names]
    assert (found.X != plain.X).nnz == 0 and found.var_names.tolist() == plain.var_names.tolist()


def test_a_gene_map_is_two_columns(tmp_path):
    path = tmp_path / "map"
    for text in ("a\tA\nb\tB\n", "a,A\n\nb, B\n"):
        path.write_text(text)
        assert read_gene_map(path) == {"a": "A", "b": "B"}
    for text, word in (("a\tA\tx\n", "has 3 columns"), ("a,A\na,B\n", "two genes of the reference for 'a'")):
        path.write_text(text)
        with pytest.raises(QueryError, match=word):
            read_gene_map(path)
