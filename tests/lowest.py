"""Print the lowest versions that pyproject.toml allows, one requirement a line: what ``make test-lowest`` installs.

torch is left to constraints.txt: its older releases would pull gigabytes of CUDA libraries.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lowest(extras: list[str]) -> list[str]:
    """``name==version`` for each requirement with a lower bound."""
    wanted = [*PROJECT["dependencies"], *(r for extra in extras for r in PROJECT["optional-dependencies"][extra])]
    found = {}
    for requirement in wanted:
        name, version = re.match(r"([A-Za-z0-9_.-]+(?:\[[a-z,]+\])?)\s*>=\s*([0-9.]+)", requirement).groups()
        found.setdefault(name, f"{name}=={version}")
    return [pin for name, pin in found.items() if name != "torch"]


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
