"""Profiles of types, and cells drawn from them and from their mixtures."""

import numpy as np


def profiles(rng, n_types=4, n_genes=60):
    made = rng.gamma(0.5, size=(n_types, n_genes)) + 0.01
    return (made / made.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(rng, shares, n=40, depth=2000):
    return rng.multinomial(depth, np.asarray(shares, np.float64) / np.sum(shares, dtype=np.float64), size=n).astype(
        np.float32
    )
