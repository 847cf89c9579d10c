"""A mapping on disk: mapped.h5ad, labels.csv, graft/, calibration/, summary.json, report.html; all of it or nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft._version import __version__
from scgraft.calibration.store import cache_folder, save_calibration
from scgraft.errors import CannotWrite, OutputExists
from scgraft.files.atomic import new_folder
from scgraft.files.text import table_text
from scgraft.graft.store import save_graft
from scgraft.judgement.verdict import quality_as_dict
from scgraft.results.annotate import annotate
from scgraft.results.page import report
from scgraft.results.placement import place
from scgraft.values.mapping import MappedQuery
from scgraft.values.names import level_name
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def check_free(out: Path, *, force: bool) -> None:
    """Refuse an output folder that exists, before any work is done."""
    if out.exists() and not force:
        raise OutputExists(f"{out} exists already. Choose another --out, or use --force to replace it.")
    if out.is_file():
        raise OutputExists(f"{out} is a file; --out names a folder. Choose another name.")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK) or not above.is_dir():
        raise CannotWrite(f"{above} cannot be written to. Choose another --out.")


def labels_table(mapped: MappedQuery) -> pd.DataFrame:
    """One row for each cell, keyed by barcode: label, probability, runner-up, distance and unknown of each column."""
    import pandas as pd

    table = pd.DataFrame(index=pd.Index(mapped.latent.cells, name="barcode"))
    for key, result in mapped.labels.items():
        table[key] = result.label
        table[f"{key}_probability"] = result.probability
        table[f"{key}_runner_up"] = result.runner_up
        table[f"{key}_distance"] = result.distance
        table[f"{key}_unknown"] = result.unknown
        if result.pvalues is not None:
            table[f"{key}_set"] = result.resolve(0.1)
    if mapped.novelty is not None:
        table["novelty"] = mapped.novelty.strength
        table["novel"] = mapped.novelty.novel
        table["cluster"] = mapped.novelty.cluster
    if mapped.verdict is not None and mapped.verdict.distance is not None:
        table["map_distance"] = mapped.verdict.distance
    return table


def write_mapping(
    mapped: MappedQuery,
    adata: AnnData,
    out: Path,
    *,
    reference: Reference | None = None,
    page: bool = True,
    force: bool = False,
) -> Path:
    """Write the results of a mapping into a folder, atomically.

    Parameters
    ----------
    mapped
        From :func:`scgraft.map_query`.
    adata
        The query, in memory; it is annotated in place.
    out
        Folder to write; it appears when it is complete.
    reference
        With it, the query is placed on the reference's map, and the report shows it.
    page
        Write the report, and the map that it shows.
    force
        Replace a folder that exists.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.
    """
    check_free(out, force=force)
    with new_folder(out, force=force) as new:
        annotate(adata, mapped)
        if page and reference is not None and reference.latent is not None:
            write_map(mapped, adata, reference, new / "map.npz")
        adata.write_h5ad(new / "mapped.h5ad")
        _as_text(labels_table(mapped)).to_csv(new / "labels.csv", float_format="%.6g")
        save_graft(mapped.graft, new / "graft")
        if mapped.calibration:
            save_calibration(mapped.calibration, new / "calibration")
        (new / "summary.json").write_text(json.dumps(summary_of(mapped), indent=2) + "\n", encoding="utf-8")
        if page:
            report(new)
    return out


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The table with names that a spreadsheet shows and does not run."""
    table = table.rename(index=lambda name: table_text(str(name)), columns=lambda name: table_text(str(name)))
    for name in table.columns:
        if table[name].dtype.kind not in "biuf":
            table[name] = [table_text(str(value)) for value in table[name]]
    return table


def write_map(mapped: MappedQuery, adata: AnnData, reference: Reference, path: Path) -> None:
    """Place the query on the reference's map: into ``obsm["X_scgraft_map"]``, and into a file for the report."""
    import pandas as pd

    novel, cluster = (None, None) if mapped.novelty is None else (mapped.novelty.novel, mapped.novelty.cluster)
    placed = place(
        reference,
        mapped.latent.mean,
        novel=novel,
        cluster=cluster,
        near=mapped.near,
        keep=cache_folder(reference, ()),
    )
    position = pd.Index(adata.obs_names.astype(str)).get_indexer(pd.Index(mapped.latent.cells))
    coordinates = np.full((adata.n_obs, 2), np.nan, np.float32)
    coordinates[position] = placed.query
    adata.obsm["X_scgraft_map"] = coordinates
    key = mapped.alignment.batch_key
    batch = (
        np.full(len(position), "query") if key is None else adata.obs[key].iloc[position].map(level_name).to_numpy(str)
    )
    np.savez_compressed(
        path,
        reference=placed.reference,
        query=placed.query,
        tray=placed.tray,
        batch=batch.astype(str),
        source=np.array(placed.source),
    )


def cluster_rows(mapped: MappedQuery) -> list[dict[str, object]]:
    """How each of the query's own clusters was mapped, the largest first; none without a calibration."""
    found, verdict = mapped.novelty, mapped.verdict
    if found is None or verdict is None or verdict.distance is None or verdict.preservation is None:
        return []
    result, rows = next(iter(mapped.labels.values()), None), []
    for cluster in np.unique(found.cluster).tolist():
        own = found.cluster == cluster
        kept = float(verdict.preservation[cluster])
        row: dict[str, object] = {
            "cluster": cluster,
            "cells": int(own.sum()),
            "novel": round(float(found.novel[own].mean()), 4),
            "distance": round(float(np.median(verdict.distance[own])), 3),
            "preservation": round(kept, 3) if np.isfinite(kept) else None,
        }
        if result is not None:
            names, number = np.unique(result.label[own], return_counts=True)
            best = int(number.argmax())
            row |= {"label": str(names[best]), "share": round(float(number[best] / own.sum()), 4)}
            row["probability"] = round(float(result.probability[own].mean()), 4)
        rows.append(row)
    return rows


def summary_of(mapped: MappedQuery) -> dict[str, object]:
    """What is written to summary.json."""
    return {
        "scgraft": __version__,
        "base": asdict(mapped.base),
        "quality": dict(mapped.summary),
        "alignment": asdict(mapped.alignment) | {"batch_key": mapped.alignment.batch_key},
        "record": asdict(mapped.graft.record),
        "batches": list(mapped.graft.batches),
        "verdict": None if mapped.verdict is None else quality_as_dict(mapped.verdict),
        "novelty_threshold": None if mapped.novelty is None else 1.0,
        "unknown_groups": [] if mapped.novelty is None else [asdict(d) for d in mapped.novelty.dossiers],
        "clusters": cluster_rows(mapped),
        "calibration": {
            key: {
                "guarantee": value.guarantee,
                "expected_error": round(value.expected_error, 4),
                "temperature": round(value.temperature, 3),
                "class_weights": {
                    name: round(float(weight), 3)
                    for name, weight in zip(value.classes, value.class_weights, strict=True)
                },
            }
            for key, value in mapped.calibration.items()
        },
    }
