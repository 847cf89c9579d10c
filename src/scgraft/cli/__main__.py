"""``python -m scgraft.cli``."""

from scgraft.cli.main import run

if __name__ == "__main__":
    run()
