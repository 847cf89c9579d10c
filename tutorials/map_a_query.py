# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Map a query onto a reference
#
# The reference is a small SCVI model of blood cells from six 10x wells, in the format of scvi-hub; its counts were removed,
# only the posterior of its cells is left. The query is two wells that it has never seen.

# %%
from importlib.resources import files

import anndata
import numpy as np
import scanpy as sc

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
reference

# %% [markdown]
# What can surgery do with it? A new batch adds 320 numbers, and the encoder sees the batch, so the latent can move.

# %%
scgraft.describe(reference).surgery

# %% [markdown]
# ## Map
#
# The query needs raw counts and a batch column; nothing else has to look like the reference. Its true labels are set aside.

# %%
query = anndata.read_h5ad(demo / "query.h5ad")
truth = query.obs.pop("bulk_labels").astype(str)
mapped = scgraft.map_query(reference, query, batch_key="well")
mapped.alignment.counts_from, mapped.alignment.n_found, dict(mapped.alignment.cells_per_batch)

# %% [markdown]
# The receipt of the surgery: how many numbers were trained, how far each batch moved (in units of the latent's spread), and
# the hash of the reference before and after.

# %%
record = mapped.graft.record
assert record.reference_unchanged[0] == record.reference_unchanged[1]
record.n_parameters, dict(record.moved), record.reason

# %% [markdown]
# ## Labels

# %%
scgraft.annotate(query, mapped)
labels = mapped.labels["bulk_labels"]
print(f"right: {(labels.label == truth).mean():.1%}; marked unknown: {labels.unknown.mean():.1%}")
query.obs[["scgraft_bulk_labels", "scgraft_bulk_labels_probability", "scgraft_bulk_labels_unknown"]].head()

# %% [markdown]
# ## One picture of both
#
# Reference and query share the latent, so they can be shown together without any count of the reference.

# %%
joint = anndata.AnnData(
    np.concatenate([reference.latent.mean, mapped.latent.mean]),
    obs={
        "part": ["reference"] * len(reference.latent.cells) + ["query"] * query.n_obs,
        "label": [*reference.obs["bulk_labels"].astype(str), *query.obs["scgraft_bulk_labels"].astype(str)],
    },
)
sc.pp.neighbors(joint, n_neighbors=15, use_rep="X")
sc.tl.umap(joint, random_state=0)
sc.pl.umap(joint, color=["part", "label"], wspace=0.3, size=40)
