"""The gradient of scvi-tools' own loss with respect to new batches' columns, and ours: the cases, and the stored answers.

``SCGRAFT_ORACLE=/path/to/python python tests/elbo_gradients.py`` writes ``elbo_gradients.npz`` from scvi-tools 1.4.2.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from scgraft.graft.fit import fit
from scgraft.graft.levels import level_codes
from scgraft.graft.objective import objective_named
from scgraft.mapping.load import load_reference
from scgraft.model.build import build, make_cells
from scgraft.model.families import family_of
from scgraft.model.slots import split
from scgraft.query.align import align
from scgraft.sharing.export import export_scvi
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig
from scgraft.values.graft import FitConfig
from scgraft.values.names import BATCH

STORED = Path(__file__).parent / "elbo_gradients.npz"
# What scvi-tools' schedule gives in epochs 0, 1 and 100 of a surgery: it rises to 1 over 400.
KL_WEIGHTS = (0.0, 0.0025, 0.25)
MINI = "latent_posterior_parameters"
CASES = {
    "nb": TinyConfig(minified=MINI, encode_covariates=True, gene_likelihood="nb", n_layers=2, n_genes=12),
    "zinb": TinyConfig(minified=MINI, encode_covariates=True, n_layers=2, n_genes=12, seed=1),
    "layer norm": TinyConfig(minified=MINI, encode_covariates=True, gene_likelihood="nb", n_layers=3, n_genes=12,
                             use_layer_norm="both", use_batch_norm="none", seed=2),
    "poisson": TinyConfig(minified=None, encode_covariates=True, gene_likelihood="poisson", n_genes=12, seed=3),
    "gene-batch": TinyConfig(minified=MINI, encode_covariates=True, dispersion="gene-batch", n_genes=12, seed=4),
    "library": TinyConfig(minified=None, encode_covariates=True, use_observed_lib_size=False, n_genes=12, seed=5),
    "scanvi": TinyConfig(model="SCANVI", minified=MINI, encode_covariates=True, n_layers=2, n_genes=12, seed=6),
}  # fmt: skip


def problem(folder: Path, config: TinyConfig):
    """A reference, a query of two new batches with 5 cells each, columns without a fit, and standard normal draws."""
    reference = load_reference(write_hub_folder(folder / "reference", config))
    adata = tiny_query(config, n_cells=10, batches=("new 1", "new 2"))
    query = align(reference, adata, batch_key="batch", drop_empty=True)
    graft = fit(reference, query, FitConfig(epochs=0, start="random", device="cpu", force=True))
    width = build(reference, torch.device("cpu")).noise_width
    noise = np.random.default_rng(config.seed).standard_normal((len(query.cells), width))
    return reference, adata, query, graft, noise


def ours(config: TinyConfig) -> dict[str, np.ndarray]:
    """Loss and gradients by ``"<kl weight's position>:<slot>"``, in float64."""
    with tempfile.TemporaryDirectory() as folder:
        reference, _, query, graft, noise = problem(Path(folder), config)
    model = build(reference, torch.device("cpu"), torch.float64)
    codes = level_codes(query, reference.schema, dict(graft.levels))
    cells = make_cells(model, query, codes, torch.device("cpu"), torch.float64)
    every = torch.arange(len(query.cells))
    batch = cells.take(every, model.store(query.counts, cells).take(every.numpy(), every))
    rows = {name: torch.tensor(row, dtype=torch.float64, requires_grad=True) for name, row in graft.rows.items()}
    found = {}
    for i, kl_weight in enumerate(KL_WEIGHTS):
        terms = model.terms(batch, rows, torch.from_numpy(noise))
        loss = objective_named("elbo")(terms, kl_weight, None).mean()
        found[f"{i}:loss"] = loss.detach().numpy()
        gradients = torch.autograd.grad(loss, list(rows.values()), allow_unused=True)
        found |= {f"{i}:{n}": g.numpy() for n, g in zip(rows, gradients, strict=True) if g is not None}
    return found


def scvi_tools(interpreter: str) -> dict[str, dict[str, np.ndarray]]:
    """The same by scvi-tools for every case."""
    answers = {}
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(i) for i in range(len(CASES))]
        made = {}
        for folder, (name, config) in zip(folders, CASES.items(), strict=True):
            made[name] = reference, adata, query, graft, noise = problem(folder, config)
            export_scvi(reference, graft, folder / "export")
            if reference.schema.labels_key is not None:
                adata.obs[reference.schema.labels_key] = reference.schema.unlabeled or reference.schema.labels[0]
            adata[list(query.cells)].copy().write_h5ad(folder / "counts.h5ad")
            np.savez(folder / "draws.npz", noise=noise, kl_weights=KL_WEIGHTS)
        script = Path(__file__).parent / "scvi_gradient.py"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        subprocess.run([interpreter, str(script), *map(str, folders)], env=environment, check=True, timeout=900)
        for folder, (name, (reference, _, _, graft, _)) in zip(folders, made.items(), strict=True):
            slots = family_of(reference.base.family).slots(reference.hyper, reference.schema, reference.weights)
            answers[name] = new_columns(dict(np.load(folder / "gradient.npz")), slots, len(graft.levels[BATCH]))
    return answers


def new_columns(found: dict[str, np.ndarray], slots, n_new: int) -> dict[str, np.ndarray]:
    """The new batches' part of gradients of whole tensors."""
    out = {}
    for i in range(len(KL_WEIGHTS)):
        out[f"{i}:loss"] = found[f"{i}:loss"]
        full = {key.split(":", 1)[1]: g for key, g in found.items() if key.startswith(f"{i}:")}
        own = [slot for slot in slots if slot.key in full]
        _, rows = split(full, own, {BATCH: n_new})
        out |= {f"{i}:{name}": row for name, row in rows.items()}
    return out


if __name__ == "__main__":
    answers = scvi_tools(os.environ["SCGRAFT_ORACLE"])
    np.savez_compressed(STORED, **{f"{case}|{key}": g for case, own in answers.items() for key, g in own.items()})
    print(f"{STORED}: {STORED.stat().st_size} bytes")
