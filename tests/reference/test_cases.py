"""Reference models as people save them, with scvi-tools' own numbers of each beside it."""

import anndata
import numpy as np
import pytest

from scgraft.labels.votes import classify
from scgraft.mapping.load import load_reference
from scgraft.mapping.map import map_query
from scgraft.reference.cells import reference_classes
from scgraft.values.graft import FitConfig
from shared_files import shared


def loaded(name):
    reference = load_reference(shared("cases", "models", name))
    numbers = shared("cases", "models", f"{name}.npz")
    with np.load(numbers, allow_pickle=True) as file:
        return reference, {key: file[key] for key in file.files}


@pytest.mark.parametrize(
    "name", ["clsparams_noact", "double", "floatlabels", "nounl_unused", "query_resaved", "scvi_batch_col"]
)
def test_latents_are_those_of_scvi_tools(name):
    reference, numbers = loaded(name)
    assert np.abs(reference.latent.mean - numbers["qzm"]).max() < 1e-5
    assert np.abs(reference.latent.variance - numbers["qzv"]).max() < 1e-5


@pytest.mark.parametrize("name", ["clsparams_noact", "double", "floatlabels", "query_resaved"])
def test_the_classifier_is_that_of_scvi_tools(name):
    reference, numbers = loaded(name)
    found = classify(reference, reference.latent, device="cpu")
    assert np.abs(found - numbers["soft"]).max() < 1e-5 and len(reference.schema.labels) == found.shape[1]


def test_classes_that_are_stored_as_numbers_have_one_name():
    """Of the 240 cells, those of the unlabeled category -1.0 never vote."""
    reference, _ = loaded("floatlabels")
    classes, codes = reference_classes(reference, "cluster")
    assert classes.tolist() == ["0", "1", "2"] == sorted(reference.schema.labels)
    assert np.array_equal(codes < 0, reference.obs["cluster"].to_numpy() == -1.0)


def test_the_unlabeled_category_as_a_class_of_its_own_is_never_predicted():
    reference, numbers = loaded("nounl_unused")
    assert numbers["cols"].tolist() == [*reference.schema.labels, "Unknown"] and reference.hyper.n_labels == 6
    found = classify(reference, reference.latent, device="cpu")
    expected = numbers["soft"][:, :5] / numbers["soft"][:, :5].sum(axis=1, keepdims=True)
    assert np.abs(found - expected).max() < 1e-5


def test_the_registry_of_a_data_module():
    reference = load_reference(shared("cases", "models", "dm_scanvi"))
    assert reference.schema.labels == ("B cell", "Monocyte", "T/NK cell") and reference.schema.unlabeled == "Unknown"
    assert reference.hyper.n_labels == 4


def test_a_column_called_as_scvi_tools_own_is_a_batch_key():
    reference, _ = loaded("scvi_batch_col")
    assert reference.schema.batch_key == "_scvi_batch" and reference.schema.batches == ("0", "1", "2")


def test_a_saved_query_model_is_the_next_reference():
    """All of its cells are unlabeled: the fit does without labels, and the classifier labels, as scvi-tools' would."""
    reference, _ = loaded("query_resaved")
    assert "labels come from the model's own classifier" in " ".join(reference.notes)
    query = anndata.read_h5ad(reference.adata_path)[:60].copy()
    query.obs["lab"] = np.repeat(["new 1", "new 2"], 30)
    mapped = map_query(reference, query, batch_key="lab", config=FitConfig(max_steps=5))
    labels = mapped.labels["cell_type"]
    votes = classify(reference, mapped.latent, device="cpu").argmax(axis=1)
    assert labels.label.tolist() == np.array(reference.schema.labels)[votes].tolist()
    assert labels.method == "the reference model's own classifier"


def test_a_folder_of_scarches_own_classes_is_read():
    folder = shared("golden_families", "scpoli_default__scarches0.6.1")
    assert load_reference(folder).base.family == "scPoli"


def test_intervals_are_three_different_batches():
    reference = load_reference(shared("cases", "models", "intervalbatch"))
    assert len(set(reference.schema.batches)) == 3 and all(name.startswith("(") for name in reference.schema.batches)
