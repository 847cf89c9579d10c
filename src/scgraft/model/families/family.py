"""The record of a model family: everything that the package needs to know of a model class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    import numpy as np
    import torch

    from scgraft.model.protocol import Model
    from scgraft.model.tensors import Tensors
    from scgraft.values.reference import Reference, Schema
    from scgraft.values.slot import Slot

    Weights = Mapping[str, np.ndarray]


class ReadHyper(Protocol):
    """From the flattened ``init_params_``, the weights and the schema to the family's own frozen hyper-parameters."""

    def __call__(self, options: Mapping[str, Any], weights: Weights, schema: Schema) -> Any: ...


class FindSlots(Protocol):
    """From hyper-parameters, schema and weights to every place that has columns of its own for a batch or a covariate."""

    def __call__(self, hyper: Any, schema: Schema, weights: Weights) -> tuple[Slot, ...]: ...


class ListTensors(Protocol):
    """From hyper-parameters and schema to the names and shapes of every tensor."""

    def __call__(self, hyper: Any, schema: Schema) -> Tensors: ...


class Build(Protocol):
    """From a reference to its frozen model in torch; the model's methods take the graft's rows."""

    def __call__(self, reference: Reference, device: torch.device, dtype: torch.dtype) -> Model: ...


class RefuseExport(Protocol):
    """From a reference to why it cannot be exported, "" where it can."""

    def __call__(self, reference: Reference) -> str: ...


@dataclass(frozen=True)
class ScviOptions:
    """How scvi-tools names and loads a model of this class.

    Parameters
    ----------
    by_name, others
        Options that its constructor takes by name, and the group that holds all others.
    as_saved
        Write the options as the reference's file has them, and only fields of the registry that it has.
    on_mudata
        Write it as set up on MuData, whatever the reference was set up on: the one form that scvi-tools reads.
    package
        Where scvi-tools has the class.
    minified
        Prefix of the keys under which it stores the posterior of cells in place of their counts; None where it cannot, or does
        not read them back.
    normalized
        Its method that decodes, which its files name.
    """

    by_name: tuple[str, ...] = ()
    others: str = "model_kwargs"
    as_saved: bool = False
    on_mudata: bool = False
    package: str = "scvi.model"
    minified: str | None = None
    normalized: str = "get_normalized_expression"


@dataclass(frozen=True)
class Family:
    """A supported model class. A new family is one file in ``model/families/`` that ends in one ``FAMILY`` record.

    Parameters
    ----------
    name
        scvi-tools' class name, for example ``"SCVI"``.
    read_hyper
        Options, weights and schema to the family's hyper-parameters.
    slots
        Every place whose columns belong to batches or to levels of a covariate.
    build
        The frozen model in torch.
    recognises
        Whether weights are of this family: for old files that do not name their class.
    citations
        The papers to cite, for the methods paragraph of the page.
    tensors
        Names and shapes of every tensor: a file is compared with them before it is believed. Without it only their values
        are looked at.
    has_classifier
        Whether the model classifies cells itself: ``classify(z)`` gives logits of the schema's labels.
    keeps_unlabeled
        Whether the registry has an unlabeled category, which is no class.
    scvi_options
        How scvi-tools takes the options; None where the family cannot be exported.
    scarches
        Whether an export is a folder of scArches and not of scvi-tools.
    no_export
        Why such a model cannot be exported, in a sentence for the user, where that is known.
    refuse_export
        Why this very reference cannot be exported, in a sentence for the user, though others of its family can.
    refusal
        Why no query can be mapped, in sentences for the user, where such a model can only be described; else None.
    blocks
        Names of its inputs beside the genes; such a model can be set up on MuData.
    encoder_weight, region_weight
        Weight of the encoder's first layer, whose first columns belong to the genes; and that of the regions of chromatin, where
        these have an encoder of their own.
    """

    name: str
    read_hyper: ReadHyper
    slots: FindSlots
    build: Build
    recognises: Callable[[Weights], bool]
    citations: tuple[str, ...]
    tensors: ListTensors | None = None
    has_classifier: bool = False
    keeps_unlabeled: bool = False
    scvi_options: ScviOptions | None = None
    refusal: str | None = None
    blocks: tuple[str, ...] = ()
    scarches: bool = False
    no_export: str | None = None
    refuse_export: RefuseExport | None = None
    encoder_weight: str = "z_encoder.encoder.fc_layers.Layer 0.0.weight"
    region_weight: str | None = None

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html
