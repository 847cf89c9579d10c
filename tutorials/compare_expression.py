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
# # Compare expression of query and reference
#
# A minified reference has no counts, but its decoder says what it expects of each cell. So expression can be compared between
# your cells and the atlas's, in the same batch, from latents alone.

# %%
import warnings
from importlib.resources import files

import anndata

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
cells = anndata.read_h5ad(demo / "query.h5ad")
query = scgraft.align(reference, cells, batch_key="well")
graft = scgraft.fit(reference, query)

# %% [markdown]
# ## Expression from latents
#
# `reference_cells` takes the stored posterior, `query_cells` the mapping; neither keeps a count. Marker genes in the reference,
# as shares of a cell's counts:

# %%
atlas = scgraft.reference_cells(reference)
mine = scgraft.query_cells(reference, query, graft)
genes = ["CD79A", "NKG7", "LYZ"]
expression = scgraft.normalized_expression(reference, atlas, genes=genes, library_size=1e4)
labels = reference.obs["bulk_labels"].astype(str).to_numpy()
for label in ("CD19+ B", "CD56+ NK", "CD14+ Monocyte"):
    print(label, dict(zip(genes, expression[labels == label].mean(axis=0).round(1), strict=True)))

# %% [markdown]
# The query as if it had been measured in a batch of the reference:

# %%
as_if = scgraft.normalized_expression(reference, mine, graft, genes=genes, batch=reference.schema.batches[0])
own = scgraft.normalized_expression(reference, mine, graft, genes=genes)
float(abs(as_if / own - 1).mean())

# %% [markdown]
# ## Differential expression within a class
#
# Query against reference monocytes, both decoded under the reference's batches. This card has no metrics, so nothing is known
# of the decoder; the warning says so, and the result carries it along.

# %%
latent = scgraft.embed(reference, query, graft)
label = scgraft.transfer_labels(reference, latent)["bulk_labels"].label
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    same = scgraft.compare_expression(reference, mine, graft, label, "CD14+ Monocyte")
print(same)
print("warned:", caught[0].message)

# %%
same.table.head()

# %% [markdown]
# As a check of the method, two classes that must differ: query monocytes against reference B cells.

# %%
monocytes = mine.take(label == "CD14+ Monocyte")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    other = scgraft.compare_expression(reference, monocytes, graft, ["CD19+ B"] * len(monocytes), "CD19+ B")
assert other.table["differs"].sum() > same.table["differs"].sum()
assert {"CD79A", "LYZ"} <= set(other.table.index[other.table["differs"]])
other.table.head()
