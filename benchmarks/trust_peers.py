"""The labels and the novelty of scgraft beside its peers', on the cells of benchmarks/quality.py.

The peers' results are read from that benchmark's cache: a classifier on genes (scikit-learn's logistic regression),
celltypist, symphonypy, and 30 weighted nearest neighbours after scvi-tools' own surgery of 100 epochs. All of them have
seen the same reference cells; the first three with their counts, which a minified repository does not hold. ``python benchmarks/trust.py --quality-cache DIR --json FILE`` runs and prints it; what the
file holds already is not computed again.
"""

import json
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
from trust_scores import auroc, scores

import scgraft
from scgraft.calibration.calibrate import calibration_of
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import neighbour_vote, relative_distance

SPLITS = {
    "technology": (
        ("pbmc-v1v3", "pbmc: v2, VDJ on v1, v3"),
        ("pbmc-v2v3vdj", "pbmc: v1 on v2, v3, VDJ"),
        ("citeseq", "pbmc: 5k on 10k, CITE-seq"),
        ("lines-3", "lines: plates on CEL-seq2, Drop-seq"),
        ("lines-5", "lines: plate, Drop-seq on plates"),
    ),
    "donors, composition": (("pancreas", "pancreas: 2 donors on 4"), ("pancreas", "pancreas: no alpha")),
    "small queries": (
        ("pbmc-v1v3", "pbmc: 20 cells"),
        ("pbmc-v1v3", "pbmc: 100 cells"),
        ("pancreas", "pancreas: 20 cells"),
        ("pancreas", "pancreas: 100 cells"),
    ),
    "types left out": (
        ("pbmc-v1v3-no-B_cells", "pbmc: B left out"),
        ("pbmc-v1v3-no-Monocytes", "pbmc: monocytes left out"),
        ("pbmc-v1v3-no-TNK_cells", "pbmc: T left out"),
        ("pancreas-no-alpha", "pancreas: alpha left out"),
        ("pancreas-no-beta", "pancreas: beta left out"),
        ("pancreas-no-ductal", "pancreas: ductal left out"),
        ("endocrine-no-Alpha", "endocrine: Alpha left out"),
        ("endocrine-no-Ductal", "endocrine: Ductal left out"),
    ),
}
METHODS = (
    "scgraft",
    "scgraft, latent vote",
    "scgraft, gene vote",
    "scgraft, with counts",
    "gene vote, with counts",
    "logistic",
    "celltypist",
    "symphony",
    "scvi-100",
)
LEAST_LACKING = 5


def folder_of(cache: Path, reference: str, split: str, seed: int) -> Path:
    return cache / reference / str(seed) / "".join(c if c.isalnum() else "-" for c in split)


def complete(folder: Path) -> bool:
    """Whether the cache holds the reference, the query and every peer's result."""
    peers = [folder / f"none/{name}.npz" for name in ("logistic", "celltypist", "symphony")]
    return all(p.exists() for p in (folder.parent / "SCVI/hub/adata.h5ad", folder / "SCVI/scvi-100.npz", *peers))


def peers(folder: Path, reference: scgraft.Reference, labels: np.ndarray) -> dict[str, tuple]:
    """Votes (n, C) over the sorted classes and doubts by name, of each peer."""
    classes, codes = np.unique(labels, return_inverse=True)
    out = {}
    for name in ("logistic", "celltypist"):
        content = np.load(folder / f"none/{name}.npz")
        vote = np.zeros((len(content["probability"]), len(classes)))
        vote[:, np.searchsorted(classes, content["classes"].astype(str))] = content["probability"]
        out[name] = (vote, {"1 - max": 1 - vote.max(axis=1)})
    content = np.load(folder / "none/symphony.npz")
    # Its neighbours vote in its own coordinates; its own label counts.
    points = content["reference"].astype(np.float32)
    cells = anndata.read_h5ad(folder.parent / "cells.h5ad", backed="r").obs["cell_type"].to_numpy().astype(str)
    found = nearest(points, content["latent"].astype(np.float32), k=30)
    vote = neighbour_vote(np.searchsorted(classes, cells), len(classes), found)
    share = vote.max(axis=1)
    said = np.searchsorted(classes, content["label"].astype(str))
    named = np.zeros_like(vote)
    named[np.arange(len(vote)), said] = np.maximum(vote[np.arange(len(vote)), said], 1e-6)
    out["symphony"] = (named, {"1 - max": 1 - share, "distance": relative_distance(points, found)})
    latent = np.load(folder / "SCVI/scvi-100.npz")["latent"]
    found = nearest(reference.latent.mean, latent, k=min(30, len(codes)))
    vote = neighbour_vote(codes, len(classes), found)
    out["scvi-100"] = (
        vote,
        {"1 - max": 1 - vote.max(axis=1), "distance": relative_distance(reference.latent.mean, found)},
    )
    return out


def measure_split(folder: Path) -> dict[str, dict[str, float]]:
    """Every number of every method on one split and seed."""
    reference = scgraft.load_reference(folder.parent / "SCVI/hub")
    query = anndata.read_h5ad(folder / "query.h5ad")
    truth = query.obs["cell_type"].to_numpy().astype(str)
    mapped = scgraft.map_query(reference, query, batch_key="batch", labels=["cell_type"])
    result, novelty = mapped.labels["cell_type"], mapped.novelty
    classes = np.array(result.classes)
    labels = reference.obs["cell_type"].to_numpy().astype(str)
    assert len(result.label) == len(truth) and np.array_equal(classes, np.unique(labels))
    rows = {
        "scgraft": (result.matrix, {"novelty": novelty.strength, "1 - max": 1 - result.matrix.max(axis=1)}),
        "scgraft, latent vote": (result.votes["latent"], {"distance": result.distance}),
        "scgraft, gene vote": (result.votes["genes"], {"genes": novelty.score}),
        **peers(folder, reference, labels),
    }
    if (folder.parent / "cells.h5ad").exists():
        # The same model in a repository that kept its counts, as the peers had them.
        kept = replace(reference, adata_path=folder.parent / "cells.h5ad", minified=None)
        made = calibration_of(kept, ["cell_type"])
        given = {"labels": ["cell_type"], "calibration": made, "graft": mapped.graft}
        whole = scgraft.map_query(kept, query, batch_key="batch", **given)
        other = whole.labels["cell_type"]
        assert made["cell_type"].source == "stored counts"
        rows["scgraft, with counts"] = (other.matrix, {"novelty": whole.novelty.strength})
        rows["gene vote, with counts"] = (other.votes["genes"], {})
    known = np.isin(truth, classes)
    out: dict[str, dict[str, float]] = {}
    for name, (vote, doubts) in rows.items():
        numbers = scores(vote[known], classes, truth[known])
        out[name] = dict(zip(("accuracy", "balanced", "macro F1", "error"), numbers, strict=True))
        if (~known).sum() >= LEAST_LACKING:
            for doubt, value in doubts.items():
                limit = np.quantile(value[known], 0.95)
                out[name][f"AUROC, {doubt}"] = round(auroc(value, ~known), 3)
                out[name][f"found, {doubt}"] = round(float((value[~known] > limit).mean()), 3)
    declared(out["scgraft"], mapped, truth, known)
    if "scgraft, with counts" in out:
        declared(out["scgraft, with counts"], whole, truth, known)
    return out


def declared(row: dict[str, float], mapped: scgraft.MappedQuery, truth: np.ndarray, known: np.ndarray) -> None:
    """What a mapping declares, beside what is found: coverage and size of the sets, false alarms, misfit."""
    result, novel = mapped.labels["cell_type"], mapped.novelty.novel
    code = np.searchsorted(np.array(result.classes), truth[known])
    for alpha in (0.2, 0.1, 0.05):
        sets = result.included(alpha)[known]
        row[f"covered {1 - alpha:.2f}"] = round(float(sets[np.arange(len(code)), code].mean()), 3)
        row[f"set size {1 - alpha:.2f}"] = round(float(sets.sum(axis=1).mean()), 3)
    row["false alarms"] = round(float(novel[known].mean()), 3)
    row["misfit"] = next((m.value for m in mapped.verdict.measures if m.name == "reconstruction"), float("nan"))
    if (~known).sum() >= LEAST_LACKING:
        row["found at own threshold"] = round(float(novel[~known].mean()), 3)
        row["lacking"] = int((~known).sum())


def run(cache: Path, file: Path | None, seeds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure every split and seed that the cache holds, and keep the numbers in a file."""
    done = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}
    for seed in range(seeds):
        for reference, split in (pair for group in SPLITS.values() for pair in group):
            name, folder = f"{split} [{seed}]", folder_of(cache, reference, split, seed)
            if name in done or not complete(folder):
                continue
            done[name] = measure_split(folder)
            print(name, {k: v for k, v in done[name]["scgraft"].items() if "size" not in k}, flush=True)
            if file is not None:
                file.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return done


def tables(done: dict[str, dict[str, dict[str, float]]]) -> str:
    """Means over seeds, then over splits, as Markdown."""
    lines = ["| splits | method | accuracy | balanced | macro F1 | calibration error |", "|---|---|---|---|---|---|"]
    for group, pairs in [*SPLITS.items(), ("all", [p for g in SPLITS.values() for p in g])]:
        for method in METHODS:
            numbers = [mean_of(done, split, method, c) for _, split in pairs for c in COLUMNS]
            mean = np.nanmean(np.reshape(numbers, (-1, len(COLUMNS))), axis=0)
            lines.append(f"| {group} | {method} | " + " | ".join(f"{v:.3f}" for v in mean) + " |")
    lines += ["", "| left out | " + " | ".join(n for n, _, _ in DOUBTS) + " | own threshold | with counts |"]
    lines += ["|---" * (len(DOUBTS) + 3) + "|"]
    table = []
    for _, split in SPLITS["types left out"]:
        row = [mean_of(done, split, m, f"{c}, {d}") for _, m, d in DOUBTS for c in ("AUROC", "found")]
        row += [mean_of(done, split, "scgraft", c) for c in ("found at own threshold", "false alarms")]
        row += [mean_of(done, split, "scgraft, with counts", c) for c in ("found at own threshold", "false alarms")]
        table.append(row)
    for name, row in zip(
        [*(s for _, s in SPLITS["types left out"]), "mean"], [*table, np.nanmean(table, axis=0)], strict=True
    ):
        pairs_of = [f"{row[i]:.3f} / {row[i + 1]:.2f}" for i in range(0, 2 * len(DOUBTS), 2)]
        own = [f"{row[i]:.2f} ({row[i + 1]:.3f})" for i in (-4, -2)]
        lines.append(f"| {name} | " + " | ".join([*pairs_of, *own]) + " |")
    lines += ["", "| split | 80 % | 90 % | 95 % | false alarms | with counts | misfit |", "|---" * 7 + "|"]
    for _, split in (pair for group in SPLITS.values() for pair in group):
        cells = [
            f"{mean_of(done, split, 'scgraft', f'covered {a}'):.3f} "
            f"({mean_of(done, split, 'scgraft', f'set size {a}'):.2f})"
            for a in ("0.80", "0.90", "0.95")
        ]
        rows = (("scgraft", "false alarms"), ("scgraft, with counts", "false alarms"), ("scgraft", "misfit"))
        last = [mean_of(done, split, *row) for row in rows]
        lines.append(f"| {split} | " + " | ".join(cells) + f" | {last[0]:.3f} | {last[1]:.3f} | {last[2]:.2f} |")
    return "\n".join(lines)


COLUMNS = ("accuracy", "balanced", "macro F1", "error")
# Column, method and its doubt: each peer with what it offers, and with the distance in its coordinates.
DOUBTS = (
    ("scgraft", "scgraft", "novelty"),
    ("scgraft, with counts", "scgraft, with counts", "novelty"),
    ("1 - max, scgraft", "scgraft", "1 - max"),
    ("logistic", "logistic", "1 - max"),
    ("celltypist", "celltypist", "1 - max"),
    ("symphony, vote", "symphony", "1 - max"),
    ("symphony, distance", "symphony", "distance"),
    ("scvi-100, vote", "scvi-100", "1 - max"),
    ("scvi-100, distance", "scvi-100", "distance"),
)


def mean_of(done: dict[str, dict[str, dict[str, float]]], split: str, method: str, column: str) -> float:
    """Mean over the seeds that are there."""
    values = [v[method].get(column, np.nan) for name, v in done.items() if name.rsplit(" [", 1)[0] == split]
    return float(np.mean(values)) if values else float("nan")
