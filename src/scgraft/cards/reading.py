"""Text of a model card -> :class:`Card`, in both forms that scvi-tools 0.17 to 1.4 gives cards.

A card is text by strangers. Reading one never fails: what is not there, or cannot be read, is empty.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from scgraft.cards.card import ABSENT, COLUMNS, PARTS, ROWS, Card
from scgraft.cards.metrics import Agreement, ClassMetrics, ModelMetrics
from scgraft.errors import CorruptFile
from scgraft.reference.beside import LONGEST_CARD
from scgraft.values.names import shown

# Characters and depth that are looked at: the header is a tenth of a card.
LONGEST_HEADER, DEEPEST_HEADER = 50_000, 20
# What a header by strangers makes of the reader of YAML, its own errors aside: a date that is none, a text that is no number.
_NO_YAML = (RecursionError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError)


def read_card(path: str | Path) -> Card:
    """Read the card in a file, of either form that scvi-tools has given cards; nothing of it is run.

    What the card does not say, or says in a form that cannot be read, is empty in the value.

    Raises
    ------
    CorruptFile
        There is no such file, or it cannot be opened.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> scgraft.read_card(folder / "README.md").minified
    True
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return parse_card(file.read(LONGEST_CARD))
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise CorruptFile(
            f"The card {shown(str(path))} cannot be read ({type(error).__name__}): it is no file that can be opened. Give the path of a "
            "card, such as README.md in the folder of a model; parse_card reads a text."
        ) from error


def parse_card(text: str) -> Card:
    """Read the text of a card of either form; never fails, and runs nothing of it.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> scgraft.parse_card(reference.card).minified
    True
    """
    text = text[:LONGEST_CARD].replace("\r\n", "\n")
    header, body = _header(text)
    said = re.search(r"\*\*(?:Data is Minified|data_is_minified)\*\*:\s*(\w+)", body)
    return Card(
        header=header,
        description=_section(body, r"(?:Model )?Description"),
        parameters=_json_after(body, r"<strong>Model Parameters</strong>|\*\*model_init_params\*\*"),
        setup=_json_after(body, r"<strong>Setup Data Arguments</strong>|\*\*model_setup_\w+_args\*\*"),
        registry=_pairs(_table_after(body, r"<strong>Data Registry</strong>|\*\*model_data_registry\*\*")),
        statistics=_whole_numbers(
            _table_after(body, r"<strong>Summary Statistics</strong>|\*\*model_summary_stats\*\*")
        ),
        minified={"true": True, "false": False}.get(said.group(1).lower()) if said else None,
        training_data=_link(body, "training data url"),
        training_code=_link(body, "training code url"),
        references=_section(body, "References"),
        metrics=_metrics(body),
    )


def _header(text: str) -> tuple[dict[str, Any], str]:
    import yaml

    match = re.match(r"\s*---\n(.*?)\n---\n?(.*)", text, re.DOTALL)
    if match is None:
        return {}, text
    said = match.group(1)
    try:
        header = yaml.safe_load(said) if len(said) <= LONGEST_HEADER and _is_flat(said) else None
    except (yaml.YAMLError, *_NO_YAML):
        header = None
    return (header if isinstance(header, dict) else {}), match.group(2)


def _is_flat(said: str) -> bool:
    """Whether a header has no alias, which lets a few bytes stand for a billion values, and no deep nesting."""
    import yaml

    depth = 0
    for event in yaml.parse(said, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_HEADER or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _section(text: str, title: str) -> str:
    match = re.search(rf"^# {title}[ \t]*\n(.*?)(?=^# |\Z)", text, re.DOTALL | re.MULTILINE)
    found = match.group(1).strip() if match else ""
    return "" if found.startswith("To be added") else found


def _after(text: str, marker: str) -> str:
    """What follows a marker, up to the next one or the end of its block."""
    match = re.search(marker, text)
    if match is None:
        return ""
    rest = text[match.end() :]
    end = re.search(r"</details>|^\*\*[\w -]+\*\*:|^# ", rest, re.MULTILINE)
    return rest if end is None else rest[: end.start()]


def _json_after(text: str, marker: str) -> dict[str, Any]:
    match = re.search(r"```(?:json)?\n(.*?)```", _after(text, marker), re.DOTALL)
    try:
        found = json.loads(match.group(1)) if match else {}
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}


def _table_after(text: str, marker: str) -> list[list[str]]:
    """Rows of the first table after a marker, its header first."""
    rows: list[list[str]] = []
    for line in _after(text, marker).splitlines():
        line = line.strip()
        if not line.startswith("|"):
            if rows:
                break
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            rows.append(cells)
    return rows


def _pairs(rows: list[list[str]]) -> dict[str, str]:
    return {row[0]: row[1] for row in rows[1:] if len(row) >= 2}


def _whole_numbers(rows: list[list[str]]) -> dict[str, int]:
    return {key: int(value) for key, value in _pairs(rows).items() if re.fullmatch(r"\d{1,18}", value)}


def _link(text: str, title: str) -> str | None:
    match = re.search(rf"{title}\**:[ \t]*(\S[^\n]*)", text, re.IGNORECASE)
    found = match.group(1).strip() if match else ""
    return None if found in ("", "N/A", ABSENT) else found


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _metrics(text: str) -> ModelMetrics | None:
    cell = _agreements(_table_after(text, r"\*\*Cell-wise Coefficient of Variation\*\*:"))
    gene = _agreements(_table_after(text, r"\*\*Gene-wise Coefficient of Variation\*\*:"))
    diff = _table_after(text, r"\*\*Differential expression\*\*:")
    if not (cell or gene or diff):
        return None
    classes = {}
    for row in diff[1:]:
        values = dict(zip(diff[0][1:], row[1:], strict=False))
        numbers = {name: _number(values.get(name, "")) for name in COLUMNS}
        n_cells = numbers.pop("n_cells")
        classes[row[0]] = ClassMetrics(**numbers, n_cells=int(n_cells) if math.isfinite(n_cells) else 0)
    style = re.search(r"^Numbers: (corrected|legacy)\b", text, re.MULTILINE)
    return ModelMetrics(style.group(1) if style else "published", cell, gene.get("training"), classes)


def _agreements(rows: list[list[str]]) -> dict[str, Agreement]:
    if not rows:
        return {}
    names = dict(ROWS)
    columns = {column: part for part, column in PARTS.items()}
    found: dict[str, dict[str, float]] = {}
    for row in rows[1:]:
        for title, cell in zip(rows[0][1:], row[1:], strict=False):
            if row[0] in names and title in columns:
                found.setdefault(columns[title], {})[names[row[0]]] = _number(cell)
    blank = dict.fromkeys(names.values(), math.nan)
    return {part: Agreement(**(blank | values)) for part, values in found.items()}
