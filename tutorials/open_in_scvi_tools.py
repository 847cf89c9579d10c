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
# # Open the result in scvi-tools
#
# A reference and a graft together are a model of scvi-tools: the new batches are known to it, and reference cells keep their
# latent and their expression. `export_scvi` writes it as a folder that `SCVI.load` and `HubModel` take.

# %%
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import anndata
import numpy as np

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
cells = anndata.read_h5ad(demo / "query.h5ad")
query = scgraft.align(reference, cells, batch_key="well")
graft = scgraft.fit(reference, query)
folder = scgraft.export_scvi(reference, graft, Path(mkdtemp()) / "model", query=query)
sorted(path.name for path in folder.iterdir())

# %% [markdown]
# The cells are minified: the posterior and the library size of each, and no count.

# %%
minified = anndata.read_h5ad(folder / "adata.h5ad")
assert minified.X.nnz == 0
minified.obs[["well", "scgraft_source"]].value_counts()

# %% [markdown]
# With scvi-tools installed, this opens it. Its numbers agree with those here within 1e-5; where it is not installed, the same
# folder is read back by scgraft.

# %%
own = scgraft.embed(reference, query, graft)
n = len(reference.latent.cells)
if find_spec("scvi") is not None:
    import scvi

    model = scvi.model.SCVI.load(str(folder))
    latent = model.get_latent_representation()
else:
    again = scgraft.load_reference(folder)
    latent = again.latent.mean
    print("scvi-tools is not installed; read back by scgraft:", again)
assert np.allclose(latent[:n], reference.latent.mean, atol=1e-5)
assert np.allclose(latent[n:], own.mean, atol=1e-5)

# %% [markdown]
# The same without a graft repairs models that current scvi-tools cannot open, such as minified ones saved by 1.2.1 and before:
# `scgraft export --reference ORG/NAME --out model/`.
