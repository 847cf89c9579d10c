"""A word that an argument cannot be is refused by name, wherever a public function or setting takes one of a few words."""

import inspect
import typing
from dataclasses import is_dataclass

import pytest

import scgraft
from scgraft import pl
from scgraft.errors import ScgraftError
from scgraft.testing import TinyConfig, tiny_query, write_hub_folder

# What a step has found out; a user only reads it.
RESULTS = {"CardFinding", "Finding", "FitRecord", "Listed", "Measure", "Verdict"}
WRONG = "absent word"


def words(annotation: object) -> set[str]:
    """The words that an annotation allows, within unions too."""
    if typing.get_origin(annotation) is typing.Literal:
        return set(typing.get_args(annotation))
    return set().union(*(words(part) for part in typing.get_args(annotation)))


def few_words() -> list[tuple[str, str]]:
    """Every public function, or value that a user makes, with each of its arguments that is one of a few words."""
    found = []
    named = [(name, getattr(scgraft, name)) for name in scgraft.__all__] + [
        (f"pl.{name}", getattr(pl, name)) for name in pl.__all__
    ]
    for name, value in named:
        if name in RESULTS or not (inspect.isfunction(value) or (inspect.isclass(value) and is_dataclass(value))):
            continue
        known = vars(inspect.getmodule(value)) | vars(typing)
        for argument in inspect.signature(value).parameters.values():
            if "Literal" in str(argument.annotation) or str(argument.annotation) in known:
                annotation = eval(str(argument.annotation), dict(known))
                found += [(name, argument.name)] if words(annotation) else []
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = TinyConfig(n_cells=80)
    reference = scgraft.load_reference(write_hub_folder(tmp_path_factory.mktemp("words") / "reference", config))
    adata = tiny_query(config, n_cells=40)
    return reference, adata, scgraft.reference_cells(reference)


CALLS = {
    "FitConfig": lambda reference, adata, cells, words: scgraft.FitConfig(**words),
    "evaluate": lambda reference, adata, cells, words: scgraft.evaluate(reference, adata, **words),
    "map_query": lambda reference, adata, cells, words: scgraft.map_query(reference, adata, batch_key="batch", **words),
    "normalized_expression": lambda reference, adata, cells, words: scgraft.normalized_expression(reference, cells, **words),
}  # fmt: skip


def test_the_walk_finds_what_is_known_to_be_there():
    assert {("FitConfig", "objective"), ("map_query", "labels"), ("evaluate", "style")} <= set(few_words())


@pytest.mark.parametrize(("name", "argument"), few_words())
def test_another_word_is_refused_in_an_error_that_says_what_it_can_be(made, name, argument):
    """A function that is new here fails with a KeyError until its call is added above."""
    with pytest.raises(ScgraftError) as caught:
        CALLS[name](*made, {argument: WRONG})
    assert WRONG in str(caught.value) or argument in str(caught.value)
