"""Real cells: what a fit costs and what it does to accuracy and mixing, beside the row that does nothing.

Part of ``run.py``. The references and queries are the repositories of ``../shared/hub``; where they are not there, the
part says so and stops.
"""

from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared"
PAIRS = {
    "lung-lines-scvi": "lung-lines-scvi",
    "lung-lines-scanvi": "lung-lines-scvi",
    "pancreas-segerstolpe-scvi": "pancreas-segerstolpe-scvi",
    "pbmc-10x-scanvi": "pbmc-10x-scanvi",
}
CONFIGS = {
    "no training": {"epochs": 0},
    "elbo": {"objective": "elbo", "device": "cpu"},
    "default": {"device": "cpu"},
}


def measure(ours, theirs, work: Path, table) -> dict:
    """Run both sides on every pair and print the table."""
    import anndata

    if not (SHARED / "hub").exists():
        print("\nThe hub repositories are not here: no table of real cells.")
        return {}
    results, rows = {}, []
    for name, query in PAIRS.items():
        reference, cells = SHARED / "hub" / "cells" / name, SHARED / "query" / f"{query}.h5ad"
        out = work / f"hub-{name}"
        truth = anndata.read_h5ad(cells, backed="r").obs["cell_type"].to_numpy().astype(str)
        peer = theirs("latents", reference=reference, cells=cells, epochs=100, seed=0, out=f"{out}-peer.npy")
        mine = ours("hub", reference=reference, cells=cells, configs=CONFIGS, out=out)
        with np.load(f"{out}-reference.npz") as data:
            points, labels = data["mean"], data["label"]
        fits = {"scvi-tools, 100 epochs": (peer, "peer")} | {f"scgraft, {k}": (v, k) for k, v in mine.items()}
        results[name] = {}
        for label, (cost, key) in fits.items():
            accuracy, balanced, mixing = scores(points, labels, np.load(f"{out}-{key}.npy"), truth)
            ratio = f"{peer['cpu'] / cost['cpu']:.0f}x"
            rows.append([name, label, cost["cpu"], ratio, f"{accuracy:.3f}", f"{balanced:.3f}", f"{mixing:.2f}"])
            results[name][label] = {"cpu": cost["cpu"], "accuracy": accuracy, "balanced": balanced, "mixing": mixing}
    header = ["reference", "fit", "CPU s", "ratio", "accuracy", "balanced", "mixing within type"]
    table("Real cells: cost, accuracy of 30 nearest neighbours, mixing", header, rows)
    return results


def subsample(ours, work: Path, table) -> dict:
    """The default fit on fewer cells of each new batch, on the pair with the largest query."""
    import anndata

    if not (SHARED / "hub").exists():
        return {}
    name = "pbmc-10x-scanvi"
    reference, cells = SHARED / "hub" / "cells" / name, SHARED / "query" / f"{PAIRS[name]}.h5ad"
    truth = anndata.read_h5ad(cells, backed="r").obs["cell_type"].to_numpy().astype(str)
    configs = {str(n or "all"): {"fit_cells": n, "device": "cpu"} for n in (30, 100, 300, None)}
    out = work / f"subsample-{name}"
    mine = ours("hub", reference=reference, cells=cells, configs=configs, out=out)
    with np.load(f"{out}-reference.npz") as data:
        points, labels = data["mean"], data["label"]
    rows, results = [], {}
    for key, cost in mine.items():
        accuracy, balanced, mixing = scores(points, labels, np.load(f"{out}-{key}.npy"), truth)
        rows.append([key, cost["cpu"], f"{accuracy:.3f}", f"{balanced:.3f}", f"{mixing:.2f}"])
        results[key] = cost | {"accuracy": accuracy, "balanced": balanced, "mixing": mixing}
    header = ["cells", "CPU s", "accuracy", "balanced", "mixing within type"]
    table(f"Cells of each new batch that the fit uses: real cells, {len(truth)} of two batches", header, rows)
    return results


def scores(
    points: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray
) -> tuple[float, float, float]:
    """Accuracy, balanced accuracy (types of the reference only) and mixing within type (1 is perfect)."""
    from sklearn.metrics import accuracy_score, balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

    known = np.isin(truth, labels)
    found = KNeighborsClassifier(30).fit(points, labels).predict(queries[known])
    mixed, sizes = [], []
    for kind in np.intersect1d(truth, labels):
        a, b = points[labels == kind], queries[truth == kind]
        if min(len(a), len(b)) < 5:
            continue
        both = np.concatenate([a, b])
        index = NearestNeighbors(n_neighbors=min(31, len(both))).fit(both).kneighbors(b, return_distance=False)[:, 1:]
        mixed.append((index < len(a)).mean() / (len(a) / (len(both) - 1)))
        sizes.append(len(b))
    accuracy, balanced = accuracy_score(truth[known], found), balanced_accuracy_score(truth[known], found)
    return float(accuracy), float(balanced), float(np.average(mixed, weights=sizes))
