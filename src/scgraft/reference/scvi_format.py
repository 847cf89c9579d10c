"""Bundle -> Reference: reads what any version of scvi-tools saved, believing the file's contents and nothing else.

The registry says where the minified posterior is; constants differ between versions. The card and the registry are not
believed about the state of X: it is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.files.budget import GROWTH, Budget
from scgraft.files.hashes import remembered_sha256, sha256
from scgraft.files.structure import check_element
from scgraft.model.families import family_of, recognised
from scgraft.model.tensors import check_tensors
from scgraft.reference.beside import load_budget, read_card_text
from scgraft.reference.cells import column_codes, columns_lacking, label_key
from scgraft.reference.maps import read_maps
from scgraft.reference.model_file import Saved, read_model_file
from scgraft.reference.protein_fields import features_of, gene_names, protein_block, protein_mask
from scgraft.reference.saved_registry import flat_options, mapping, text
from scgraft.reference.stored_cells import opened_cells
from scgraft.values.blocks import PROTEINS
from scgraft.values.names import level_name
from scgraft.values.reference import BaseId, Bundle, Covariate, Latent, Reference, Schema

if TYPE_CHECKING:
    import pandas as pd

# A column of this name is scvi-tools' own where it was given none: it then has the single level 0.
NO_COLUMN = {"batch": "_scvi_batch", "labels": "_scvi_labels"}
LARGEST_METADATA = 1 << 20  # bytes; scvi-tools writes less than a thousandth of it


def read(bundle: Bundle, budget: Budget | None = None) -> Reference:
    """Read a reference from its files within a budget (None: its own); nothing in them is executed.

    Returns
    -------
    Reference
        With the stored posterior as its latent where there is one.

    Raises
    ------
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or contradict one another.
    UnsupportedModel
        A class or an option that scgraft does not know.
    """
    budget = budget or load_budget(bundle)
    saved = read_model_file(bundle.model, budget)
    metadata = _read_metadata(bundle.metadata, budget)
    name = _model_class(saved, metadata)
    family = family_of(name)
    options = flat_options(saved.attributes.get("init_params_"))
    schema = read_schema(
        saved, model=name, keeps_unlabeled=family.keeps_unlabeled, blocks=family.blocks,
        n_regions=options.get("n_regions", 0) if family.region_weight else None,
    )  # fmt: skip
    version = saved.registry.get("scvi_version") or metadata.get("scvi_version") or "unknown"
    if family.blocks:  # what its numbers depend on besides
        options["scvi_version"] = version
    hyper = family.read_hyper(options, saved.weights, schema)
    expected = None if family.tensors is None else family.tensors(hyper, schema)
    check_tensors(saved.weights, expected, bundle.model.name)
    family.slots(hyper, schema, saved.weights)
    own_cells = remembered_sha256(bundle.adata) if bundle.adata and bundle.revision == "local" else ""
    budget.go_on()
    base = BaseId(bundle.repo, bundle.revision, sha256(bundle.model), name, own_cells)
    card = read_card_text(bundle.card, budget) if bundle.card else None
    cells = _read_cells(bundle.adata, saved.registry, hyper.n_latent, budget) if bundle.adata else {}
    _refuse_unknown_levels(schema, cells.get("obs"))
    attributes = saved.attributes
    if PROTEINS in [block.name for block in schema.blocks]:
        block, minified = schema.block(PROTEINS), cells.get("minified") == "latent_posterior_parameters"
        n_levels = len(schema.levels[block.panel])
        mask = protein_mask(saved.registry, n_levels, len(block.features), minified=minified, name=bundle.model.name)
        attributes = attributes | {"protein_mask": mask}
    return Reference(
        base=base,
        schema=schema,
        hyper=hyper,
        weights=saved.weights,
        scvi_version=str(version),
        registry=saved.registry,
        card=card,
        adata_path=None if bundle.adata is None else bundle.adata.absolute(),
        attributes=attributes,
        notes=_notes(saved, schema, cells.get("obs"), keeps_unlabeled=family.keeps_unlabeled),
        **cells,
    )


def _notes(saved: Saved, schema: Schema, obs: pd.DataFrame | None, *, keeps_unlabeled: bool) -> tuple[str, ...]:
    """What the files say that a user should know, and that is no reason to refuse them."""
    found = []
    if not saved.trained:
        found.append(
            "The model's file says that it was not trained (is_trained_ is False): its numbers may be those of chance."
        )
    if obs is not None and (lacking := columns_lacking(schema, obs)):
        found.append(
            f"Its cells have no column {', '.join(f'obs[{key!r}]' for key in lacking)}, which the model was trained with: labels are "
            "transferred without a calibration, and its cells cannot be decoded."
        )
    if keeps_unlabeled and obs is not None and label_key(schema, obs) is None:
        found.append(
            f"None of its cells has a label in obs[{schema.labels_key!r}]: labels come from the model's own classifier, and their "
            "probabilities are not calibrated."
        )
    return tuple(found)


def _refuse_unknown_levels(schema: Schema, obs: pd.DataFrame | None) -> None:
    """Refuse cells of a batch, or of another level, that the model was not trained with."""
    keys = [schema.batch_key, *(covariate.key for covariate in schema.categorical)]
    for key, levels in zip(keys, schema.levels.values(), strict=True):
        if key is not None and obs is not None and key in obs:
            column_codes(obs, key, levels)


def _read_metadata(path: Path | None, budget: Budget) -> dict[str, str | None]:
    """Class and version that the hub's metadata name; of the rest, nothing is used."""
    if path is None:
        return {}
    try:
        if path.stat().st_size > LARGEST_METADATA:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        budget.spend(GROWTH * path.stat().st_size, path.name)
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CorruptFile(f"{path.name} is not JSON as scvi-tools writes it: {error}.") from error
    found = mapping(metadata, f"the content of {path.name}")
    return {key: text(found.get(key), f"{key} in {path.name}") for key in ("model_cls_name", "scvi_version")}


def _model_class(saved: Saved, metadata: Mapping[str, str | None]) -> str:
    return saved.registry.get("model_name") or metadata.get("model_cls_name") or recognised(saved.weights)


def _field(registry: Mapping[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Where a field's data is, and its state."""
    entry = registry["field_registries"].get(name) or {}
    return entry.get("data_registry") or {}, entry.get("state_registry") or {}


def read_schema(
    saved: Saved,
    *,
    model: str,
    keeps_unlabeled: bool = False,
    blocks: tuple[str, ...] = (),
    n_regions: object | None = None,
) -> Schema:
    """What the reference asks of a query, from its registry.

    `blocks` are the inputs that the family has beside the genes; `n_regions`, as the options have it, is None where it has no regions
    of chromatin among its features.
    """
    registry = saved.registry
    setup = registry["setup_args"]
    on_mudata = registry.get("setup_method_name") == "setup_mudata"
    if on_mudata and not blocks:
        raise UnsupportedModel(f"The {model} model was set up on MuData; supported are models set up on AnnData.")
    place, _ = _field(registry, "X")
    layer = place.get("attr_key") if place.get("attr_name") == "layers" else None
    batch_key, batches = _levels(registry, "batch")
    labels_key, labels = _levels(registry, "labels")
    _, label = _field(registry, "labels")
    unlabeled = label.get("unlabeled_category", saved.unlabeled) if keeps_unlabeled else None
    if unlabeled is not None:
        unlabeled = level_name(unlabeled)
        if labels and unlabeled != labels[-1]:
            raise CorruptFile(
                f"The registry's labels ({', '.join(labels[:8])}) do not end with the unlabeled category {unlabeled!r}, where "
                "scvi-tools puts it. The file was changed: its classes could not be told apart."
            )
        labels = labels[:-1]
    _, covariates = _field(registry, "extra_categorical_covs")
    mappings = covariates.get("mappings") or {}
    _, continuous = _field(registry, "extra_continuous_covs")
    factor, _ = _field(registry, "size_factor")
    has_proteins = PROTEINS in blocks and (n_regions is None or PROTEINS in registry["field_registries"])
    proteins, panel = protein_block(registry, model) if has_proteins else (None, None)
    genes, of_regions = gene_names(registry, model) if on_mudata and n_regions is None else saved.genes, 0
    if n_regions is not None:
        genes, of_regions = features_of(registry, saved.genes, n_regions, model)
    return Schema(
        genes=genes,
        batch_key=batch_key,
        batches=batches or ("0",),
        labels_key=labels_key,
        labels=labels,
        unlabeled=unlabeled,
        layer=layer,
        categorical=(
            *(
                Covariate(key, tuple(level_name(v) for v in mappings[key]))
                for key in covariates.get("field_keys") or []
            ),
            *([panel] if panel else []),
        ),
        continuous=tuple(continuous.get("columns") or ()),
        size_factor_key=setup.get("size_factor_key") or factor.get("attr_key"),
        blocks=(proteins,) if proteins else (),
        n_regions=of_regions,
    )


def _levels(registry: Mapping[str, Any], field: str) -> tuple[str | None, tuple[str, ...]]:
    """The obs column of a categorical field, None where scvi-tools was given none, and its levels in code order."""
    _, state = _field(registry, field)
    saved = state.get("categorical_mapping")
    levels = tuple(level_name(value) for value in ([] if saved is None else saved))
    key = state.get("original_key")
    given = registry["setup_args"].get(f"{field}_key")
    nobody = key == NO_COLUMN[field] and given != key and len(levels) < 2
    return None if nobody else key, levels


def _read_cells(path: Path, registry: Mapping[str, Any], n_latent: int, budget: Budget) -> dict[str, Any]:
    """Cells of the reference: annotation, two-dimensional maps, and stored posterior; never X of a minified file."""
    modalities = [_field(registry, field)[0].get("mod_key") for field in ("X", "atac")]
    covariates = [
        _field(registry, f)[0].get("mod_key")
        for f in ("batch", "extra_categorical_covs", "extra_continuous_covs", "panel")
    ]
    with opened_cells(
        path,
        modalities=tuple(name for name in modalities if name),
        annotated=tuple(dict.fromkeys(name for name in covariates if name)),
        budget=budget,
    ) as stored:
        obs = stored.obs
        budget.go_on()
        latent = _stored_posterior(stored.obsm, registry, obs, n_latent, budget)
        maps, remarks = read_maps(stored.obsm, len(obs), budget)
        budget.go_on()
    place, _ = _field(registry, "observed_lib_size")
    key = place.get("attr_key") or "observed_lib_size"
    library = np.asarray(obs[key], dtype=np.float32) if key in obs else None
    return {
        "latent": latent,
        "latent_source": "none" if latent is None else "stored posterior",
        "obs": obs,
        "var": stored.var,
        "maps": maps,
        "remarks": remarks,
        "library": library,
        "minified": (stored.minified or "latent_posterior_parameters") if latent is not None else None,
    }


def _stored_posterior(
    obsm: Mapping[str, Any], registry: Mapping[str, Any], obs: pd.DataFrame, n_latent: int, budget: Budget
) -> Latent | None:
    """Posterior where the registry says it is, or under any spelling that a version of scvi-tools used."""
    found = {}
    for part in ("latent_qzm", "latent_qzv"):
        place, _ = _field(registry, part)
        spellings = [place.get("attr_key"), *sorted(k for k in obsm if k.endswith(part))]
        key = next((k for k in spellings if k and k in obsm), None)
        if key is None:
            return None
        check_element(obsm[key], f"obsm/{key}", budget)
        found[part] = np.asarray(obsm[key], dtype=np.float32)
        if found[part].shape != (len(obs), n_latent):
            raise CorruptFile(
                f"The stored posterior obsm[{key!r}] has shape {found[part].shape}; {len(obs)} cells and {n_latent} "
                "latent dimensions were expected. The AnnData file and the model do not belong together."
            )
    if not all(np.isfinite(values).all() for values in found.values()) or (found["latent_qzv"] < 0).any():
        raise CorruptFile("The stored posterior in obsm holds NaN, infinite numbers, or negative variances.")
    cells = np.asarray(obs.index.astype(str), dtype=str)
    return Latent(found["latent_qzm"], found["latent_qzv"], cells)
