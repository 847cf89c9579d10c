"""The cells that lie beside a model, whatever wrote them: an .h5ad of any anndata since 0.6, or a .zarr store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.errors import CorruptFile, ScgraftError
from scgraft.files.budget import Budget
from scgraft.files.h5ad import open_h5ad, packed_budget, read_h5ad
from scgraft.files.h5mu import read_h5mu, with_columns
from scgraft.files.stores import open_store
from scgraft.files.structure import check_matrices, check_structure

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MINIFY_FLAGS = ("_scvi_adata_minify_type", "_scvi_adata_latent")


@dataclass(frozen=True)
class Stored:
    """Annotation of cells and genes, arrays of the cells by name (unread where the file allows), and the minify type."""

    obs: pd.DataFrame
    var: pd.DataFrame
    obsm: Mapping[str, Any]
    minified: str | None


@contextmanager
def opened_cells(
    path: Path,
    modalities: tuple[str, ...] = (),
    budget: Budget | None = None,
    *,
    annotated: tuple[str, ...] = (),
) -> Iterator[Stored]:
    """What is stored of a reference's cells, without X; whatever fails inside the block is an error of this file.

    `modalities` are those of the genes, and of regions beside them, in a MuData file; `annotated` are those whose own columns of obs stand
    beside those of all cells, missing for cells that a modality lacks. `budget` is what is left to the reference, None gives the file its own.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`scgraft.files.h5ad.open_h5ad`, or a link leads out of the store.
    """
    import pandas as pd
    from anndata.io import read_elem

    if path.is_dir():
        with _named(path):
            group = open_store(path, also=_blobs(path), budget=budget, parts=("obs", "var"))
            uns, obsm = (group[part] if part in group else {} for part in ("uns", "obsm"))
            yield Stored(read_elem(group["obs"]), read_elem(group["var"]), obsm, _flag(uns))
        return
    budget = budget or packed_budget(path)
    with open_h5ad(path, ("obs", "var", "uns"), budget=budget, unread=("uns",)) as file:
        if hasattr(file["obs"], "keys"):
            uns, obsm = (file[part] if part in file else {} for part in ("uns", "obsm"))
            mods = file["mod"] if "mod" in file else {}
            parts = [mods[name] for name in modalities if name in mods]
            for part in parts:
                check_structure(part, ("var",), budget=budget)
            var = [read_elem(part["var"]) for part in parts or [file]]
            obs = read_elem(file["obs"])
            for name in annotated:
                if name in mods:
                    check_structure(mods[name], ("obs",), budget=budget)
                    obs = with_columns(obs, read_elem(mods[name]["obs"]))
            yield Stored(obs, var[0] if len(var) == 1 else pd.concat(var), obsm, _flag(uns))
            return
    # Before anndata 0.7 a frame was one table of records, and its categories lay in uns.
    adata = read_h5ad(path, backed=True, budget=budget)
    try:
        flag = next((adata.uns[name] for name in MINIFY_FLAGS if name in adata.uns), None)
        yield Stored(adata.obs, adata.var, adata.obsm, None if flag is None else str(flag))
    finally:
        adata.file.close()


def read_cells(
    path: Path, modality: str | None = None, regions: str | None = None, budget: Budget | None = None
) -> AnnData:
    """The cells with their counts, which stay on disk where the file allows; close ``.file`` of it.

    Those of a MuData file are one AnnData, see :mod:`scgraft.files.h5mu`; `modality` is that of the genes, `regions` that of the regions.
    `budget` is what is left to a reference that is going to read all of its counts.

    Raises
    ------
    UnsafeFile, CorruptFile
        As :func:`opened_cells`.
    """
    import anndata

    if path.suffix == ".h5mu":
        return read_h5mu(path, modality=modality, regions=regions, budget=budget)
    if not path.is_dir():
        return read_h5ad(path, backed=True, budget=budget)
    with _named(path):
        open_store(path, also=_blobs(path), budget=budget or packed_budget(path))
        adata = anndata.read_zarr(path)
        check_matrices(adata)
        return adata


def _flag(uns: Any) -> str | None:
    from anndata.io import read_elem

    found = next((uns[name] for name in MINIFY_FLAGS if name in uns), None)
    return None if found is None else str(read_elem(found))


def _blobs(path: Path) -> Path | None:
    """Where a download of the hub keeps the files that its snapshot names by links (huggingface_hub, "Manage the cache")."""
    snapshots = path.parent.parent
    return snapshots.parent / "blobs" if snapshots.name == "snapshots" else None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ScgraftError:
        raise
    except Exception as error:
        raise CorruptFile(f"{path.name} cannot be read as a zarr store: {type(error).__name__}: {error}.") from error
