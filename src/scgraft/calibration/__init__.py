"""Calibration on held-out batches of the reference."""
