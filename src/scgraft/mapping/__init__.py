"""The chain: load a reference, check a query, map it."""
