"""A reference: fetch it, read its files without running them, describe it."""
