"""Which references there are: scvi-hub repositories, by their tags and cards, without downloading a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scgraft.cards.card import Card
from scgraft.cards.reading import parse_card
from scgraft.errors import CorruptFile, HubUnreachable, UnsupportedModel
from scgraft.files.text import visible
from scgraft.model.families import family_of
from scgraft.reference.beside import read_card_text
from scgraft.reference.hub import is_transport, said_offline
from scgraft.values.choice import Catalogue, Listed, SurgeryKind

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

LIBRARY = "scvi-tools"  # the tag that scvi-hub gives every repository
# Cards are a few kilobytes each: what takes time is the hub's answer, so several are asked for at once.
AT_ONCE = 8
EXPAND = ["cardData", "gated", "sha", "siblings", "tags", "usedStorage"]
# Words of a card that name a species, the Latin name first, where no tag does.
SPECIES = {
    "human": re.compile(r"\bhomo sapiens\b|\bhuman\b", re.IGNORECASE),
    "mouse": re.compile(r"\bmus musculus\b|\bmouse\b|\bmurine\b", re.IGNORECASE),
}


# limit: the list of scvi-hub fits into it several times over, and so many cards take seconds (chosen by eye, not measured).
def references(search: str | Sequence[str] = (), *, limit: int = 50, offline: bool = False) -> Catalogue:
    """List the scvi-hub repositories of the HuggingFace hub; where the hub cannot be reached, those in this machine's cache.

    Nothing but the hub's list and the cards (a few kilobytes each) is downloaded.

    Parameters
    ----------
    search
        Words that the name, the tags or the licence must contain, all of them, in any case: ``"lung"``, ``"tissue:lung human"``.
    limit
        Repositories at most, the most downloaded first.
    offline
        List the cache without asking the hub.

    Returns
    -------
    Catalogue
        With the facts that tags and cards give; what authors left out is None. `note` says whether the hub or the cache was
        read.

    Raises
    ------
    HubUnreachable
        The hub cannot be reached, and the cache holds no reference.

    Examples
    --------
    >>> import scgraft
    >>> found = scgraft.references("lung", offline=True)  # without it, the hub is asked
    >>> list(found.to_frame().columns[:4])
    ['revision', 'family', 'tissue', 'species']
    """
    words = (search.split() if isinstance(search, str) else [str(word) for word in search]) or []
    if offline or said_offline():
        return _cached(words, limit, "The hub was not asked")
    try:
        found = _listed(words, limit)
    except Exception as error:
        if isinstance(error, MemoryError) or not is_transport(error):
            raise
        return _cached(words, limit, f"The hub could not be reached ({type(error).__name__})")
    here = {entry.repo for entry in _cache_entries() if entry.downloaded}
    entries = tuple(replace(entry, downloaded=entry.repo in here) for entry in found)
    wanted = f" with {' and '.join(map(visible, words))}" if words else ""
    return Catalogue(entries, f"From the hub{wanted}.")


def _listed(words: list[str], limit: int) -> list[Listed]:
    from huggingface_hub import HfApi

    chosen = []
    for info in HfApi().list_models(filter=LIBRARY, sort="downloads", expand=EXPAND):  # type: ignore[arg-type]
        if _has(words, [info.id, *(info.tags or [])]):
            chosen.append(info)
        if len(chosen) == limit:
            break
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cards = list(pool.map(_card, chosen))
    return [from_card(card, info.id, info.sha, info) for info, card in zip(chosen, cards, strict=True)]


def _card(info: ModelInfo) -> Card:
    """The card of one repository; an empty one where it has none that can be read."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(info.id, "README.md", revision=info.sha)
        return _stored_card(Path(path))
    except Exception as error:
        if isinstance(error, MemoryError) or not is_transport(error):
            raise
        return Card()


def from_card(card: Card, repo: str, revision: str | None, info: ModelInfo | None = None) -> Listed:
    """What a card, and the hub's entry where there is one, say of a repository."""
    tagged = [str(tag).split(":", 1) for tag in (info.tags if info is not None and info.tags else [])]
    tags = {pair[0]: pair[1] for pair in tagged if len(pair) == 2} | card.tags
    numbers, family = card.statistics, tags.get("model_cls_name")
    key = card.setup.get("labels_key")
    return Listed(
        repo=repo,
        revision=revision,
        family=family,
        tissue=tags.get("tissue"),
        species=tags.get("species") or tags.get("organism") or _species(card, repo),
        modality=tags.get("modality"),
        cells=numbers.get("n_cells"),
        genes=numbers.get("n_vars"),
        batches=numbers.get("n_batch"),
        labels=numbers.get("n_labels") if key else None,
        label_key=str(key) if key else None,
        surgery=_surgery(family, card),
        licence=_text(card.header.get("license")) or tags.get("license"),
        size=getattr(info, "used_storage", None) or None,
        gated=bool(getattr(info, "gated", False)),
    )


def _surgery(family: str | None, card: Card) -> SurgeryKind:
    if family is None:
        return "unknown"
    try:
        if family_of(family).refusal is not None:
            return "refused"
    except UnsupportedModel:
        return "refused"
    if not card.parameters and not card.statistics:
        return "unknown"
    return "fit" if card.parameters.get("encode_covariates") else "projection"


def _species(card: Card, repo: str) -> str | None:
    said = f"{repo.replace('-', ' ').replace('_', ' ')} {card.description}"
    named = [name for name, words in SPECIES.items() if words.search(said)]
    return named[0] if len(named) == 1 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _has(words: list[str], texts: Iterable[str]) -> bool:
    whole = "\n".join(texts).casefold()
    return all(word.casefold() in whole for word in words)


def _cached(words: list[str], limit: int, why: str) -> Catalogue:
    entries = [e for e in _cache_entries() if _has(words, [str(v) for v in (e.repo, e.tissue, e.species, e.family)])]
    if not entries and not words:
        raise HubUnreachable(
            f"{why}, and the cache holds no reference. Fetch one where there is a network: `scgraft pull org/name`."
        )
    said = f"{why}; these are in the cache: the model where it says downloaded, else its card alone."
    return Catalogue(tuple(entries[:limit]), said)


def _cache_entries() -> list[Listed]:
    """References of huggingface_hub's cache, by name; a repository is one if its card says so or a model lies there."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        info = scan_cache_dir()
    except (CacheNotFound, OSError):
        return []
    found = []
    for repo in sorted(info.repos, key=lambda r: r.repo_id):
        if repo.repo_type != "model" or not repo.revisions:
            continue
        last = max(repo.revisions, key=lambda r: r.last_modified)
        names = {file.file_name: file.file_path for file in last.files}
        has_model = any(name.endswith(("model.pt", "model_params.pt")) for name in names)
        card = _stored_card(names["README.md"]) if "README.md" in names else Card()
        if has_model or card.header.get("library_name") == LIBRARY:
            entry = from_card(card, repo.repo_id, last.commit_hash)
            # Of one whose card alone was read, the size is not known.
            found.append(replace(entry, downloaded=has_model, size=repo.size_on_disk if has_model else None))
    return found


def _stored_card(path: Path) -> Card:
    try:
        return parse_card(read_card_text(path))
    except CorruptFile:
        return Card()
