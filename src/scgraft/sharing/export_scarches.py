"""Reference + graft -> a folder that stock scArches loads: the three files of its scPoli model, and a card."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from scgraft.reference.scarches_attributes import PROTOTYPES, extended_attributes
from scgraft.values.graft import Graft
from scgraft.values.reference import Reference


class _NoTable:
    """Pickled as a call that makes an empty table, which every version of pandas reads; its own pickles are not such."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        import pandas as pd

        return pd.DataFrame, ()


def write_scarches(reference: Reference, graft: Graft | None, weights: dict[str, np.ndarray], folder: Path) -> None:
    """Write ``model_params.pt``, ``attr.pkl`` and ``var_names.csv``: widened `weights`, and plain values with two tensors.

    The pickle holds built-in values, the tensors of the prototypes and an empty table, as scArches' own does.
    """
    import torch

    state = OrderedDict((name, torch.from_numpy(np.array(array))) for name, array in weights.items())
    torch.save(state, folder / "model_params.pt")
    # scArches makes the metadata anew from the cells that a model is loaded with, but wants a table to be there.
    attributes = extended_attributes(reference, graft) | {"obs_metadata_": _NoTable()}
    for key in PROTOTYPES:
        attributes[key] = {
            name: None if points is None else torch.from_numpy(np.array(points))
            for name, points in attributes[key].items()
        }
    (folder / "attr.pkl").write_bytes(pickle.dumps(attributes, protocol=4))
    names = "".join(f"{gene}\n" for gene in reference.schema.genes)
    (folder / "var_names.csv").write_text(names, encoding="utf-8")
