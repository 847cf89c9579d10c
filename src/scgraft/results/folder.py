"""A mapping on disk: mapped.h5ad, labels.csv, graft/, calibration/, summary.json, report.html; all of it or nothing."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scgraft.calibration.store import save_calibration
from scgraft.errors import CannotWrite, OutputExists
from scgraft.files.atomic import new_folder
from scgraft.graft.store import save_graft
from scgraft.progress import step
from scgraft.results.annotate import annotate, write_places
from scgraft.results.page import report
from scgraft.results.points import map_points
from scgraft.results.summary import cells_csv, summary_of
from scgraft.results.writable import write_annotated
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

LOG = logging.getLogger(__name__)


def check_free(out: Path, *, force: bool) -> None:
    """Refuse an output folder that exists, before any work is done."""
    if out.exists() and not force:
        raise OutputExists(
            f"{out} exists already. Choose another folder (--out), or use force=True (--force) to replace it."
        )
    if out.is_file():
        raise OutputExists(f"{out} is a file, and a folder is needed. Choose another name (--out).")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK) or not above.is_dir():
        raise CannotWrite(f"{above} cannot be written to. Choose another folder (--out).")


def write(
    mapped: MappedQuery,
    adata: AnnData,
    out: str | Path,
    *,
    reference: Reference | None = None,
    page: bool = True,
    counts: bool = True,
    force: bool = False,
) -> Path:
    """Write the results of a mapping into a folder, as ``scgraft map`` does: all of it or nothing.

    The folder holds ``mapped.h5ad``, ``labels.csv``, ``graft/``, ``calibration/``, ``summary.json``, ``map.npz`` and
    ``report.html``.

    Labels, graft, calibration, summary and page come first. ``mapped.h5ad`` then holds everything of the query that can be
    written; what cannot is left out, logged as a warning, and listed in ``summary.json`` (``left_out``).

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
    counts
        Write X, the layers and raw into ``mapped.h5ad``; without, it holds what is known of the cells and genes only.
    force
        Replace a folder that exists.

    Raises
    ------
    OutputExists
        The folder exists and `force` is off.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> out = scgraft.write(mapped, adata, folder.parent / "mapped", reference=reference)
    >>> sorted(path.name for path in out.iterdir())
    ['calibration', 'graft', 'labels.csv', 'map.npz', 'mapped.h5ad', 'report.html', 'summary.json']
    """
    out = Path(out)
    check_free(out, force=force)
    with step("writing the results"), new_folder(out, force=force) as new:
        annotate(adata, mapped)
        if page and reference is not None and reference.latent is not None:
            points = map_points(mapped, adata, reference)
            write_places(adata, mapped, points["query"])
            np.savez_compressed(new / "map.npz", **points)
        (new / "labels.csv").write_text(cells_csv(mapped), encoding="utf-8")
        save_graft(mapped.graft, new / "graft")
        if mapped.calibration:
            save_calibration(mapped.calibration, new / "calibration")
        summary = summary_of(mapped)
        _write_json(summary, new / "summary.json")
        if page:
            report(new)
        left_out = write_annotated(adata, new / "mapped.h5ad", counts=counts)
        if left_out:
            LOG.warning("mapped.h5ad: %s.", "; ".join(left_out))
            _write_json(summary | {"left_out": list(left_out)}, new / "summary.json")
    return out


def _write_json(document: dict[str, object], path: Path) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
