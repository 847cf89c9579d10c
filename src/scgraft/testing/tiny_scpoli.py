"""A tiny scPoli model with random weights, written as scArches writes its three files, with its cells beside them.

Like the rest of this folder it is made from the layout of the files alone, without the package's own model code.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scgraft.testing.tiny_cells import draw_cells, gene_names
from scgraft.testing.tiny_model import TinyConfig

HIDDEN, WIDTH, LATENT = (12, 8), 3, 4  # chosen by eye: as small as they can be while all differ
COARSE = {"alpha": "A", "beta": "B", "delta": "B"}
CELLS = TinyConfig(labels=tuple(COARSE))


def _text_frame(column: str, row: str, value: str) -> pd.DataFrame:
    """A table of one text, as objects: with pandas 3 text is pyarrow's, which scArches' pandas did not pickle."""
    index, columns = (pd.Index([name], dtype=object) for name in (row, column))
    return pd.DataFrame([[value]], index=index, columns=columns, dtype=object)


def write_scpoli_folder(
    folder: Path, *, loss: str = "nb", two: bool = False, cells: bool = True, seed: int = 0
) -> Path:
    """Write ``model_params.pt``, ``attr.pkl``, ``var_names.csv`` and, with `cells`, ``adata.h5ad``.

    Parameters
    ----------
    folder
        Where to write; it is made when absent.
    loss
        ``"nb"``, ``"zinb"`` or ``"mse"``.
    two
        Two conditions (``batch`` and ``donor``) and two label columns (``cell_type`` and ``coarse``) instead of one each.
    cells
        Whether the cells lie beside the model.
    seed
        Of the weights.

    Returns
    -------
    pathlib.Path
        The folder. Queries for it are those of ``tiny_query(TinyConfig())``, with a column ``donor`` where there are two
        conditions.
    """
    import anndata
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    conditions: dict[str, list[str]] = {"batch": ["b1", "b0"]} | ({"donor": ["d1", "d0"]} if two else {})
    combined = ["b1_d1", "b0_d1", "b0_d0"] if two else conditions["batch"]  # one combination is not there
    keys = ["cell_type", "coarse"] if two else ["cell_type"]
    types = {name: ["cell_type"] for name in COARSE} | ({"A": ["coarse"], "B": ["coarse"]} if two else {})
    weights = _weights(loss, {key: len(levels) for key, levels in conditions.items()}, len(combined), seed)
    torch.save(OrderedDict((name, torch.tensor(array)) for name, array in weights.items()), folder / "model_params.pt")
    points = torch.tensor(np.random.default_rng([seed, 1]).standard_normal((len(types), LATENT)), dtype=torch.float32)
    attributes: dict[str, Any] = {
        "condition_keys_": list(conditions), "conditions_": conditions, "conditions_combined_": combined,
        "cell_type_keys_": keys, "cell_types_": types, "unknown_ct_names_": ["Unknown", "nan"],
        "prototypes_labeled_": {"mean": points, "cov": torch.eye(LATENT).expand(len(types), LATENT, LATENT).clone()}, "prototypes_unlabeled_": {"mean": None},
        "hidden_layer_sizes_": list(HIDDEN), "latent_dim_": LATENT, "embedding_dims_": [WIDTH] * len(conditions),
        "embedding_max_norm_": 1.0, "inject_condition_": ["encoder", "decoder"], "recon_loss_": loss, "use_bn_": False,
        "use_ln_": True, "dr_rate_": 0.05, "input_dim_": CELLS.n_genes, "labeled_indices_": range(CELLS.n_cells),
        "is_trained_": True, "share_metadata_": True, "obs_metadata_": _text_frame("cell_type", "b1", "alpha"),
    }  # fmt: skip
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes))
    names = gene_names(CELLS)
    (folder / "var_names.csv").write_text("\n".join(names) + "\n", encoding="utf-8")
    if cells:
        drawn = draw_cells(CELLS, CELLS.n_cells, (len(combined),), (3,))
        obs = pd.DataFrame({"cell_type": drawn.types}, index=pd.Index([f"cell{i}" for i in range(CELLS.n_cells)]))
        obs["coarse"] = obs["cell_type"].map(COARSE)
        for i, key in enumerate(conditions):
            obs[key] = [combined[code].split("_")[i] for code in drawn.codes[:, 0]]
        obs.loc[obs.index[:3], keys] = ["Unknown", "nan"][: len(keys)]
        x = csr_matrix(drawn.counts)
        if loss == "mse":
            x = csr_matrix(np.log1p(drawn.counts / drawn.library[:, None] * 1e4))
        anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(names))).write_h5ad(folder / "adata.h5ad")
    return folder


def _weights(loss: str, levels: dict[str, int], n_combined: int, seed: int) -> dict[str, np.ndarray]:
    n, beside, rng = CELLS.n_genes, WIDTH * len(levels), np.random.default_rng([seed, 0])
    shapes: dict[str, tuple[int, ...]] = {} if loss == "mse" else {"theta": (n, n_combined)}
    shapes |= {f"embeddings.{i}.weight": (size, WIDTH) for i, size in enumerate(levels.values())}
    linear: dict[str, tuple[int, ...]] = {
        "encoder.FC.L0.expr_L": (HIDDEN[0], n), "encoder.FC.L0.cond_L": (HIDDEN[0], beside),
        "encoder.FC.L1": (HIDDEN[1], HIDDEN[0]), "encoder.mean_encoder": (LATENT, HIDDEN[1]),
        "encoder.log_var_encoder": (LATENT, HIDDEN[1]), "decoder.FirstL.L0.expr_L": (HIDDEN[1], LATENT),
        "decoder.FirstL.L0.cond_L": (HIDDEN[1], beside), "decoder.HiddenL.L1": (HIDDEN[0], HIDDEN[1]),
        f"decoder.{'recon' if loss == 'mse' else 'mean'}_decoder.0": (n, HIDDEN[0]),
    }  # fmt: skip
    if loss == "zinb":
        linear["decoder.dropout_decoder"] = (n, HIDDEN[0])
    for name, shape in linear.items():
        shapes[f"{name}.weight"] = shape
        if not name.startswith(("decoder.FirstL", "decoder.HiddenL")) and not name.endswith("cond_L"):
            shapes[f"{name}.bias"] = shape[:1]
    found = {}
    for name, shape in shapes.items():
        scale = 1.0 if name == "theta" or name.startswith("embeddings") else 1 / np.sqrt(shape[-1])
        values = scale * rng.standard_normal(shape) - 3.0 * (name == "encoder.log_var_encoder.bias")
        found[name] = values.astype(np.float32)
    return found
