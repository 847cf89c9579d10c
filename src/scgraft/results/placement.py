"""Query cells on the reference's published map: the reference never moves, and what it cannot explain goes to a tray.

A cell is placed among its nearest reference cells in the latent, the ones that its label comes from, so place and label
cannot contradict each other. No UMAP model is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scgraft.errors import ScgraftError
from scgraft.files.atomic import new_file
from scgraft.numerics.index import Near
from scgraft.numerics.neighbors import Neighbours, nearest
from scgraft.numerics.places import COMPUTED, MAP, K, among, in_tray
from scgraft.progress import step
from scgraft.values.reference import Reference, own_map

SHOWN = 50_000  # reference cells of a map: more add megabytes to the page and nothing to see; chosen by eye


@dataclass(frozen=True)
class Placement:
    """Positions on the map.

    Parameters
    ----------
    reference
        Reference cells as published (a sample of at most 50,000), (n, 2) float32.
    reference_cells
        Their positions in the reference, (n,).
    query
        Query cells, (m, 2) float32; novel ones lie in the tray, right of the map.
    tray
        Which query cells are in the tray, (m,).
    source
        Where the map comes from, in words.
    """

    reference: np.ndarray
    reference_cells: np.ndarray
    query: np.ndarray
    tray: np.ndarray
    source: str


def published_map(reference: Reference, *, keep: Path | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """The reference's two-dimensional map: (n, 2), the cells that it shows, and where it comes from.

    A UMAP that the repository holds is taken before other maps. Without any, one is computed from the latent of at most
    10,000 cells (scanpy, seeded) and kept in the folder `keep`, so that it is the same next time.
    """
    assert reference.latent is not None
    n = len(reference.latent.mean)
    own = own_map(reference)
    if own is not None:
        return own[1], np.arange(n), f"the reference's own map (obsm[{own[0]!r}])"
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:COMPUTED])
    said = " ".join(reference.remarks) or "as it publishes no map"
    source = f"a UMAP of the reference's latent, {said}"
    path = None if keep is None else keep / MAP
    kept = None if path is None else _kept(path)
    if kept is not None and kept.shape == (len(chosen), 2):
        return kept, chosen, source
    with step(f"computing a map of {len(chosen):,} reference cells (UMAP)"):
        points = _umap(reference.latent.mean[chosen])
    if path is not None:
        _keep(path, points)
    return points, chosen, source


def _kept(path: Path) -> np.ndarray | None:
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # none yet, or damaged: it is computed anew
    return points if points.dtype == np.float32 and np.isfinite(points).all() else None


def _keep(path: Path, points: np.ndarray) -> None:
    try:
        with new_file(path, force=True) as new:
            np.save(new, points)
    except ScgraftError:
        return  # a home that cannot be written to: it is computed again next time


def _umap(points: np.ndarray) -> np.ndarray:
    """UMAP of points (n, d); the first two dimensions where there are too few points for one."""
    if len(points) < 20:
        flat = np.zeros((len(points), 2), np.float32)
        flat[:, : min(2, points.shape[1])] = points[:, :2]
        return flat
    import warnings

    import anndata
    import scanpy

    adata = anndata.AnnData(points.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.pp.neighbors(adata, n_neighbors=15, use_rep="X")
        scanpy.tl.umap(adata, random_state=0)
    return np.asarray(adata.obsm["X_umap"], np.float32)


def place(
    reference: Reference,
    latent: np.ndarray,
    *,
    novel: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    near: Near | None = None,
    keep: Path | None = None,
) -> Placement:
    """Place query cells on the reference's map.

    Parameters
    ----------
    reference
        With a latent.
    latent
        Posterior means of the query, (m, d).
    novel
        Cells that the reference does not explain, (m,): they go to the tray, in rows by their `cluster` (m,).
    near
        Nearest reference cells of the query's cells, where they have been looked up already.
    keep
        Folder to keep a map in that had to be computed.

    Returns
    -------
    Placement
        Each cell lies at the weighted mean of the third of its 15 nearest reference cells that lie closest together on the
        map: between two islands nothing is placed.
    """
    assert reference.latent is not None
    points, cells, source = published_map(reference, keep=keep)
    if near is None or len(cells) < len(reference.latent.mean):
        found = nearest(reference.latent.mean[cells], latent, k=K)
    else:
        found = Neighbours(near.found.indices[:, :K], near.found.distances[:, :K])
    query = np.empty((len(latent), 2), np.float32)
    for start in range(0, len(latent), 4096):
        rows = slice(start, start + 4096)
        query[rows] = among(points[found.indices[rows]], found.distances[rows])
    tray = np.zeros(len(latent), bool) if novel is None else np.asarray(novel, bool)
    if tray.any():
        group = np.zeros(len(latent), int) if cluster is None else cluster
        query[tray] = in_tray(points, group[tray])
    shown = np.arange(len(points))
    if len(points) > SHOWN:
        shown = np.sort(np.random.default_rng(0).choice(len(points), SHOWN, replace=False))
    return Placement(points[shown], cells[shown], query, tray, source)
