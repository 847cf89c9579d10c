"""The chain: align, fit, embed, transfer, calibrate. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from scgraft.errors import BadOption, NoLabels
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.labels.coherent import coherent
from scgraft.labels.methods import label_method_of, require_held_out
from scgraft.mapping.calibrated import calibrated
from scgraft.mapping.cost import judge_missing_genes
from scgraft.mapping.freeze import (
    SAMPLE,
    Frozen,
    choose_sample,
    joined,
    latent_labels,
    map_cells,
    pieces,
    strata,
)
from scgraft.mapping.lazy import lazily_opened, map_lazy
from scgraft.mapping.summary import summary
from scgraft.model.build import take_cells
from scgraft.numerics.order import name_keys
from scgraft.progress import showing, step
from scgraft.query.align import align_as
from scgraft.query.cell_file import free_memory
from scgraft.query.given import as_anndata
from scgraft.query.lazy import in_memory, is_lazy, lazy_bytes
from scgraft.reference.cells import missing_columns
from scgraft.values.calibration import Calibration
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.mapping import MappedQuery
from scgraft.values.quality import Verdict
from scgraft.values.query import AlignOptions, Query
from scgraft.values.reference import Reference, own_map

if TYPE_CHECKING:
    from anndata import AnnData


def map_query(
    reference: Reference,
    adata: AnnData,
    *,
    batch_key: str | None = None,
    labels: Literal["auto"] | Sequence[str] | None = "auto",
    method: str | None = None,
    config: FitConfig | None = None,
    graft: Graft | None = None,
    layer: str | None = None,
    drop_empty: bool = False,
    min_found: float | None = None,
    gene_map: Mapping[str, str] | None = None,
    calibration: Literal["auto"] | Mapping[str, Calibration] | None = "auto",
    memory: int | None = None,
    client: Any = None,
) -> MappedQuery:
    """Map a query onto a reference: align, fit (or re-apply a graft), embed, transfer labels.

    Parameters
    ----------
    reference
        From :func:`load_reference`.
    adata
        The query with raw UMI counts somewhere (X, a layer, raw); it is not changed. One whose counts are not in memory (backed,
        from ``anndata.experimental.read_lazy``, or with dask arrays) may be larger than the memory: it is read piece by piece.
    batch_key
        obs column of the query's batches; None makes the whole query one new batch.
    labels
        ``"auto"`` for the label column of the reference's registry, a list of columns of the reference's obs, or None.
    method
        Name of a label method that votes instead of the latent's neighbours and the genes together: ``"neighbours"``, ``"genes"``, or one
        of your own (:func:`register_label_method`). It votes on the held-out batches, too, so its probabilities and prediction
        sets are calibrated like the others. ``"classifier"`` and ``"prototypes"``, which were trained with the labels of all of the
        reference's cells, cannot be: they need ``calibration=None``. ``summary["label_method"]`` says which one it was, and whether it
        was calibrated.
    config
        Settings of the fit. Its `device` is where torch computes in every step: the fit, the projection, novelty, labels and the
        calibration.
    graft
        A graft to re-apply instead of fitting one.
    layer
        Where the counts are, if they should not be looked for.
    drop_empty
        Leave out cells without any count in the reference's genes.
    min_found
        Least share of the reference's genes, by weight, that the query must have. None decides by what the missing genes cost,
        measured on generated cells of the reference.
    gene_map
        Query gene to reference gene, taken before anything else.
    calibration
        ``"auto"`` calibrates labels and novelty on held-out batches of the reference, once for each reference and label
        column (kept in the user's cache); a calibration from before; or None for bare votes.
    memory
        Bytes that the counts of a query that is not in memory may take; more are read in pieces, as ``scgraft map`` does. None is
        a quarter of what is free.
    client
        A ``distributed.Client`` (the extra ``scgraft[dask]``): its workers read and map a query that is not in memory.

    Returns
    -------
    MappedQuery
        `latent.mean` is (n, d); `labels` is keyed by column. Where calibrated, they have prediction sets, `novelty` says
        which cells the reference does not explain, and `verdict` whether the mapping was good.

    Raises
    ------
    QueryError
        The query cannot be used as it is; the subclasses say why.
    UnknownBatch
        The graft does not know a batch of the query.
    NoLabels
        Labels were asked for and there is nothing to transfer them from, or `method` cannot vote on them.
    BadOption
        There is no such label method, or it cannot be calibrated; or `calibration` is a word other than ``"auto"``.
    ClusterError
        The client's cluster cannot be used, or went away.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> mapped.latent.mean.shape, mapped.labels["cell_type"].label.shape
    ((40, 4), (40,))
    >>> mapped.novelty.novel.dtype, mapped.verdict.light in ("green", "amber", "red")
    (dtype('bool'), True)
    """
    if method is not None:
        label_method_of(method)
    if isinstance(calibration, str) and calibration != "auto":
        raise BadOption(f"calibration is 'auto', None, or calibrations by label column, not {calibration!r}.")
    adata = as_anndata(adata)
    options, config = AlignOptions(batch_key, layer, drop_empty, min_found, gene_map), config or FitConfig()
    with showing(config.progress):
        budget = free_memory() // 4 if memory is None else memory
        if client is not None or is_lazy(adata) and lazy_bytes(adata) > budget:
            learning = partial(learn, labels=labels, method=method, config=config, graft=graft, calibration=calibration)
            with lazily_opened(reference, adata, options, shared=client is not None) as file:
                mapped = map_lazy(reference, file, options, learning, config, client=client)
            return replace(mapped, summary=summary(mapped.alignment, mapped.graft, mapped.labels, method))
        query = _aligned(reference, in_memory(adata), options, config.device)
        return _mapped(reference, query, labels, method, config, graft, calibration)


def _aligned(reference: Reference, adata: AnnData, options: AlignOptions, device: str) -> Query:
    """The query in the reference's genes; with what the missing ones cost among its messages, where that decides."""
    with step(f"aligning {adata.n_obs:,} cells"):
        query = align_as(reference, adata, options)
        if options.min_found is not None or not (cost := judge_missing_genes(reference, query, device=device)):
            return query
        return replace(query, alignment=replace(query.alignment, messages=(*query.alignment.messages, cost)))


def _mapped(
    reference: Reference,
    query: Query,
    labels: Literal["auto"] | Sequence[str] | None,
    method: str | None,
    config: FitConfig,
    graft: Graft | None,
    calibration: Literal["auto"] | Mapping[str, Calibration] | None,
) -> MappedQuery:
    """An aligned query, mapped: all of it at once, or what a sample of it taught on all of its cells."""
    chosen = choose_sample(strata(query.codes), name_keys(query.cells, config.seed), most=SAMPLE)
    whole = len(chosen) == len(query.cells)
    made, frozen = learn(
        reference,
        query if whole else take_cells(query, chosen),
        labels=labels,
        method=method,
        config=config,
        graft=graft,
        calibration=calibration,
    )
    if whole:
        return made
    parts = []
    with step("mapping all cells by what a sample taught", len(query.cells), "cell") as advance:
        for rows in pieces(len(query.cells)):
            parts.append(map_cells(reference, frozen, take_cells(query, rows), device=config.device))
            advance(rows.stop - rows.start)
    mapped = joined(reference, made, parts, query.alignment)
    return replace(mapped, summary=summary(query.alignment, mapped.graft, mapped.labels, method))


def learn(
    reference: Reference,
    query: Query,
    *,
    labels: Literal["auto"] | Sequence[str] | None,
    config: FitConfig,
    graft: Graft | None,
    calibration: Literal["auto"] | Mapping[str, Calibration] | None,
    method: str | None = None,
) -> tuple[MappedQuery, Frozen]:
    """The mapping of a query, or of a sample of it, and what maps any other of its cells (:mod:`scgraft.mapping.freeze`).

    `query` holds raw counts (n, G); the rest is as for :func:`map_query`.
    """
    wanted = label_columns(reference, labels)
    bare = calibration is None or labels is None or reference.latent is None or reference.obs is None
    bare = bare or (calibration == "auto" and bool(missing_columns(reference)))  # `reference.notes` says so
    if method is not None and not bare:
        require_held_out(method)
    if graft is None:
        first = next(iter(wanted), None) if labels != "auto" else None
        graft = fit(reference, query, config if config.labels is not None else replace(config, labels=first))
    latent, alone = embed(reference, query, graft, device=config.device), method if bare else None
    near, own = None if reference.latent is None else reference.latent.index.near(latent.mean), own_map(reference)
    transferred = latent_labels(reference, latent, wanted, near, method=alone, query=query, device=config.device)
    numbers = summary(query.alignment, graft, transferred, method)
    mapped = MappedQuery(
        reference.base,
        query.alignment,
        graft,
        latent,
        transferred,
        numbers,
        near=near,
        label_method=method,
        map=None if own is None else own[1],
    )
    frozen = Frozen(graft, query.levels, wanted, method=method)
    if bare:
        return replace(mapped, labels=coherent(reference, transferred)), frozen
    trusted = calibration if isinstance(calibration, Mapping) else None
    mapped, judgement = calibrated(reference, query, mapped, trusted, method=method, device=config.device)
    return mapped, replace(frozen, judgement=judgement)


def label_columns(reference: Reference, wanted: Literal["auto"] | Sequence[str] | None) -> tuple[str, ...]:
    """Label columns to transfer; none for None, for "auto" those that the model was trained with, at all levels.

    Raises
    ------
    NoLabels
        An empty list was given.
    """
    if wanted is None:
        return ()
    if wanted == "auto":
        return reference.schema.label_keys
    columns = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if not columns:
        raise NoLabels("No label column was named. Name one, or use labels=None (--no-labels) to map without labels.")
    return columns


def verdict(reference: Reference, adata: AnnData, mapped: MappedQuery, *, device: str = "auto") -> Verdict:
    """Was the mapping good? One verdict, with a sentence and a next action for each measure.

    Every number stands beside its null distribution: the same number for batches of the reference that were held out and
    mapped through the same pipeline. ``map_query`` has it ready in ``mapped.verdict``; this judges a mapping that was made
    without a calibration.

    Parameters
    ----------
    reference, adata, mapped
        The reference, the query with its raw counts, and its mapping (with labels, if the reference has any).
    device
        Where torch computes: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    QueryError
        The query cannot be used as it is.
    NoLabels
        The reference holds no cells to compare with.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> found = scgraft.verdict(reference, adata, mapped)
    >>> found.light == mapped.verdict.light
    True
    >>> [measure.name for measure in found.measures][:3]
    ['genes', 'distance', 'preservation']
    """
    if mapped.verdict is not None:
        return mapped.verdict
    query = align_as(reference, adata, mapped.alignment.options)
    if mapped.label_method is not None:  # the verdict compares scgraft's own votes
        keys = [key for key, result in mapped.labels.items() if key == result.key]
        mapped = replace(mapped, labels=latent_labels(reference, mapped.latent, keys, mapped.near, device=device))
    judged = calibrated(reference, query, mapped, device=device)[0].verdict
    assert judged is not None
    return judged
