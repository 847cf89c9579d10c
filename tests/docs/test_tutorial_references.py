"""The small references beside the tutorials are what these say they are."""

from pathlib import Path

import anndata
import numpy as np
import pytest

import scgraft
from scgraft.values.graft import FitConfig

DATA = Path(__file__).resolve().parents[2] / "tutorials" / "data"
FIT = FitConfig(device="cpu", progress=False)

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the tutorials are not beside these tests")


@pytest.mark.parametrize("kind", ["cite", "scpoli"])
def test_a_reference_is_small(kind):
    assert sum(path.stat().st_size for path in (DATA / kind).iterdir()) < 300_000


def test_rna_alone_gets_labels_and_proteins():
    reference, query = scgraft.load_reference(DATA / "cite"), anndata.read_h5ad(DATA / "cite_query.h5ad")
    truth, measured = query.obs.pop("cell_type").astype(str), query.obsm.pop("protein")
    mapped = scgraft.map_query(reference, query, batch_key="donor", labels=["cell_type"], config=FIT, calibration=None)
    assert (mapped.labels["cell_type"].label == truth).mean() > 0.9
    cells = scgraft.query_cells(reference, scgraft.align(reference, query, batch_key="donor"), mapped.graft)
    found = scgraft.proteins(reference, cells, mapped.graft)
    for values in (found.neighbours, found.denoised):
        pairs = zip(np.log1p(values).T, np.log1p(measured[list(found.names)].to_numpy()).T, strict=True)
        assert min(np.corrcoef(a, b)[0, 1] for a, b in pairs) > 0.8


def test_levels_agree_and_a_new_donor_has_an_embedding(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference, query = scgraft.load_reference(DATA / "scpoli"), anndata.read_h5ad(DATA / "scpoli_query.h5ad")
    truth = query.obs["cell_type"].astype(str).to_numpy()
    mapped = scgraft.map_query(reference, query, batch_key="donor", config=FIT)
    known = np.isin(truth, reference.schema.labels)
    fine, coarse = mapped.labels["cell_type"].label, mapped.labels["coarse"].label
    assert (fine[known] == truth[known]).mean() > 0.9 and (~known).sum() == 20
    above = dict(zip(reference.obs["cell_type"], reference.obs["coarse"], strict=True))
    assert [above[label] for label in fine] == coarse.tolist()
    strength = (
        mapped.novelty.strength
    )  # of a hundred drawn genes, the shift of a donor is like markers: it takes known cells too
    assert mapped.labels["cell_type"].unknown[~known].all() and strength[~known].min() > 3 * strength[known].max()
    assert mapped.novelty.novel[known].mean() < 0.25
    rows = scgraft.condition_embeddings(reference, mapped.graft)
    assert rows.index[rows["new"]].tolist() == ["donor 4"]
