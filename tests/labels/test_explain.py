"""What explain() names of a cell adds up to the vote that was cast for it, wherever the query's counts are."""

from importlib.resources import as_file, files

import anndata
import numpy as np
import pytest

import scgraft
from scgraft.files.h5ad import read_h5ad
from scgraft.labels.explain import _sentence
from scgraft.values.labels import Explanation

KEY = "bulk_labels"


@pytest.mark.parametrize(
    ("labels", "batches", "said"),
    [
        ("BBC", "xxy", "None of its 3 nearest reference cells has this label; they are from 2 batches."),
        ("ABC", "xxx", "1 of its 3 nearest reference cells has this label; they are from 1 batch."),
        ("AAC", "xyz", "2 of its 3 nearest reference cells have this label; they are from 3 batches."),
    ],
)
def test_the_neighbours_are_counted_in_words(labels, batches, said):
    near = tuple(("cell", label, batch, 1.0) for label, batch in zip(labels, batches, strict=True))
    made = Explanation("c", "A", 0.9, "B", ("A",), 0.1, 0.2, 1.0, {}, near, (), "")
    assert said in _sentence(made, calibrated=True)


@pytest.fixture(scope="module")
def reference():
    with as_file(files("scgraft") / "_demo") as folder:
        return scgraft.load_reference(folder / "reference")


def queries() -> dict[str, anndata.AnnData]:
    """The same cells with their counts in X, in a layer beside something else, in raw, scaled, and only normalised."""
    with as_file(files("scgraft") / "_demo") as folder:
        plain = read_h5ad(folder / "query.h5ad")
    shown = plain.copy()
    shown.X = shown.X.multiply(1e4 / shown.X.sum(axis=1)).log1p().tocsr().astype(np.float32)
    layered, raw, tripled = shown.copy(), shown.copy(), plain.copy()
    layered.layers["umi of 'run 1'"] = plain.X
    raw.raw = plain
    tripled.X = plain.X * 3
    return {"X": plain, "layer": layered, "raw": raw, "tripled": tripled, "normalised": shown}


@pytest.mark.parametrize("kind", queries())
def test_parts_of_the_genes_add_up_to_the_vote_that_was_cast(reference, kind):
    adata = queries()[kind]
    mapped = scgraft.map_query(reference, adata, batch_key="well")
    found = mapped.labels[KEY]
    assert found.classifier is not None and found.classifier is not mapped.calibration[KEY].classifier  # it has learnt
    vote, classes = found.votes["genes"], list(found.classes)
    for i in np.linspace(0, len(vote) - 1, 12).astype(int):
        why = scgraft.explain(reference, mapped, mapped.latent.cells[i], adata=adata)
        first, second = (vote[i, classes.index(name)] for name in (why.label, why.runner_up))
        assert sum(part for _, part in why.genes) + why.remainder == pytest.approx(why.log_odds, abs=1e-9)
        assert np.exp(why.log_odds) == pytest.approx(first / second, rel=1e-3)


def test_without_a_query_or_a_calibration_no_genes_are_named(reference):
    adata = queries()["X"]
    mapped = scgraft.map_query(reference, adata, batch_key="well")
    why = scgraft.explain(reference, mapped, adata.obs_names[0])
    assert why.genes == () and np.isnan(why.log_odds) and np.isnan(why.remainder)
    bare = scgraft.map_query(reference, adata, batch_key="well", graft=mapped.graft, calibration=None)
    assert bare.labels[KEY].classifier is None
    assert scgraft.explain(reference, bare, adata.obs_names[0], adata=adata).genes == ()
