"""Cells of a golden query, built by hand from obs, without the code under test in align."""

import numpy as np
import scipy.sparse as sp

from scgraft.values.names import BATCH, level_name
from scgraft.values.query import Query


def cells_of(adata, reference):
    """The query built by hand from obs, without the code under test in align."""
    schema = reference.schema
    codes, levels = [], {}
    for name, known in schema.levels.items():
        key = schema.batch_key if name == BATCH else name.split(":", 1)[1]
        values = [level_name(v) for v in adata.obs[key]] if key else [known[0]] * adata.n_obs
        levels[name] = (*known, *sorted(set(values) - set(known)))
        codes.append([levels[name].index(v) for v in values])
    labels = None
    if schema.labels_key in adata.obs:
        names = [level_name(v) for v in adata.obs[schema.labels_key]]
        labels = np.array([schema.labels.index(v) if v in schema.labels else -1 for v in names], np.int32)
    counts = adata.layers[schema.layer] if schema.layer else adata.X
    size_factor = adata.obs[schema.size_factor_key].to_numpy(np.float32) if schema.size_factor_key else None
    continuous = adata.obs[list(schema.continuous)].to_numpy(np.float32).reshape(adata.n_obs, -1)
    return Query(
        sp.csr_matrix(counts).astype(np.float32),
        np.array(codes, np.int32).T,
        levels,
        continuous,
        np.asarray(adata.obs_names.astype(str)),
        size_factor,
        labels,
        None,
    )
