"""Families side by side with the packages that they come from, on the real cells of ``../shared/golden_families/cells``.

::

    python benchmarks/families.py scgraft OUT.json                    # in scgraft's environment
    python benchmarks/families.py scvi OUT.json                       # in one with scvi-tools 1.4.2 and mudata: TOTALVI
    python benchmarks/families.py scarches OUT.json                   # in one with scArches 0.6: scPoli
    python benchmarks/families.py table SCGRAFT.json SCVI.json SCARCHES.json

Without a run of scArches its column is what was recorded when the references were made (their ``golden.json``).
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
SOME = 10  # proteins that a part of the panel has


def accuracy(label, true):
    """Share of the labels that are right, and the mean of that over the types."""
    right = np.asarray(label) == true
    return round(float(right.mean()), 4), round(float(np.mean([right[true == c].mean() for c in np.unique(true)])), 4)


def panels(adata, key, own):
    """The CITE-seq query with all proteins, the first ten of the reference's (named `own`), and none."""
    from scgraft.query.proteins import match_names

    some, none = adata.copy(), adata.copy()
    some.obsm[key] = adata.obsm[key].iloc[:, list(match_names(own[:SOME], tuple(adata.obsm[key].columns)).values())]
    del none.obsm[key]
    return {"all proteins": adata, f"{some.obsm[key].shape[1]} proteins": some, "RNA alone": none}


def imputed(names, estimate, measured):
    """Median over proteins of the correlation of log counts, and of the root mean squared error."""
    from scgraft.query.proteins import match_names

    at = match_names(names, tuple(measured.columns))
    pairs = [(np.log1p(estimate[:, i]), np.log1p(measured.to_numpy()[:, j])) for i, j in at.items()]
    r = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
    error = [np.sqrt(((a - b) ** 2).mean()) for a, b in pairs]
    return {"r": round(float(np.nanmedian(r)), 3), "rmse": round(float(np.median(error)), 3)}


def mapped(reference, adata, batch_key, true):
    """Labels of a query, the size of its graft, and CPU seconds: of a calibration, of a mapping with it, and of one without.

    What surgery and a vote of the neighbours give is the last; the mapping with a known calibration also has the genes' vote, novelty
    and a verdict.
    """
    import scgraft
    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.condition import condition_of

    clock = [time.process_time()]
    bare = scgraft.map_query(reference, adata, batch_key=batch_key, labels=[KEY], calibration=None)
    clock.append(time.process_time())
    query = scgraft.align(reference, adata, batch_key=batch_key)
    condition = condition_of(reference, query)
    made = calibrate(reference, [KEY], genes=condition.genes, share=condition.share, blocks=condition.blocks)
    clock.append(time.process_time())
    found = scgraft.map_query(reference, adata, batch_key=batch_key, labels=[KEY], calibration=made)
    clock.append(time.process_time())
    bare_s, calibration_s, mapping_s = np.diff(clock).round(2).tolist()
    return found, {
        "labels": accuracy(found.labels[KEY].label, true),
        "neighbours_alone": accuracy(bare.labels[KEY].label, true),
        "bare_s": bare_s,
        "calibration_s": calibration_s,
        "mapping_s": mapping_s,
        "graft_numbers": int(sum(row.size for row in found.graft.rows.values())),
        "graft_bytes": int(sum(row.nbytes for row in found.graft.rows.values())),
        "model_bytes": sum((reference_folder(reference) / name).stat().st_size for name in model_files(reference)),
        "light": found.verdict.light,
        "novel": round(float(found.novelty.novel.mean()), 3),
    }


def reference_folder(reference):
    return Path(reference.base.repo)


def model_files(reference):
    """What the original saves of a model, without its cells."""
    names = ("model.pt", "model_params.pt", "attr.pkl")
    return [name for name in names if (reference_folder(reference) / name).exists()]


def run_scgraft():
    import anndata

    import scgraft

    folder, some = scgraft.testing.example()  # a first mapping, so that nothing is imported while the clock runs
    scgraft.map_query(scgraft.load_reference(folder), some, batch_key="batch")
    out = {}
    for name in SCPOLI:
        adata = anndata.read_h5ad(CELLS / name / "query.h5ad")
        true = adata.obs[KEY].astype(str).to_numpy()
        reference = scgraft.load_reference(CELLS / name)
        found, out[name] = mapped(reference, adata, "batch", true)
        out[name]["prototypes"] = accuracy(found.labels[f"{KEY}_classifier"].label, true)
        golden = json.loads((CELLS / name / "golden.json").read_text())
        out[name]["recorded"] = golden["surgery_recommended"]
    reference = scgraft.load_reference(CELLS / CITE)
    adata = anndata.read_h5ad(CELLS / CITE / "query_anndata.h5ad")
    true = adata.obs[KEY].astype(str).to_numpy()
    key = next(k for k in adata.obsm if hasattr(adata.obsm[k], "columns"))
    for kind, query in panels(adata, key, reference.schema.block("proteins").features).items():
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
    for kind, columns in (("all proteins", None), (f"{SOME} proteins", SOME), ("RNA alone", 0)):
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
            accelerator="cpu",
            devices=1,
            plan_kwargs={"weight_decay": 0.0},
            enable_progress_bar=False,
        )
        seconds = time.process_time() - began
        near = KNeighborsClassifier(15).fit(model.get_latent_representation(), own.obs[KEY].astype(str))
        label = near.predict(surgery.get_latent_representation())
        out[f"{CITE}, {kind}"] = {
            "labels": accuracy(label, query.obs[KEY].astype(str).to_numpy()),
            "surgery_s": round(seconds, 1),
            "epochs": len(surgery.history["elbo_train"]),
            "version": scvi.__version__,
        }
    return out


def run_scarches():
    """scPoli's own surgery at its recommended settings: labels by the 15 nearest reference cells, and by its classifier."""
    import anndata
    import scarches
    import torch
    from scarches.models.scpoli import scPoli
    from sklearn.neighbors import KNeighborsClassifier

    out = {}
    for name in SCPOLI:
        torch.manual_seed(0)
        own, query = (anndata.read_h5ad(CELLS / name / f"{part}.h5ad") for part in ("adata", "query"))
        query = query[:, own.var_names].copy()
        for adata in (own, query):
            adata.X = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float32)
        model = scPoli.load(str(CELLS / name), adata=own)
        true, condition = query.obs[KEY].astype(str).to_numpy(), model.condition_keys_[0]
        query.obs[condition] = query.obs[condition].astype(str)
        began = time.process_time()
        surgery = scPoli.load_query_data(adata=query, reference_model=model, labeled_indices=[])
        surgery.train(n_epochs=50, pretraining_epochs=40, eta=10, unlabeled_prototype_training=False)
        seconds = time.process_time() - began
        latents = [surgery.get_latent(cells, mean=True) for cells in (own, query)]
        near = KNeighborsClassifier(15).fit(latents[0], own.obs[KEY].astype(str))
        out[name] = {
            "labels": accuracy(near.predict(latents[1]), true),
            "classify": accuracy(surgery.classify(query)[KEY]["preds"], true),
            "surgery_s": round(seconds, 1),
            "epochs": 50,
            "version": scarches.__version__,
        }
    return out


def table(ours, *others):
    """Lines of a table in Markdown."""
    theirs = {name: numbers for other in others for name, numbers in other.items()}
    yield (
        "| cells | scgraft: labels (mean of the types) | CPU s: mapping alone; with labels, novelty, verdict; calibration (once) | "
        "the original's surgery: neighbours (mean of the types) | its CPU s | times faster: alone; with everything | graft, model |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name, numbers in ours.items():
        other = theirs.get(name, {})
        spent = f"{numbers['bare_s']}; {numbers['mapping_s']}; {numbers['calibration_s']}"
        said = "not run"
        faster = ""
        if other:
            said = percent(other["labels"])
            said += f"; its classifier {percent(other['classify'])}" if "classify" in other else ""
            faster = "; ".join(f"{other['surgery_s'] / numbers[kind]:.0f}" for kind in ("bare_s", "mapping_s"))
        elif "recorded" in numbers:
            said = f"{percent(numbers['recorded']['knn_after'])}; its classifier {percent(numbers['recorded']['classify'])} (recorded)"
        sizes = f"{numbers['graft_bytes'] / 1e3:.1f} KB, {numbers['model_bytes'] / 1e3:.0f} KB"
        yield f"| {name} | {percent(numbers['labels'])} | {spent} | {said} | {other.get('surgery_s', '')} | {faster} | {sizes} |"


def percent(pair):
    """A share and the mean over the types, in percent."""
    return f"{pair[0]:.1%} ({pair[1]:.1%})"


def main(runs, table):
    """``KIND OUT.json``, or ``table JSON...``."""
    warnings.filterwarnings("ignore")
    kind, *paths = sys.argv[1:]
    if kind == "table":
        print("\n".join(table(*(json.loads(Path(path).read_text()) for path in paths))))
        return
    found = runs[kind]()
    Path(paths[0]).write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main({"scgraft": run_scgraft, "scvi": run_scvi, "scarches": run_scarches}, table)
