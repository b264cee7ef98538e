"""Randomness by name: the same three words give the same draws, in any order and whatever was drawn in between."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearn import seeds

torch.set_num_threads(1)


def draws() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.random_sample())  # noqa: NPY002 - the global generators are tested


def test_seeds_are_the_same_on_every_machine() -> None:  # from SHA-256, whose first eight bytes are the seed
    assert seeds.derive(0, 0, "build") == 4246166392160415450
    assert seeds.derive(1993, 7, "fit1/order") == 3576833766079115317


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(), st.integers(0, 10**4), st.text(max_size=20))
def test_any_words_give_a_seed_that_every_generator_takes(seed: int, step: int, purpose: str) -> None:
    number = seeds.derive(seed, step, purpose)
    assert 0 <= number < 2**63
    assert seeds.generator(seed, step, purpose).initial_seed() == number


def test_another_seed_step_or_purpose_gives_other_draws() -> None:
    words = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 10, "a"), (10, 0, "a")]
    first = [torch.rand(3, generator=seeds.generator(*w)).tolist() for w in words]
    assert len({tuple(f) for f in first}) == len(words)
    assert first == [torch.rand(3, generator=seeds.generator(*w)).tolist() for w in words]
    assert len({float(seeds.numpy_generator(*w).random()) for w in words}) == len(words)


def test_a_scope_draws_by_its_words_alone_and_leaves_no_trace() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    with seeds.scope(1, 2, "build"):
        first = draws()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before[2])  # noqa: NPY002
    torch.rand(100)
    with seeds.scope(1, 2, "build"):
        assert draws() == first
    with seeds.scope(1, 3, "build"):
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_scope_within_a_scope_moves_no_draw_of_the_outer() -> None:
    with seeds.scope(1, 0, "outer"):
        torch.rand(1)
        undisturbed = draws()
    with seeds.scope(1, 0, "outer"):
        torch.rand(1)
        with seeds.scope(1, 0, "inner"):
            torch.rand(50)
        assert draws() == undisturbed


def test_a_scope_that_fails_puts_the_generators_back() -> None:
    before = torch.get_rng_state(), random.getstate()

    def failing() -> None:
        with seeds.scope(0, 0, "x"):
            draws()
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_building_depends_on_the_scope_and_not_on_what_was_drawn_before() -> None:
    def weights() -> list[float]:
        with seeds.scope(3, 0, "build"):
            return torch.nn.Linear(4, 4).weight.flatten().tolist()

    first = weights()
    torch.manual_seed(99)
    assert weights() == first
