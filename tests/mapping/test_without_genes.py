"""MULTIVI references of regions alone, or of regions and proteins, from the file to labels."""

import numpy as np
import pytest

import scgraft
from scgraft.query.read import read_query
from scgraft.sharing.export import export_scvi
from scgraft.values.graft import FitConfig
from tiny_multivi import PROTEIN_NAMES, REGIONS, draw, write_h5mu, write_multivi_folder

FIT = FitConfig(device="cpu", max_steps=5, progress=False, force=True)


@pytest.mark.parametrize("proteins", [False, True])
def test_a_reference_without_genes_is_read_mapped_decoded_and_exported(tmp_path, proteins):
    folder = write_multivi_folder(tmp_path / "model", mudata=True, genes=False, proteins=proteins)
    reference = scgraft.load_reference(folder)
    assert list(reference.schema.kinds) == ["regions"] and reference.schema.n_regions == len(REGIONS)
    cells = draw(40, ("b0", "q0"), proteins=proteins)
    latents = []
    for query in (cells, read_query(write_h5mu(cells, tmp_path / "query.h5mu", genes=False)), cells[:, REGIONS].copy()):
        aligned = scgraft.align(reference, query, batch_key="batch")
        graft = scgraft.fit(reference, aligned, FIT)
        latents.append(scgraft.embed(reference, aligned, graft, device="cpu").mean)
    np.testing.assert_array_equal(latents[0], latents[1])  # genes that the model does not have change nothing
    np.testing.assert_array_equal(latents[0], latents[2])
    mapped = scgraft.map_query(reference, cells, batch_key="batch", labels=["cell_type"])
    assert set(mapped.labels["cell_type"].label) <= {"T", "B", "NK"} and mapped.verdict is not None
    own = scgraft.reference_cells(reference)
    open_ = scgraft.normalized_expression(reference, own)
    assert open_.shape == (len(own), len(REGIONS)) and ((open_ >= 0) & (open_ <= 1)).all()
    if proteins:
        assert scgraft.proteins(reference, own).neighbours.shape == (len(own), len(PROTEIN_NAMES))
    export_scvi(reference, graft, tmp_path / "export")
    again = scgraft.load_reference(tmp_path / "export")
    assert again.schema.batches == ("b0", "b1", "q0")
    assert list(again.registry["setup_args"]["modalities"]) == ["atac_layer", "protein_layer"][: 1 + proteins]
