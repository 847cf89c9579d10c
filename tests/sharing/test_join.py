"""Reference and queries in one AnnData, from stored posteriors and annotations alone."""

import anndata
import numpy as np
import pytest
from click.testing import CliRunner

import scgraft
from scgraft import errors
from scgraft.cli.main import main
from scgraft.graft.merge import merge_grafts
from scgraft.results.folder import write
from scgraft.sharing.join import MAP
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from tiny import reference_of

CONFIG = TinyConfig(encode_covariates=True, minified="latent_posterior_parameters")
QUICK = scgraft.FitConfig(max_steps=5, device="cpu")


def annotated(reference, batches, seed, graft=None, batch_key="batch"):
    adata = tiny_query(CONFIG, n_cells=30, batches=batches, seed=seed)
    mapped = scgraft.map_query(reference, adata, batch_key=batch_key, config=QUICK, graft=graft)
    return scgraft.annotate(adata, mapped), mapped


def without_counts(adata):
    return anndata.AnnData(obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns))


def test_reference_and_two_labs_without_a_count():
    reference = reference_of(CONFIG)
    (a, mapped_a), (b, mapped_b) = annotated(reference, ("s1",), 1), annotated(reference, ("s2", "s3"), 2)
    joint = scgraft.join(reference, {"lab a": without_counts(a), "lab b": without_counts(b)})
    assert joint.X is None and joint.n_obs == 60 + 30 + 30 and joint.obs_names.is_unique
    assert joint.obs["source"].value_counts().to_dict() == {"reference": 60, "lab a": 30, "lab b": 30}
    assert np.array_equal(joint.obsm["X_scgraft"][:60], reference.latent.mean)
    assert np.array_equal(joint.obsm["X_scgraft"][60:90], mapped_a.latent.mean)
    assert np.array_equal(joint.obsm[MAP][:60], reference.maps["X_umap"])
    assert "X_umap" in joint.uns["scgraft"]["map"]
    lab_b = joint.obs[joint.obs["source"] == "lab b"]
    assert lab_b["batch"].tolist() == b.obs["batch"].astype(str).tolist()
    assert lab_b["cell"].tolist() == b.obs_names.tolist()
    key = reference.schema.labels_key
    assert lab_b[key].tolist() == mapped_b.labels[key].label.tolist()
    assert np.allclose(lab_b[f"{key}_probability"], mapped_b.labels[key].probability)
    first = joint.obs[joint.obs["source"] == "reference"]
    assert first[key].tolist() == reference.obs[key].astype(str).tolist() and first[f"{key}_probability"].isna().all()
    assert not np.allclose(joint.obsm["X_scgraft"], 0)


def test_a_merged_graft_gives_the_same_joint_cells(tmp_path):
    reference = reference_of(CONFIG)
    (a, mapped_a), (b, mapped_b) = annotated(reference, ("s1",), 1), annotated(reference, ("s2",), 2)
    merged = merge_grafts([mapped_a.graft, mapped_b.graft])
    own = scgraft.join(reference, {"a": a, "b": b})
    again = scgraft.join(
        reference, {"a": annotated(reference, ("s1",), 1, merged)[0], "b": annotated(reference, ("s2",), 2, merged)[0]}
    )
    assert np.array_equal(own.obsm["X_scgraft"], again.obsm["X_scgraft"])
    assert own.obs.equals(again.obs)
    again.write_h5ad(tmp_path / "joint.h5ad")
    assert anndata.read_h5ad(tmp_path / "joint.h5ad").obs.shape == own.obs.shape


def test_a_query_without_a_batch_column_and_a_reference_without_a_map():
    from dataclasses import replace

    reference = replace(reference_of(CONFIG), maps={})
    adata, mapped = annotated(reference, ("s1",), 1, batch_key=None)
    joint = scgraft.join(reference, {"mine": adata})
    assert set(joint.obs.loc[joint.obs["source"] == "mine", "batch"]) == set(mapped.graft.batches)
    assert joint.uns["scgraft"]["map"].startswith("a UMAP") and np.isfinite(joint.obsm[MAP]).all()
    assert np.isfinite(joint.obsm[MAP]).all()


def test_a_cell_lies_where_its_own_mapping_put_it(tmp_path):
    reference = reference_of(CONFIG)
    adata, mapped = annotated(reference, ("s1",), 1)
    write(mapped, adata, tmp_path / "out", reference=reference)
    joint = scgraft.join(reference, {"mine": adata})
    own = np.asarray(joint.obs["source"] == "mine")
    written = adata[joint.obs.loc[own, "cell"].tolist()].obsm[MAP]
    assert np.array_equal(joint.obsm[MAP][own], written)
    del adata.obsm[MAP]
    placed = scgraft.join(reference, {"mine": adata}).obsm[MAP][own]
    known = ~mapped.novelty.novel  # the others lie in a tray of their own where the mapping is at hand
    assert known.any() and np.allclose(placed[known], written[known], atol=1e-5)


def test_command_join(tmp_path):
    folder = write_hub_folder(tmp_path / "reference", CONFIG)
    reference = scgraft.load_reference(folder)
    without_counts(annotated(reference, ("s1",), 1)[0]).write_h5ad(tmp_path / "a.h5ad")

    def run(*args):
        return CliRunner().invoke(main, ["join", *map(str, args), "--reference", str(folder)])

    done = run(f"lab={tmp_path / 'a.h5ad'}", "--out", tmp_path / "joint.h5ad")
    assert done.exit_code == 0, done.output
    assert anndata.read_h5ad(tmp_path / "joint.h5ad").n_obs == 90
    assert run(f"lab={tmp_path / 'a.h5ad'}", "--out", tmp_path / "joint.h5ad").exit_code == 7
    assert run(tmp_path / "a.h5ad", "--out", tmp_path / "other.h5ad").exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "joint.h5ad", "reference"]


def test_what_cannot_be_joined():
    from dataclasses import replace

    reference = reference_of(CONFIG)
    adata, _ = annotated(reference, ("s1",), 1)
    with pytest.raises(errors.QueryError, match="not annotated"):
        scgraft.join(reference, {"x": tiny_query(CONFIG)})
    with pytest.raises(errors.QueryError, match="the reference's own name"):
        scgraft.join(reference, {"reference": adata})
    with pytest.raises(errors.BaseMismatch, match="Their latents cannot be compared"):
        scgraft.join(replace(reference, base=replace(reference.base, sha256="0" * 64)), {"x": adata})
    with pytest.raises(errors.NoLabels, match="no cells"):
        scgraft.join(replace(reference, latent=None), {"x": adata})
    with pytest.raises(errors.QueryError, match="no transferred label 'batch'"):
        scgraft.join(reference, {"x": adata}, labels=["batch"])
    lost = adata.copy()
    del lost.obs["batch"]
    with pytest.raises(errors.QueryError, match="lost its batch column"):
        scgraft.join(reference, {"x": lost})
