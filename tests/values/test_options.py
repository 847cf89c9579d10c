"""A wrong option is refused by name where it is given; none runs as something else."""

import math

import pytest

from scgraft import AlignOptions, FitConfig
from scgraft.errors import BadOption


@pytest.mark.parametrize(
    "options",
    [
        {"start": "Mean"}, {"start": None}, {"objective": "bogus"}, {"objective": ""}, {"device": "gpu"}, {"device": "cuda:x"},
        {"holdout": 1.0}, {"holdout": -0.1}, {"holdout": math.nan}, {"batch_size": 0}, {"batch_size": 1.5}, {"batch_size": True},
        {"epochs": -1}, {"max_steps": -1}, {"learning_rate": math.inf}, {"learning_rate": "0.1"}, {"kl_weight": -1},
        {"fit_cells": 0}, {"patience": 0}, {"seed": -1},
    ],
)  # fmt: skip
def test_a_value_that_a_setting_of_the_fit_cannot_have_is_refused(options):
    (name,) = options
    with pytest.raises(BadOption, match=name):
        FitConfig(**options)


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"epochs": None}, {"fit_cells": None}, {"device": "cuda:1"}, {"holdout": 0}]
)
def test_the_ends_of_what_is_allowed_are_allowed(options):
    (name,) = options
    assert getattr(FitConfig(**options), name) == options[name]


@pytest.mark.parametrize("options", [{"min_found": 2}, {"min_found": -0.1}, {"batch_key": ["a", "b"]}, {"layer": 3}])
def test_a_wrong_option_of_the_alignment_is_refused(options):
    (name,) = options
    with pytest.raises(BadOption, match=name):
        AlignOptions(**options)
