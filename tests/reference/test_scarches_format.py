"""Folders of scArches' own classes: read, or refused with what is known of the class."""

import pickle

import numpy as np
import pytest
import torch

from scgraft.errors import CorruptFile, NotCounts, UnsupportedModel
from scgraft.labels.transfer import PROTOTYPES, transfer_labels
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.query.align import align
from scgraft.reference.describe import describe
from scgraft.testing import tiny_query
from scgraft.testing.laws import check_laws
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import COARSE, write_scpoli_folder


def query_of(two=False, **options):
    adata = tiny_query(TinyConfig(), **options)
    if two:
        adata.obs["donor"] = ["d0", "d9"] * (adata.n_obs // 2)
    return adata


def changed(folder, **attributes):
    """The folder with other attributes; None takes one away."""
    saved = pickle.loads((folder / "attr.pkl").read_bytes())
    saved |= attributes
    (folder / "attr.pkl").write_bytes(pickle.dumps({k: v for k, v in saved.items() if v is not None}))
    return folder


@pytest.mark.parametrize("loss", ["nb", "zinb"])
@pytest.mark.parametrize("two", [False, True])
def test_the_laws_hold(tmp_path, loss, two):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference", loss=loss, two=two))
    check_laws(reference, align(reference, query_of(two), batch_key="batch"))


def test_values_are_taken_as_they_are_and_not_below_zero(tmp_path):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference", loss="mse"))
    adata = query_of()
    adata.X = adata.X.astype(np.float32) * 0.37
    query = align(reference, adata, batch_key="batch")
    assert (query.counts != adata.X).nnz == 0
    assert any("normalised as the reference's were" in message for message in query.alignment.messages)
    check_laws(reference, query)
    adata.X.data[0] = -1
    with pytest.raises(NotCounts, match="1 values that are negative"):
        align(reference, adata, batch_key="batch")


def test_conditions_keep_their_order_and_their_combination_is_one_more_covariate(tmp_path):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference", two=True))
    assert reference.schema.batches == ("b1", "b0")
    assert reference.schema.levels["covariate:conditions_combined"] == ("b1_d1", "b0_d1", "b0_d0")
    query = align(reference, query_of(True, batches=("b1", "new")), batch_key="batch")
    combined = query.levels["covariate:conditions_combined"]
    assert combined[3:] == tuple(sorted(combined[3:])) and set(combined[3:]) <= {"b1_d0", "b1_d9", "new_d0", "new_d9"}
    names = [[query.levels[name][code] for name, code in zip(query.levels, row, strict=True)] for row in query.codes]
    assert all(f"{batch}_{donor}" == both for batch, donor, both in names)
    needs = " ".join(describe(reference).surgery.query_needs)
    assert "donor" in needs and "combined" not in needs


def test_labels_of_all_levels_agree_and_need_no_labels_of_the_query(tmp_path):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference", two=True))
    adata = query_of(True)
    del adata.obs["cell_type"]
    for calibration in ("auto", None):
        mapped = map_query(reference, adata, batch_key="batch", calibration=calibration)
        fine, coarse = mapped.labels["cell_type"], mapped.labels["coarse"]
        assert [COARSE[name] for name in fine.label] == coarse.label.tolist()
        children = np.array([coarse.classes.index(COARSE[name]) for name in fine.classes])
        for c in range(len(coarse.classes)):
            np.testing.assert_allclose(fine.matrix[:, children == c].sum(axis=1), coarse.matrix[:, c], atol=1e-5)
        assert not (coarse.unknown & ~fine.unknown).any()
        assert set(coarse.classes) == {"A", "B"}  # neither of the names of unknown cells is a class
    again = map_query(reference, adata, batch_key="batch")
    assert np.array_equal(
        again.labels["cell_type"].matrix, map_query(reference, adata, batch_key="batch").labels["cell_type"].matrix
    )


def test_without_cells_the_prototypes_give_the_labels(tmp_path):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference", cells=False))
    mapped = map_query(reference, query_of(), batch_key="batch")
    found = mapped.labels["cell_type"]
    assert found.method == PROTOTYPES and set(found.classes) == set(COARSE)
    points = dict(zip(*reference.attributes["prototypes"]["cell_type"], strict=True))
    far = {name: np.linalg.norm(mapped.latent.mean - point, axis=1) for name, point in points.items()}
    assert found.label.tolist() == np.array(list(far))[np.argmin(list(far.values()), axis=0)].tolist()


def test_prototypes_vote_beside_the_neighbours(tmp_path):
    reference = load_reference(write_scpoli_folder(tmp_path / "reference"))
    labels = transfer_labels(reference, reference.latent)
    assert list(labels) == ["cell_type", "cell_type_classifier"] and labels["cell_type_classifier"].method == PROTOTYPES


def test_files_of_one_condition_before_there_were_several(tmp_path):
    """Under the names of before 0.5.8, as the source of scArches has them; no such file was at hand."""
    now = load_reference(write_scpoli_folder(tmp_path / "now"))
    folder = write_scpoli_folder(tmp_path / "before")
    saved = pickle.loads((folder / "attr.pkl").read_bytes())
    changed(
        folder, condition_key_="batch", conditions_=saved["conditions_"]["batch"], condition_keys_=None, embedding_dim_=3,
        embedding_dims_=None, conditions_combined_=None, embedding_max_norm_=None, prototypes_labeled_=None,
        landmarks_labeled_=saved["prototypes_labeled_"],
    )  # fmt: skip
    state = torch.load(folder / "model_params.pt", weights_only=True)
    state["embedding.weight"] = state.pop("embeddings.0.weight")
    torch.save(state, folder / "model_params.pt")
    before = load_reference(folder)
    assert before.schema.levels == now.schema.levels and np.array_equal(before.latent.mean, now.latent.mean)
    assert np.array_equal(before.attributes["prototypes"]["cell_type"][1], now.attributes["prototypes"]["cell_type"][1])


@pytest.mark.parametrize(
    ("attributes", "error", "match"),
    [
        ({"recon_loss_": "poisson"}, UnsupportedModel, "one count a cell"),
        ({"recon_loss_": "bernoulli"}, UnsupportedModel, "returns nothing"),
        ({"recon_loss_": 3}, UnsupportedModel, "recon_loss"),
        ({"hidden_layer_sizes_": []}, UnsupportedModel, "no hidden layers"),
        ({"hidden_layer_sizes_": [12, 10**9]}, UnsupportedModel, "hidden_layer_sizes"),
        ({"hidden_layer_sizes_": [12, 9]}, CorruptFile, "of another shape"),
        ({"latent_dim_": 5}, CorruptFile, "of another shape"),
        ({"embedding_dims_": [3, 3]}, CorruptFile, "embeddings for 1 condition"),
        ({"embedding_max_norm_": -1.0}, CorruptFile, "positive number"),
        ({"use_bn_": True}, CorruptFile, "missing"),
        ({"use_ln_": "yes"}, CorruptFile, "True or False"),
        ({"inject_condition_": "encoder"}, CorruptFile, "a list"),
        ({"inject_condition_": ["decoder"]}, CorruptFile, "unexpected"),
        ({"conditions_": {}}, CorruptFile, "no levels of batch"),
        ({"conditions_": {"batch": ["b1", "b1"]}}, CorruptFile, "different names"),
        ({"conditions_combined_": ["b1"]}, CorruptFile, "of another shape"),
        ({"cell_types_": [1]}, CorruptFile, "label columns by cell type"),
        ({"prototypes_labeled_": {"mean": torch.zeros(2, 4)}}, CorruptFile, "3 points"),
        ({"prototypes_labeled_": {"mean": torch.full((3, 4), torch.nan)}}, CorruptFile, "finite"),
        ({"cell_types_": None}, UnsupportedModel, "trVAE|unknown class"),
        ({"cell_types_": None, "mask_": 1}, UnsupportedModel, "expiMap .*gene programmes"),
    ],
)
def test_attributes_that_are_not_scpolis_are_named(tmp_path, attributes, error, match):
    with pytest.raises(error, match=match):
        load_reference(changed(write_scpoli_folder(tmp_path / "reference"), **attributes))


def test_other_files_that_contradict_one_another_are_named(tmp_path):
    folder = write_scpoli_folder(tmp_path / "reference")
    (folder / "var_names.csv").write_text("one\ntwo\n")
    with pytest.raises(CorruptFile, match="of another shape"):
        load_reference(folder)
    (folder / "var_names.csv").unlink()
    with pytest.raises(CorruptFile, match=r"var_names.csv"):
        load_reference(folder)
