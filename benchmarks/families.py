"""Families side by side with the packages that they come from, on the real cells of ``../shared/golden_families/cells``.

::

    python benchmarks/families.py scgraft OUT.json                    # in scgraft's environment
    python benchmarks/families.py scvi OUT.json                       # in one with scvi-tools 1.4.2 and mudata: TOTALVI
    python benchmarks/families.py table SCGRAFT.json SCVI.json

scArches is not run: what it gives on these cells was recorded when the references were made, and stands in their ``golden.json``.
Accuracy is the share of the query's cells whose label is right, and its mean over the types. Times are CPU seconds of one process.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

CELLS = Path(__file__).resolve().parents[2] / "shared" / "golden_families" / "cells"
SCPOLI = ("pancreas-segerstolpe-scpoli", "pbmc-10x-scpoli")
CITE = "pbmc-cite-totalvi"
KEY = "cell_type"
EPOCHS = 450  # what scvi-tools' early stopping left of 500 when golden.json was made
SOME = 10  # proteins that a part of the panel has


def accuracy(label, true):
    """Share of the labels that are right, and the mean of that over the types."""
    right = np.asarray(label) == true
    return round(float(right.mean()), 4), round(float(np.mean([right[true == c].mean() for c in np.unique(true)])), 4)


def panels(adata, key):
    """The CITE-seq query with all proteins, a part of them, and none."""
    some, none = adata.copy(), adata.copy()
    some.obsm[key] = adata.obsm[key].iloc[:, :SOME]
    del none.obsm[key]
    return {"all proteins": adata, "some proteins": some, "RNA alone": none}


def imputed(names, estimate, measured):
    """Median over proteins of the correlation of log counts, and of the root mean squared error."""
    from scgraft.query.proteins import match_names

    at = match_names(names, tuple(measured.columns))
    pairs = [(np.log1p(estimate[:, i]), np.log1p(measured.to_numpy()[:, j])) for i, j in at.items()]
    r = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
    error = [np.sqrt(((a - b) ** 2).mean()) for a, b in pairs]
    return {"r": round(float(np.nanmedian(r)), 3), "rmse": round(float(np.median(error)), 3)}


def mapped(reference, adata, batch_key, true):
    """Labels of a query, with the seconds that the mapping and its calibration took, and the size of its graft."""
    import scgraft
    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.condition import condition_of

    began = time.process_time()
    query = scgraft.align(reference, adata, batch_key=batch_key)
    condition = condition_of(reference, query)
    made = calibrate(reference, [KEY], genes=condition.genes, share=condition.share, blocks=condition.blocks)
    calibrated = time.process_time()
    found = scgraft.map_query(reference, adata, batch_key=batch_key, labels=[KEY], calibration=made)
    return found, {
        "labels": accuracy(found.labels[KEY].label, true),
        "calibration_s": round(calibrated - began, 1),
        "mapping_s": round(time.process_time() - calibrated, 1),
        "graft_numbers": int(sum(row.size for row in found.graft.rows.values())),
        "light": found.verdict.light,
        "novel": round(float(found.novelty.novel.mean()), 3),
    }


def run_scgraft():
    import anndata

    import scgraft

    out = {}
    for name in SCPOLI:
        adata = anndata.read_h5ad(CELLS / name / "query.h5ad")
        true = adata.obs[KEY].astype(str).to_numpy()
        reference = scgraft.load_reference(CELLS / name)
        found, out[name] = mapped(reference, adata, "batch", true)
        out[name]["prototypes"] = accuracy(found.labels[f"{KEY}:classifier"].label, true)
        golden = json.loads((CELLS / name / "golden.json").read_text())
        out[name]["recorded"] = golden["surgery_recommended"]
    reference = scgraft.load_reference(CELLS / CITE)
    adata = anndata.read_h5ad(CELLS / CITE / "query_anndata.h5ad")
    true = adata.obs[KEY].astype(str).to_numpy()
    key = next(k for k in adata.obsm if hasattr(adata.obsm[k], "columns"))
    for kind, query in panels(adata, key).items():
        found, numbers = mapped(reference, query, "sample", true)
        aligned = scgraft.align(reference, query, batch_key="sample")
        cells = scgraft.query_cells(reference, aligned, found.graft)
        estimate = scgraft.proteins(reference, cells, found.graft)
        numbers["neighbours"] = imputed(estimate.names, estimate.neighbours, adata.obsm[key])
        numbers["decoder"] = imputed(estimate.names, estimate.denoised, adata.obsm[key])
        out[f"{CITE}, {kind}"] = numbers
    return out


def run_scvi():
    """TOTALVI's own surgery: the latent of the query, labelled by the 15 nearest reference cells."""
    import mudata
    import scvi
    from sklearn.neighbors import KNeighborsClassifier

    out = {}
    mudata.set_options(pull_on_update=False)
    for kind, columns in (("all proteins", None), ("some proteins", SOME), ("RNA alone", 0)):
        scvi.settings.seed = 0
        own, query = mudata.read_h5mu(CELLS / CITE / "mdata.h5mu"), mudata.read_h5mu(CELLS / CITE / "query.h5mu")
        if columns is not None:  # it takes a query only with the whole block, so what is missing has to be zeros
            x = np.asarray(query.mod["prot"].X, dtype=np.float32).copy()
            x[:, columns:] = 0
            query.mod["prot"].X = x
        model = scvi.model.TOTALVI.load(CELLS / CITE, adata=own, accelerator="cpu")
        began = time.process_time()
        surgery = scvi.model.TOTALVI.load_query_data(query, model, accelerator="cpu")
        surgery.train(
            EPOCHS,
            accelerator="cpu",
            devices=1,
            plan_kwargs={"weight_decay": 0.0},
            enable_progress_bar=False,
            logger=False,
        )
        seconds = time.process_time() - began
        near = KNeighborsClassifier(15).fit(model.get_latent_representation(), own.obs[KEY].astype(str))
        label = near.predict(surgery.get_latent_representation())
        out[f"{CITE}, {kind}"] = {
            "labels": accuracy(label, query.obs[KEY].astype(str).to_numpy()),
            "surgery_s": round(seconds, 1),
            "version": scvi.__version__,
        }
    return out


def table(ours, theirs):
    """Lines of a table in Markdown."""
    yield "| cells | scgraft: labels (mean of the types) | calibration, mapping (CPU s) | the original | its CPU s |"
    yield "|---|---|---|---|---|"
    for name, numbers in ours.items():
        other = theirs.get(name, {})
        if "recorded" in numbers:
            said = (
                f"neighbours {numbers['recorded']['knn_after']}, classify {numbers['recorded']['classify']} (recorded)"
            )
        else:
            said = str(other.get("labels", "not run"))
        spent = f"{numbers['calibration_s']}, {numbers['mapping_s']}"
        yield f"| {name} | {numbers['labels']} | {spent} | {said} | {other.get('surgery_s', '')} |"


def main():
    warnings.filterwarnings("ignore")
    kind, *paths = sys.argv[1:]
    if kind == "table":
        print("\n".join(table(*(json.loads(Path(path).read_text()) for path in paths))))
        return
    found = run_scgraft() if kind == "scgraft" else run_scvi()
    Path(paths[0]).write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
