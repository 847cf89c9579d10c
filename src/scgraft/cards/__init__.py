"""Model cards: read, write, lint, and the metrics that stand in them."""
