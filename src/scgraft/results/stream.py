"""Map a file that does not fit into memory, into a folder: in parts, which another run of the same command goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scgraft._version import __version__
from scgraft.errors import CorruptFile, NotCounts
from scgraft.files import schema
from scgraft.files.atomic import new_file, new_folder, remove_folder
from scgraft.files.content import content_hash
from scgraft.files.h5ad import read_h5ad
from scgraft.files.text import visible
from scgraft.graft.fit import weights_hash
from scgraft.judgement.measures import cluster_distance
from scgraft.mapping.cluster import check_workers, each_on, once_on
from scgraft.mapping.expected import expected
from scgraft.mapping.freeze import CELLS, SAMPLE, pieces
from scgraft.mapping.frozen_store import load_frozen, save_frozen
from scgraft.mapping.map import learn
from scgraft.mapping.stream import keeping, map_file, map_rows, open_query, survey
from scgraft.numerics.heap import give_back
from scgraft.progress import showing, step
from scgraft.query.by_cells import places_by_genes, write_by_cells
from scgraft.query.cell_file import CellFile
from scgraft.query.lazy import for_workers
from scgraft.results.folder import check_free, write
from scgraft.results.gather import common_calls, write_cells, write_labels, write_parquet
from scgraft.results.parts import Parts, all_finished, column_names, part_of, read_column
from scgraft.results.stored import written
from scgraft.results.summary_format import SUMMARY, parse_summary
from scgraft.results.writable import as_key
from scgraft.values.calibration import Calibration
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.mapping import MappedQuery
from scgraft.values.query import Alignment, AlignOptions
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from scgraft.mapping.freeze import Frozen

SETTINGS, ALIGNMENT, SAMPLE_FOLDER, FROZEN = "settings.json", "alignment.json", "sample", "frozen"
BY_CELLS, KEPT = "by-cells.h5ad", "counts"
Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """A mapping that is asked for: what decides its bytes.

    Parameters
    ----------
    path
        The .h5ad or .zarr file.
    options
        How its cells are aligned.
    labels, config, graft, calibration, method
        As for :func:`scgraft.map_query`.
    page
        Whether the map and the page of the sample are wanted.
    """

    path: Path
    options: AlignOptions
    labels: Literal["auto"] | Sequence[str] | None = "auto"
    config: FitConfig = FitConfig()
    graft: Graft | None = None
    calibration: Literal["auto"] | Mapping[str, Calibration] | None = "auto"
    page: bool = True
    method: str | None = None


def map_in_parts(
    reference: Reference,
    job: Job,
    out: Path,
    *,
    counts: bool = False,
    shard: tuple[int, int] | None = None,
    force: bool = False,
    say: Say = print,
    client: Any = None,
) -> Path:
    """Map a file in parts, in memory that does not grow with its cells.

    Parameters
    ----------
    reference, job
        The reference, and what is asked for.
    out
        Folder to write. Until it is complete, everything is in ``<out>.parts``; the same call goes on from there after an
        interruption, and gives the same bytes as without one.
    counts
        Copy the counts into mapped.h5ad.
    shard
        ``(2, 16)`` makes every sixteenth part from the third on, and leaves putting them together to :func:`gather`.
    force
        Replace a folder that exists.
    say
        Called with each line for the user.
    client
        A ``distributed.Client``, whose workers learn from the sample and make the parts; the file and the folder must be on a disk
        that they share with this process.

    Returns
    -------
    pathlib.Path
        The folder: `out`, or that of the parts for a shard.

    Raises
    ------
    QueryError
        The file cannot be mapped as it is; the subclasses say why.
    OutputExists
        The folder exists and `force` is off.
    ClusterError
        The cluster cannot be used, or went away: what is finished stays.
    """
    check_free(out, force=force)
    with showing(job.config.progress):
        return _mapped_in_parts(reference, job, out, counts, shard, force, say, client)


def _mapped_in_parts(
    reference: Reference, job: Job, out: Path, counts: bool, shard: tuple[int, int] | None, force: bool, say: Say, client: Any
) -> Path:  # fmt: skip
    work = parts_folder(out)
    _begin(work, settings_of(reference, job), say)
    file = _open(reference, job, work, say)
    if not (work / FROZEN).exists():
        if client is None:
            _learn(reference, job, file, work, say)
            give_back()
        else:
            _learn_on(client, reference, job, file, work, say)
    frozen = load_frozen(work / FROZEN, reference)
    mine = Parts(work, *(shard or (0, 1)))
    n_parts = len(list(pieces(file.n_cells)))
    wanted = mine.unfinished(n_parts)
    if len(wanted) < len(range(mine.shard, n_parts, mine.of)):
        say(f"Going on: {len(range(mine.shard, n_parts, mine.of)) - len(wanted)} parts are there already.")
    if client is None:
        _map(reference, job, file, frozen, mine, wanted)
    else:
        _map_on(client, reference, job, file, frozen, mine, wanted, say)
    if shard is not None:
        say(f"Shard {shard[0] + 1} of {shard[1]} is done. When all are: scgraft gather {work}")
        return work
    return gather(work, counts=counts, force=force)


def _open(reference: Reference, job: Job, work: Path, say: Say) -> CellFile:
    """The file; one whose counts are stored gene by gene is written cell by cell first, into the folder of the parts.

    There, too, its first reading keeps the counts for the second one.
    """
    made = work / BY_CELLS
    if not made.exists():
        try:
            return keeping(open_query(reference, job.path, job.options), work / KEPT)
        except NotCounts:
            by_genes = places_by_genes(job.path)
            if not by_genes:
                raise
        said = ", ".join(by_genes)
        say(
            f"{said} of {job.path.name} is stored gene by gene (CSC): it is written cell by cell first, once, into {work}."
        )
        with step("writing counts cell by cell", sum(by_genes.values()), "value") as advance:
            write_by_cells(job.path, made, advance=advance)
    return keeping(open_query(reference, made, job.options), work / KEPT)


def parts_folder(out: Path) -> Path:
    """Where the parts of a mapping are until it is complete."""
    return out.with_name(f"{out.name}.parts")


def settings_of(reference: Reference, job: Job) -> dict[str, Any]:
    """What decides the bytes of a mapping: parts that were made under other settings are of no use."""
    stat = job.path.stat()
    given = None if job.graft is None else weights_hash(job.graft.rows)
    calibration: Any = job.calibration
    if isinstance(calibration, Mapping):
        calibration = {key: content_hash(value) for key, value in calibration.items()}
    settings = {
        "scgraft": __version__,
        "input": [str(job.path.resolve()), stat.st_size, stat.st_mtime_ns],
        "reference": [reference.base.sha256, _of_cells(reference)],
        "options": asdict(job.options),
        "labels": job.labels if job.labels is None or job.labels == "auto" else list(job.labels),
        "method": job.method,
        "config": {k: v for k, v in asdict(job.config).items() if k != "progress"},
        "graft": given,
        "calibration": calibration,
        "page": job.page,
        "sample": SAMPLE,
        "cells in a part": CELLS,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=dict))
    return plain


def _of_cells(reference: Reference) -> str:
    """Hash of what a mapping can read of the reference's cells: their posterior, and columns that name batches or labels."""
    import pandas as pd

    named: dict[str, Any] = {}
    if reference.obs is not None:
        for name in reference.obs:
            if reference.obs[name].dtype.kind not in "fc":
                codes, values = pd.factorize(reference.obs[name])
                named[str(name)] = codes, np.asarray(values).astype(str)
    return content_hash((reference.latent, named))


def _begin(work: Path, settings: dict[str, Any], say: Say) -> None:
    """Make the folder of the parts, or go on in it; parts of other settings are thrown away, and that is said."""
    path = work / SETTINGS
    if path.exists():
        try:
            before = schema.parse(path.read_bytes(), schema.table(schema.anything), SETTINGS)
        except ValueError:
            before = {}
        changed = sorted(name for name in settings if before.get(name) != settings[name])
        if not changed:
            return
        say(f"The parts in {work} were made with another {', '.join(changed)}: all of them are made anew.")
        remove_folder(work)
    work.mkdir(parents=True, exist_ok=True)
    with new_file(path, force=True) as new:
        new.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _learn(reference: Reference, job: Job, file: CellFile, work: Path, say: Say) -> None:
    """Freeze what a sample of the file teaches, and write the mapping of the sample beside it."""
    import anndata

    n = file.n_cells
    trusted, device = job.calibration == "auto" and job.labels is not None, job.config.device
    ahead = expected(reference, file, job.options, calibrated=trusted, device=device)
    if file.kept is not None and not file.kept.has_room(ahead.disk):
        file, ahead = replace(file, kept=None), replace(ahead, disk=0.0)
        say("The disk has no room to keep counts that were read: the whole file is read twice.")
    say(ahead.sentence)
    say(f"{n:,} cells are read to check them and to draw a sample, and then mapped, {CELLS:,} at a time.")
    with step("checking all cells", n, "cell") as advance:
        surveyed = survey(reference, file, job.options, seed=job.config.seed, device=job.config.device, step=advance)
    mapped, frozen = learn(
        reference,
        surveyed.query,
        labels=job.labels,
        method=job.method,
        config=job.config,
        graft=job.graft,
        calibration=job.calibration,
    )
    say(f"The mapping is learnt from {len(surveyed.query.cells):,} of the cells.")
    sample = anndata.AnnData(obs=surveyed.obs)
    write(mapped, sample, work / SAMPLE_FOLDER, reference=reference, page=job.page, force=True)
    with new_file(work / ALIGNMENT, force=True) as new:
        new.write_text(json.dumps(asdict(surveyed.alignment), indent=1) + "\n", encoding="utf-8")
    save_frozen(frozen, work / FROZEN)


def _learn_on(client: Any, reference: Reference, job: Job, file: CellFile, work: Path, say: Say) -> None:
    """The same by a worker, as one task."""
    say("The mapping is learnt from a sample by one of the workers.")
    for line in once_on(client, learn_there, reference, job, file, work.resolve()):
        say(line)


def learn_there(reference: Reference, job: Job, file: CellFile, work: Path) -> list[str]:
    """What a worker does to learn: the lines for the user."""
    lines: list[str] = []
    with showing(False):
        _learn(reference, job, file, work, lines.append)
    return lines


def _map_on(
    client: Any, reference: Reference, job: Job, file: CellFile, frozen: Frozen, mine: Parts, wanted: Sequence[int], say: Say
) -> None:  # fmt: skip
    """Parts made by workers, and listed here: what a worker had not finished when it ended is nowhere listed."""
    runs = list(pieces(file.n_cells))
    say(f"{len(wanted)} parts are made by {check_workers(client)} workers.")
    shared = (reference, frozen, for_workers(file), job.options, job.config.device, mine.folder.resolve())
    with step("mapping all cells", sum(runs[i].stop - runs[i].start for i in wanted), "cell") as advance:
        for place, digest in each_on(client, make_part, shared, [(i, runs[i]) for i in wanted]):
            mine.list_part(wanted[place], digest)
            advance(runs[wanted[place]].stop - runs[wanted[place]].start)


def make_part(
    reference: Reference, frozen: Frozen, file: CellFile, options: AlignOptions, device: str, work: Path, number: int, rows: slice
) -> str:  # fmt: skip
    """What a worker does for a part: map its cells and write it; the hash."""
    mapped = map_rows(reference, frozen, file, options, device, rows)
    return Parts(work).write(number, part_of(rows, file.names(rows), mapped, _map_distance(reference, frozen, mapped)))


def _map_distance(reference: Reference, frozen: Frozen, mapped: MappedQuery) -> np.ndarray | None:
    if frozen.judgement is None or reference.latent is None:
        return None
    distance: np.ndarray = cluster_distance(reference.latent, mapped.latent).astype(np.float32)
    return distance


def _map(reference: Reference, job: Job, file: CellFile, frozen: Frozen, mine: Parts, wanted: Sequence[int]) -> None:
    runs = list(pieces(file.n_cells))
    with step("mapping all cells", sum(runs[i].stop - runs[i].start for i in wanted), "cell") as advance:
        for i, rows, mapped in map_file(reference, frozen, file, job.options, wanted=wanted, device=job.config.device):
            mine.add(i, part_of(rows, file.names(rows), mapped, _map_distance(reference, frozen, mapped)))
            advance(rows.stop - rows.start)


def gather(work: Path, *, counts: bool = False, force: bool = False) -> Path:
    """Put the parts of a mapping together: ``<out>.parts`` becomes ``<out>``.

    Parameters
    ----------
    work
        The folder of the parts, all of them made by whatever runs.
    counts
        Copy the counts into mapped.h5ad.
    force
        Replace a folder that exists.

    Raises
    ------
    CorruptFile
        Parts are missing or changed.
    OutputExists
        The folder exists and `force` is off.
    """
    settings = _document(
        work / SETTINGS, schema.record({"input": schema.each(schema.text, *[schema.whole] * 2)}, more=True)
    )
    alignment = _document(work / ALIGNMENT, schema.of(Alignment))
    source, n_cells = Path(settings["input"][0]), alignment["n_cells"] + len(alignment["dropped"])
    out = work.with_name(work.name.removesuffix(".parts"))
    parts = all_finished(work, len(list(pieces(n_cells))))
    with step("putting the parts together", 3, "file") as advance, new_folder(out, force=force) as new:
        shutil.copytree(work / SAMPLE_FOLDER, new / SAMPLE_FOLDER)
        for name in ("graft", "calibration"):
            if (new / SAMPLE_FOLDER / name).exists():
                (new / SAMPLE_FOLDER / name).rename(new / name)
        if (new / SAMPLE_FOLDER / "report.html").exists():
            (new / SAMPLE_FOLDER / "report.html").rename(new / "report.html")
        write_labels(parts, new / "labels.csv.gz")
        advance(1)
        write_parquet(parts, new / "labels.parquet")
        advance(1)
        sample = read_h5ad(new / SAMPLE_FOLDER / "mapped.h5ad")
        own = (*column_names(parts[0]), *(f"{key}_cluster" for key in common_calls(parts)))
        written_as = {as_key(f"scgraft_{name}"): name for name in own}
        columns = [written_as[name] for name in sample.obs if name in written_as]
        uns = sample.uns["scgraft"]
        write_cells(parts, source, new / "mapped.h5ad", columns=columns, uns=uns, counts=counts)
        advance(1)
        _write_summary(parts, new, alignment)
    remove_folder(work)
    return out


def _document(path: Path, check: schema.Check) -> Any:
    """A working document of a mapping in parts, which holds what this program wrote into it."""
    try:
        return schema.parse(path.read_bytes(), check, path.name)
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path.parent} holds no mapping in parts, or is damaged ({visible(str(error))}).") from error


def _write_summary(parts: Sequence[Path], out: Path, alignment: dict[str, Any]) -> None:
    """summary.json of the whole query: what the sample says, with the shares of all cells."""
    document = parse_summary(out / SAMPLE_FOLDER / SUMMARY, written)
    document["sample"], document["alignment"] = document["alignment"]["n_cells"], alignment
    numbers = document["summary"]
    numbers["cells"] = alignment["n_cells"]
    for key, of_label in numbers["labels"].items():
        unknown = np.concatenate([read_column(part, f"{key}_unknown")[1] for part in parts])
        of_label["unknown_share"] = round(float(unknown.mean()), 4)
    (out / SUMMARY).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
