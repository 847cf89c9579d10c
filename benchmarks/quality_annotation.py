"""Where labels are finer than the truth: the PBMC batches of 10x v2, v3 and VDJ are annotated without DC and platelets.

Only the v1 batch of `pbmc_10x_4batch` has them, and it is part of every PBMC reference. So a DC that is labelled as such counts
as an error in the scores of ``quality.py``, and one that is labelled as a monocyte does not. This script prints, for the cells
called DC or platelet among annotated monocytes, the share that expresses the type's marker, beside that of the
reference's annotated cells; and how much higher scgraft scores than scvi-tools' practice (100 epochs, scArches' weighted
neighbours): as annotated, with DC counted as monocytes, and on the cells that scgraft does not mark unknown.

``python benchmarks/quality_annotation.py --data D --cache C``, after ``quality.py`` with the same cache.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import anndata
import numpy as np
from quality import query_folder, reference_folder
from quality_scores import balanced, weighted_vote
from quality_splits import PBMC, PBMC_QUERY, SPLITS
from sklearn.metrics import accuracy_score

import scgraft

MARKERS = {"DC": ("FCER1A", "CD1E", "HLA-DPB1"), "Platelet": ("PF4",)}
PARENT = {"DC": "Monocytes"}
SEEDS = 3


def scores(label: np.ndarray, truth: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Accuracy and balanced accuracy in percent as they are, with DC as monocytes, and on sure cells."""
    merged = np.array([PARENT.get(name, name) for name in label])
    pairs = (truth, label), (truth, merged), (truth[sure], label[sure])
    return 100 * np.array([f(*pair) for pair in pairs for f in (accuracy_score, balanced)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    raw = anndata.read_h5ad(options.data / "pbmc_10x_4batch.h5ad")
    genes = [gene for found in MARKERS.values() for gene in found]
    expressed = raw[:, genes].to_df() > 0
    called: dict[str, set[str]] = defaultdict(set)
    table = []
    for split in SPLITS:
        if split.reference.file != "pbmc_10x_4batch" or not set(split.batches) <= set(PBMC_QUERY) or split.simulated:
            continue
        gains = []
        for seed in range(SEEDS):
            folder = query_folder(options.cache, split, seed)
            reference = scgraft.load_reference(reference_folder(options.cache, split, seed) / "SCVI" / "hub")
            query = anndata.read_h5ad(folder / "query.h5ad")
            config = scgraft.FitConfig(labels="cell_type", seed=seed)
            mapped = scgraft.map_query(reference, query, batch_key="batch", labels=["cell_type"], config=config)
            truth, found = query.obs["cell_type"].to_numpy().astype(str), mapped.labels["cell_type"]
            labels = reference.obs["cell_type"].to_numpy().astype(str)
            classes, vote = weighted_vote(
                reference.latent.mean, np.load(folder / "SCVI/scvi-100.npz")["latent"], labels, 50
            )
            known = np.isin(truth, classes)
            ours, theirs = (
                scores(said[known], truth[known], ~found.unknown[known])
                for said in (found.label, classes[vote.argmax(axis=1)])
            )
            gains.append(ours - theirs)
            for name in MARKERS:
                own = known & (truth == "Monocytes") & (found.label == name)
                called[name] |= {cell.removeprefix("query ") for cell in query.obs_names[own]}
        table.append((split.name, np.mean(gains, axis=0), np.std(gains, axis=0, ddof=1) / SEEDS**0.5))
    known = raw.obs["batch"].isin(PBMC.batches)
    for name, found in MARKERS.items():
        groups = {
            f"annotated monocytes called {name} ({len(called[name])} cells)": sorted(called[name]),
            f"annotated {name} of the reference": raw.obs_names[known & (raw.obs["cell_type"] == name)],
            "annotated monocytes of the query": raw.obs_names[
                raw.obs["batch"].isin(PBMC_QUERY) & (raw.obs["cell_type"] == "Monocytes")
            ],
        }
        for title, cells in groups.items():
            print(f"- {title}:", ", ".join(f"{g} {expressed.loc[cells, g].mean():.2f}" for g in found))
    print(
        "\n| split | accuracy | balanced | accuracy, DC as monocytes | balanced, DC as monocytes | accuracy, not unknown | "
        "balanced, not unknown |\n|---|---|---|---|---|---|---|"
    )
    for name, mean, error in table:
        print(f"| {name} | " + " | ".join(f"{m:+.1f} ± {e:.1f}" for m, e in zip(mean, error, strict=True)) + " |")


if __name__ == "__main__":
    main()
