"""Sizes and times of sharing: a graft against model.pt, export, merging, and a card's metrics against scvi-tools'.

``python benchmarks/sharing.py [--cells 20000] [--genes 3000]``; with SCGRAFT_ORACLE set to an interpreter that has
scvi-tools 1.4, its criticism runs on the same cells in the same run. Everything is made here; nothing is downloaded.
"""

import argparse
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

import scgraft
from scgraft.graft.merge import merge_grafts, rename_levels
from scgraft.testing import write_hub_folder
from scgraft.testing.tiny_model import TinyConfig

CRITICISM = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import anndata, scvi
from scvi.criticism import create_criticism_report
adata = anndata.read_h5ad(sys.argv[2])
model = scvi.model.SCVI.load(sys.argv[1], adata=adata)
began = time.perf_counter()
create_criticism_report(model, n_samples=int(sys.argv[3]), save_folder=sys.argv[4])
print("seconds", time.perf_counter() - began)
"""


def simulate(n_cells, genes, config, rng):
    """Counts like those of droplets: 12 types, about 5000 counts in a cell, in blocks so that little is dense."""
    profiles = rng.gamma(0.3, 1.0, (12, len(genes))) + 1e-3
    kind, batch = rng.integers(12, size=n_cells), rng.integers(len(config.batches), size=n_cells)
    library = rng.lognormal(np.log(5000), 0.4, n_cells)
    blocks = []
    for start in range(0, n_cells, 2000):
        part = slice(start, start + 2000)
        rate = profiles[kind[part]]
        rate = rate / rate.sum(axis=1, keepdims=True) * library[part, None]
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.int32)))
    obs = pd.DataFrame(
        {"batch": np.array(config.batches)[batch], "cell_type": np.array(config.labels)[kind]},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    return anndata.AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=pd.DataFrame(index=genes))


def timed(action):
    began = time.perf_counter()
    value = action()
    return value, time.perf_counter() - began


def folder_bytes(folder):
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def criticism(folder, counts, n_samples, scratch):
    """Seconds of scvi-tools' criticism (None where it failed), and what to say of it."""
    interpreter = os.environ.get("SCGRAFT_ORACLE")
    if not interpreter:
        return None, "not run: SCGRAFT_ORACLE is not set"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [interpreter, "-c", CRITICISM, str(folder), str(counts), str(n_samples), str(scratch)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    peak = f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.1f} GB"
    lines = [line for line in done.stdout.splitlines() if line.startswith("seconds")]
    if not lines:
        print(done.stderr[-2000:])
        return None, f"ended with status {done.returncode} after {time.perf_counter() - began:.0f} s, {peak}"
    return float(lines[0].split()[1]), peak


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=5)
    # scvi-tools' criticism took 22 GB at 20,000 x 3000 before it was killed; it gets this many of the cells.
    parser.add_argument("--criticism-cells", type=int, default=4000)
    options = parser.parse_args()
    config = TinyConfig(
        n_genes=options.genes, n_cells=240, n_hidden=128, n_latent=20, n_layers=3, gene_likelihood="nb",
        encode_covariates=True, use_batch_norm="none", use_layer_norm="both", labels=tuple(f"type {i}" for i in range(12)),
        batches=("b0", "b1", "b2"),
    )  # fmt: skip
    rng, rows = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder = write_hub_folder(root / "reference", config)
        genes = anndata.read_h5ad(folder / "adata.h5ad").var_names
        adata = simulate(options.cells, genes, config, rng)
        (folder / "adata.h5ad").unlink()
        adata.write_h5ad(folder / "adata.h5ad")
        reference, seconds = timed(lambda: scgraft.load_reference(folder))
        rows.append(("load the reference and encode its cells", f"{seconds:.1f} s"))

        query = adata[:2000].copy()
        query.obs["sample"] = np.array(["s1", "s2"])[np.arange(2000) % 2]
        aligned = scgraft.align(reference, query, batch_key="sample")
        graft = scgraft.fit(reference, aligned, scgraft.FitConfig(epochs=0, device="cpu"))
        size = folder_bytes(scgraft.save_graft(graft, root / "graft"))
        model = (folder / "model.pt").stat().st_size
        rows.append(("graft of 2 batches against model.pt", f"{size:,} B / {model:,} B = 1 / {model / size:,.0f}"))

        many = [rename_levels(graft, {b: f"{b} of lab {i}" for b in graft.batches}) for i in range(50)]
        merged, seconds = timed(lambda: merge_grafts(many))
        merged_size = folder_bytes(scgraft.save_graft(merged, root / "merged"))
        rows.append(("merge 50 grafts (100 batches)", f"{seconds * 1e3:.0f} ms, {merged_size:,} B"))
        _, seconds = timed(lambda: scgraft.export_scvi(reference, graft, root / "model", cells=False))
        rows.append(("export the model", f"{seconds:.1f} s"))
        _, seconds = timed(lambda: scgraft.export_scvi(reference, graft, root / "cells", query=aligned))
        rows.append((f"export with {options.cells + 2000:,} minified cells", f"{seconds:.1f} s"))
        bytes_ = (root / "cells/adata.h5ad").stat().st_size, (folder / "adata.h5ad").stat().st_size
        rows.append(("their file against the counts'", f"{bytes_[0]:,} B / {bytes_[1]:,} B"))
        cells = scgraft.reference_cells(reference)
        _, seconds = timed(lambda: scgraft.normalized_expression(reference, cells, device="cpu"))
        rows.append((f"decode {options.cells:,} cells", f"{seconds:.1f} s"))

        times = {}
        for style in ("legacy", "corrected"):
            _, times[style] = timed(
                lambda style=style: scgraft.evaluate(
                    reference, adata, n_samples=options.samples, style=style, device="cpu"
                )
            )
            rows.append((f"card metrics, {style}", f"{times[style]:.1f} s"))
        few = adata[: options.criticism_cells].copy()
        few.write_h5ad(root / "few.h5ad")
        for style in ("legacy", "corrected"):
            _, times[style] = timed(
                lambda style=style: scgraft.evaluate(
                    reference, few, n_samples=options.samples, style=style, device="cpu"
                )
            )
            rows.append((f"card metrics, {style}, {few.n_obs:,} cells", f"{times[style]:.1f} s"))
        plain = root / "plain"
        scgraft.export_scvi(replace(reference, attributes={}), None, plain, cells=False)
        theirs, words = criticism(plain, root / "few.h5ad", options.samples, root)
        if theirs is not None:
            ratio = f"{theirs / times['legacy']:.1f} x legacy, {theirs / times['corrected']:.1f} x corrected"
            words = f"{theirs:.1f} s ({ratio}); {words}"
        rows.append((f"card metrics, scvi-tools, {few.n_obs:,} cells", words))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append(("peak memory of everything here", f"{peak:.1f} GB"))
    print(f"{options.cells:,} cells x {options.genes:,} genes, {options.samples} draws, 12 classes; threads "
          f"{os.environ.get('OMP_NUM_THREADS', 'all')}")  # fmt: skip
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")


if __name__ == "__main__":
    main()
