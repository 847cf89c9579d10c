"""Cost of one visit of a cell in the fit, for every option of a model that changes it. Part of ``run.py``.

The models are generated, with 3,000 genes, 128 hidden units and two layers; the cost depends on shapes, not on values.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

BASE = {
    "n_genes": 3000, "n_hidden": 128, "n_latent": 10, "n_layers": 2, "encode_covariates": True,
    "use_layer_norm": "both", "use_batch_norm": "none", "gene_likelihood": "nb",
}  # fmt: skip
OPTIONS = {
    "nb, dispersion per gene": {},
    "zinb": {"gene_likelihood": "zinb"},
    "poisson": {"gene_likelihood": "poisson"},
    "normal": {"gene_likelihood": "normal"},
    "nb, dispersion per gene and label": {"dispersion": "gene-label"},
    "nb, dispersion per gene and batch": {"dispersion": "gene-batch"},
    "nb, dispersion per gene and cell": {"dispersion": "gene-cell"},
    "zinb, dispersion per gene and cell": {"dispersion": "gene-cell", "gene_likelihood": "zinb"},
    "nb, size factors": {"size_factor": True},
    "nb, library size as a latent": {"use_observed_lib_size": False},
    "nb, batch embedding": {"batch_representation": "embedding"},
    "SCANVI, 3 classes": {"model": "SCANVI"},
    "SCANVI, 30 classes": {"model": "SCANVI", "labels": tuple(f"type {i}" for i in range(30))},
}
CELLS, BATCH, ROUNDS = 512, 128, 5


def measure(table) -> dict:
    """CPU microseconds of a visit and the ratio to the plain negative binomial, for the loss and its gradient."""
    import torch

    torch.set_num_threads(1)
    steps = {name: prepare(BASE | options) for name, options in OPTIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):  # alternated, so that a busy moment of the machine falls on all of them
        for name, (step, _) in steps.items():
            began = time.process_time()
            for _ in range(4):
                step()
            times[name].append((time.process_time() - began) / 4 / BATCH * 1e6)
    plain = float(np.median(times["nb, dispersion per gene"]))
    results = {name: float(np.median(values)) for name, values in times.items()}
    rows = [
        [name, value, f"{value / plain:.1f}x", "stored counts, by hand" if steps[name][1] else "dense, autograd"]
        for name, value in sorted(results.items(), key=lambda item: item[1])
    ]
    table("Cost of a visit of a cell, by option of the model", ["model", "CPU us", "ratio", "likelihood"], rows)
    return results


def prepare(options: dict):
    """One step (loss and gradient of a mini-batch) of a generated model."""
    import torch

    import scgraft
    from scgraft.graft.minimise import make_problem
    from scgraft.graft.start import start_rows
    from scgraft.model.families import family_of
    from scgraft.testing import tiny_query, write_hub_folder
    from scgraft.testing.tiny_model import TinyConfig

    config = TinyConfig(**options)
    with tempfile.TemporaryDirectory() as folder:
        reference = scgraft.load_reference(write_hub_folder(Path(folder) / "reference", config))
    adata = tiny_query(config, n_cells=CELLS, batches=("new 1", "new 2"))
    query = scgraft.align(reference, adata, batch_key="batch", drop_empty=True)
    levels = {"batch": ("new 1", "new 2")}
    slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
    rows = start_rows(reference.weights, slots, {"batch": 2}, start="mean", seed=0)
    rows |= scgraft.fit(reference, query, scgraft.FitConfig(epochs=0)).rows
    trainable = tuple(s.name for s in slots if s.trainable and s.name in rows)
    device = torch.device("cpu")
    problem = make_problem(reference, query, levels, rows, trainable, scgraft.FitConfig(objective="elbo"), device, None)
    index = np.arange(BATCH) * 3
    where, generator = torch.from_numpy(index), torch.Generator().manual_seed(0)
    parameters = {name: row.clone().requires_grad_() for name, row in problem.start.items()}

    def step() -> None:
        problem.gradients(problem.batch(index, where), parameters, problem.noise(BATCH, generator))

    step()
    return step, problem.model.by_hand
