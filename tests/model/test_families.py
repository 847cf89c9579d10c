"""The registry of families: what is found by itself, what can be brought, what is refused."""

from dataclasses import replace

import pytest

from scgraft import register_family
from scgraft.errors import BadOption, UnsupportedModel
from scgraft.model import families
from scgraft.model.families import family_of, recognised
from scgraft.testing.tiny_model import FIXED, TinyConfig, make_weights


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", replace(families.FAMILIES, registered={}))


def test_every_file_of_the_folder_is_a_family():
    assert {"SCVI", "SCANVI", "LinearSCVI", "POISSONVI", "PEAKVI"} <= families.families().keys()
    assert all(name == family.name and family.citations for name, family in families.families().items())


@pytest.mark.parametrize("model", ["SCVI", "SCANVI", "LinearSCVI", "PEAKVI"])
def test_weights_tell_their_family(model):
    weights = make_weights(TinyConfig(model=model, **FIXED.get(model, {})))
    assert recognised(weights) == model


def test_strange_weights_are_no_family():
    with pytest.raises(UnsupportedModel, match="do not name its class"):
        recognised({"layer.weight": None})


def test_a_family_can_be_brought():
    mine = replace(family_of("SCVI"), name="MYVI", recognises=lambda weights: False)
    register_family(mine)
    register_family(mine)
    assert family_of("MYVI") is mine
    with pytest.raises(BadOption, match="MYVI"):
        register_family(replace(mine, has_classifier=True))
    with pytest.raises(BadOption, match="SCVI"):
        register_family(replace(mine, name="SCVI"))
    with pytest.raises(BadOption, match="not a str"):
        register_family("SCVI")


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(UnsupportedModel, match="'NOVI'.*SCANVI, SCVI"):
        family_of("NOVI")
