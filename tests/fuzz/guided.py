"""Bytes that reach further into a reader than any before: ``python guided.py TARGET [options of libFuzzer] CORPUS`` (atheris)."""

import io
import sys

import atheris

with atheris.instrument_imports(include=["scgraft"]):
    from scgraft.calibration.store import WRITTEN
    from scgraft.cards.reading import read_card
    from scgraft.errors import ScgraftError
    from scgraft.files import schema
    from scgraft.files.budget import Budget
    from scgraft.files.npz import read_npz
    from scgraft.reference import unpickle
    from scgraft.results.stored import written


def pickle(data: bytes) -> None:
    unpickle._load(data, "attr.pkl", Budget(len(data), "attr.pkl"))


def summary(data: bytes) -> None:
    try:
        schema.parse(data, written, "summary.json")
    except schema.Unfit:
        pass


def card(data: bytes) -> None:
    read_card(data.decode("utf-8", "replace"))


def npz(data: bytes) -> None:
    read_npz(io.BytesIO(data), WRITTEN)  # type: ignore[arg-type]


TARGETS = {"pickle": pickle, "summary": summary, "card": card, "npz": npz}


def main() -> None:
    read = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            read(data)
        except ScgraftError:
            pass

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
