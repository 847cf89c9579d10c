"""Files of strangers and of this program: what may be read of the first, and how the second are written whole or not at all."""
