"""Write the golden folders of the present formats, a few kilobytes each: ``PYTHONPATH=src python tests/make_formats.py``.

A format that was released keeps the folder that the version which introduced it wrote: raise the version of the format first, then
run this, and commit what is new. Grafts have theirs in ``tests/graft/formats``.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import scgraft

FORMATS = Path(__file__).parent / "formats"


def example() -> tuple[scgraft.Reference, object]:
    """The reference and query of the examples, under a name that is no path of a machine."""
    folder, adata = scgraft.testing.example()
    reference = scgraft.load_reference(folder)
    return replace(reference, base=replace(reference.base, repo="org/example", revision="0" * 40)), adata


def write_summary(out: Path) -> None:
    """What `scgraft report` reads: without the annotated query, which is large, and the page."""
    reference, adata = example()
    mapped = scgraft.map_query(reference, adata, batch_key="batch")
    with tempfile.TemporaryDirectory() as scratch:
        from scgraft.results.folder import write

        made = write(mapped, adata, Path(scratch) / "out", reference=reference)
        out.mkdir(parents=True)
        for name in ("summary.json", "labels.csv", "map.npz"):
            shutil.copy(made / name, out / name)


def write_calibration(out: Path) -> None:
    scgraft.save_calibration(scgraft.calibrate(example()[0]), out)


def write_frozen(out: Path) -> None:
    from scgraft.mapping.frozen_store import save_frozen
    from scgraft.mapping.map import learn

    reference, adata = example()
    query = scgraft.align(reference, adata, batch_key="batch")
    config = scgraft.FitConfig(device="cpu")
    save_frozen(learn(reference, query, labels="auto", config=config, graft=None, calibration="auto")[1], out)


def main() -> None:
    """Write what is missing; a folder that is there is never changed."""
    from scgraft.calibration.store import FORMAT
    from scgraft.mapping.frozen_store import FROZEN_FORMAT
    from scgraft.results.summary_format import SUMMARY_FORMAT

    for kind, version, write in (
        ("summary", SUMMARY_FORMAT, write_summary),
        ("calibration", FORMAT, write_calibration),
        ("frozen", FROZEN_FORMAT, write_frozen),
    ):
        out = FORMATS / kind / str(version)
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            write(out)
            print(f"written: {out.relative_to(FORMATS)}")


if __name__ == "__main__":
    main()
