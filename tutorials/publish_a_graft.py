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
# # Publish a graft, and write its card
#
# A graft holds no counts, so it can be published where the cells cannot. Whoever loads it gets the reference that it was made
# for by commit and hash.

# %%
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import anndata

import scgraft

demo = files("scgraft") / "_demo"
reference = scgraft.load_reference(demo / "reference")
query = anndata.read_h5ad(demo / "query.h5ad")
mapped = scgraft.map_query(reference, query, batch_key="well")
folder = scgraft.save_graft(mapped.graft, Path(mkdtemp()) / "graft")
{path.name: path.stat().st_size for path in folder.iterdir()}

# %% [markdown]
# ## The base must be where others can find it
#
# This reference is a folder on one machine, so a graft of it is refused. `base="org/atlas"` names the repository where the
# same model is published; its weights must have the hash that the graft was made for.

# %%
try:
    scgraft.push(folder, "lab/blood-graft", dry_run=True)
except scgraft.errors.UnpublishedBase as error:
    print(error)

# %% [markdown]
# Here the graft is given such a base by hand, so that nothing has to be fetched. A dry run checks everything, lists what would
# be uploaded, and makes no request. Without `dry_run` the files arrive in one commit, which is refused if somebody else
# committed in the meantime.

# %%
graft = replace(mapped.graft, base=replace(mapped.graft.base, repo="org/blood-atlas", revision="0" * 40))
card = scgraft.graft_card(
    graft,
    cells_per_batch=mapped.alignment.cells_per_batch,
    summary=mapped.summary,
    license="cc0-1.0",
    description="Two wells of blood cells.",
)
print(scgraft.push(graft, "lab/blood-graft", card=card, private=True, tags=["v1"], dry_run=True))

# %%
print(str(card)[:900])

# %% [markdown]
# Others then write
#
# ```python
# graft = scgraft.load_graft("lab/blood-graft", revision="v1")
# reference = scgraft.load_base(graft)
# ```
#
# ## The card of a reference
#
# A card is written from what the files say, and read back. `lint_card` finds what contradicts them.

# %%
text = str(scgraft.reference_card(reference, license="cc-by-4.0", description="Blood cells of six wells."))
scgraft.lint_card(replace(reference, card=text))

# %%
wrong = text.replace("**Data is Minified**: True", "**Data is Minified**: False")
for finding in scgraft.lint_card(replace(reference, card=wrong)):
    print(finding)
