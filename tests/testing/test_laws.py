"""The laws as one call: every family of the package keeps them, and a family that breaks one is found out."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from scgraft.model import families
from scgraft.model.families import family_of, register_family
from scgraft.testing import TinyConfig, check_laws, configs
from tiny import pair


@settings(max_examples=8)
@given(configs())
def test_every_family_keeps_the_laws(config):
    check_laws(*pair(config))


@pytest.fixture
def broken(monkeypatch):
    """A reference of a family with a fault, and a query for it."""
    monkeypatch.setattr(families, "FAMILIES", replace(families.FAMILIES, registered={}))

    def make(**fault):
        reference, query = pair(TinyConfig(encode_covariates=True))
        register_family(replace(family_of("SCVI"), name="FAULTY", recognises=lambda weights: False, **fault))
        return replace(reference, base=replace(reference.base, family="FAULTY")), query

    return make


def test_a_slot_in_the_wrong_place_breaks_a_law(broken):
    def shifted(hyper, schema, weights):
        found = family_of("SCVI").slots(hyper, schema, weights)
        return tuple(replace(s, start=s.start - 1) if s.role == "encoder" else s for s in found)

    with pytest.raises(AssertionError, match="Law 9"):
        check_laws(*broken(slots=shifted))


def test_a_trained_column_that_is_not_trainable_breaks_law_7(broken, monkeypatch):
    from scgraft.testing import laws

    reference, query = broken()
    fit = laws.fit
    seen = []

    def careless(reference, query, config):
        graft = fit(reference, query, config)
        seen.append(graft)
        name = next(iter(reference.weights))
        weights = reference.weights[name].copy()
        weights += np.float32(len(seen) == 2)
        reference.weights[name] = weights
        return graft

    monkeypatch.setattr(laws, "fit", careless)
    with pytest.raises(AssertionError, match="Law"):
        check_laws(reference, query)
