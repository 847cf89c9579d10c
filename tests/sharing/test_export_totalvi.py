"""An exported TOTALVI model: read back here as it was written, and opened by scvi-tools where an interpreter with it is named."""

import os
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import scgraft
from scgraft.errors import UnsupportedModel
from scgraft.sharing.export import export_scvi
from scgraft.values.graft import FitConfig
from tiny_multivi import write_multivi_folder
from tiny_totalvi import NAMES, draw, write_totalvi_folder

FIT = FitConfig(device="cpu", max_steps=3, progress=False)


def exported(folder, **options):
    """A reference, its graft, the query, and the folder that was written."""
    reference = scgraft.load_reference(write_totalvi_folder(folder / "model", **options))
    query = scgraft.align(reference, draw(30, ("b0", "q0")), batch_key="batch")
    graft = scgraft.fit(reference, query, FIT)
    export_scvi(reference, graft, folder / "export")
    return reference, graft, query


@pytest.mark.parametrize("options", [{}, {"mudata": True}, {"masked": True}], ids=str)
def test_the_folder_is_the_model_with_the_graft(tmp_path, options):
    reference, graft, query = exported(tmp_path, **options)
    again = scgraft.load_reference(tmp_path / "export")
    assert again.schema.batches == ("b0", "b1", "q0") and again.latent is None
    assert again.schema.block("proteins").features == tuple(NAMES)
    known = scgraft.align(again, draw(30, ("b0", "q0")), batch_key="batch")
    assert known.alignment.new_levels == {}
    own, found = scgraft.embed(reference, query, graft, device="cpu"), scgraft.embed(again, known, device="cpu")
    np.testing.assert_allclose(found.mean, own.mean, atol=1e-6)
    mask = reference.attributes["protein_mask"]
    np.testing.assert_array_equal(again.attributes["protein_mask"], np.vstack([mask, np.ones((1, len(NAMES)), bool)]))
    assert mask.all() != options.get("masked", False)


def test_what_scvi_tools_could_not_load_is_refused_with_the_reason(tmp_path):
    with pytest.raises(
        UnsupportedModel, match=r"scvi-tools 1\.2\.1 saved it, and 1\.3\.1 and later cannot load .* Share the graft"
    ):
        exported(tmp_path, version="1.2.1")
    assert not (tmp_path / "export").exists()
    reference = scgraft.load_reference(write_multivi_folder(tmp_path / "multivi"))
    with pytest.raises(
        UnsupportedModel, match=r"MULTIVI cannot be exported\. scvi-tools 1\.4 cannot load .* Share the graft"
    ):
        export_scvi(reference, None, tmp_path / "export")


@pytest.mark.parametrize("options", [{}, {"mudata": True}, {"masked": True}], ids=str)
def test_scvi_tools_gives_the_same_latents(tmp_path, options):
    interpreter = os.environ.get("SCGRAFT_ORACLE")
    if not interpreter:
        pytest.skip("needs SCGRAFT_ORACLE, the path of a Python interpreter with scvi-tools 1.4")
    reference, graft, query = exported(tmp_path, **options)
    block = query.blocks["proteins"]
    table = pd.DataFrame(
        block.counts.toarray(), index=query.cells, columns=list(reference.schema.block("proteins").features)
    )
    obs = pd.DataFrame({"batch": np.array(query.levels["batch"])[query.codes[:, 0]]}, index=query.cells)
    counts = anndata.AnnData(query.counts.copy(), obs=obs, var=pd.DataFrame(index=reference.schema.genes.astype(str)))
    counts.obsm["protein_expression"] = table
    counts.write_h5ad(tmp_path / "counts.h5ad")
    script = Path(__file__).parents[1] / "scvi_oracle.py"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(
        [interpreter, str(script), str(tmp_path)], env=environment, timeout=300, check=True, capture_output=True
    )
    assert (tmp_path / "oracle.npz").exists(), (tmp_path / "oracle.txt").read_text()
    with np.load(tmp_path / "oracle.npz") as found:
        own = scgraft.embed(reference, query, graft, device="cpu")
        np.testing.assert_allclose(found["counts_latent"], own.mean, atol=1e-5)
        np.testing.assert_allclose(found["counts_variance"], own.variance, atol=1e-5)
