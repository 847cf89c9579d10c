"""Exported models of every family: read back here as they were written, and opened by the original where an interpreter is named.

Set SCGRAFT_ORACLE to a Python with scvi-tools 1.4 (and mudata), and SCGRAFT_SCARCHES to one with scArches 0.6.
"""

import os
import pickle
import pickletools
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import scgraft
from golden_folder import cells_in
from scgraft.errors import UnsupportedModel
from scgraft.sharing.export import export_scvi
from scgraft.testing import tiny_query
from scgraft.testing.tiny_model import TinyConfig
from scgraft.testing.tiny_scpoli import write_scpoli_folder
from scgraft.values.graft import FitConfig
from shared_files import golden_folders
from tiny_multivi import REGIONS, write_multivi_folder
from tiny_multivi import draw as draw_multiome
from tiny_totalvi import NAMES, draw, write_totalvi_folder

FIT = FitConfig(device="cpu", max_steps=3, progress=False, force=True)
TOTALVI = {"plain": {}, "mudata": {"mudata": True}, "masked": {"masked": True}}
MULTIVI = {
    "anndata": {}, "mudata": {"mudata": True}, "proteins": {"proteins": True}, "mudata with proteins": {"mudata": True, "proteins": True},
    "encoder sees batches": {"encode": True}, "weights of kinds": {"weights": "universal"},
}  # fmt: skip
SCPOLI = {"one": {}, "two": {"two": True}, "zinb": {"loss": "zinb"}, "mse": {"loss": "mse"}}
# Every form of every class whose surgery can be done; scPoli has scArches' interpreter, SCVI and SCANVI are in test_export.py.
GOLDEN = [
    folder
    for folder in golden_folders("totalvi", "multivi", "peakvi", "poissonvi", "linear", "scpoli")
    if folder.parent.name == "golden_families"
]


def exported(reference, cells, folder):
    """Reference, graft, query and where the export is, with the query's cells beside it as its original reads them."""
    query = scgraft.align(reference, cells, batch_key=reference.schema.batch_key or "batch")
    graft = scgraft.fit(reference, query, FIT)
    export_scvi(reference, graft, folder / "export", cells=False)
    write_counts(reference, query, folder)
    return reference, graft, query


def write_counts(reference, query, folder):
    """``counts.h5ad``, and for MULTIVI one ``mod_<name>.h5ad`` a modality: the genes, regions and proteins in the model's order."""
    schema, obs = reference.schema, pd.DataFrame(index=query.cells)
    for name, key in schema.obs_keys.items():
        obs[key or "scgraft_batch"] = np.array(query.levels[name], object)[
            query.codes[:, list(query.levels).index(name)]
        ]
    for key in schema.label_keys:
        obs[key] = schema.labels[0] if key == schema.labels_key else "x"
    for i, name in enumerate(schema.continuous):
        obs[name] = query.continuous[:, i]
    if schema.size_factor_key is not None:
        obs[schema.size_factor_key] = query.size_factor
    x, names = query.counts.tocsr(), schema.genes.astype(str)
    adata = anndata.AnnData(x.copy(), obs=obs, var=pd.DataFrame(index=names))
    if schema.layer is not None:
        adata.layers[schema.layer] = x.copy()
    own = {name: block.counts for name, block in query.blocks.items()}
    if reference.base.family == "MULTIVI":
        parts = {kind: (x[:, at], names[at]) for kind, at in schema.kinds.items()}
        parts |= {name: (counts, schema.block(name).features) for name, counts in own.items()}
        for i, (counts, features) in enumerate(parts.values()):
            modality = anndata.AnnData(counts, obs=obs[[]], var=pd.DataFrame(index=list(features)))
            modality.write_h5ad(folder / f"mod_{i}.h5ad")
    elif own:
        features = list(schema.block("proteins").features)
        adata.obsm["protein_expression"] = pd.DataFrame(own["proteins"].toarray(), index=query.cells, columns=features)
    adata.write_h5ad(folder / "counts.h5ad")


def read_back(case, folder, cells):
    """The exported folder knows the graft's batches, and gives the latents that reference and graft give."""
    reference, graft, query = case
    again = scgraft.load_reference(folder / "export")
    assert again.schema.batches == (*reference.schema.batches, *graft.batches) and again.latent is None
    assert again.base.family == reference.base.family
    known = scgraft.align(again, cells, batch_key=again.schema.batch_key)
    assert known.alignment.new_levels == {}
    own, found = scgraft.embed(reference, query, graft, device="cpu"), scgraft.embed(again, known, device="cpu")
    np.testing.assert_allclose(found.mean, own.mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, own.variance, atol=1e-6)
    return again


@pytest.mark.parametrize("options", TOTALVI.values(), ids=TOTALVI)
def test_a_totalvi_folder_is_the_model_with_the_graft(tmp_path, options):
    cells = draw(30, ("b0", "q0"))
    reference = scgraft.load_reference(write_totalvi_folder(tmp_path / "model", **options))
    again = read_back(exported(reference, cells, tmp_path), tmp_path, cells)
    assert again.schema.block("proteins").features == tuple(NAMES)
    mask = reference.attributes["protein_mask"]
    np.testing.assert_array_equal(again.attributes["protein_mask"], np.vstack([mask, np.ones((1, len(NAMES)), bool)]))
    assert mask.all() != options.get("masked", False)


@pytest.mark.parametrize("options", MULTIVI.values(), ids=MULTIVI)
def test_a_multivi_folder_is_the_model_with_the_graft_set_up_on_mudata(tmp_path, options):
    cells = draw_multiome(30, ("b0", "q0"), paired=False, proteins=options.get("proteins", False))
    reference = scgraft.load_reference(write_multivi_folder(tmp_path / "model", **options))
    again = read_back(exported(reference, cells, tmp_path), tmp_path, cells)
    assert again.registry["setup_method_name"] == "setup_mudata"
    assert (
        list(again.registry["setup_args"]["modalities"].values())
        == ["rna", "atac", "prot"][: 2 + len(again.schema.blocks)]
    )
    assert again.schema.n_regions == len(REGIONS) and list(again.schema.genes) == list(reference.schema.genes)


@pytest.mark.parametrize("options", SCPOLI.values(), ids=SCPOLI)
def test_a_scpoli_folder_is_that_of_scarches_with_the_graft(tmp_path, options):
    reference = scgraft.load_reference(write_scpoli_folder(tmp_path / "model", **options))
    again = read_back(exported(reference, scpoli_query(options), tmp_path), tmp_path, scpoli_query(options))
    assert again.attributes["prototypes"].keys() == reference.attributes["prototypes"].keys()
    for key, (types, points) in reference.attributes["prototypes"].items():
        assert again.attributes["prototypes"][key][0] == types
        np.testing.assert_array_equal(again.attributes["prototypes"][key][1], points)
    assert again.schema.label_keys == reference.schema.label_keys and again.schema.labels == reference.schema.labels
    assert {path.name for path in (tmp_path / "export").iterdir()} == {
        "model_params.pt",
        "attr.pkl",
        "var_names.csv",
        "README.md",
    }


def test_the_pickle_names_nothing_but_tensors_and_a_table(tmp_path):
    reference = scgraft.load_reference(write_scpoli_folder(tmp_path / "model", two=True))
    export_scvi(reference, None, tmp_path / "export")
    written = (tmp_path / "export" / "attr.pkl").read_bytes()
    strings, named = [], set()
    for opcode, argument, _ in pickletools.genops(written):
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            strings.append(argument)
        if opcode.name == "STACK_GLOBAL":
            named.add(".".join(strings[-2:]))
    assert named <= {
        "torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes", "collections.OrderedDict",
        "pandas.core.frame.DataFrame", "pandas.DataFrame",
    }  # fmt: skip
    found = pickle.loads(written)
    assert found["conditions_"] == {"batch": ["b1", "b0"], "donor": ["d1", "d0"]} and found["labeled_indices_"] == []
    assert found["obs_metadata_"].empty and found["dr_rate_"] == 0.05


def test_conditions_that_are_numbers_stay_numbers(tmp_path):
    folder = write_scpoli_folder(tmp_path / "model")
    attributes = pickle.loads((folder / "attr.pkl").read_bytes())
    attributes |= {"conditions_": {"batch": [7, 3]}, "conditions_combined_": [7, 3]}
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))
    (folder / "adata.h5ad").unlink()
    reference, cells = scgraft.load_reference(folder), scpoli_query({})
    for names, expected in ((("3", "11"), [7, 3, 11]), (("3", "x"), ["7", "3", "x"])):
        cells.obs["batch"] = np.array(names)[np.arange(cells.n_obs) % 2]
        exported(reference, cells, tmp_path / names[1])
        found = pickle.loads((tmp_path / names[1] / "export" / "attr.pkl").read_bytes())
        assert found["conditions_"] == {"batch": expected} and found["conditions_combined_"] == expected


def scpoli_query(options):
    cells = tiny_query(TinyConfig(), batches=("b1", "s1"))
    cells.obs["donor"] = np.array(["d0", "d7"])[np.arange(cells.n_obs) // 2 % 2]
    if options.get("loss") == "mse":
        x = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X)
        cells.X = np.log1p(x / np.maximum(x.sum(axis=1, keepdims=True), 1) * 1e4)
    return cells


def test_what_the_original_could_not_load_is_refused_with_the_reason(tmp_path):
    old = scgraft.load_reference(write_totalvi_folder(tmp_path / "old", version="1.2.1"))
    weighted = scgraft.load_reference(write_multivi_folder(tmp_path / "weighted", weights="cell", mudata=True))
    folder = write_scpoli_folder(tmp_path / "scpoli")
    attributes = pickle.loads((folder / "attr.pkl").read_bytes())
    attributes["prototypes_labeled_"]["cov"] = None
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))
    for reference, why in (
        (old, r"scvi-tools 1\.2\.1 saved it, and 1\.3\.1 and later cannot load .* Share the graft"),
        (weighted, r"for each of the 90 cells .* loads it with these cells alone.* Share the graft"),
        (scgraft.load_reference(folder), r"prototypes without their covariances.* Share the graft"),
    ):
        with pytest.raises(UnsupportedModel, match=why):
            export_scvi(reference, None, tmp_path / "export")
        assert not (tmp_path / "export").exists()
    whole = scgraft.load_reference(write_scpoli_folder(tmp_path / "whole"))
    query = scgraft.align(whole, scpoli_query({}), batch_key="batch")
    with pytest.raises(UnsupportedModel, match=r"scArches keeps cells with their counts alone.* Leave the query out"):
        export_scvi(whole, None, tmp_path / "export", query=query)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Every tiny and golden model exported, and opened by scvi-tools or scArches, each in one process."""
    scripts = {"SCGRAFT_ORACLE": "scvi_oracle.py", "SCGRAFT_SCARCHES": "scarches_oracle.py"}
    if not any(map(os.environ.get, scripts)):
        pytest.skip(
            "needs SCGRAFT_ORACLE or SCGRAFT_SCARCHES, a Python interpreter with scvi-tools 1.4 or scArches 0.6"
        )
    root, made = tmp_path_factory.mktemp("families"), {}

    def add(name, write, cells):
        (root / name).mkdir()
        made[name] = (root / name, exported(scgraft.load_reference(write), cells, root / name))

    for name, options in TOTALVI.items():
        add(
            f"totalvi {name}",
            write_totalvi_folder(root / "from" / f"totalvi {name}", **options),
            draw(30, ("b0", "q0")),
        )
    for name, options in MULTIVI.items():
        cells = draw_multiome(30, ("b0", "q0"), paired=False, proteins=options.get("proteins", False))
        add(f"multivi {name}", write_multivi_folder(root / "from" / f"multivi {name}", **options), cells)
    for name, options in SCPOLI.items():
        add(f"scpoli {name}", write_scpoli_folder(root / "from" / f"scpoli {name}", **options), scpoli_query(options))
    for folder in GOLDEN:
        try:
            add(folder.name, folder, cells_in(folder, "query"))
        except UnsupportedModel:  # tested above
            made.pop(folder.name, None)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    for variable, script in scripts.items():
        own = [
            str(folder) for name, (folder, _) in made.items() if name.startswith("scpoli") == ("SCARCHES" in variable)
        ]
        if os.environ.get(variable):
            command = [os.environ[variable], str(Path(__file__).parents[1] / script), *own]
            subprocess.run(command, env=environment, timeout=900, check=True, capture_output=True)
    return made


def agree(opened, prefix):
    """Latents of every opened model whose name starts so, against ours; how many they were."""
    names = [name for name in opened if name.startswith(prefix)]
    for name in names:
        folder, (reference, graft, query) = opened[name]
        assert (folder / "oracle.npz").exists(), (name, (folder / "oracle.txt").read_text())
        own = scgraft.embed(reference, query, graft, device="cpu")
        with np.load(folder / "oracle.npz") as found:
            if reference.hyper.latent_distribution != "ln":  # scvi-tools gives a Monte Carlo mean there
                np.testing.assert_allclose(found["counts_latent"], own.mean, atol=1e-5, err_msg=name)
            if "counts_variance" in found:
                np.testing.assert_allclose(found["counts_variance"], own.variance, atol=1e-5, err_msg=name)
    return len(names)


@pytest.mark.parametrize("family", ["totalvi", "multivi", "peakvi", "poissonvi", "linear"])
def test_scvi_tools_gives_the_same_latents(opened, family):
    if not os.environ.get("SCGRAFT_ORACLE"):
        pytest.skip("needs SCGRAFT_ORACLE, the path of a Python interpreter with scvi-tools 1.4")
    if not agree(opened, family):
        pytest.skip(f"needs golden models of {family}, which are not beside this checkout")


def test_scarches_gives_the_same_latents(opened):
    if not os.environ.get("SCGRAFT_SCARCHES"):
        pytest.skip("needs SCGRAFT_SCARCHES, the path of a Python interpreter with scArches 0.6")
    assert agree(opened, "scpoli") >= len(SCPOLI)
