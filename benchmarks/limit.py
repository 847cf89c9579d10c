"""How close to the machine: ``python benchmarks/limit.py`` measures this machine and counts the work.

The rates of the machine (products of matrices, copies, elementary functions) are measured on one thread at the shapes
that are used; the operations and bytes of a step of the fit and of embedding are counted; the floor is the time that
they would take at those rates and nothing else; the last column is what scgraft takes over that floor.
"""

import time

import numpy as np
import torch
from scipy import sparse

from scgraft.numerics.products import fast_products

GENES, HIDDEN, LATENT, LAYERS, BATCH, CELLS, DENSITY = 3000, 128, 20, 3, 64, 20_000, 0.1


def best(run, rounds: int = 7, seconds: float = 0.05) -> float:
    """CPU seconds of one call: the best of some rounds, because other processes only ever add."""
    run()
    began = time.process_time()
    run()
    calls = max(1, int(seconds / max(time.process_time() - began, 1e-7)))
    times = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(calls):
            run()
        times.append((time.process_time() - began) / calls)
    return min(times)


def machine() -> dict[str, float]:
    """Rates of one thread: FLOP/s of the output layer's product, bytes/s of a copy, seconds per element of functions."""
    h, weight, out = torch.rand(BATCH, HIDDEN), torch.rand(GENES, HIDDEN), torch.empty(BATCH, GENES)
    square, small = torch.rand(HIDDEN, HIDDEN), torch.rand(BATCH, HIDDEN)
    large, copy = torch.rand(2**26), torch.empty(2**26)
    x = torch.rand(BATCH, GENES) + 0.1
    n = BATCH * GENES
    with fast_products(exact=True):
        gemm, small_gemm = best(lambda: torch.mm(h, weight.T, out=out)), best(lambda: torch.mm(small, square))
    return {
        "gemm": 2 * n * HIDDEN / gemm,
        "small gemm": 2 * BATCH * HIDDEN**2 / small_gemm,
        "MKL": 2 * n * HIDDEN / best(lambda: torch.mm(h, weight.T, out=out)),
        "memory": 2 * 4 * 2**26 / best(lambda: copy.copy_(large)),
        "cache": 2 * 4 * n / best(lambda: out.copy_(x)),
        "softmax": best(lambda: torch.softmax(x, 1, out=out)) / n,
        "log1p": best(lambda: torch.log1p(x, out=out)) / n,
        "reciprocal": best(lambda: torch.reciprocal(x, out=out)) / n,
    }


def step_floor(rates: dict[str, float]) -> dict[str, float]:
    """Seconds of one step (BATCH cells), by kind of work, at the machine's rates."""
    n, stored = BATCH * GENES, int(BATCH * GENES * DENSITY)
    passes = 6  # dense arrays read and written once each, in the cache: mean, mean + theta, its products, gradient
    layers = 2 * LAYERS - 1  # the first layer of the encoder is cached
    return {
        "output layer, forward and gradient of its input": 2 * 2 * n * HIDDEN / rates["gemm"],
        "hidden layers, forward and back": layers * 2 * 2 * BATCH * HIDDEN**2 / rates["small gemm"],
        "softmax, reciprocal": n * (rates["softmax"] + rates["reciprocal"]),
        "elementwise passes in the cache": passes * 2 * 4 * n / rates["cache"],
        "stored counts from memory": stored * 12 / rates["memory"],
    }


def embed_floor(rates: dict[str, float]) -> dict[str, float]:
    """Seconds of embedding one block of 1,024 cells."""
    stored = int(1024 * GENES * DENSITY)
    return {
        "rows of the first weight, gathered in the cache": stored * HIDDEN * 4 / rates["cache"],
        "multiply and add": 2 * stored * HIDDEN / rates["gemm"],
        "hidden layers": ((LAYERS - 1) * HIDDEN + 2 * LATENT) * 2 * 1024 * HIDDEN / rates["small gemm"],
        "log1p of the stored counts": stored * rates["log1p"],
        "stored counts from memory": stored * 12 / rates["memory"],
    }


def problem():
    """A generated model of these shapes with a step of its fit and its embedding."""
    import tempfile
    from pathlib import Path

    import anndata

    import scgraft
    from scgraft.graft.minimise import make_problem
    from scgraft.graft.start import start_rows
    from scgraft.model.families import family_of
    from scgraft.testing import write_hub_folder
    from scgraft.testing.tiny_model import TinyConfig

    config = TinyConfig(
        n_genes=GENES, n_hidden=HIDDEN, n_latent=LATENT, n_layers=LAYERS, gene_likelihood="nb",
        encode_covariates=True, use_layer_norm="both", use_batch_norm="none",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        reference = scgraft.load_reference(write_hub_folder(Path(folder) / "reference", config))
    rng = np.random.default_rng(0)
    counts = sparse.random(CELLS, GENES, DENSITY, format="csr", dtype=np.float32, rng=rng)
    counts.data = rng.geometric(0.6, counts.nnz).astype(np.float32)
    adata = anndata.AnnData(counts, obs={"batch": np.repeat(["new 1", "new 2"], CELLS // 2)})
    adata.var_names = list(reference.schema.genes)
    query = scgraft.align(reference, adata, batch_key="batch")
    slots = family_of("SCVI").slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, {"batch": 2}, start="mean", seed=0)
    names = tuple(s.name for s in slots if s.trainable and s.name in rows)
    settings = scgraft.FitConfig(objective="elbo")
    made = make_problem(
        reference, query, {"batch": ("new 1", "new 2")}, rows, names, settings, torch.device("cpu"), None
    )
    return reference, query, made


def main() -> None:
    """Measure, count, print."""
    import scgraft

    torch.set_num_threads(1)
    rates = machine()
    print(
        f"GEMM {rates['gemm'] / 1e9:.0f} GFLOP/s (output layer), {rates['small gemm'] / 1e9:.0f} (hidden layers), "
        f"{rates['MKL'] / 1e9:.0f} by MKL; ",
        end="",
    )
    print(f"copy {rates['memory'] / 1e9:.1f} GB/s (memory), {rates['cache'] / 1e9:.0f} GB/s (cache); ", end="")
    print(", ".join(f"{k} {rates[k] * 1e9:.2f} ns" for k in ("softmax", "log1p", "reciprocal")))
    reference, query, made = problem()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    index = rng.permutation(CELLS)[:BATCH]
    where = torch.from_numpy(index)
    parameters = {name: row.clone().requires_grad_() for name, row in made.start.items()}

    def step() -> None:
        made.gradients(made.batch(index, where), parameters, made.noise(BATCH, generator))

    graft = scgraft.fit(reference, query, scgraft.FitConfig(epochs=0))
    measured = {
        f"a step of the fit, {BATCH} cells": (step_floor(rates), best(step)),
        "embedding 1,024 cells": (
            embed_floor(rates),
            best(lambda: scgraft.embed(reference, query, graft), rounds=3) / CELLS * 1024,
        ),
    }
    print("\n| work | part | floor, ms | scgraft, ms | ratio |\n|---|---|---|---|---|")
    for name, (floor, seconds) in measured.items():
        for part, value in floor.items():
            print(f"| {name} | {part} | {value * 1e3:.3f} | | |")
        total = sum(floor.values())
        print(f"| {name} | **together** | {total * 1e3:.3f} | {seconds * 1e3:.3f} | {seconds / total:.1f}x |")
    visits = 100 * BATCH
    step_time = measured[f"a step of the fit, {BATCH} cells"][1]
    print(f"\nA fit of 100 steps: floor {100 * sum(step_floor(rates).values()):.2f} s, ", end="")
    print(f"steps {100 * step_time:.2f} s for {visits:,} visits of a cell.")


if __name__ == "__main__":
    main()
