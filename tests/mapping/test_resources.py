"""The time that a check promises includes the first calibration of the reference, as long as there is none."""

import pytest

import scgraft
from scgraft.mapping.resources import duration
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder


def resources(result):
    return next(finding for finding in result.findings if finding.name == "resources")


@pytest.mark.parametrize("minified", ["latent_posterior_parameters", None])
def test_the_first_calibration_is_in_the_estimate_and_then_no_more(tmp_path, monkeypatch, minified):
    monkeypatch.setenv("SCGRAFT_CACHE", str(tmp_path / "cache"))
    config = TinyConfig(n_cells=80, encode_covariates=True, minified=minified)
    reference = scgraft.load_reference(write_hub_folder(tmp_path / "reference", config))
    adata = tiny_query(config, n_cells=60)
    before = resources(scgraft.check(reference, adata, batch_key="batch"))
    assert 0 < before.values["of_calibration"] < before.values["seconds"]
    assert "made once" in before.sentence
    scgraft.map_query(reference, adata, batch_key="batch")
    after = resources(scgraft.check(reference, adata, batch_key="batch"))
    assert after.values["of_calibration"] == 0 and "calibration" not in after.sentence
    assert after.values["seconds"] < before.values["seconds"]


@pytest.mark.parametrize(("number", "said"), [(3.2, "3 seconds"), (99, "99 seconds"), (150, "2 minutes")])
def test_a_duration_is_said_as_a_person_says_it(number, said):
    assert duration(number) == said
