"""Whether the parts of an AnnData file fit together, looked at before anndata and scipy read them.

Lengths and types come from headers; of the content only `indptr` of a sparse matrix is read here, one number for each cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget
from scgraft.files.text import visible

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

# A dataset below this may be empty on disk: reading it costs nothing.
SMALL = 1 << 26
# Deflate makes at most 1032 bytes of one (zlib, "Maximum Compression Factor"); a dataset larger than that on paper is not there.
MAX_RATIO = 1100
# Of datasets in one file that are larger on paper than their bytes can be: each may be small, and there may be many.
MOST_UNSTORED = 8 * SMALL
# Numbers of indptr or indices looked at in one step: 32 MB.
STEP = 1 << 22
SPARSE = {"csr_matrix": 0, "csc_matrix": 1, "csr": 0, "csc": 1}  # the axis along which they are compressed
# Encodings that this version knows, "" for what anndata below 0.7 wrote; another one is left unread (:mod:`scgraft.files.known`).
KNOWN = frozenset({
    "", "anndata", "array", "awkward-array", "bytes", "categorical", "csc", "csc_matrix", "csr", "csr_matrix", "dataframe", "dict",
    "mapping", "null", "nullable-boolean", "nullable-integer", "nullable-string-array", "numeric-scalar", "raw", "rec-array", "string",
    "string-array",
})  # fmt: skip
ANY = (-1,)  # the shape of what is left unread: it fits everywhere
PARTS = ("obs", "var", "X", "layers", "raw", "obsm", "varm", "obsp", "varp", "uns")
# Axes of the members of each part: 0 for cells, 1 for genes.
AXES = {"layers": (0, 1), "obsm": (0,), "varm": (1,), "obsp": (0, 0), "varp": (1, 1)}


def check_structure(
    file: h5py.File, parts: Iterable[str] = PARTS, *, budget: Budget | None = None, unread: Iterable[str] = ()
) -> None:
    """Refuse an AnnData file whose parts contradict one another, or declare more than the file holds.

    Parameters
    ----------
    file
        Its links were checked (:func:`scgraft.files.links.check_links`).
    parts
        What is going to be read, for example ``("obs", "var", "obsm")``.
    budget
        What their numbers are paid from; texts are paid by whoever tried the file.
    unread
        Parts that stay on disk: nothing is paid for them.

    Raises
    ------
    CorruptFile
        With the place in the file.
    """
    parts = tuple(parts)
    declared = _check_unstored(file, ("obs", "var", *parts))
    if budget is not None:
        budget.spend(sum(n for part, n in declared.items() if part not in unread), "it")
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("obs", "var"):
        if part not in file:
            raise CorruptFile(f"it has no {part}: it is not an AnnData file.")
        shapes[part] = _element(file[part], part)
        if shapes[part] is ANY:
            raise CorruptFile(f"{part} is encoded as {visible(encoding_of(file[part]))}, which is not known here.")
        if len(shapes[part]) != 1:
            raise CorruptFile(f"{part} is not a table.")
    lengths = (*shapes["obs"], *shapes["var"])
    for part in parts:
        if part not in file or part in shapes:
            continue
        if encoding_of(file[part]) == "null":
            continue
        if part == "X":
            _expect(_matrix(file["X"], "X"), lengths, "X")
        elif part == "raw":
            _raw(file["raw"], lengths[0])
        elif part == "uns" or not hasattr(file[part], "keys"):  # before anndata 0.7 obsm was one dataset
            _element(file[part], part)
        else:
            members = file[part]
            for name in members:
                at = f"{part}/{visible(name)}"
                shape = _matrix(members[name], at) if part == "layers" else _element(members[name], at)
                _expect(shape, tuple(lengths[axis] for axis in AXES[part]), at)


def _check_unstored(file: h5py.Group, parts: Iterable[str]) -> dict[str, int]:
    """Bytes that each part declares; refused is a file that declares far more than it stores, which would be read as zeros."""
    unstored, total = 0, dict.fromkeys(parts, 0)
    for part in total:
        for item in datasets(file[part]) if part in file else ():
            declared, stored = _sizes(item)
            unstored += declared if declared > MAX_RATIO * stored else 0
            total[part] += declared
    if unstored > MOST_UNSTORED:
        raise CorruptFile(f"it declares {unstored / 1e9:.1f} GB of numbers that are not stored in it.")
    return total


def datasets(item: Any) -> Iterator[Any]:
    """The datasets of a group, as often as each has a name there: so often is it read. Groups are a tree (:mod:`scgraft.files.links`)."""
    if not hasattr(item, "keys"):
        if hasattr(item, "shape"):
            yield item
        return
    for name in item:
        yield from datasets(item[name])


def _sizes(dataset: h5py.Dataset) -> tuple[int, int]:
    """Bytes of a dataset in memory, of one chunk at least, and in the file."""
    width = dataset.id.get_type().get_size()
    shapes = (dataset.shape or (), *([dataset.chunks] if dataset.chunks else []))
    return max(int(np.prod(shape, dtype=object)) * width for shape in shapes), dataset.id.get_storage_size()


def check_element(item: Any, place: str, budget: Budget | None = None) -> tuple[int, ...]:
    """Shape of one element that is going to be read alone; of an HDF5 file refused as :func:`check_structure` does."""
    shape = _element(item, place) if hasattr(item, "id") else tuple(getattr(item, "shape", ()))
    if budget is not None and not hasattr(item, "keys"):
        budget.spend(int(np.prod(shape, dtype=object)) * item.dtype.itemsize, place)
    return shape


def check_matrices(adata: AnnData) -> None:
    """Refuse sparse matrices in memory that would lead compiled code beyond their arrays.

    Raises
    ------
    CorruptFile
        With the place of the matrix.
    """
    places: dict[str, Any] = {}
    if not adata.isbacked:  # else they are on disk
        places = {"X": adata.X, "raw/X": None if adata.raw is None else adata.raw.X}
    for part in ("layers", "obsm", "varm", "obsp", "varp"):
        places |= {f"{part}/{name}": value for name, value in getattr(adata, part).items() if name is not None}
    for place, matrix in places.items():
        check_sparse(matrix, place)


def check_sparse(matrix: Any, place: str) -> None:
    """Refuse one sparse matrix (CSR or CSC) whose pointers or indices lie outside of it; anything else passes."""
    if getattr(matrix, "format", None) not in ("csr", "csc") or not hasattr(matrix, "check_format"):
        return
    if matrix.dtype.kind not in "iufb":
        raise CorruptFile(f"{visible(place)} does not hold numbers.")
    try:
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError) as error:
        raise CorruptFile(f"{visible(place)} is not a sparse matrix: {error}.") from error


def check_indices(group: h5py.Group, place: str) -> None:
    """The same for the indices of a sparse matrix that stays on disk."""
    axis = SPARSE[encoding_of(group)]
    bound = _declared_shape(group, place)[1 - axis]
    _in_range(group["indices"], bound, f"{place}/indices")


def check_declared(dataset: h5py.Dataset, at: str) -> tuple[int, ...]:
    """Shape of a dataset whose filters are there, and whose bytes can be in the file.

    Raises
    ------
    CorruptFile
        With the place `at`.
    """
    from h5py import h5z

    made = dataset.id.get_create_plist()
    for index in range(made.get_nfilters()):
        code, _, _, name = made.get_filter(index)
        if not h5z.filter_avail(code):
            raise CorruptFile(
                f"{at} is compressed with {visible(name.decode('utf-8', 'replace')) or 'a filter'} (number {code}), which is "
                "not installed here. Write the file again with gzip."
            )
    shape = dataset.shape or ()
    declared, stored = _sizes(dataset)
    if declared > SMALL and declared > MAX_RATIO * stored:
        raise CorruptFile(f"{at} declares {declared / 1e9:.1f} GB ({shape}), but {stored} bytes of it are stored.")
    return tuple(int(n) for n in shape)


def _element(item: Any, at: str) -> tuple[int, ...]:
    """Shape of any element; what is not an array has none."""
    if not hasattr(item, "keys"):
        return check_declared(item, at)
    encoding = encoding_of(item)
    if encoding not in KNOWN:
        return ANY
    if encoding in SPARSE:
        return _sparse(item, at)
    if encoding == "categorical":
        codes, categories = _vector(item, "codes", at), _vector(item, "categories", at)
        _kind(item["codes"], "iu", f"{at}/codes")
        if codes[0] and not categories[0] and item["codes"][:1].max() >= 0:
            raise CorruptFile(f"{at} has codes but no categories.")
        return codes
    if encoding == "dataframe":
        return _frame(item, at)
    if encoding.startswith("nullable-"):
        values = _vector(item, "values", at)
        _expect(_vector(item, "mask", at), values, f"{at}/mask")
        return values
    if encoding == "awkward-array":
        return (int(item.attrs.get("length", 0)),)
    for name in item:
        _element(item[name], f"{at}/{visible(name)}")
    return ()


def _frame(group: h5py.Group, at: str) -> tuple[int, ...]:
    index = group.attrs.get("_index")
    index = index.decode("utf-8", "replace") if isinstance(index, bytes) else index
    order = group.attrs.get("column-order")
    columns = np.asarray(order).ravel().tolist() if hasattr(order, "dtype") and hasattr(order, "tolist") else []
    names = [index, *(c.decode("utf-8", "replace") if isinstance(c, bytes) else c for c in columns)]
    shape: tuple[int, ...] | None = None
    for name in names:
        if not isinstance(name, str) or name not in group:
            raise CorruptFile(f"{at} names a column {visible(repr(name))} that it does not hold.")
        found = _vector(group, name, at)
        shape = shape or (None if found is ANY else found)
        _expect(found, shape or ANY, f"{at}/{visible(name)}")
    assert shape is not None
    return shape


def _raw(item: Any, n_cells: int) -> None:
    group = _group(item, "raw")
    if "X" not in group or "var" not in group:
        raise CorruptFile("raw lacks X or var.")
    _expect(_matrix(group["X"], "raw/X"), (n_cells, *_element(group["var"], "raw/var")), "raw/X")


def _matrix(item: Any, at: str) -> tuple[int, ...]:
    """Shape of a matrix of numbers, dense or sparse."""
    if not hasattr(item, "keys"):
        shape = check_declared(item, at)
        if not shape:
            raise CorruptFile(f"{at} is a single value; a matrix was expected.")
        _kind(item, "iufb", at)
        return shape
    if encoding_of(item) not in KNOWN:
        return ANY
    if encoding_of(item) not in SPARSE:
        raise CorruptFile(f"{at} is neither a dense nor a sparse matrix.")
    return _sparse(item, at)


def _sparse(group: h5py.Group, at: str) -> tuple[int, ...]:
    shape, axis = _declared_shape(group, at), SPARSE[encoding_of(group)]
    lengths = {name: _vector(group, name, at)[0] for name in ("data", "indices", "indptr")}
    _kind(group["data"], "iufb", f"{at}/data")
    if group["data"].dtype == np.float16:
        raise CorruptFile(f"{at} is sparse and of half precision, which scipy does not have. Save it as float32.")
    for name in ("indices", "indptr"):
        _kind(group[name], "iu", f"{at}/{name}")
    if lengths["indptr"] != shape[axis] + 1 or lengths["data"] != lengths["indices"]:
        raise CorruptFile(
            f"{at} declares the shape {shape[0]} x {shape[1]}, but has {lengths['indptr']} pointers, {lengths['indices']} "
            f"indices and {lengths['data']} values."
        )
    pointers, last = group["indptr"], 0
    for start in range(0, lengths["indptr"], STEP):
        block = pointers[start : start + STEP].astype(np.int64)
        if (start == 0 and block[0] != 0) or block[0] < last or (np.diff(block) < 0).any():
            raise CorruptFile(f"{at}/indptr does not start at 0, or falls.")
        last = int(block[-1])
    if last != lengths["data"]:
        raise CorruptFile(f"{at}/indptr ends at {last}, but {lengths['data']} values are stored.")
    return shape


def _declared_shape(group: h5py.Group, at: str) -> tuple[int, int]:
    shape = np.asarray(group.attrs.get("shape", group.attrs.get("h5sparse_shape", ())))
    if shape.shape != (2,) or shape.dtype.kind not in "iuf" or not (shape >= 0).all():
        raise CorruptFile(f"{at} is a sparse matrix without a shape of two numbers.")
    return int(shape[0]), int(shape[1])


def _vector(group: h5py.Group, name: str, at: str) -> tuple[int, ...]:
    place = f"{at}/{visible(name)}"
    if name not in group:
        raise CorruptFile(f"{place} is missing.")
    shape = _element(group[name], place)
    if shape is not ANY and len(shape) != 1:
        raise CorruptFile(f"{place} has {len(shape)} dimensions; one was expected.")
    return shape


def _in_range(dataset: h5py.Dataset, bound: int, at: str) -> None:
    for start in range(0, dataset.shape[0], STEP):
        block = dataset[start : start + STEP]
        if len(block) and (int(block.min()) < 0 or int(block.max()) >= bound):
            raise CorruptFile(f"{at} holds a number outside of 0 to {bound - 1}.")


def _group(item: Any, at: str) -> h5py.Group:
    if not hasattr(item, "keys"):
        raise CorruptFile(f"{at} is a dataset; a group was expected.")
    return item


def encoding_of(item: Any) -> str:
    """The encoding that an element names, "" where it names none."""
    value = item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", ""))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _kind(dataset: h5py.Dataset, kinds: str, at: str) -> None:
    if hasattr(dataset, "keys") or dataset.dtype.kind not in kinds:
        raise CorruptFile(f"{at} does not hold {'whole numbers' if kinds == 'iu' else 'numbers'}.")


def _expect(found: tuple[int, ...], expected: tuple[int, ...], at: str) -> None:
    if found is not ANY and expected is not ANY and found[: len(expected)] != expected:
        raise CorruptFile(f"{at} has the shape {found}; {expected} was expected from the numbers of cells and genes.")
