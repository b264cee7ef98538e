"""The engine's sections and amounts of bytes: ranges, and two readings named where a unit has two."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearn.binding import build
from clearn.errors import ConfigError
from clearn.mistakes import Mistake, show
from clearn.options import BudgetOptions, Like, RunnerOptions, TrainerOptions, parse_bytes
from clearn.signatures import plain

quick = settings(max_examples=100, deadline=None, database=None)

LIKE = {"method": "der_expand", "backbone": "resnet32", "tasks": 10, "exemplars": 2000}
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["every", "growth", "none", "603x", "4MiB", "4M", "paper", LIKE, {"tasks": 0}, [1]])
)


@pytest.mark.parametrize(
    ("cls", "options", "said"),
    [
        (TrainerOptions, {"devices": 0, "block": 0}, "devices=0 must be at least 1"),
        (TrainerOptions, {"threads": 0}, "threads=0 must be at least 1"),
        (
            TrainerOptions,
            {"precision": "bf16-mixd"},
            "precision='bf16-mixd' is not supported: did you mean 'bf16-mixed'?",
        ),
        (TrainerOptions, {"accelerator": "cuda"}, "got 'cuda', must be one of 'auto', 'cpu', 'gpu'"),
        (
            BudgetOptions,
            {"bytes": "4M"},
            "bytes='4M' can be read in two ways: write 4MB for 4,000,000 bytes or 4MiB for 4,194,304",
        ),
        (BudgetOptions, {"bytes": -1}, "bytes=-1 is negative"),
        (BudgetOptions, {"policy": "growth", "bytes": 5}, "step=null must be an amount under policy growth"),
        (BudgetOptions, {"policy": "growth", "step": 5}, "bytes=null must be an amount under policy growth"),
        (BudgetOptions, {"step": 5}, "step=5 has no effect under policy every"),
        (BudgetOptions, {"policy": "each"}, "got 'each', must be one of 'every', 'final', 'growth', 'none'"),
        (
            BudgetOptions,
            {"like": {"method": "", "backbone": "x", "tasks": 1, "exemplars": 1}},
            "method='' must name one",
        ),
        (
            BudgetOptions,
            {"like": {"method": "a", "backbone": "x", "tasks": 0, "exemplars": 1}},
            "tasks=0 must be at least 1",
        ),
        (RunnerOptions, {"rebuild": "no"}, "got 'no', must be true or false"),
    ],
)
def test_ranges_of_the_engine_sections(cls: type, options: dict[str, Any], said: str) -> None:
    errors: list[Mistake] = []
    assert build(cls, options, "section", errors) is None
    assert said in str(errors[0])


def test_budgets_of_all_kinds_are_made() -> None:
    errors: list[Mistake] = []
    assert build(BudgetOptions, {"bytes": "603x"}, "", errors) == BudgetOptions(bytes="603x")
    assert build(BudgetOptions, {"bytes": 4e6, "policy": "growth", "step": "20x"}, "", errors) == BudgetOptions(
        bytes=4000000, policy="growth", step="20x"
    )
    like = Like("der_expand", "resnet32", 10, 2000)
    assert build(BudgetOptions, {"like": plain(like)}, "", errors) == BudgetOptions(like=like)
    assert not errors
    assert build(BudgetOptions, {"like": plain(like), "bytes": 3}, "budget", errors) is None
    assert "is a second budget beside bytes=3: give one of them" in str(errors[0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (0, 0),
        (24684160, 24684160),
        ("12", 12),
        ("4e6", 4000000),
        ("7B", 7),
        ("1kB", 1000),
        ("4MB", 4000000),
        ("1.5GB", 1500000000),
        ("1KiB", 1024),
        ("4MiB", 4194304),
        (" 2 GiB ", 2147483648),
        ("23.54MiB", 24683479),
        (".5KiB", 512),
        ("1.0B", 1),
    ],
)
def test_amounts_of_bytes(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4M", "'4M' can be read in two ways: write 4MB for 4,000,000 bytes or 4MiB for 4,194,304"),
        ("2k", "'2k' can be read in two ways: write 2kB for 2,000 bytes or 2KiB for 2,048"),
        ("2KB", "'2KB' can be read in two ways: write 2kB for 2,000 bytes or 2KiB for 2,048"),
        ("1.5G", "'1.5G' can be read in two ways: write 1.5GB for 1,500,000,000 bytes or 1.5GiB for 1,610,612,736"),
        ("4mib", "'4mib' has an unknown unit 'mib': did you mean 'MiB'?"),
        ("4Mb", "'4Mb' has an unknown unit 'Mb': did you mean 'MB'?"),
        ("4parsec", "'4parsec' has an unknown unit 'parsec': the units are B, kB, MB, GB, KiB, MiB, GiB"),
        (-1, "-1 is negative: a budget is 0 bytes or more"),
        ("-4MB", "'-4MB' is negative"),
        ("1.5B", "'1.5B' is a fraction of a byte"),
        ("0.1", "'0.1' is a fraction of a byte"),
        ("603x", "'603x' counts exemplars, which have no size here: write e.g. 4000000, 4MB (10^6) or 4MiB (2^20)"),
        ("nan", "'nan' is no amount of bytes"),
        ("inf", "'inf' is no amount of bytes"),
        ("1e999999999", "'1e999999999' is no amount of bytes"),
        ("", "'' is no amount of bytes"),
        (True, "true is no amount of bytes"),
        (1.5, "1.5 is no amount of bytes"),
        (math.nan, "nan is no amount of bytes"),
        (None, "null is no amount of bytes"),
    ],
)
def test_amounts_that_are_refused_name_the_remedy(text: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bytes(text)
    assert str(caught.value).startswith(said)


@quick
@given(text=st.text("0123456789.eE+-kKMGibBx _", max_size=8))
def test_any_text_is_an_amount_or_a_config_error(text: str) -> None:
    try:
        count = parse_bytes(text)
    except ConfigError as error:
        said = str(error)
    else:
        said = show(text) if count >= 0 else "negative"
    assert said.startswith(show(text))


@quick
@given(
    options=st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(BudgetOptions)]), VALUES, max_size=5)
)
def test_any_budget_section_gives_mistakes_or_a_budget(options: dict[str, Any]) -> None:
    errors: list[Mistake] = []
    made = build(BudgetOptions, options, "budget", errors)
    assert (made is None) == bool(errors)
    if made is not None:
        assert build(BudgetOptions, plain(made), "budget", errors) == made
