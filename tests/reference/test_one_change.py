"""Single changes of a model file: only scgraft's errors, or the same numbers as before."""

import copy
import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from scgraft.errors import CorruptFile, ScgraftError, UnsupportedModel
from scgraft.graft.embed import embed
from scgraft.labels.votes import classify
from scgraft.mapping.load import load_reference
from scgraft.model.families import family_of
from scgraft.query.align import align
from scgraft.reference import model_file
from scgraft.reference.describe import describe
from scgraft.reference.hub import fetch
from scgraft.reference.saved_registry import flat_options
from scgraft.reference.scvi_format import read
from scgraft.testing import configs, tiny_query, write_hub_folder
from scgraft.testing.tiny_model import FIXED, TinyConfig, state_shapes
from tiny_multivi import draw as draw_multiome
from tiny_multivi import write_multivi_folder
from tiny_totalvi import draw as draw_cite
from tiny_totalvi import write_totalvi_folder

SMALL = {"n_genes": 6, "n_hidden": 4, "n_latent": 2, "n_cells": 12}
MODELS = [
    TinyConfig(
        minified="latent_posterior_parameters", encode_covariates=True, covariates={"donor": ("a", "b")}, **SMALL
    ),
    TinyConfig(model="SCANVI", minified="latent_posterior_parameters", continuous=("age",), n_layers=2, **SMALL),
    TinyConfig(use_observed_lib_size=False, dispersion="gene-batch", gene_likelihood="nb", **SMALL),
    TinyConfig(model="LinearSCVI", use_observed_lib_size=False, **SMALL, **FIXED["LinearSCVI"]),
    TinyConfig(model="POISSONVI", encode_covariates=True, **SMALL, **FIXED["POISSONVI"]),
    TinyConfig(model="PEAKVI", n_layers=2, use_batch_norm="both", continuous=("age",), **SMALL, **FIXED["PEAKVI"]),
]
tiny_models = pytest.mark.parametrize(
    "config", MODELS, ids=["SCVI", "SCANVI", "library", "LinearSCVI", "POISSONVI", "PEAKVI"]
)


@settings(max_examples=20)
@given(configs())
def test_the_expected_tensors_are_those_of_the_files(tmp_path_factory, config):
    """Against the layout that the test models are written from, which shares no code with the package's."""
    reference = load_reference(write_hub_folder(tmp_path_factory.mktemp("hub") / "r", config))
    expected = family_of(config.model).tensors(reference.hyper, reference.schema)
    shapes, priors = state_shapes(config), {"library_log_means", "library_log_vars"}
    assert expected.needed.keys() <= shapes.keys() and not expected.needed.keys() & expected.spare.keys()
    known = expected.needed | expected.spare
    assert shapes == {key: known.get(key) for key in shapes} and known.keys() - shapes.keys() <= priors


class Changed:
    """A hub folder whose model file is changed in memory, between the allow-list and everything that believes it."""

    def __init__(self, folder, config, monkeypatch, *, query=None):
        self.bundle, self.monkeypatch = replace(fetch(folder), adata=None), monkeypatch
        self.whole = model_file.read_torch_file(self.bundle.model)
        self.query = tiny_query(config, n_cells=6, batches=config.batches) if query is None else query
        self.before = self.numbers(self.whole)

    def numbers(self, raw):
        self.monkeypatch.setattr(model_file, "read_torch_file", lambda path, budget: raw)
        reference = read(self.bundle)
        describe(reference)
        cells = align(reference, self.query, batch_key="batch")
        latent = embed(reference, cells, device="cpu")
        votes = classify(reference, latent, device="cpu")
        return reference, latent, np.zeros(0) if votes is None else votes

    def outcome(self, change):
        """``"named"`` where the changed file is refused, else whether it gives the ``"same"`` numbers."""
        raw = copy.deepcopy(self.whole)
        change(raw)
        try:
            _, latent, votes = self.numbers(raw)
        except ScgraftError:
            return "named"
        _, before, votes_before = self.before
        found, expected = (latent.mean, latent.variance, votes), (before.mean, before.variance, votes_before)
        return "same" if all(map(np.array_equal, found, expected)) else "different"


@pytest.fixture
def changed(config, tmp_path, monkeypatch):
    return Changed(write_hub_folder(tmp_path / "r", config), config, monkeypatch)


def swapped(array):
    return array.reshape(array.shape[::-1]) if array.ndim > 1 else array[None]


DELETE = object()


def at(path, new):
    """The change of one entry: by a function of the old one, by a new value, or by deleting it."""

    def change(raw):
        for key in path[:-1]:
            raw = raw[key]
        if new is DELETE:
            del raw[path[-1]]
        else:
            raw[path[-1]] = new(raw[path[-1]]) if callable(new) else new

    return change


TENSOR_CHANGES = {
    "deleted": DELETE,
    "one longer": lambda a: np.concatenate([a, a[:1]]) if a.ndim else a[None],
    "one shorter": lambda a: a[:-1] if a.ndim else a[None],
    "turned": swapped,
    "flat": lambda a: a.reshape(-1, 1, 1),
    "whole": lambda a: a.astype(np.int32 if a.dtype.kind == "f" else np.float32),
    "bool": lambda a: a.astype(bool),
    "complex": lambda a: a.astype(np.complex64),
    "nan": lambda a: np.full(a.shape, np.nan, np.float32),
    "infinite": lambda a: np.full(a.shape, np.inf, np.float32),
    "a list": lambda a: a.tolist(),
    "nothing": lambda a: None,
}


@tiny_models
def test_a_changed_tensor_is_never_silently_another_function(changed, config):
    """Every tensor of the model, each in every way: an error, but for what no number depends on."""
    state = changed.whole["model_state_dict"]
    tensors = [key for key, value in state.items() if isinstance(value, np.ndarray)]
    spare = family_of(config.model).tensors(changed.before[0].hyper, changed.before[0].schema).spare
    for key, (kind, change) in itertools.product(tensors, TENSOR_CHANGES.items()):
        if kind == "turned" and state[key].shape == swapped(state[key]).shape:
            continue
        harmless = key in spare and kind in ("deleted", "a list", "nothing")
        assert changed.outcome(at(("model_state_dict", key), change)) == ("same" if harmless else "named"), (key, kind)


def test_missing_and_unexpected_tensors_are_listed(tmp_path, monkeypatch):
    changed = Changed(write_hub_folder(tmp_path / "r", MODELS[0]), MODELS[0], monkeypatch)
    raw = copy.deepcopy(changed.whole)
    state = raw["model_state_dict"]
    del state["z_encoder.mean_encoder.bias"]
    state["extra.weight"] = state["px_r"]
    state["px_r"] = state["px_r"][:-1]
    with pytest.raises(
        CorruptFile, match="missing: z_encoder.mean_encoder.bias.*px_r is .5,. instead of .6,.*extra.weight"
    ):
        changed.numbers(raw)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_around_a_model_are_taken_off(wrapper, tmp_path, monkeypatch):
    changed = Changed(write_hub_folder(tmp_path / "r", MODELS[0]), MODELS[0], monkeypatch)

    def wrap(raw):
        state = raw["model_state_dict"]
        for key in [key for key in state if isinstance(state[key], np.ndarray)]:
            state[wrapper + key] = state.pop(key)

    assert changed.outcome(wrap) == "same"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_are_float32_after_reading(dtype, tmp_path):
    folder = write_hub_folder(tmp_path / "r", MODELS[0])
    saved = torch.load(folder / "model.pt", weights_only=False)
    state = saved["model_state_dict"]
    state |= {k: v.to(dtype) for k, v in state.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    torch.save(saved, folder / "model.pt")
    weights = load_reference(folder).weights
    assert {a.dtype for key, a in weights.items() if not key.endswith("tracked")} == {np.dtype(np.float32)}
    assert np.array_equal(weights["px_r"], state["px_r"].float().numpy())


def loop():
    value: list = []
    value.append(value)
    return value


WRONG = [None, True, -1, 0, 7, 2.5, float("nan"), "", "wrong", [], ["wrong"], {}, {"wrong": 1}, {1: 2}, (1, 2), b"x"]
WRONG += [np.zeros((2, 2)), np.array(3.0), np.array([None, {}], object), loop(), {"a": {"b": loop()}}, {1, 2}]


def entries(value, path=()):
    """Paths of all entries of nested dictionaries."""
    for key in value if isinstance(value, dict) else ():
        yield (*path, key)
        yield from entries(value[key], (*path, key))


@tiny_models
def test_a_changed_entry_of_the_registry_or_the_options_is_never_a_raw_exception(changed, config):
    """Each entry replaced by each of many wrong values, and deleted: scgraft's errors, or the same latents and votes.

    A text in place of another text is no fault that a file could show: the column of the batches, for example.
    """
    roots = [("attr_dict", "registry_"), ("attr_dict", "init_params_"), ("attr_dict", "train_indices_")]
    if config.model == "SCANVI":
        roots.append(("attr_dict", "unlabeled_category_"))
    roots += [("var_names",), ("model_state_dict",), ("attr_dict",)]
    places = set(roots)
    for root in roots[:2]:
        places |= {(*root, *path) for path in entries(changed.whole[root[0]][root[1]])}
    outcomes = Counter()
    for path, value in itertools.product(sorted(places), [*WRONG, DELETE]):
        outcomes[found := changed.outcome(at(path, value))] += 1
        assert found != "different", (path, value)
    assert outcomes["named"] > 500 and outcomes["same"] > 100


BLOCKS = {
    "MULTIVI": lambda folder: write_multivi_folder(folder, proteins=True),
    "MULTIVI on MuData": lambda folder: write_multivi_folder(folder, mudata=True, encode=True),
    "TOTALVI on MuData": lambda folder: write_totalvi_folder(folder, mudata=True, masked=True),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_change_of_a_model_with_several_kinds_of_features_is_never_silent(name, tmp_path, monkeypatch):
    """Every tensor in each way, and every entry of the registry and options by some wrong values: an error, or the same latents."""
    cells = (draw_cite if "TOTALVI" in name else draw_multiome)(6, ("b0", "b1"))
    changed = Changed(BLOCKS[name](tmp_path / "r"), None, monkeypatch, query=cells)
    reference, state = changed.before[0], changed.whole["model_state_dict"]
    spare = family_of(reference.base.family).tensors(reference.hyper, reference.schema).spare
    for key, (kind, change) in itertools.product(state, TENSOR_CHANGES.items()):
        if kind == "turned" and state[key].shape == swapped(state[key]).shape or not state[key].size:
            continue
        if key.startswith("mod_weights") and kind in ("one longer", "one shorter", "turned", "flat"):
            continue  # weights of so many cells are another option, which the next check reads
        harmless = key in spare and kind in ("deleted", "a list", "nothing")
        found = changed.outcome(at(("model_state_dict", key), change))
        assert found == ("same" if harmless else "named"), (key, kind)
    places = {
        ("attr_dict", root, *path)
        for root in ("registry_", "init_params_")
        for path in entries(changed.whole["attr_dict"][root])
    }
    outcomes = Counter(
        changed.outcome(at(path, value))
        for path, value in itertools.product(
            sorted(places), [None, 7, "wrong", [], {1: 2}, np.zeros((2, 2)), loop(), DELETE]
        )
    )
    assert outcomes["different"] == 0 and outcomes["named"] > 80 and outcomes["same"] > 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 10**9), ("n_layers", "2"), ("n_hidden", -1), ("n_latent", True), ("encode_covariates", "yes"),
        ("dispersion", "gene-gene"), ("use_batch_norm", np.zeros(3)), ("var_activation", "softplus"), ("n_layers", 2),
        ("extra_encoder_kwargs", {"bias": False}), ("batch_embedding_kwargs", 3), ("use_batch_norm", "none"),
    ],
)  # fmt: skip
def test_options_that_change_numbers_are_read_or_refused(name, value, tmp_path, monkeypatch):
    changed = Changed(write_hub_folder(tmp_path / "r", MODELS[0]), MODELS[0], monkeypatch)
    raw = copy.deepcopy(changed.whole)
    options = flat_options(raw["attr_dict"]["init_params_"])
    raw["attr_dict"]["init_params_"] = {"non_kwargs": options | {name: value}}
    with pytest.raises((UnsupportedModel, CorruptFile), match=f"{name}|contradict"):
        changed.numbers(raw)


@pytest.mark.parametrize("name", ["extra_payload_autotune", "dropout_rate"])
def test_options_of_the_training_are_ignored(name, tmp_path, monkeypatch):
    changed = Changed(write_hub_folder(tmp_path / "r", MODELS[0]), MODELS[0], monkeypatch)
    assert changed.outcome(at(("attr_dict", "init_params_", "non_kwargs", name), 0.7)) == "same"


def shapes_of_deconvolution(model, genes, labels, batches, *, hidden=4, latent=2):
    """Tensors of the models that are only described, by hand from scgraft's notes on the format of scvi-tools' files."""
    if model == "RNAStereoscope":
        return {"W": (genes, labels), "px_o": (genes,), "ct_weight": (labels,)}
    new = model == "CondSCVI since 1.4.1"
    found = {"px_r": (genes,), "ct_weight": (labels,)}
    found |= {"per_ct_bias": (labels, genes), "_embeddings_dict.batch.weight": (batches, 5)} if new else {}
    widths = {
        "z_encoder.encoder": (genes, hidden),
        "decoder": (latent + (5 if new else batches), hidden + (0 if new else batches)),
    }
    for stack, inputs in widths.items():
        for i, width in enumerate(inputs):
            found[f"{stack}.fc_layers.Layer {i}.0.weight"] = (hidden, width + labels)
            found[f"{stack}.fc_layers.Layer {i}.0.bias"] = (hidden,)
    for name, n in (
        ("z_encoder.mean_encoder", latent),
        ("z_encoder.var_encoder", latent),
        (f"px_decoder{'' if new else '.0'}", genes),
    ):
        found |= {f"{name}.weight": (n, hidden), f"{name}.bias": (n,)}
    return found


@pytest.mark.parametrize("model", ["RNAStereoscope", "CondSCVI", "CondSCVI since 1.4.1"])
def test_a_changed_tensor_of_a_model_that_is_only_described_is_named(model, tmp_path, monkeypatch):
    config = TinyConfig(model="SCVI", **SMALL)
    bundle = replace(fetch(write_hub_folder(tmp_path / "r", config)), adata=None)
    whole = model_file.read_torch_file(bundle.model)
    rng = np.random.default_rng(0)
    shapes = shapes_of_deconvolution(model, config.n_genes, len(config.labels), len(config.batches))
    whole["model_state_dict"] = {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
    whole["attr_dict"]["registry_"]["model_name"] = model.split()[0]
    options = {"n_hidden": 4, "n_latent": 2, "n_layers": 2}
    whole["attr_dict"]["init_params_"] = {"non_kwargs": options if "CondSCVI" in model else {}, "kwargs": {}}

    def description(change=lambda raw: None):
        raw = copy.deepcopy(whole)
        change(raw)
        monkeypatch.setattr(model_file, "read_torch_file", lambda path, budget: raw)
        return describe(read(bundle))

    assert description().base.family == model.split()[0]
    for key, (kind, change) in itertools.product(shapes, TENSOR_CHANGES.items()):
        if kind == "turned" and shapes[key] == shapes[key][::-1] and len(shapes[key]) > 1:
            continue
        with pytest.raises(CorruptFile):
            description(at(("model_state_dict", key), change))
    for path, value in itertools.product([*entries(whole["attr_dict"]["init_params_"])], [*WRONG, DELETE]):
        try:
            description(at(("attr_dict", "init_params_", *path), value))
        except ScgraftError:
            pass
