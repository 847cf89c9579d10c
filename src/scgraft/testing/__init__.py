"""Tiny references and queries for tests: complete hub folders with random weights, without scvi-tools or a download.

::

    config = TinyConfig(model="SCANVI", encode_covariates=True)
    folder = write_hub_folder(tmp_path / "reference", config)
    query = tiny_query(config, batches=("b0", "new"))

`configs` draws such configurations for property-based tests with hypothesis (install it for that). `check_laws` holds a model
family of your own to the laws of the package.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scgraft.errors import OutputExists
from scgraft.testing.laws import check_laws
from scgraft.testing.tiny_cells import BATCH_KEY, LABELS_KEY, SIZE_FACTOR_KEY, draw_cells, gene_names, reference_adata
from scgraft.testing.tiny_hub import make_attributes, make_card, make_metadata, since
from scgraft.testing.tiny_model import FIXED, MODELS, TinyConfig, make_weights

if TYPE_CHECKING:
    from anndata import AnnData
    from hypothesis.strategies import SearchStrategy

__all__ = ["TinyConfig", "check_laws", "configs", "example", "tiny_query", "write_hub_folder"]


def example() -> tuple[Path, AnnData]:
    """A tiny reference and a query for it: what the examples in docstrings work on.

    Returns
    -------
    folder
        A complete scvi-hub repository (a minified SCVI model of 30 genes, 60 cells, two batches and three cell types) in a
        temporary folder, which is removed when Python ends.
    adata
        40 cells of the same types in two new batches, ``"q0"`` and ``"q1"``, with raw UMI counts.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> adata.shape
    (40, 30)
    >>> scgraft.load_reference(folder).schema.batches
    ('b0', 'b1')
    """
    import atexit
    import shutil
    import tempfile

    config = TinyConfig(gene_likelihood="nb", encode_covariates=True, minified="latent_posterior_parameters")
    home = Path(tempfile.mkdtemp(prefix="scgraft-example-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return write_hub_folder(home / "reference", config), tiny_query(config)


def write_hub_folder(folder: Path, config: TinyConfig) -> Path:
    """Write a complete scvi-hub repository: ``model.pt``, ``adata.h5ad``, the metadata and the model card.

    The weights are random (from ``config.seed``), the cells are simulated from a few cell types that stay apart in
    the latent space. A minified latent is the posterior that these weights give these cells, computed in float64 by a
    naive encoder. ``obsm["X_umap"]`` holds two principal components in place of a UMAP.

    Parameters
    ----------
    folder
        Where to write; it is made when absent.
    config
        What to write. The same configuration gives the same bytes of ``model.pt``.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    OutputExists
        The folder already holds a ``model.pt``.

    Examples
    --------
    >>> import scgraft
    >>> folder, _ = scgraft.testing.example()
    >>> config = scgraft.testing.TinyConfig(model="SCANVI", n_genes=20)
    >>> made = scgraft.testing.write_hub_folder(folder.parent / "scanvi", config)
    >>> scgraft.load_reference(made).base.family
    'SCANVI'
    """
    import torch

    folder = Path(folder)
    if (folder / "model.pt").exists():
        raise OutputExists(f"{folder} already holds a model.pt. Give a folder that has none; nothing was overwritten.")
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights(config)
    adata = reference_adata(config, weights)
    state: OrderedDict[str, Any] = OrderedDict((key, torch.tensor(array)) for key, array in weights.items())
    if since(config, 1, 3):
        state["pyro_param_store"] = {"params": {}, "constraints": {}}
    saved = {
        "model_state_dict": state,
        "var_names": gene_names(config),
        "attr_dict": make_attributes(config, adata.obs[LABELS_KEY].tolist()),
    }
    torch.save(saved, folder / "model.pt")
    adata.write_h5ad(folder / "adata.h5ad")
    (folder / "_scvi_required_metadata.json").write_text(json.dumps(make_metadata(config), indent=4), encoding="utf-8")
    (folder / "README.md").write_text(make_card(config), encoding="utf-8")
    return folder


def tiny_query(
    config: TinyConfig,
    *,
    n_cells: int = 40,  # enough for each of three types; small, for tests of milliseconds
    batches: tuple[str, ...] | tuple[int, ...] = ("q0", "q1"),
    covariates: Mapping[str, tuple[str, ...]] | None = None,
    seed: int = 1,
) -> AnnData:
    """Simulate query cells of the reference's cell types, with batch effects of their own.

    Parameters
    ----------
    config
        The reference that they are meant for.
    n_cells
        Number of cells.
    batches
        Batch names in the query, known to the reference or new; the obs column is ``"batch"`` in any case.
    covariates
        Levels that the query has of a categorical covariate; a covariate not named here has the reference's levels.
    seed
        Seed of the cells; the profiles of the cell types depend on ``config.seed`` alone.

    Returns
    -------
    anndata.AnnData
        Raw UMI counts in X (CSR, float32) of the reference's genes, and obs with the columns that the reference
        needs, the true ``"cell_type"`` and, where the model has them, size factors. Cells are named ``query0``...

    Raises
    ------
    ValueError
        No batch is named, or `covariates` names one that the reference does not have.

    Examples
    --------
    >>> import scgraft
    >>> config = scgraft.testing.TinyConfig(n_genes=20)
    >>> adata = scgraft.testing.tiny_query(config, n_cells=10, batches=("new",))
    >>> adata.shape, adata.obs["batch"].unique().tolist()
    ((10, 20), ['new'])
    """
    import anndata

    unknown = set(covariates or {}) - set(config.covariates)
    if unknown or not batches:
        wrong = f"it has no covariate {', '.join(sorted(unknown))}" if unknown else "a query needs at least one batch"
        raise ValueError(f"No query can be made for this reference: {wrong}.")
    levels = dict(config.covariates) | dict(covariates or {})
    cells = draw_cells(config, n_cells, (len(batches), *map(len, levels.values())), (4, seed))
    obs: dict[str, Any] = {BATCH_KEY: np.array(batches)[cells.codes[:, 0]], LABELS_KEY: cells.types}
    obs |= {key: np.array(values)[cells.codes[:, i]] for i, (key, values) in enumerate(levels.items(), start=1)}
    obs |= {key: cells.continuous[:, i] for i, key in enumerate(config.continuous)}
    if config.size_factor:
        obs[SIZE_FACTOR_KEY] = cells.size_factor
    text = {key: pd.Categorical(column) if column.dtype.kind == "U" else column for key, column in obs.items()}
    return anndata.AnnData(
        csr_matrix(cells.counts),
        obs=pd.DataFrame(text, index=pd.Index([f"query{i}" for i in range(n_cells)])),
        var=pd.DataFrame(index=pd.Index(gene_names(config))),
    )


def configs() -> SearchStrategy[TinyConfig]:
    """Hypothesis strategy: any configuration that scvi-tools could have saved, over all options of `TinyConfig`.

    Sizes stay tiny (up to 20 genes, 24 cells), so that a folder is written in tens of milliseconds. Shrinks towards
    a plain SCVI model with one batch.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy of `TinyConfig`.

    Raises
    ------
    ImportError
        hypothesis is not installed.

    Examples
    --------
    >>> import scgraft
    >>> from hypothesis import given
    >>> @given(scgraft.testing.configs())
    ... def test_every_reference_has_genes(config):
    ...     assert config.n_genes > 0
    >>> test_every_reference_has_genes()
    """
    try:
        from hypothesis import strategies as st
    except ImportError as error:
        raise ImportError(
            "scgraft.testing.configs needs hypothesis, which is not installed: pip install hypothesis."
        ) from error
    return st.composite(_draw_config)()


def _draw_config(draw: Callable[[Any], Any]) -> TinyConfig:
    """Draw the options that others depend on first, then the rest within what they allow."""
    from hypothesis import strategies as st

    flag, scope = st.booleans(), st.sampled_from(("both", "none", "encoder", "decoder"))
    # One release of each way to name the minified latent; what a release lacks is not drawn for it.
    version, key_style = draw(st.sampled_from((("1.4.2", "current"), ("1.2.1", "1.2.1"), ("1.0.4", "old"))))
    old = key_style == "old"
    minify_types = (None, "latent_posterior_parameters", "latent_posterior_parameters_with_counts")
    minified = draw(st.sampled_from(minify_types[: 2 if old else 3]))
    model = draw(st.sampled_from(MODELS))
    n_labels = draw(st.integers(1 if model == "SCANVI" else 0, 4))
    batches = draw(st.sampled_from((("b0",), None, ("b0", "b1"), ("b2", "b0", "b1"), (0, 1, 5))))
    by_label = ("gene-label",) if model == "SCVI" and n_labels else ()
    dispersions = ("gene", "gene-batch") if model == "LinearSCVI" else ("gene", "gene-batch", "gene-cell", *by_label)
    n_likelihoods = 3 if old or model == "LinearSCVI" else 4
    size_factor = draw(flag)
    embeds = batches is not None and not old and draw(flag)
    options: dict[str, Any] = {
        "n_genes": draw(st.integers(4, 20)),
        "n_cells": draw(st.integers(8, 24)),
        "n_hidden": draw(st.integers(3, 8)),
        "n_latent": draw(st.integers(2, 4)),
        "n_layers": draw(st.integers(1, 3)),
        "batches": batches,
        "covariates": draw(_covariates()),
        "continuous": draw(st.sampled_from(((), ("age",), ("age", "mito")))),
        "labels": ("delta", "Beta", "alpha", "zeta")[:n_labels],
        "all_labeled": model == "SCANVI" and draw(flag),
        "encode_covariates": not (embeds and model == "SCANVI") and draw(flag),
        "deeply_inject_covariates": draw(flag),
        "use_batch_norm": draw(scope),
        "use_layer_norm": draw(scope),
        "dispersion": draw(st.sampled_from(dispersions)),
        "gene_likelihood": draw(st.sampled_from(("zinb", "nb", "poisson", "normal")[:n_likelihoods])),
        "latent_distribution": draw(st.sampled_from(("normal", "ln"))),
        "use_observed_lib_size": size_factor or minified is not None or draw(flag),
        "size_factor": size_factor,
        "batch_representation": "embedding" if embeds else "one-hot",
        "embedding_dim": draw(st.integers(1, 5)) if embeds else TinyConfig.embedding_dim,
        "linear_classifier": model == "SCANVI" and draw(flag),
        "minified": minified,
        "key_style": key_style,
        "layer": draw(st.sampled_from((None, "counts"))),
        "scvi_version": version,
        "seed": draw(st.integers(0, 2**16)),
    }
    return TinyConfig(model=model, **options | dict(FIXED.get(model, {})))


def _covariates() -> SearchStrategy[dict[str, tuple[str, ...]]]:
    """No, one or two categorical covariates of one to three levels."""
    from hypothesis import strategies as st

    donors = st.sampled_from((("d0",), ("d0", "d1"), ("d2", "d0", "d1")))
    chemistry = st.sampled_from((("v2", "v3"), ("v3",)))
    none: dict[str, tuple[str, ...]] = {}
    return st.one_of(
        st.just(none),
        st.fixed_dictionaries({"donor": donors}),
        st.fixed_dictionaries({"donor": donors, "chemistry": chemistry}),
    )
