"""What lies beside a model: the budget of all files together, and the text of the card."""

from __future__ import annotations

from pathlib import Path

from scgraft.errors import CorruptFile
from scgraft.files.budget import Budget, stored_bytes
from scgraft.values.reference import Bundle

# Characters of a card that are looked at; the hub's own have some thousand.
LONGEST_CARD = 1_000_000
LEGACY = ("attr.pkl", "var_names.csv")  # beside model_params.pt


def load_budget(bundle: Bundle) -> Budget:
    """What reading all files of a reference may cost: each may stay below it, and all together exceed it."""
    prefix = bundle.model.name.removesuffix("model_params.pt")
    legacy = [bundle.model.with_name(f"{prefix}{name}") for name in LEGACY] if prefix != bundle.model.name else []
    plain = sum(map(stored_bytes, (bundle.model, bundle.metadata, bundle.card, *legacy)))
    return Budget(plain, bundle.model.name, packed=stored_bytes(bundle.adata))


def read_card_text(path: Path, budget: Budget | None = None) -> str:
    """Text of a card, of which a reader sees the first million characters.

    Raises
    ------
    CorruptFile
        It cannot be opened.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST_CARD)
    except OSError as error:
        raise CorruptFile(f"The card {path.name} cannot be opened: {error}. Give it back, or take it away.") from error
    if budget is not None:
        budget.spend(len(text), path.name)
    return text
