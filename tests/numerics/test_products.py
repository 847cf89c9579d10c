"""Products of matrices by the faster library: the digits, and what is left behind."""

import numpy as np
import pytest
import torch

from scgraft.numerics import products
from scgraft.numerics.products import fast_products, product, rounds_nothing


def test_exact_products_have_the_digits_of_single_precision():
    generator = torch.Generator().manual_seed(1)
    for n, k, m in ((1, 1, 1), (64, 128, 3000), (256, 21, 1024), (1000, 128, 10)):
        a, b = torch.randn(n, k, generator=generator), torch.randn(k, m, generator=generator)
        with fast_products(exact=True):
            found = a @ b
        assert torch.allclose(found.double(), a.double() @ b.double(), rtol=0, atol=1e-5 * k**0.5)


def test_where_rounding_is_seen_exact_products_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(products, "rounds_nothing", lambda: False)
    before = torch.get_float32_matmul_precision()
    with fast_products(exact=True):
        assert torch.get_float32_matmul_precision() == before
    with fast_products(exact=False):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_the_user_s_precision_comes_back_also_after_an_error():
    before = torch.get_float32_matmul_precision()
    rounds_nothing.cache_clear()
    assert rounds_nothing() in (True, False) and torch.get_float32_matmul_precision() == before
    with pytest.raises(ZeroDivisionError), fast_products("cuda", exact=False):
        1 / 0  # noqa: B018
    with fast_products("cuda", exact=True):
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before


def test_products_of_arrays_may_be_views():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 7), np.float32), rng.standard_normal((20, 8), np.float32)
    assert np.allclose(product(a, b[:, :-1].T), a @ b[:, :-1].T, atol=1e-5)
    assert np.allclose(product(a.T, product(a, b[:, :-1].T)), a.T @ (a @ b[:, :-1].T), atol=1e-4)
