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
# # Two labs, one atlas, no shared data
#
# Two labs map their cells onto the same reference. Neither may send its counts. Each sends its graft, a few kilobytes, and
# the annotation of its cells; the atlas grows by both.

# %%
from importlib.resources import files

import anndata
import numpy as np
import scanpy as sc

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
cells = anndata.read_h5ad(demo / "query.h5ad")
well = cells.obs["well"].astype(str)
wells = sorted(well.unique())
lab_a, lab_b = (cells[well == name].copy() for name in wells)
lab_a.n_obs, lab_b.n_obs

# %% [markdown]
# ## In each lab
#
# Both call their batch `run 1`: names need not be agreed on beforehand.

# %%
mapped = {}
for name, adata in {"lab a": lab_a, "lab b": lab_b}.items():
    adata.obs["run"] = "run 1"
    mapped[name] = scgraft.map_query(reference, adata, batch_key="run")
    scgraft.annotate(adata, mapped[name])
    print(name, mapped[name].graft.batches, f"{mapped[name].graft.record.n_parameters} numbers")

# %% [markdown]
# ## Merge the grafts
#
# The same name for different cells is an error, never a guess. The way out is in its message.

# %%
grafts = [mapped[name].graft for name in ("lab a", "lab b")]
try:
    scgraft.merge_grafts(grafts)
except scgraft.errors.BatchClash as error:
    print(error)

# %%
merged = scgraft.merge_grafts(grafts, rename={1: {"run 1": "run 1 of lab b"}}, reference=reference)
merged.batches

# %% [markdown]
# The merged graft embeds each lab's cells exactly as its own graft did, bit for bit.

# %%
lab_b.obs["run"] = "run 1 of lab b"
for name, adata in {"lab a": lab_a, "lab b": lab_b}.items():
    again = scgraft.map_query(reference, adata, batch_key="run", graft=merged)
    assert np.array_equal(again.latent.mean, mapped[name].latent.mean)

# %% [markdown]
# ## One atlas of all cells
#
# What a lab sends of its cells is the annotation and the latent; X stays at home. The reference's own cells come from their
# stored posterior.

# %%
sent = {
    name: anndata.AnnData(
        obs=adata.obs, obsm={"X_scgraft": adata.obsm["X_scgraft"]}, uns={"scgraft": adata.uns["scgraft"]}
    )
    for name, adata in {"lab a": lab_a, "lab b": lab_b}.items()
}
atlas = scgraft.join(reference, sent)
assert atlas.X is None
atlas.obs.groupby(["source", "batch"], observed=True).size()

# %%
sc.pl.embedding(atlas, "X_scgraft_map", color=["source", "bulk_labels"], wspace=0.3, size=40)
