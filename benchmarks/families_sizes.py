"""What a mapping costs against the original's surgery as the query grows: 500, 5,000 and 20,000 cells.

::

    python benchmarks/families_sizes.py scgraft OUT.json          # in scgraft's environment
    python benchmarks/families_sizes.py scvi OUT.json             # in one with scvi-tools 1.4.2 and mudata: TOTALVI
    python benchmarks/families_sizes.py scarches OUT.json         # in one with scArches 0.6: scPoli
    python benchmarks/families_sizes.py table SCGRAFT.json SCVI.json SCARCHES.json

Real queries of these references have a few hundred cells. Larger ones are made from them: cells drawn with replacement, each count thinned to 90 %
with a seed of its own, so that no two are alike. They have the cost of so many real cells, and no more kinds of them. The original's time is that of
a few epochs, taken from the difference of two runs and multiplied by its default number of epochs; its preparations are added.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families import CELLS, CITE, KEY, SCPOLI, accuracy, main

SIZES = (500, 5000, 20000)
SCPOLI_NAME = SCPOLI[1]
EPOCHS = {SCPOLI_NAME: 100, CITE: 400}  # scPoli.train's default, and TOTALVI.train's for at most 20,000 cells
FEW, MORE = 1, 3  # epochs that are run


def replicates(adata, n, seed=0):
    """`n` cells drawn from a query, their counts (and proteins) thinned to 90 %."""
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    found = adata[rng.integers(0, adata.n_obs, n)].copy()
    found.obs_names = [f"r{i}" for i in range(n)]
    x = csr_matrix(found.X)
    x.data = rng.binomial(x.data.astype(np.int64), 0.9).astype(np.float32)
    found.X = x
    for key in list(found.obsm):
        if hasattr(found.obsm[key], "columns"):
            found.obsm[key] = found.obsm[key].astype(np.int64).apply(lambda column: rng.binomial(column, 0.9))
        else:
            del found.obsm[key]
    return found


def queries():
    """Name, the query's file and the obs column of its batches."""
    yield SCPOLI_NAME, CELLS / SCPOLI_NAME / "query.h5ad", "batch"
    yield CITE, CELLS / CITE / "query_anndata.h5ad", "sample"


def run_scgraft():
    import anndata

    import scgraft
    from scgraft.calibration.calibrate import calibrate
    from scgraft.calibration.condition import condition_of

    folder, some = scgraft.testing.example()  # a first mapping, so that nothing is imported while the clock runs
    scgraft.map_query(scgraft.load_reference(folder), some, batch_key="batch")
    out = {}
    for name, path, key in queries():
        adata, reference = anndata.read_h5ad(path), scgraft.load_reference(CELLS / name)
        scgraft.map_query(reference, adata, batch_key=key, labels=[KEY], calibration=None)
        condition = condition_of(reference, scgraft.align(reference, adata, batch_key=key))
        made = calibrate(reference, [KEY], genes=condition.genes, share=condition.share, blocks=condition.blocks)
        for n in SIZES:
            cells = replicates(adata, n)
            true, clock = cells.obs[KEY].astype(str).to_numpy(), [time.process_time()]
            query = scgraft.align(reference, cells, batch_key=key)
            graft = scgraft.fit(reference, query)
            scgraft.embed(reference, query, graft)
            clock.append(time.process_time())
            found = scgraft.map_query(reference, cells, batch_key=key, labels=[KEY], calibration=made)
            clock.append(time.process_time())
            surgery, everything = np.diff(clock).round(2).tolist()
            out[f"{name} {n}"] = {
                "surgery_s": surgery, "everything_s": everything, "labels": accuracy(found.labels[KEY].label, true),
            }  # fmt: skip
    return out


def per_epoch(train, load):
    """CPU seconds of one epoch, and of preparing and ending a run."""
    spent = []
    for epochs in (1, FEW, MORE):  # the first one warms up
        model = load()
        began = time.process_time()
        train(model, epochs)
        spent.append(time.process_time() - began)
    epoch = (spent[2] - spent[1]) / (MORE - FEW)
    return round(epoch, 4), round(max(spent[1] - FEW * epoch, 0.0), 2)


def run_scvi():
    """TOTALVI's surgery at its defaults, on MuData."""
    import anndata
    import mudata
    import pandas as pd
    import scvi

    mudata.set_options(pull_on_update=False)
    own, query, out = mudata.read_h5mu(CELLS / CITE / "mdata.h5mu"), mudata.read_h5mu(CELLS / CITE / "query.h5mu"), {}
    model = scvi.model.TOTALVI.load(CELLS / CITE, adata=own, accelerator="cpu")
    for n in SIZES:
        scvi.settings.seed = 0
        parts = {name: anndata.AnnData(part.X, var=part.var) for name, part in query.mod.items()}
        drawn = {name: replicates(part, n) for name, part in parts.items()}
        drawn["prot"].X = drawn["prot"].X.toarray()
        cells = mudata.MuData(drawn)
        cells.obs = pd.DataFrame({"batch": "5k"}, index=cells.obs_names)
        epoch, rest = per_epoch(
            lambda surgery, epochs: surgery.train(
                epochs,
                accelerator="cpu",
                devices=1,
                early_stopping=False,
                plan_kwargs={"weight_decay": 0.0},
                enable_progress_bar=False,
            ),
            lambda cells=cells: scvi.model.TOTALVI.load_query_data(cells, model, accelerator="cpu"),
        )
        out[f"{CITE} {n}"] = {"epoch_s": epoch, "rest_s": rest, "version": scvi.__version__}
    return out


def run_scarches():
    """scPoli's surgery at its defaults, all of it before prototypes, which cost the same an epoch."""
    import anndata
    import scarches
    import torch
    from scarches.models.scpoli import scPoli

    out = {}
    own, query = (anndata.read_h5ad(CELLS / SCPOLI_NAME / f"{part}.h5ad") for part in ("adata", "query"))
    query = query[:, own.var_names].copy()
    own.X = np.asarray(own.X.toarray() if hasattr(own.X, "toarray") else own.X, dtype=np.float32)
    model = scPoli.load(str(CELLS / SCPOLI_NAME), adata=own)
    for n in SIZES:
        torch.manual_seed(0)
        cells = replicates(query, n)
        cells.X, cells.obs = cells.X.toarray(), cells.obs.astype(str)
        epoch, rest = per_epoch(
            lambda surgery, epochs: surgery.train(
                n_epochs=epochs, pretraining_epochs=epochs, unlabeled_prototype_training=False
            ),
            lambda cells=cells: scPoli.load_query_data(adata=cells, reference_model=model, labeled_indices=[]),
        )
        out[f"{SCPOLI_NAME} {n}"] = {"epoch_s": epoch, "rest_s": rest, "version": scarches.__version__}
    return out


def table(ours, *others):
    """Lines of a table in Markdown."""
    theirs = {name: numbers for other in others for name, numbers in other.items()}
    yield (
        "| query | cells | scgraft CPU s: surgery; with labels, novelty, verdict | labels right (mean of the types) | the original: CPU s an epoch; "
        "with its default epochs | times faster: surgery; with everything |"
    )
    yield "|---|---|---|---|---|---|"
    for name, numbers in ours.items():
        which, n = name.rsplit(" ", 1)
        cost = theirs[name]
        whole = cost["epoch_s"] * EPOCHS[which] + cost["rest_s"]
        faster = "; ".join(f"{whole / numbers[kind]:.0f}" for kind in ("surgery_s", "everything_s"))
        right = f"{numbers['labels'][0]:.1%} ({numbers['labels'][1]:.1%})"
        spent = f"{numbers['surgery_s']}; {numbers['everything_s']}"
        yield f"| {which} | {n} | {spent} | {right} | {cost['epoch_s']:.3f}; {whole:.0f} ({EPOCHS[which]}) | {faster} |"


if __name__ == "__main__":
    main({"scgraft": run_scgraft, "scvi": run_scvi, "scarches": run_scarches}, table)
