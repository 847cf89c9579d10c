"""An HDF5 file is walked before anything of it is read: what leads out of the file, or round in a circle, is refused.

An external link, a virtual dataset and raw external storage read *any* file of this user into the labels of a stranger's
file. None of them is opened here: the walk looks at links and at the headers of objects only.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.errors import CorruptFile, UnsafeFile
from scgraft.files.text import visible

if TYPE_CHECKING:
    import h5py

# An AnnData file is six groups deep; Python's own limit of recursion is near 1000.
MAX_DEPTH = 32
# Ten times what the largest uns of differential expression tests holds.
MAX_OBJECTS = 200_000
# Names of a hundred thousand columns; HDF5 allows 64 kB, and more only in a storage of its own.
MAX_ATTRIBUTE = 1 << 26


def check_links(file: h5py.File) -> None:
    """Refuse a file of which any name, reference or storage leads out of it, or whose groups are not a tree.

    Raises
    ------
    UnsafeFile
        An external or user-defined link, a virtual dataset, or raw external storage.
    CorruptFile
        A group with two names, a link to nothing, a reference to an object without a name, or too many or too deep groups.
    """
    import h5py
    from h5py import h5o

    seen: set[int] = set()
    soft: list[tuple[h5py.h5g.GroupID, bytes, str]] = []
    references: list[tuple[int, str]] = []
    todo: list[tuple[Any, str, int]] = [(h5o.open(file.id, b"/"), "/", 0)]
    while todo:
        item, place, depth = todo.pop()
        address = h5o.get_info(item).addr
        is_group = isinstance(item, h5py.h5g.GroupID)
        if address in seen:
            if is_group:
                raise CorruptFile(f"the group {place} has two names, or leads back to itself.")
            continue
        seen.add(address)
        if len(seen) > MAX_OBJECTS or depth > MAX_DEPTH:
            raise CorruptFile(f"it holds more than {MAX_OBJECTS} objects, or groups deeper than {MAX_DEPTH} ({place}).")
        references += _attributes(item, place)
        if isinstance(item, h5py.h5d.DatasetID):
            _check_inside(item, place)
        elif is_group:
            for name in item:
                at = f"{place.rstrip('/')}/{visible(name.decode('utf-8', 'replace'))}"
                kind = item.links.get_info(name).type
                if kind == h5py.h5l.TYPE_HARD:
                    todo.append((h5o.open(item, name), at, depth + 1))
                elif kind == h5py.h5l.TYPE_SOFT:
                    soft.append((item, name, at))
                else:
                    raise UnsafeFile(
                        f"{at} is a link to another file. Nothing of it was read; a file for scgraft holds its own data."
                    )
    # Every link was looked at, so a path inside the file stays inside.
    for group, name, at in soft:
        try:
            target = h5o.open(group, name)
        except (KeyError, OSError, RuntimeError) as error:
            raise CorruptFile(f"the link {at} leads to nothing.") from error
        if not isinstance(target, h5py.h5d.DatasetID) or h5o.get_info(target).addr not in seen:
            raise CorruptFile(f"the link {at} leads to a group; only a link to a dataset is read.")
    for address, at in references:
        if address not in seen:
            raise CorruptFile(f"the attribute {at} refers to an object that has no name in the file.")


def check_folder(folder: Path, *, also: Path | None = None) -> None:
    """Refuse a folder of which a symbolic link leads out: a zarr store is read name by name, whatever stands there.

    Links into the folder `also` are let through.

    Raises
    ------
    UnsafeFile
        With the link.
    """
    homes = [place.resolve() for place in (folder, also) if place is not None]
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink() and not any(map(path.resolve().is_relative_to, homes)):
                raise UnsafeFile(f"{visible(str(path))} is a link out of {folder.name}. Nothing of it was read.")


def _check_inside(dataset: h5py.h5d.DatasetID, place: str) -> None:
    import h5py

    made = dataset.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise UnsafeFile(
            f"{place} is a virtual dataset: its content would be read from another file. Nothing was read."
        )
    if made.get_external_count():
        raise UnsafeFile(f"{place} keeps its content in another file. Nothing of it was read.")


def _attributes(item: Any, place: str) -> list[tuple[int, str]]:
    """Addresses that attributes of an object refer to (old AnnData files name categories so), and where they stand."""
    import h5py
    from h5py import h5a, h5o, h5r

    found = []
    for index in range(h5a.get_num_attrs(item)):
        attribute = h5a.open(item, index=index)
        at = f"{place}@{visible(attribute.name.decode('utf-8', 'replace'))}"
        size = attribute.get_type().get_size() * math.prod(attribute.shape or ())
        if size > MAX_ATTRIBUTE:
            raise CorruptFile(f"the attribute {at} has {size} bytes.")
        if attribute.get_type().get_class() == h5py.h5t.REFERENCE:
            if attribute.shape not in ((), (1,)):
                raise CorruptFile(f"the attribute {at} is a list of references, which AnnData never writes.")
            holder = h5py.Dataset(item) if isinstance(item, h5py.h5d.DatasetID) else h5py.Group(item)
            value = holder.attrs[attribute.name]
            target = h5r.dereference(value if attribute.shape == () else value[0], item)
            found.append((0 if target is None else h5o.get_info(target).addr, at))
    return found
