"""Tiny references and queries, loaded through the public functions."""

import tempfile
from pathlib import Path

from scgraft.mapping.load import load_reference
from scgraft.query.align import align
from scgraft.testing import tiny_query, write_hub_folder
from scgraft.testing.tiny_model import TinyConfig


def reference_of(config: TinyConfig):
    with tempfile.TemporaryDirectory() as folder:
        return load_reference(write_hub_folder(Path(folder) / "reference", config))


def pair(config: TinyConfig, *, n_cells: int = 24, batches=("new 1", "new 2"), seed: int = 1):
    """A reference and an aligned query of new batches."""
    reference = reference_of(config)
    adata = tiny_query(config, n_cells=n_cells, batches=batches, seed=seed)
    return reference, align(reference, adata, batch_key="batch", drop_empty=True)
