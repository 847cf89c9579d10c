"""The record of a supported model class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scgraft.values.slot import Slot


@dataclass(frozen=True)
class Family:
    """A supported model class: everything that the package needs to know of it.

    Parameters
    ----------
    name
        scvi-tools class name.
    read_hyper
        (flattened init_params_, weights, schema) -> the family's hyper-parameters.
    slots
        (hyper, schema, weights) -> every slot of the model.
    build
        (reference, device, dtype) -> the frozen model in torch; its methods take the graft's rows.
    source
        The paper.
    """

    name: str
    read_hyper: Callable[..., Any]
    slots: Callable[..., tuple[Slot, ...]]
    build: Callable[..., Any]
    source: str
