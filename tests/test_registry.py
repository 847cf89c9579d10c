"""Open registries: of model families and of label methods, by one mechanism."""

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

from scgraft import registry
from scgraft.errors import BadOption, UnsupportedModel
from scgraft.labels import methods
from scgraft.model import families

BUILT_IN = {"families": (families.FAMILIES, "SCVI", "LinearSCVI"), "methods": (methods.METHODS, "neighbours", "genes")}
LOADED: list[str] = []
# What entry points of installed packages give; the name of a record is that of its entry point.
FOUND = {"good": None, "other": None, "three": 3, "broken": ImportError("no module named torchvision")}


class Point(EntryPoint):
    """An entry point that notes when it is loaded."""

    def load(self):
        LOADED.append(self.name)
        found = FOUND[self.value]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(params=BUILT_IN)
def made(request, monkeypatch):
    """A fresh registry of each kind, a record of it, and what makes entry points of names and values."""
    one, name, _ = BUILT_IN[request.param]
    LOADED.clear()
    monkeypatch.setitem(FOUND, "good", replace(one.own[name], name="mine"))
    monkeypatch.setitem(FOUND, "other", replace(one.own[name], name="mine"))

    def bring(*points):
        brought = [Point(name, value, one.group) for name, value in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: brought if group == one.group else [])
        return replace(one, registered={})

    return bring, replace(one.own[name], name="mine"), name


def test_both_registries_are_one_mechanism():
    for one, *names in BUILT_IN.values():
        assert type(one) is registry.Registry and set(names) <= one.own.keys() == set(one.all())
        assert all(name == record.name for name, record in one.own.items())


def test_an_entry_point_is_loaded_when_its_name_is_asked_for(made):
    bring, _, own = made
    known = bring(("mine", "good"), ("unused", "broken"))
    assert known.get(own) is known.own[own] and known.get("nothing") is None and "mine" in known.names()
    assert LOADED == []
    assert known.get("mine") is FOUND["good"] and known.get("mine") is FOUND["good"] and LOADED == ["mine"]


def test_asking_for_all_leaves_out_what_is_broken_and_says_so(made):
    bring, _, own = made
    known = bring(("mine", "good"), ("unused", "broken"))
    with pytest.warns(UserWarning, match="'unused'.*cannot be loaded: ImportError: no module named torchvision"):
        found = known.all()
    assert found["mine"] is FOUND["good"] and own in found and "unused" not in found


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([("mine", "three")], "is a int"),
        ([("mine", "broken")], "cannot be loaded: ImportError"),
        ([("yours", "good")], "is one of the name 'mine'"),
        ([("mine", "good"), ("mine", "other")], "both bring the .* 'mine'"),
    ],
)
def test_one_that_cannot_be_used_is_named_when_it_is_asked_for(made, points, said):
    bring, *_ = made
    with pytest.raises(BadOption, match=said):
        bring(*points).get(points[0][0])


def test_no_package_changes_what_a_name_of_this_one_means(made):
    bring, _, own = made
    known = bring((own, "three"))
    assert known.get(own) is known.own[own] and known.all()[own] is known.own[own] and LOADED == []


def test_a_notebook_registers_one_once(made):
    bring, mine, own = made
    known = bring()
    known.register(mine)
    known.register(mine)
    assert known.get("mine") is mine and known.all()["mine"] is mine
    for taken in (replace(mine), replace(mine, name=own)):
        with pytest.raises(BadOption, match="already"):
            known.register(taken)
    with pytest.raises(BadOption, match="not a str"):
        known.register("mine")
    assert bring().get("mine") is None  # another registry knows nothing of it


def test_a_name_that_an_installed_package_brings_is_taken(made):
    bring, mine, _ = made
    with pytest.raises(BadOption, match="already"):
        bring(("mine", "good")).register(mine)


def test_what_nobody_brings_is_refused_by_name():
    with pytest.raises(BadOption, match="no label method 'votes'; there are classifier, genes, neighbours, prototypes"):
        methods.label_method_of("votes")
    with pytest.raises(UnsupportedModel, match="'NOVI'"):
        families.family_of("NOVI")
