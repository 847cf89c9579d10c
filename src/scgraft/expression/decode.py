"""LatentCells -> expression: normalised, under another batch, or as posterior predictive counts; block by block.

Source of the model: Lopez et al., Nature Methods 2018 (doi:10.1038/s41592-018-0229-2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from scgraft.errors import BadOption, GenesNotFound, UnknownBatch, UnsupportedModel
from scgraft.expression.cells import LatentCells
from scgraft.expression.draws import draw_counts
from scgraft.graft.levels import check_graft
from scgraft.model.build import build, graft_rows, inputs, pick_device
from scgraft.model.vae import Cells, Expression
from scgraft.numerics.products import fast_products
from scgraft.numerics.tensors import as_tensor
from scgraft.progress import step
from scgraft.values.graft import Graft
from scgraft.values.names import BATCH
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scgraft.model.protocol import Model

BLOCK = 512  # cells decoded at a time: 3,000 genes of them are 6 MB; chosen for memory, the speed was not measured


def normalized_expression(
    reference: Reference,
    cells: LatentCells,
    graft: Graft | None = None,
    *,
    genes: Sequence[str] | None = None,
    batch: str | Sequence[str] | None = None,
    library_size: float | Literal["observed"] = 1.0,
    n_samples: int | None = None,
    seed: int = 0,
    out: Any = None,
    device: str = "auto",
) -> np.ndarray:
    """Expression that the decoder expects of cells: a frequency of each gene, or counts of a given library size.

    Parameters
    ----------
    reference
        The reference.
    cells
        From :func:`scgraft.reference_cells` (no count is needed) or :func:`scgraft.query_cells`.
    graft
        The graft of the query's batches; not needed for reference cells.
    genes
        Names of the reference's genes to return, in this order; None returns all. Frequencies are over all genes.
    batch
        Decode every cell as if it had been measured in this batch, of the reference or the graft; with several, the
        mean over them. None takes each cell's own batch. Other covariates stay as they are.
    library_size
        Counts of a cell: 1 gives frequencies, ``"observed"`` the expected counts at the cell's own library size (or size
        factor). These are the means of the negative binomial, as in scvi-tools. A model with zero inflation (``"zinb"``)
        turns some counts into zeros after that, so the counts that :func:`posterior_predictive` draws are fewer.
    n_samples
        Draws from the posterior to average over; None decodes the posterior mean, and nothing is random.
    seed
        Seed of the draws.
    out
        Where to write, an array of shape (n, g) such as a memory map or an HDF5 dataset; None makes one.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Returns
    -------
    numpy.ndarray
        (n, g) float32; `out` where it was given. Without size factors the frequencies of a cell add up to `library_size`
        over all genes.

    Raises
    ------
    UnknownBatch
        `batch` is not a batch of the reference or the graft.
    BadOption
        `library_size` is another word.
    GenesNotFound
        `genes` has a name that is not among the reference's genes.
    UnsupportedModel
        Expected counts of cells whose library size is not known.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> cells = scgraft.reference_cells(reference)
    >>> genes = list(reference.schema.genes[:2])
    >>> scgraft.normalized_expression(reference, cells, genes=genes, batch="b1", library_size=1e4).shape
    (60, 2)
    >>> float(scgraft.normalized_expression(reference, cells).sum(axis=1).max().round(3))
    1.0
    """
    keep = gene_positions(reference, genes)
    batches = batch_codes(reference, graft, batch)
    if library_size == "observed":
        _check_library(reference, cells)
    elif isinstance(library_size, str):
        raise BadOption(f"library_size is a number of counts for each cell, or 'observed', not {library_size!r}.")
    shape = (len(cells), len(keep))
    found = np.empty(shape, np.float32) if out is None else out
    where = pick_device(device)
    model, rows = build(reference, where), graft_rows(graft, where)
    check_graft(reference, graft)
    generator = torch.Generator().manual_seed(seed)
    columns = as_tensor(keep).to(where)
    with torch.inference_mode(), fast_products(where, exact=True):
        for block, entered in _stepped(cells, where, "decoding cells"):
            total = torch.zeros(1, device=where)
            draws = list(_draws(cells.take(block), n_samples, generator, where))
            for z in draws:
                for code in batches:
                    expression = decode(model, z, entered, rows, code)
                    wanted = expression.rate if library_size == "observed" else expression.scale
                    total = total + wanted[:, columns]
            mean = total / (len(draws) * len(batches))
            scaled = mean if library_size == "observed" else mean * float(library_size)
            found[block] = scaled.cpu().numpy()
    return found


def posterior_predictive(
    reference: Reference,
    cells: LatentCells,
    graft: Graft | None = None,
    *,
    n_samples: int = 1,
    genes: Sequence[str] | None = None,
    batch: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> np.ndarray:
    """Counts drawn from the model: a latent from the posterior of each cell, then counts at its observed library size.

    The zeros that a model with zero inflation adds are drawn too.

    Parameters
    ----------
    reference, cells, graft, genes, batch, device
        As for :func:`normalized_expression`; `batch` is a single one.
    n_samples
        Draws for each cell.
    seed
        Seed of everything random.

    Returns
    -------
    numpy.ndarray
        (n, g, n_samples) float32. A model of normally distributed expression gives real numbers, the others whole ones.

    Raises
    ------
    UnknownBatch, GenesNotFound, UnsupportedModel
        As for :func:`normalized_expression`.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> cells = scgraft.reference_cells(reference)
    >>> counts = scgraft.posterior_predictive(reference, cells, n_samples=2, seed=0)
    >>> counts.shape, bool((counts == counts.round()).all())
    ((60, 30, 2), True)
    """
    keep = gene_positions(reference, genes)
    found = np.empty((len(cells), len(keep), n_samples), np.float32)
    for block, sample, counts in predictive_blocks(
        reference, cells, graft, n_samples=n_samples, batch=batch, seed=seed, device=device
    ):
        found[block, :, sample] = counts[:, keep]
    return found


def predictive_blocks(
    reference: Reference,
    cells: LatentCells,
    graft: Graft | None = None,
    *,
    n_samples: int,
    batch: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """The draws of :func:`posterior_predictive` one after the other: cells, number of the draw, counts (b, G) float32."""
    (code,) = batch_codes(reference, graft, batch)
    _check_library(reference, cells)
    check_graft(reference, graft)
    where = pick_device(device)
    model, rows = build(reference, where), graft_rows(graft, where)
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    with torch.inference_mode():
        for block, entered in _stepped(cells, where, "drawing counts of cells"):
            for sample, z in enumerate(_draws(cells.take(block), n_samples, generator, where)):
                expression = decode(model, z, entered, rows, code)
                yield block, sample, draw_counts(model.hyper.gene_likelihood, expression, random)


def decode(model: Model, z: torch.Tensor, inputs: Cells, rows: Any, code: int | None) -> Expression:
    """Count distribution of latents `z` (n, d) under a batch, or each cell's own (None)."""
    codes = inputs.codes
    if code is not None:
        codes = codes.clone()
        codes[:, 0] = code
    moved = Cells(
        inputs.product, codes, inputs.continuous, inputs.library, inputs.size_factor, inputs.labels, inputs.counts
    )
    return model.decode(model.latent(z), inputs.library, moved, rows)


def gene_positions(reference: Reference, genes: Sequence[str] | None) -> np.ndarray:
    """Positions of genes among the reference's, by name; all of them for None."""
    known = {str(gene): i for i, gene in enumerate(reference.schema.genes)}
    if genes is None:
        return np.arange(len(known))
    absent = [gene for gene in genes if str(gene) not in known]
    if absent:
        raise GenesNotFound(
            f"The reference has no gene {', '.join(map(repr, absent[:5]))}; its genes are named like "
            f"{', '.join(list(known)[:4])}. Use its own names (reference.schema.genes)."
        )
    return np.array([known[str(gene)] for gene in genes], np.int64)


def batch_codes(reference: Reference, graft: Graft | None, batch: str | Sequence[str] | None) -> list[int | None]:
    """Codes of batches by name; ``[None]`` leaves each cell its own."""
    if batch is None:
        return [None]
    names = [*reference.schema.batches, *(() if graft is None else graft.levels.get(BATCH, ()))]
    wanted = [batch] if isinstance(batch, str) else list(batch)
    absent = [name for name in wanted if name not in names]
    if absent or not wanted:
        raise UnknownBatch(
            f"There is no batch {', '.join(map(repr, absent[:5])) or '(none was named)'} to decode under; known are "
            f"{', '.join(names[:8])}. Name one of these, or None for each cell's own."
        )
    return [names.index(name) for name in wanted]


def _check_library(reference: Reference, cells: LatentCells) -> None:
    if cells.library is None and not reference.hyper.use_size_factor:
        raise UnsupportedModel(
            "The library size of these cells is not stored, so their expected counts are not known. Use a number as the "
            "library size."
        )


def decoder_inputs(cells: LatentCells, device: torch.device) -> Cells:
    """Cells as the decoder takes them; the encoder's product is left empty, and an unknown library size is one."""
    return inputs(
        cells.codes,
        cells.continuous,
        cells.library,
        size_factor=cells.size_factor,
        labels=cells.label_codes,
        device=device,
    )


def _blocks(cells: LatentCells, device: torch.device) -> Iterator[tuple[slice, Cells]]:
    for start in range(0, len(cells), BLOCK):
        block = slice(start, min(start + BLOCK, len(cells)))
        yield block, decoder_inputs(cells.take(block), device)


def _stepped(cells: LatentCells, device: torch.device, what: str) -> Iterator[tuple[slice, Cells]]:
    """The blocks, and how far they are."""
    with step(what, len(cells), "cell") as advance:
        for block, entered in _blocks(cells, device):
            yield block, entered
            advance(block.stop - block.start)


def _draws(
    cells: LatentCells, n_samples: int | None, generator: torch.Generator, device: torch.device
) -> Iterator[torch.Tensor]:
    mean = as_tensor(cells.latent.mean)
    if n_samples is None:
        yield mean.to(device)
        return
    spread = as_tensor(cells.latent.variance).sqrt()
    for _ in range(n_samples):
        yield (mean + spread * torch.randn(mean.shape, generator=generator)).to(device)
