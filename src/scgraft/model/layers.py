"""Frozen layers whose covariate columns are tables: ``x @ W.T + b + table[code]`` instead of a one-hot product.

Everything here is a plain tensor without gradient, except the rows of a graft, which the caller passes in: whatever
is not passed in cannot be trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scgraft.model.slots import reference_table
from scgraft.values.slot import Slot

Rows = Mapping[str, Tensor]
Activation = Literal["relu", "leaky_relu", "none"]
LEAK = 0.01  # torch's default slope of LeakyReLU, which scvi-tools does not change


def tensor(array: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Copy an array to a tensor (its memory may be read-only)."""
    return torch.tensor(np.asarray(array), dtype=dtype, device=device)


@dataclass(frozen=True)
class Table:
    """Columns of one slot: the reference's rows (levels, ...) frozen, new rows passed in."""

    name: str
    axis: int
    frozen: Tensor
    column: int

    def __call__(self, codes: Tensor, rows: Rows) -> Tensor:
        """Rows of the codes in this slot's column of `codes`, shape (n, ...)."""
        new = rows.get(self.name)
        table = self.frozen if new is None else torch.cat([self.frozen, new.movedim(self.axis, 0)])
        return torch.nn.functional.embedding(codes[:, self.column], table)


def make_table(
    weights: Mapping[str, np.ndarray], slot: Slot, covariates: Sequence[str], device: torch.device, dtype: torch.dtype
) -> Table:
    """Table of a slot; `covariates` gives the column of each covariate in the codes."""
    frozen = tensor(reference_table(weights, slot), device, dtype)
    return Table(slot.name, slot.axis, frozen, covariates.index(slot.covariate))


@dataclass(frozen=True)
class Conditions:
    """Embeddings of several covariates side by side, each no longer than `longest`, as ``torch.nn.Embedding(max_norm=)``."""

    tables: tuple[Table, ...]
    longest: float | None

    def __call__(self, codes: Tensor, rows: Rows) -> Tensor:
        """Embeddings of the codes, shape (n, sum of their widths)."""
        return torch.cat([self._shortened(table(codes, rows)) for table in self.tables], dim=1)

    def _shortened(self, rows: Tensor) -> Tensor:
        if self.longest is None:
            return rows
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        # 1e-7 is torch's own: without it the reference's rows would differ in their last bits.
        return torch.where(norm > self.longest, rows * (self.longest / (norm + 1e-7)), rows)


@dataclass(frozen=True)
class Layer:
    """Linear, batch norm at its running statistics, layer norm, activation: one of scvi-tools' FCLayers in eval mode."""

    weight: Tensor
    bias: Tensor | None
    tables: tuple[Table, ...]
    scale: Tensor | None
    shift: Tensor | None
    layer_norm: bool
    activation: Activation = "relu"

    @property
    def plain(self) -> bool:
        """Whether it is a linear map and nothing else."""
        return not self.tables and self.scale is None and not self.layer_norm and self.activation == "none"

    def __call__(self, x: Tensor, codes: Tensor, rows: Rows) -> Tensor:
        return self.finish(torch.nn.functional.linear(x, self.weight, self.bias), codes, rows)

    def finish(self, h: Tensor, codes: Tensor, rows: Rows) -> Tensor:
        """Everything after the product with the weight and the bias."""
        for table in self.tables:
            h = h + table(codes, rows)
        if self.scale is not None and self.shift is not None:
            h = h * self.scale + self.shift
        if self.layer_norm:
            h = torch.nn.functional.layer_norm(h, h.shape[-1:], eps=1e-5)
        if self.activation == "leaky_relu":
            return torch.nn.functional.leaky_relu(h, LEAK)
        return torch.relu(h) if self.activation == "relu" else h


@dataclass(frozen=True)
class Stack:
    """Layers one after the other."""

    layers: tuple[Layer, ...]

    def __call__(self, x: Tensor, codes: Tensor, rows: Rows) -> Tensor:
        for layer in self.layers:
            x = layer(x, codes, rows)
        return x

    def from_product(self, product: Tensor, codes: Tensor, rows: Rows) -> Tensor:
        """As ``self(x)`` where `product` is the first layer's ``x @ W.T``."""
        first = self.layers[0]
        h = first.finish(product if first.bias is None else product + first.bias, codes, rows)
        for layer in self.layers[1:]:
            h = layer(h, codes, rows)
        return h


def make_stack(
    weights: Mapping[str, np.ndarray],
    prefix: str,
    slots: Sequence[Slot],
    covariates: Sequence[str],
    *,
    layer_norm: bool,
    activation: Activation = "relu",
    device: torch.device,
    dtype: torch.dtype,
) -> Stack:
    """Stack of the FCLayers saved under `prefix`; its slots' columns become tables, the rest stays a matrix."""
    layers: list[Layer] = []
    while f"{prefix}.fc_layers.Layer {len(layers)}.0.weight" in weights:
        stem = f"{prefix}.fc_layers.Layer {len(layers)}"
        key = f"{stem}.0.weight"
        own = [s for s in slots if s.key == key]
        width = min((s.start for s in own), default=weights[key].shape[1])
        scale = shift = None
        if f"{stem}.1.running_mean" in weights:
            factor = weights[f"{stem}.1.weight"] / np.sqrt(weights[f"{stem}.1.running_var"].astype(np.float64) + 1e-3)
            scale = tensor(factor, device, dtype)
            shift = tensor(weights[f"{stem}.1.bias"] - weights[f"{stem}.1.running_mean"] * factor, device, dtype)
        bias = weights.get(f"{stem}.0.bias")
        layers.append(
            Layer(
                weight=tensor(weights[key][:, :width], device, dtype),
                bias=None if bias is None else tensor(bias, device, dtype),
                tables=tuple(make_table(weights, s, covariates, device, dtype) for s in own),
                scale=scale,
                shift=shift,
                layer_norm=layer_norm,
                activation=activation,
            )
        )
    return Stack(tuple(layers))


@dataclass(frozen=True)
class Linear:
    """A frozen linear map."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


def make_linear(
    weights: Mapping[str, np.ndarray], prefix: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> Linear:
    """Linear map saved under `prefix`."""
    return Linear(tensor(weights[f"{prefix}.weight"], device, dtype), tensor(weights[f"{prefix}.bias"], device, dtype))


def make_head(
    weights: Mapping[str, np.ndarray], prefix: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> Layer:
    """Linear map saved under `prefix` as a layer without norm and activation, so that it can end a stack."""
    linear = make_linear(weights, prefix, device, dtype)
    return Layer(linear.weight, linear.bias, (), None, None, layer_norm=False, activation="none")
