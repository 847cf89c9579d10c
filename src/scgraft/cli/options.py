"""Options that several commands have: their words, and how a size (``4G``), a share (``3/16``) and a device (``cuda:1``) are written."""

from __future__ import annotations

import re
from pathlib import Path

import click

from scgraft.errors import BadOption
from scgraft.values.options import device_name

METHOD = "Label method that votes alone: neighbours, genes, or that of an installed package; default: scgraft's two votes together."
DEVICE = "Where torch computes: auto (CUDA where there is one), cpu, cuda or cuda:1."
TABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
GENE_MAP = "Table (csv or tsv) of two columns without a header: gene of the query, gene of the reference."
DROP_EMPTY = "Leave out cells without any count in the reference's genes."
MIN_FOUND = "Least share of the reference's genes, by weight; default: what the missing ones cost decides."
# Prefixes of the International System of Units: a GB is 10^9 bytes, not 2^30.
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType):
    """Bytes, with K, M, G or T for powers of a thousand."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", value.strip().upper())
        if found is None:
            self.fail(f"{value!r} is no size; write for example 4G or 500M.", param, ctx)
        return int(float(found.group(1)) * UNITS[found.group(2)])


class Shard(click.ParamType):
    """``3/16``, the third of sixteen: (2, 16), counted from 0."""

    name = "i/n"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Which share, counted from 0, and how many there are."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)/(\d+)", value.strip())
        number, of = (int(text) for text in found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            self.fail(
                f"{value!r} is no share of the work; write for example 3/16 for the third of sixteen.", param, ctx
            )
        return number - 1, of


class Device(click.ParamType):
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""

    name = "device"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it was written."""
        try:
            return device_name(value)
        except BadOption as error:
            self.fail(str(error), param, ctx)
