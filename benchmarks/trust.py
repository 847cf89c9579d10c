"""What labels, prediction sets and novelty are worth, on real splits with known labels.

``python benchmarks/trust.py SHARED [EXTRA] [--json FILE]``: SHARED holds ``hub/cells`` and ``query``; EXTRA is the output of
make_trust_references.py (references that never saw some types). Without EXTRA, types are also left out by dropping their
latents and labels from a reference; its *model* has then seen them, which is the easier task, and is marked so.

Columns: accuracy, balanced accuracy, macro F1 and calibration error of the latent's vote, the genes' vote, and the blend;
coverage and mean size of the sets at 80, 90 and 95 %; for types that the reference lacks AUROC and the share found at the
threshold, and, always, the share of false alarms at the declared 5 %.

``python benchmarks/trust.py --quality-cache DIR --json FILE`` compares with other methods instead; see trust_peers.py.
"""

import argparse
import json
import time
from pathlib import Path

import anndata
import numpy as np
import trust_peers
from trust_scores import auroc, scores

import scgraft
from scgraft.calibration.hold_out import subset
from scgraft.labels.votes import blend
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import K, neighbour_vote
from scgraft.reference.cells import reference_classes

PAIRS = {
    "lung-lines-scvi": "lung-lines-scvi",
    "lung-lines-scanvi": "lung-lines-scvi",
    "pbmc-10x-scanvi": "pbmc-10x-scanvi",
    "pbmc-10x-scvi-default": "pbmc-10x-scanvi",
    "pancreas-segerstolpe-scvi": "pancreas-segerstolpe-scvi",
}
LEFT_OUT = (("pbmc-10x-scanvi", "B cells"), ("pancreas-segerstolpe-scvi", "gamma"), ("lung-lines-scvi", "H2228"))
DRAWS = 5


def drawn_vote(reference, codes, n_classes, latent):
    """The latent's vote, averaged over draws from the query's posterior: whether its variance helps."""
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(DRAWS):
        points = latent.mean + np.sqrt(latent.variance) * rng.standard_normal(latent.mean.shape)
        found = nearest(reference.latent.mean, points.astype(np.float32), k=min(K, len(codes)))
        total = total + neighbour_vote(codes, n_classes, found) / DRAWS
    return total


def measure(reference, query):
    """All numbers of one split."""
    key, truth = reference.schema.labels_key, query.obs["cell_type"].astype(str).to_numpy()
    began = time.perf_counter()
    made = scgraft.calibrate(reference)
    seconds = time.perf_counter() - began
    mapped = scgraft.map_query(reference, query, batch_key="batch", calibration=made, drop_empty=True)
    truth = truth[query.obs_names.astype(str).get_indexer(mapped.latent.cells)]
    result, classes = mapped.labels[key], np.array(mapped.labels[key].classes)
    known = np.isin(truth, classes)
    code = np.searchsorted(classes, truth[known])
    _, codes = reference_classes(reference, key)
    votes = {
        "latent": result.votes["latent"],
        "latent, posterior drawn": drawn_vote(reference, codes, len(classes), mapped.latent),
        "genes": result.votes["genes"],
        "blend": blend(result.votes["latent"], result.votes["genes"]),
        "calibrated": result.matrix,
    }
    out = {"seconds": round(seconds, 1), "cells": int(known.sum())}
    out |= {name: scores(matrix[known], classes, truth[known]) for name, matrix in votes.items()}
    for alpha in (0.2, 0.1, 0.05):
        sets = result.included(alpha)[known]
        out[f"sets {1 - alpha:.2f}"] = [
            round(float(v), 3) for v in (sets[np.arange(len(code)), code].mean(), sets.sum(axis=1).mean())
        ]
    novelty = mapped.novelty
    out["false alarms"] = round(float(novelty.novel[known].mean()), 3)
    out["verdict"] = mapped.verdict.light
    if not known.all():
        rivals = {
            "novelty": novelty.strength,
            "unexplained genes": novelty.score,
            "distance": result.distance,
            "1 - max latent": 1 - votes["latent"].max(axis=1),
            "1 - max genes": 1 - votes["genes"].max(axis=1),
        }
        out["lacking"] = dict(zip(*(a.tolist() for a in np.unique(truth[~known], return_counts=True)), strict=True))
        out["AUROC"] = {name: round(auroc(value, ~known), 3) for name, value in rivals.items()}
        out["found"] = round(float(novelty.novel[~known].mean()), 3)
        limit = {name: np.quantile(value[known], 0.95) for name, value in rivals.items()}
        out["found at 5 % true false alarms"] = {
            name: round(float((value[~known] > limit[name]).mean()), 3) for name, value in rivals.items()
        }
    return out


def splits(shared: Path, extra: Path | None):
    for name, query in PAIRS.items():
        yield name, shared / "hub/cells" / name, shared / "query" / f"{query}.h5ad", None
    for name, left_out in LEFT_OUT:
        yield (
            f"{name} without {left_out} (model has seen it)",
            shared / "hub/cells" / name,
            (shared / "query" / f"{PAIRS[name]}.h5ad"),
            left_out,
        )
    for folder in sorted(extra.iterdir()) if extra else []:
        if folder.is_dir():
            yield folder.name, folder, folder.with_suffix(".h5ad"), None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shared", type=Path, nargs="?")
    parser.add_argument("extra", type=Path, nargs="?")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--quality-cache", type=Path, help="cache of benchmarks/quality.py: compare with the peers in it"
    )
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.quality_cache:
        print(trust_peers.tables(trust_peers.run(options.quality_cache, options.json, options.seeds)))
        return
    if options.shared is None:
        parser.error("SHARED is needed, or --quality-cache")
    table = {}
    for name, folder, query, left_out in splits(options.shared, options.extra):
        reference = scgraft.load_reference(folder)
        if left_out is not None:
            kept = reference.obs[reference.schema.labels_key].astype(str).to_numpy() != left_out
            reference = subset(reference, kept)
        table[name] = measure(reference, anndata.read_h5ad(query))
        print(name, *(f"  {key}: {value}" for key, value in table[name].items()), sep="\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
