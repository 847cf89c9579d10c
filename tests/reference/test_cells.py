"""What the model was told of the reference's own cells is known, or said to be unknown; it is never made up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scgraft
from scgraft.errors import CorruptFile
from scgraft.expression.cells import reference_cells
from scgraft.expression.generate import generate
from scgraft.mapping.check import check
from scgraft.reference.cells import missing_columns, reference_codes
from scgraft.testing import configs, tiny_query
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters", n_cells=120, n_genes=40)


@settings(max_examples=25)
@given(configs(), st.randoms())
def test_decoded_and_generated_cells_have_the_codes_of_their_names(config, random):
    reference = reference_of(config)
    if reference.latent is None:
        return
    codes, schema = reference_codes(reference), reference.schema
    keys = [schema.batch_key, *(c.key for c in schema.categorical)]
    for key, levels, own in zip(keys, schema.levels.values(), codes.T, strict=True):
        if key is not None:
            assert [levels[code] for code in own] == reference.obs[key].astype(str).tolist()
    index = np.array([random.randrange(len(codes)) for _ in range(5)])
    assert np.array_equal(reference_cells(reference).codes, codes)
    made = generate(reference, index)
    assert np.array_equal(made.codes, codes[index])
    assert np.array_equal(made.continuous, reference_cells(reference).continuous[index])


def test_a_single_level_needs_no_column():
    reference = reference_of(replace(CONFIG, batches=("only",)))
    bare = replace(reference, obs=reference.obs.drop(columns=reference.schema.batch_key))
    assert missing_columns(bare) == () and not reference_codes(bare).any()
    assert np.array_equal(reference_cells(bare).codes, reference_cells(reference).codes)


def test_cells_without_a_column_are_mapped_onto_and_neither_decoded_nor_calibrated():
    reference, query = reference_of(CONFIG), tiny_query(CONFIG, n_cells=60, batches=("new",))
    bare = replace(reference, obs=reference.obs.drop(columns="batch"))
    assert missing_columns(bare) == ("batch",)
    for use in (reference_codes, reference_cells, lambda r: generate(r, np.arange(3)), scgraft.calibrate):
        with pytest.raises(CorruptFile, match=r"no column obs\['batch'\].*calibration=None"):
            use(bare)
    mapped = scgraft.map_query(bare, query, batch_key="batch")
    whole = scgraft.map_query(reference, query, batch_key="batch", calibration=None)
    assert mapped.verdict is None and not mapped.calibration
    assert mapped.labels["cell_type"].label.tolist() == whole.labels["cell_type"].label.tolist()
    lines = {finding.name: finding for finding in check(bare, query, batch_key="batch").findings}
    assert lines["reference cells"].grade == "warning" and "obs['batch']" in lines["reference cells"].sentence
