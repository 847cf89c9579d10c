"""What the reference does not explain."""
