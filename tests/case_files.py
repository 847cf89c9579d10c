"""Inputs that people bring, made from the shared queries when a test asks for one."""

import functools
import importlib.util
import tempfile
import warnings
from pathlib import Path

import anndata

from scgraft.mapping.load import load_reference
from scgraft.values.reference import Reference
from shared_files import shared


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cases")


@functools.cache
def case(name: str) -> Path:
    """The file or folder of a case; skips the test where the shared files are not there."""
    source = shared("cases", "make_cases.py")
    spec = importlib.util.spec_from_file_location("make_cases", source)
    module = importlib.util.module_from_spec(spec)
    before = anndata.settings.allow_write_nullable_strings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
        try:
            getattr(module, name)(Path(_folder().name))
        finally:
            anndata.settings.allow_write_nullable_strings = before
    return next(path for path in Path(_folder().name).iterdir() if path.stem == name)


@functools.cache
def hub_reference(name: str) -> Reference:
    return load_reference(shared("hub", "cells", name))


@functools.cache
def _plain(name: str):
    return anndata.read_h5ad(shared("query", f"{name}.h5ad"))


def plain_query(name: str):
    """The query that the cases are made of."""
    return _plain(name).copy()
