"""Files of a MULTIVI model that contradict themselves, or say what nobody could check, are named errors."""

import anndata
import pytest
import torch

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.mapping.load import load_reference
from tiny_multivi import write_multivi_folder


def changed(folder, change):
    """The model's file after a change of its content."""
    path = write_multivi_folder(folder) / "model.pt"
    content = torch.load(path, weights_only=False)
    change(content, content["attr_dict"]["init_params_"]["non_kwargs"])
    torch.save(content, path)
    return path.parent


@pytest.mark.parametrize(
    ("option", "error", "match"),
    [
        ({"n_regions": "all"}, CorruptFile, "_regions in init_params_ .* a whole number"),
        ({"n_regions": 55}, CorruptFile, "speak of 55 regions, and it names 54 features"),
        ({"n_regions": 29}, CorruptFile, "l_encoder_accessibility.* is .8, 30. instead of .8, 29."),
        ({"dispersion": "gene-batch"}, UnsupportedModel, "dispersion=gene-batch"),
        ({"gene_likelihood": "normal"}, UnsupportedModel, "gene_likelihood=normal"),
        ({"modality_penalty": "wasserstein"}, UnsupportedModel, "modality_penalty='wasserstein'"),
        ({"n_layers_encoder": 1.5}, UnsupportedModel, "n_layers=1.5"),
        ({"new_option": 3}, UnsupportedModel, "new_option=3"),
    ],
    ids=str,
)
def test_options(tmp_path, option, error, match):
    folder = changed(tmp_path / "model", lambda content, options: options.update(option))
    with pytest.raises(error, match=match):
        load_reference(folder)


def test_size_factors_are_refused_with_the_reason(tmp_path):
    def change(content, options):
        content["attr_dict"]["registry_"]["setup_args"]["size_factor_key"] = "factors"

    with pytest.raises(UnsupportedModel, match="size factors, and no such model was at hand"):
        load_reference(changed(tmp_path / "model", change))


def test_a_tensor_that_is_not_there(tmp_path):
    folder = changed(tmp_path / "model", lambda content, options: content["model_state_dict"].pop("mod_weights"))
    with pytest.raises(CorruptFile, match="missing: mod_weights"):
        load_reference(folder)


def test_weights_of_other_cells(tmp_path):
    folder = write_multivi_folder(tmp_path / "model", weights="cell")
    anndata.read_h5ad(folder / "adata.h5ad")[:80].copy().write_h5ad(folder / "adata.h5ad")
    with pytest.raises(CorruptFile, match="weights for 90 cells, and its repository holds 80"):
        load_reference(folder)
