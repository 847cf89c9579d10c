"""A place in a tensor whose columns belong to the levels of a covariate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["encoder", "decoder", "dispersion", "library", "prior", "background", "efficiency"]
Init = Literal["mean", "data", "zero"]


@dataclass(frozen=True)
class Slot:
    """A place in a named tensor whose columns belong to the levels of one categorical covariate.

    Parameters
    ----------
    key
        Name of the tensor in the state dict.
    axis
        Axis along which the levels lie.
    start
        Index of the first level's column.
    size
        Number of columns in the file. 0 when the reference has a single level and the layout is one-hot:
        scvi-tools writes no column then.
    levels
        Number of levels that the reference knows; ``levels - size`` columns are implicit zeros.
    covariate
        ``"batch"`` or ``"covariate:<key>"``.
    role
        What the tensor does. Only ``"encoder"`` slots can move the latent.
    trainable
        False for columns that the loss does not depend on, or that are estimated from the data.
    init
        ``"mean"``: new columns start from the mean of the reference's; ``"data"``: computed from the query;
        ``"zero"``: from zero, which is no effect.
    """

    key: str
    axis: int
    start: int
    size: int
    levels: int
    covariate: str
    role: Role
    trainable: bool = True
    init: Init = "mean"

    @property
    def name(self) -> str:
        """Name of the slot, unique in a model: tensor and covariate."""
        return f"{self.key}[{self.covariate}]"
