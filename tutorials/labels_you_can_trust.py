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
# # Labels you can trust
#
# The same cells as in the first tutorial: blood from two 10x wells on a model of six others, which holds no counts. Every
# label comes with a probability that means what it says, a set of labels that holds the right one at a declared rate, and,
# separately, whether the reference has such cells at all.

# %%
from importlib.resources import files

import anndata
import numpy as np

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
query = anndata.read_h5ad(demo / "query.h5ad")
truth = query.obs.pop("bulk_labels").astype(str)

# %% [markdown]
# ## Before: what will this mapping run into?

# %%
for finding in scgraft.check(reference, query, batch_key="well").findings:
    print(f"{finding.grade:8s} {finding.sentence} {finding.action}")

# %% [markdown]
# A panel with a quarter of the genes: the answer is known before any training, type by type, from generated cells.

# %%
panel = scgraft.check(reference, query[:, ::4].copy(), batch_key="well")
next(f for f in panel.findings if f.name == "missing genes").sentence

# %% [markdown]
# ## Map
#
# The first mapping onto a reference calibrates on its held-out batches (seconds), and keeps the result.

# %%
mapped = scgraft.map_query(reference, query, batch_key="well")
labels = mapped.labels["bulk_labels"]
mapped.calibration["bulk_labels"].guarantee

# %% [markdown]
# ## Prediction sets
#
# `at(alpha)` gives one label where one cannot be doubted at this error rate, and all that are left where several cannot be
# excluded. With a hierarchy of labels, their common parent.

# %%
code = [labels.classes.index(name) for name in truth]
for alpha in (0.2, 0.1, 0.05):
    sets = labels.included(alpha)
    held = sets[np.arange(len(code)), code].mean()
    print(
        f"declared {1 - alpha:.0%}: {held:.1%} of the sets hold the known label; {sets.sum(axis=1).mean():.2f} labels each"
    )

# %%
names = reference.obs["bulk_labels"].astype(str)
parents = {name: "T cell" for name in set(names) if name.startswith(("CD4+", "CD8+"))}
np.unique(labels.resolve(0.1, parents=parents), return_counts=True)

# %% [markdown]
# ## Cells that the reference does not have
#
# Here B cells are given a foreign programme. Most keep their label (nothing else is nearer), but their genes are not
# explained, and the dossier says which.

# %%
strange = query.copy()
counts = strange.X.toarray()
b_cells = np.flatnonzero(truth == "CD19+ B")
rng = np.random.default_rng(0)
programme = rng.permutation(counts.sum(axis=0))
share = programme / programme.sum()
counts[b_cells] = rng.poisson(0.6 * counts[b_cells].sum(axis=1, keepdims=True) * share + 0.4 * counts[b_cells])
strange.X = counts
found = scgraft.map_query(reference, strange, batch_key="well").novelty
print(
    f"{found.novel[b_cells].mean():.0%} of them found; {np.delete(found.novel, b_cells).mean():.1%} of the others called novel"
)
for dossier in found.dossiers:
    print(dossier.sentence)

# %% [markdown]
# ## Why this label?

# %%
scgraft.explain(reference, mapped, query.obs_names[0], adata=query)

# %% [markdown]
# ## Was the mapping good?

# %%
print(mapped.verdict.light, mapped.verdict.sentence)
for measure in mapped.verdict.measures:
    print(f"{measure.light:6s} {measure.sentence} {measure.action}")

# %% [markdown]
# ## Figures
#
# `scgraft map` also writes all of this as one HTML page (`report.html`).

# %%
scgraft.pl.map(reference, mapped)

# %%
scgraft.pl.reliability(mapped.calibration["bulk_labels"])

# %%
scgraft.pl.novelty(mapped)
