"""Reference + graft -> a folder that stock scvi-tools loads: the widened model, its registry, and minified cells."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.cards.card import Card, reference_card
from scgraft.cards.reading import parse_card
from scgraft.errors import CorruptFile, QueryError, UnsupportedModel
from scgraft.expression.cells import LatentCells, query_cells, reference_cells
from scgraft.files.atomic import new_folder
from scgraft.files.write_h5 import write_h5ad
from scgraft.graft.levels import check_graft
from scgraft.model.families import families, family_of, require_mapping
from scgraft.model.families.family import Family
from scgraft.model.slots import widen
from scgraft.reference import scvi_registry
from scgraft.reference.scvi_registry import Levels
from scgraft.sharing.export_scarches import write_scarches
from scgraft.values.graft import Graft
from scgraft.values.names import column_text, level_name
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

SCVI_VERSION = "1.4.2"
SOURCE = "scgraft_source"
# Tags that an export states anew.
REPLACED = (
    "biology",
    "genomics",
    "single-cell",
    "model_cls_name",
    "scvi_version",
    "anndata_version",
    "modality",
    "annotated",
)
# Columns that versions of scvi-tools write for themselves.
OWN = ("_scvi", "_scanvi", "observed_lib_size")


def export_scvi(
    reference: Reference,
    graft: Graft | None,
    folder: str | Path,
    *,
    cells: bool = True,
    query: Query | None = None,
    query_labels: Sequence[str] | None = None,
    device: str = "auto",
    force: bool = False,
) -> Path:
    """Write a model folder for scvi-tools 1.4 (scPoli: for scArches 0.6): the reference, extended by the graft's batches.

    Stock scvi-tools loads it with ``SCVI.load`` (``SCANVI.load``) and ``HubModel``. Reference cells keep their latent and
    their decoded expression, new batches have the graft's columns. Without a graft the folder is the reference itself in
    today's format, whatever version saved it. A MULTIVI model comes out set up on MuData, a TOTALVI model on AnnData. A scPoli
    model is written as the three files of scArches, which ``scPoli.load(folder, adata)`` loads.

    Parameters
    ----------
    reference
        The reference.
    graft
        New columns, or None.
    folder
        Where to write ``model.pt``, ``_scvi_required_metadata.json``, ``README.md`` and, with `cells`, ``adata.h5ad``;
        it appears when it is complete.
    cells
        Write the reference's cells as minified data: posterior and observed library size, no count. Where the reference
        holds no cells, or models the library size as a latent variable, none are written.
    query
        Aligned cells to write beside them, minified too; `obs["scgraft_source"]` tells the two apart.
    query_labels
        Class of each cell of `query`, from the reference's classes. None leaves them in the unlabeled category of
        SCANVI, or in a category "unlabeled" of SCVI, which a model with a dispersion by label cannot have.
    device
        Where torch computes the posterior of `query`, as for :func:`scgraft.embed`.
    force
        Replace a folder that exists.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.
    BaseMismatch
        The graft was made for another reference.
    QueryError
        The query cannot be written: its labels are not the reference's, or a model by label has none.
    UnsupportedModel
        `query` was given for a model whose cells cannot be minified, or scvi-tools could not load what would be written.
    UnknownBatch
        The query has a batch that neither the reference nor the graft knows.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> query = scgraft.align(reference, adata, batch_key="batch")
    >>> graft = scgraft.fit(reference, query)
    >>> written = scgraft.export_scvi(reference, graft, folder.parent / "exported")
    >>> scgraft.load_reference(written).schema.batches
    ('b0', 'b1', 'q0', 'q1')
    """
    check_graft(reference, graft)
    require_mapping(reference.base.family)
    family = family_of(reference.base.family)
    _refuse(reference, family)
    why_not = _why_no_cells(reference)
    if query is not None and (why_not or not cells):
        what = (
            "Leave the query out, or export without a query"
            if why_not
            else "Leave the query out, or export with cells=True (without --no-cells)"
        )
        raise UnsupportedModel(f"The query cannot be written beside the model: {why_not or 'cells is off'}. {what}.")
    options = family.scvi_options
    if options is None:
        with new_folder(Path(folder), force=force) as new:
            write_scarches(reference, graft, widened_weights(reference, graft), new)
            (new / "README.md").write_text(_scarches_card(reference, graft), encoding="utf-8")
        return Path(folder)
    levels = scvi_registry.extended_levels(reference, graft)
    extra = _unlabeled_category(reference, query, query_labels)
    labels = scvi_registry.label_values(reference, extra)
    adata = None
    if cells and not why_not:
        adata = _minified(reference, graft, query, levels, labels, query_labels, device)
    with new_folder(Path(folder), force=force) as new:
        registry = _write_model(reference, graft, levels, labels, adata, new / "model.pt")
        metadata: dict[str, Any] = {
            "scvi_version": SCVI_VERSION,
            "anndata_version": _anndata_version(),
            "model_cls_name": reference.base.family,
            "training_data_url": None,
            "model_parent_module": options.package,
        }
        (new / "_scvi_required_metadata.json").write_text(json.dumps(metadata, indent=4), encoding="utf-8")
        text = _card(reference, graft, metadata["anndata_version"], registry)
        (new / "README.md").write_text(text, encoding="utf-8")
        if adata is not None:
            write_h5ad(adata, new / "adata.h5ad", compression="gzip")
    return Path(folder)


def _refuse(reference: Reference, family: Family) -> None:
    """Refuse a model that neither scvi-tools nor scArches could load."""
    if family.scvi_options is None and not family.scarches:
        known = [f.name for f in families().values() if f.scvi_options is not None or f.scarches]
        why = family.no_export or f"Those that can are {', '.join(known)}."
        raise UnsupportedModel(f"A model of class {family.name} cannot be exported. {why}")
    if family.refuse_export is not None and (why := family.refuse_export(reference)):
        raise UnsupportedModel(f"This model of class {family.name} cannot be exported. {why}")


def widened_weights(reference: Reference, graft: Graft | None) -> dict[str, np.ndarray]:
    """State dict of the reference with the graft's columns at their slots."""
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    return widen(reference.weights, slots, {} if graft is None else graft.rows)


def _write_model(
    reference: Reference,
    graft: Graft | None,
    levels: dict[str, Levels],
    labels: np.ndarray,
    adata: AnnData | None,
    path: Path,
) -> dict[str, Any]:
    """Write ``model.pt`` and return its registry."""
    import torch

    n_cells = _n_cells(reference) if adata is None else adata.n_obs
    registry = scvi_registry.make_registry(
        reference, levels, labels, n_cells=n_cells, minified=adata is not None, version=SCVI_VERSION
    )
    key = reference.schema.labels_key
    cell_labels = [] if adata is None or key is None else adata.obs[key].tolist()
    whole = reference.latent is None or len(reference.latent.cells) == _n_cells(reference)
    attributes = scvi_registry.make_attributes(reference, registry, cell_labels, keep_split=whole)
    weights = widened_weights(reference, graft)
    state = OrderedDict((name, torch.from_numpy(np.array(array))) for name, array in weights.items())
    names = scvi_registry.var_names(reference)
    torch.save({"model_state_dict": state, "var_names": names, "attr_dict": attributes}, path)
    return registry


def _why_no_cells(reference: Reference) -> str | None:
    options = family_of(reference.base.family).scvi_options
    if options is None:
        return "scArches keeps cells with their counts alone"
    if options.minified is None:
        return f"scvi-tools has no minified form of {reference.base.family} models that it reads back"
    if reference.hyper.models_library:
        return "the model has the library size as a latent variable, which scvi-tools cannot minify"
    if reference.latent is None or reference.obs is None:
        return f"the reference holds no cells ({reference.latent_source})"
    if reference.library is None:
        return "the reference's cells have no observed library size"
    return None


def _unlabeled_category(reference: Reference, query: Query | None, query_labels: Sequence[str] | None) -> str | None:
    """The category that SCVI needs for a query without labels; None where none is needed."""
    schema = reference.schema
    known = {level_name(value) for value in scvi_registry.label_values(reference)}
    if query_labels is not None:
        alien = sorted(set(map(str, query_labels)) - known)
        if alien:
            raise QueryError(
                f"query_labels has {', '.join(map(repr, alien[:5]))}, which are not classes of the reference "
                f"({', '.join(schema.labels[:8])}). Give each cell one of these, or the unlabeled category."
            )
    if (
        query is None
        or query_labels is not None
        or schema.labels_key is None
        or family_of(reference.base.family).keeps_unlabeled
    ):
        return None
    if reference.hyper.dispersion == "gene-label":
        raise QueryError(
            "The model has a dispersion for each label, so scvi-tools needs a label of every cell. Give query_labels=... (--query-labels), for "
            "example the transferred ones."
        )
    return next(name for name in ("unlabeled", "scgraft unlabeled") if name not in known)


def _minified(
    reference: Reference,
    graft: Graft | None,
    query: Query | None,
    levels: dict[str, Levels],
    labels: np.ndarray,
    query_labels: Sequence[str] | None,
    device: str,
) -> AnnData:
    """Cells of the reference, and of the query after them, as scvi-tools minifies them."""
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    schema, parts = reference.schema, [reference_cells(reference)]
    tables = [_table(reference, parts[0], "reference")]
    names = [level_name(value) for value in labels]
    label_codes = [_reference_labels(reference, names)]
    if query is not None:
        parts.append(query_cells(reference, query, graft, device=device))
        tables.append(_table(reference, parts[1], "query"))
        rest = names[-1] if schema.unlabeled is None else schema.unlabeled
        own = [rest] * len(parts[1]) if query_labels is None else [str(label) for label in query_labels]
        label_codes.append(np.array([names.index(name) for name in own] if schema.labels_key else [0] * len(own)))
    obs = pd.concat(tables)
    if not obs.index.is_unique:
        obs.index = obs.index.astype(str) + "-" + obs[SOURCE].astype(str)
    obs[SOURCE] = pd.Categorical(obs[SOURCE])
    codes = np.concatenate([part.codes for part in parts])
    for i, level in enumerate(levels.values()):
        if level.key is not None:
            obs[level.key] = pd.Categorical.from_codes(codes[:, i], categories=pd.Index(level.values))
    if schema.labels_key is not None:
        obs[schema.labels_key] = pd.Categorical.from_codes(np.concatenate(label_codes), categories=pd.Index(labels))
    empty = csr_matrix((len(obs), len(schema.genes)), dtype=np.float64)
    mean, variance = scvi_registry.latent_keys(reference)
    posterior = {
        mean: np.concatenate([part.latent.mean for part in parts]),
        variance: np.concatenate([part.latent.variance for part in parts]),
    }
    # The release 1.2.1 looks for every class's posterior under these names, whatever the registry says.
    posterior |= {"latent_qzm": posterior[mean], "latent_qzv": posterior[variance]}
    return anndata.AnnData(
        empty,
        obs=obs,
        var=pd.DataFrame(index=pd.Index([str(gene) for gene in schema.genes])),
        layers={} if schema.layer is None else {schema.layer: empty},
        obsm=posterior | ({} if query is not None else dict(reference.maps)),
        uns={"_scvi_adata_minify_type": scvi_registry.MINIFIED},
    )


def _table(reference: Reference, cells: LatentCells, source: str) -> pd.DataFrame:
    """What obs holds besides the categorical columns of the registry."""
    import pandas as pd

    schema, columns = reference.schema, {}
    if source == "reference" and reference.obs is not None:
        columns = {str(key): _plain(reference.obs[key]) for key in reference.obs if not str(key).startswith(OWN)}
    columns |= {name: cells.continuous[:, i] for i, name in enumerate(schema.continuous)}
    if schema.size_factor_key is not None and cells.size_factor is not None:
        columns[schema.size_factor_key] = cells.size_factor
    assert cells.library is not None
    columns |= {"observed_lib_size": cells.library, SOURCE: np.full(len(cells), source, object)}
    return pd.DataFrame(columns, index=pd.Index(cells.latent.cells))


def _reference_labels(reference: Reference, names: Sequence[str]) -> np.ndarray:
    key, obs = reference.schema.labels_key, reference.obs
    assert obs is not None
    if key is None:
        return np.zeros(len(obs), np.int64)
    if key not in obs:
        raise CorruptFile(
            f"The reference's cells have no column obs[{key!r}], which its model was trained with. Add it to the AnnData file of the "
            "reference, or export without cells: cells=False (--no-cells)."
        )
    found = [level_name(value) for value in obs[key]]
    if alien := sorted(set(found) - set(names)):
        raise CorruptFile(
            f"obs[{key!r}] of the reference holds {alien[0]!r}, which its registry does not know. Rename it, or export with cells=False (--no-cells)."
        )
    return np.array([names.index(name) for name in found], np.int64)


def _plain(column: pd.Series[Any]) -> np.ndarray:
    """Numbers as they are, everything else as text: a column that also has no value for a query can be written."""
    if column.dtype.kind in "iuf":
        return column.to_numpy()
    return column_text(column).astype(object)


def _scarches_card(reference: Reference, graft: Graft | None) -> str:
    """The reference's own card, and what this folder is."""
    said = f"{_origin(reference, graft)}\n\nWritten by scgraft in the format of scArches 0.6: `scPoli.load(folder, adata)` with any cells."
    own = "" if reference.card is None else f"{reference.card.rstrip()}\n\n"
    return f"{own}# This folder\n\n{said}\n"


def _origin(reference: Reference, graft: Graft | None) -> str:
    """Where the model comes from, and what was added."""
    base = reference.base
    new = "" if graft is None else f", extended by {len(graft.batches)} batches: {', '.join(graft.batches)}"
    # A folder's path says something of the machine and nothing to others.
    source = f"{base.repo} at {base.revision}" if base.revision != "local" else f"in the folder {Path(base.repo).name}"
    name = "model_params.pt" if family_of(base.family).scarches else "model.pt"
    return f"The {base.family} model {source} ({name} sha256 {base.sha256}){new}."


def _n_cells(reference: Reference) -> int:
    entry = (reference.registry.get("field_registries") or {}).get("X") or {}
    return int((entry.get("summary_stats") or {}).get("n_cells", 0))


def _anndata_version() -> str:
    from importlib.metadata import version

    return version("anndata")


def _card(reference: Reference, graft: Graft | None, version: str, registry: dict[str, Any]) -> str:
    """The reference's own card brought up to date: its text and licence, the extended model's facts."""
    own = Card() if reference.card is None else parse_card(reference.card)
    written = f"Saved by scvi-tools {reference.scvi_version}; written in the format of {SCVI_VERSION} by scgraft."
    minified = "latent_qzm" in registry["field_registries"]
    extended = replace(
        reference, registry=registry, scvi_version=SCVI_VERSION, minified=scvi_registry.MINIFIED if minified else None
    )
    keep = [t for t in own.header.get("tags") or [] if str(t).split(":")[0] not in REPLACED]
    card = reference_card(
        extended,
        description="\n\n".join(part for part in (own.description, _origin(reference, graft), written) if part),
        license=str(own.header.get("license") or ""),
        tags=[f"anndata_version:{version}", *map(str, keep)],
        metrics=own.metrics if graft is None else None,
        training_data=own.training_data,
        training_code=own.training_code,
        references=own.references,
    )
    return str(card)
