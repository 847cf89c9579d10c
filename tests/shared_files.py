"""Where the shared models and cells are, if they are there at all."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """A path under the shared folder; skips the test when it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs shared/{'/'.join(parts)}, which is not beside this checkout")
    return path


def golden_folders(*families: str) -> list[Path]:
    """Golden models of the given families: every scvi-tools version, and those on real cells (``<cells>-<family>``)."""
    return sorted(
        folder
        for name in ("golden", "golden_old", "golden_big", "golden_families", "golden_families/cells")
        for folder in SHARED.glob(f"{name}/*")
        if (folder / "golden.npz").exists() and {folder.name.split("_")[0], folder.name.split("-")[-1]} & set(families)
    )
