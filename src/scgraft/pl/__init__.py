"""Static figures of a mapping (matplotlib), in scanpy's manner: they draw into `ax` and return it.

::

    scgraft.pl.map(reference, mapped, color="label")
    scgraft.pl.map(reference, mapped, color="CD3D", adata=adata, save="cd3d.pdf")

All of them take `ax`, `show`, `save` and `return_fig`. A figure is shown (``plt.show()``) and nothing returned if `show` is
True, written to the file `save`, and itself returned instead of its axes if `return_fig` is True.
"""

from scgraft.pl.conditions_of import conditions
from scgraft.pl.figures import composition, dossiers, flow, novelty, qc, reliability
from scgraft.pl.on_map import map

__all__ = ["composition", "conditions", "dossiers", "flow", "map", "novelty", "qc", "reliability"]
