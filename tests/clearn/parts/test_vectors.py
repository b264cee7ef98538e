"""Vectors of length 1, and in a byte a number."""

from __future__ import annotations

import torch

from clearn.parts.vectors import LEVELS, quantised, unit


def test_int8_of_zeros_and_of_large_numbers() -> None:
    steps, scales = quantised(torch.tensor([[0.0, 0.0], [1e-9, 0.0], [127.0, -63.4], [1e8, -1e3]]))
    assert steps[0].tolist() == [0, 0]
    assert steps[2].tolist() == [127, -63]
    assert scales[0] == 0
    assert scales[2] == 1
    assert bool(torch.isfinite(scales).all())


def test_int8_is_within_half_a_step_and_what_the_scale_was_rounded_by() -> None:
    vectors = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    steps, scales = quantised(vectors)
    assert steps.abs().max() == LEVELS
    errors = (steps.float() * scales.float()[:, None] - vectors).abs()
    half_and_rounding = 0.5 + LEVELS * 2**-11  # a float16 scale is right to 2^-11 of itself, at each of its steps
    assert bool((errors <= half_and_rounding * scales.float()[:, None]).all())


def test_units_have_length_one_and_zero_stays() -> None:
    found = unit(torch.tensor([[3.0, 4.0], [3e30, 4e30], [0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]]))
    assert unit(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32
