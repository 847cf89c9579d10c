"""Embeddings of batches, the reference's and a graft's."""

import matplotlib
import numpy as np
import pytest

import scgraft
from scgraft.errors import UnsupportedModel
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from tiny import pair


def test_rows_of_the_reference_come_first_and_then_those_of_the_graft(tmp_path):
    reference = scgraft.load_reference(write_scpoli_folder(tmp_path / "reference"))
    query = scgraft.align(reference, tiny_query(TinyConfig()), batch_key="batch")
    graft = scgraft.fit(reference, query)
    found = scgraft.condition_embeddings(reference, graft)
    assert found.index.tolist() == ["b1", "b0", "q0", "q1"] and found["new"].tolist() == [False, False, True, True]
    table = reference.weights["embeddings.0.weight"]
    assert np.array_equal(found.drop(columns="new").to_numpy(np.float32)[:2], table)
    assert np.array_equal(found.drop(columns="new").to_numpy(np.float32)[2:], graft.rows["embeddings.0.weight[batch]"])
    matplotlib.use("Agg")
    shown = [text.get_text() for text in scgraft.pl.conditions(reference, graft).texts]
    assert shown == ["b1", "b0", "q0", "q1"]


def test_scvi_models_with_an_embedding_have_one_too():
    reference, _ = pair(TinyConfig(batch_representation="embedding", embedding_dim=3))
    assert scgraft.condition_embeddings(reference).shape == (2, 4)


def test_a_model_with_columns_of_batches_has_none():
    reference, _ = pair(TinyConfig())
    with pytest.raises(UnsupportedModel, match="columns of its layers"):
        scgraft.condition_embeddings(reference)
