"""An AnnData whose names no file can hold, written and read back."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scgraft.results.writable import write_annotated


def test_names_with_slashes_are_written_under_others_and_nothing_is_lost(tmp_path):
    obs = pd.DataFrame({"a/b": [1, 2, 3], "a_b": [4, 5, 6], "plain": [7, 8, 9]}, index=["x", "y", "z"])
    adata = anndata.AnnData(sparse.csr_matrix(np.eye(3, dtype=np.float32)), obs=obs)
    adata.var["v/w"] = [1.0, 2.0, 3.0]
    adata.obsm["X/pca"], adata.layers["s/u"] = np.ones((3, 2)), adata.X.copy()
    adata.uns["m/n"], adata.uns["nested"] = 1, {"p/q": {"r/s": 2}, "p_q": 3}
    said = write_annotated(adata, tmp_path / "out.h5ad")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert found.obs.to_dict("list") == {"a_b_": [1, 2, 3], "a_b": [4, 5, 6], "plain": [7, 8, 9]}
    assert found.var["v_w"].tolist() == [1, 2, 3] and found.obsm["X_pca"].shape == (3, 2)
    assert (found.layers["s_u"] != adata.X).nnz == 0 and (found.X != adata.X).nnz == 0
    assert int(found.uns["m_n"]) == 1
    assert int(found.uns["nested"]["p_q_"]["r_s"]) == 2 and int(found.uns["nested"]["p_q"]) == 3
    assert sum("slash" in one for one in said) == 6 and "a/b" in adata.obs


def test_what_can_be_written_is_written_as_it_is(tmp_path):
    adata = anndata.AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame({"kind": ["a", "b"]}, index=["x", "y"]))
    assert write_annotated(adata, tmp_path / "out.h5ad") == ()
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obs["kind"].tolist() == ["a", "b"]
