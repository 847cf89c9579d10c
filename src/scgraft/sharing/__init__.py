"""Grafts between labs: export, publish, join, load."""
