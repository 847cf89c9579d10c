"""What a mapping writes into the user's AnnData: the columns of its table, the latent, and places on the map."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import scgraft
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder
from scgraft.values.mapping import most_common

KEY = "cell_type"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = TinyConfig(model="SCANVI", encode_covariates=True, minified="latent_posterior_parameters")
    reference = scgraft.load_reference(write_hub_folder(tmp_path_factory.mktemp("annotated") / "reference", config))
    adata = tiny_query(config, n_cells=50)
    mapped = scgraft.map_query(reference, adata, batch_key="batch", config=scgraft.FitConfig(max_steps=5))
    # Some cells that should not be believed, whatever this tiny mapping says.
    labels = {key: replace(value, unknown=np.arange(50) % 7 == 0) for key, value in mapped.labels.items()}
    return reference, adata, replace(mapped, labels=labels)


def test_every_column_of_the_table_is_written(made):
    reference, adata, mapped = made
    annotated = scgraft.annotate(adata.copy(), mapped, reference=reference)
    table = mapped.to_frame()
    assert [f"scgraft_{name}" for name in table] == [name for name in annotated.obs if name.startswith("scgraft_")]
    for name in table:
        written = annotated.obs[f"scgraft_{name}"]
        if table[name].dtype.kind in "bf":
            assert np.allclose(written, table[name], equal_nan=True)
        else:
            assert written.dtype == "category" and written.astype(str).tolist() == table[name].astype(str).tolist()
    assert annotated.obsm["X_scgraft_map"].shape == (50, 2) and np.isfinite(annotated.obsm["X_scgraft_map"]).all()
    assert not any(":" in name for name in annotated.obs)


def test_a_label_that_should_not_be_believed_says_unknown_and_its_call_stands_beside_it(made):
    _, adata, mapped = made
    obs = scgraft.annotate(adata.copy(), mapped).obs
    unknown = obs[f"scgraft_{KEY}_unknown"].to_numpy()
    assert unknown.sum() == 8 and (obs[f"scgraft_{KEY}"][unknown] == "unknown").all()
    assert (obs[f"scgraft_{KEY}"][~unknown].astype(str) == obs[f"scgraft_{KEY}_call"][~unknown].astype(str)).all()
    assert obs[f"scgraft_{KEY}_call"].astype(str).tolist() == mapped.labels[KEY].label.tolist()


def test_cells_that_were_left_out_are_unknown_and_have_no_numbers(made):
    reference, adata, mapped = made
    more = adata.copy()
    more.obs_names = [f"other{i}" for i in range(len(more))]
    import anndata

    both = scgraft.annotate(anndata.concat([more, adata]), mapped, reference=reference)
    out = both.obs.iloc[:50]
    assert out[f"scgraft_{KEY}"].isna().all() and out[f"scgraft_{KEY}_probability"].isna().all()
    assert (
        out[f"scgraft_{KEY}_unknown"].all() and not out["scgraft_novel"].any() and out["scgraft_cluster"].isna().all()
    )
    assert np.isnan(both.obsm["X_scgraft_map"][:50]).all() and np.isfinite(both.obsm["X_scgraft_map"][50:]).all()


def test_the_label_of_a_cluster_is_the_most_common_call_in_it(made):
    table = made[2].to_frame()
    for _, part in table.groupby("cluster"):
        assert (part[f"{KEY}_call"] == part[f"{KEY}_cluster"].iloc[0]).sum() == part[f"{KEY}_call"].value_counts().max()
    assert most_common(np.array([0, 0, 1, 1, 1]), np.array(["b", "a", "c", "a", "c"])).tolist() == [
        "a",
        "a",
        "c",
        "c",
        "c",
    ]


def test_a_label_is_in_its_own_set_unless_that_is_empty(made):
    labels = made[2].labels[KEY]
    pvalues = np.full((3, 3), 0.01, np.float32)
    pvalues[0, 1], pvalues[1] = 0.5, 0.9  # another class than the most probable; all of them; none
    matrix = np.tile(np.array([0.6, 0.3, 0.1], np.float32), (3, 1))
    odd = replace(labels, matrix=matrix, pvalues=pvalues, classes=("a", "b", "c"))
    assert odd.sets(0.1) == (("a", "b"), ("a", "b", "c"), ())
    assert odd.resolve(0.1).tolist() == ["a | b", "a | b | c", "unknown"]


def test_a_table_written_before_there_were_calls_is_still_drawn(made, tmp_path):
    reference, adata, mapped = made
    out = scgraft.write(mapped, adata.copy(), tmp_path / "out", reference=reference)
    now = (scgraft.report(out)).read_text(encoding="utf-8")
    table = pd.read_csv(out / "labels.csv", index_col="barcode")
    table[KEY] = table[f"{KEY}_call"]
    table.drop(columns=[f"{KEY}_call", f"{KEY}_cluster"]).to_csv(out / "labels.csv")
    assert scgraft.report(out).read_text(encoding="utf-8") == now
