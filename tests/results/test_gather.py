"""Parts put together, on a few rows written by hand."""

import anndata
import numpy as np
import pandas as pd
import pytest

from scgraft.results.gather import write_cells, write_labels, write_parquet
from scgraft.results.parts import Part, write_part

LABELS = (["c", "a", "a"], ["a", "b", "a"])


@pytest.fixture
def parts(tmp_path):
    paths = []
    for i, labels in enumerate(LABELS):
        table = pd.DataFrame(
            {
                "cell_type": labels,
                "p": np.float32([0.1, 0.2, 0.3]),
                "unknown": [True, False, True],
                "cluster": [1, 2, 3],
            },
            index=pd.Index([f"cell {i}{j}" for j in range(3)], name="barcode"),
        )
        write_part(tmp_path / f"{i}.npz", Part(np.arange(3) + 3 * i, np.zeros((3, 2), np.float32), table))
        paths.append(tmp_path / f"{i}.npz")
    return paths


def check(table):
    assert table.index.tolist() == [f"cell {i}{j}" for i in range(2) for j in range(3)]
    assert table["cell_type"].tolist() == [*LABELS[0], *LABELS[1]] and table["cluster"].tolist() == [1, 2, 3] * 2
    assert np.allclose(table["p"], [0.1, 0.2, 0.3] * 2) and table["unknown"].tolist() == [True, False, True] * 2


def test_labels_are_the_rows_of_all_parts_in_order(parts, tmp_path):
    write_labels(parts, tmp_path / "labels.csv.gz")
    check(pd.read_csv(tmp_path / "labels.csv.gz", index_col="barcode"))
    write_labels(parts, tmp_path / "again.csv.gz")
    assert (tmp_path / "labels.csv.gz").read_bytes() == (tmp_path / "again.csv.gz").read_bytes()


def test_labels_as_parquet_have_the_same_rows(parts, tmp_path):
    pytest.importorskip("pyarrow")
    assert write_parquet(parts, tmp_path / "labels.parquet")
    check(pd.read_parquet(tmp_path / "labels.parquet").set_index("barcode"))


def test_a_label_column_with_a_slash_becomes_a_column_of_the_file(tmp_path):
    table = pd.DataFrame({"level/2": ["a", "b", "a"]}, index=pd.Index(["x", "y", "z"], name="barcode"))
    write_part(tmp_path / "0.npz", Part(np.arange(3), np.zeros((3, 2), np.float32), table))
    anndata.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame(index=["x", "y", "z"])).write_h5ad(
        tmp_path / "q.h5ad"
    )
    for counts in (False, True):
        write_cells(
            [tmp_path / "0.npz"], tmp_path / "q.h5ad", tmp_path / "m.h5ad", columns=["level/2"], uns={}, counts=counts
        )
        assert anndata.read_h5ad(tmp_path / "m.h5ad").obs["scgraft_level_2"].tolist() == ["a", "b", "a"]
