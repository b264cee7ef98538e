"""Plain values bound to signatures: the annotated types come out, or every mistake with its key and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearn.binding import bind, coerce, wanted
from clearn.errors import ConfigError
from clearn.mistakes import Mistake, raise_all
from clearn.signatures import defaults, describe, parameters, plain

quick = settings(max_examples=100, deadline=None, database=None)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
    max_leaves=8,
)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


def mistakes(target: Any, options: Any, where: str = "strategy") -> list[str]:
    errors: list[Mistake] = []
    bind(target, options, where, errors)
    return [str(error) for error in errors]


@dataclass(frozen=True)
class Recipe:
    """One phase.

    Attributes:
        epochs: passes over
            the data.
        lr: learning rate.
        steps: milestones.
    """

    epochs: int = 10
    lr: float = 0.1
    steps: tuple[int, ...] = ()
    extra: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        wrong = [f"{k}={v} must be above 0" for k, v in (("epochs", self.epochs), ("lr", self.lr)) if v <= 0]
        if wrong:
            raise ValueError("; ".join(wrong))


class Method:
    """A method.

    Args:
        backbone: name of it.
        later: of later tasks.
    """

    def __init__(
        self,
        inputs: NotImportedHere,  # type: ignore[name-defined]  # noqa: F821
        backbone: str,
        freeze: bool = False,
        loss: Literal["ce", "bce"] = "ce",
        k: int | Literal["auto"] = "auto",
        alpha: float | None = None,
        sizes: list[int] | None = None,
        shape: tuple[int, float] = (1, 0.5),
        table: dict[str, float] = {},  # noqa: B006
        where: Path | None = None,
        names: Sequence[str] = (),
        weights: Mapping[str, int] | None = None,
        first: Recipe = Recipe(),
        later: Recipe | None = Recipe(epochs=170, steps=(80, 120)),
        rest: Any = None,
    ) -> None: ...


YES_NO = "YAML reads yes, no, on and off as true or false, so write it in quotes"


def bound(**options: Any) -> dict[str, Any]:
    errors: list[Mistake] = []
    result = bind(Method, {"backbone": "net", **options}, "strategy", errors, skip=("inputs",))
    assert not errors, [str(e) for e in errors]
    return result


def refused(**options: Any) -> list[str]:
    errors: list[Mistake] = []
    bind(Method, {"backbone": "net", **options}, "strategy", errors, skip=("inputs",))
    return [str(error) for error in errors]


@pytest.mark.parametrize(
    ("option", "given_", "read"),
    [
        ("k", 3, 3),
        ("k", 1e3, 1000),
        ("k", "auto", "auto"),
        ("alpha", 3, 3.0),
        ("alpha", "1e-3", 1e-3),
        ("alpha", "5e-4", 5e-4),
        ("alpha", ".5", 0.5),
        ("alpha", math.inf, math.inf),
        ("alpha", None, None),
        ("freeze", True, True),
        ("loss", "bce", "bce"),
        ("sizes", [1, 2.0], [1, 2]),
        ("sizes", None, None),
        ("shape", [2, 1], (2, 1.0)),
        ("table", {"a": 1}, {"a": 1.0}),
        ("where", "a/b", Path("a/b")),
        ("names", ["a"], ("a",)),
        ("weights", {"a": 1}, {"a": 1}),
        ("first", {"lr": 1}, Recipe(lr=1.0)),
        ("later", None, None),
        ("later", {"lr": 0.5}, Recipe(epochs=170, lr=0.5, steps=(80, 120))),
        ("later", {"steps": [1]}, Recipe(epochs=170, steps=(1,))),
        ("rest", {"any": [1]}, {"any": [1]}),
    ],
)
def test_a_plain_value_becomes_the_annotated_type(option: str, given_: Any, read: Any) -> None:
    value = bound(**{option: given_})[option]
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("option", "given_", "said"),
    [
        ("backbone", 34, "strategy.backbone: got 34, must be a string; write it in quotes"),
        (
            "backbone",
            True,
            f"strategy.backbone: got true, must be a string; {YES_NO}",
        ),
        ("freeze", "true", "strategy.freeze: got 'true', must be true or false; write it without quotes"),
        ("freeze", 1, "strategy.freeze: got 1, must be true or false"),
        (
            "k",
            True,
            f"strategy.k: got true, must be an int or 'auto'; {YES_NO}",
        ),
        ("k", 1.5, "strategy.k: got 1.5, must be an int or 'auto'"),
        ("k", "3", "strategy.k: got '3', must be an int or 'auto'; write it without quotes"),
        ("k", "autp", "strategy.k: got 'autp', must be an int or 'auto'; did you mean 'auto'?"),
        ("loss", "BCE", "strategy.loss: got 'BCE', must be one of 'ce', 'bce'; did you mean 'bce'?"),
        ("loss", None, "strategy.loss: got null, must be one of 'ce', 'bce'"),
        ("alpha", "fast", "strategy.alpha: got 'fast', must be a number or null"),
        ("alpha", math.nan, "strategy.alpha: got nan, must be a number or null"),
        ("alpha", 10**400, f"strategy.alpha: got {'1' + '0' * 58}…, must be a number or null"),
        pytest.param(
            "alpha", 10**5000, "strategy.alpha: got a number with too many digits, must be a number or null", id="long"
        ),
        ("sizes", 3, "strategy.sizes: got 3, must be a list (an int each) or null; write [3]"),
        ("sizes", [1, "x"], "strategy.sizes[1]: got 'x', must be an int"),
        ("shape", [1], "strategy.shape: got [1], must be a list of 2 values (an int, a number)"),
        ("table", {"a": "x"}, "strategy.table.a: got 'x', must be a number"),
        ("table", {1: 1.0}, "strategy.table.1: got 1, but keys must be strings; write it in quotes"),
        ("where", "", "strategy.where: got '', must be a path or null"),
        ("first", 3, "strategy.first: got 3, must be a mapping with the options epochs, lr, steps, extra"),
        ("first", {"lr": 0}, "strategy.first.lr: lr=0.0 must be above 0"),
        ("later", {"epohs": 3}, "strategy.later.epohs: got 3, but there is no such option; did you mean 'epochs'?"),
        ("later", {"steps": [1, None]}, "strategy.later.steps[1]: got null, must be an int"),
        ("inputs", 3, "strategy.inputs: got 3, but there is no such option"),
        ("Backbone", 3, "strategy.Backbone: got 3, but there is no such option; did you mean 'backbone'?"),
    ],
)
def test_a_wrong_value_says_key_got_right_and_remedy(option: str, given_: Any, said: str) -> None:
    (only,) = refused(**{option: given_})
    assert only == said or (option == "inputs" and only.startswith(said))


def test_all_mistakes_are_reported_together_in_order() -> None:
    errors: list[Mistake] = []
    options = {"exemplers": 3, "k": 1.5, "first": {"epochs": 0, "lr": -1}, "later": {"lr": "x", "epochs": "y"}}
    bind(Method, options, "strategy", errors, skip=("inputs",))
    assert message(
        lambda: raise_all(errors, {"": "a.yaml", "strategy": "a.yaml:2", "strategy.k": "command line"})
    ).splitlines() == [
        "7 mistakes in the config:",
        "  a.yaml:2: strategy.exemplers: got 3, but there is no such option; the options are backbone, freeze, "
        "loss, k, alpha, sizes, shape, table, where, names, weights, first, later, rest",
        "  command line: strategy.k: got 1.5, must be an int or 'auto'",
        "  a.yaml:2: strategy.first.epochs: epochs=0 must be above 0",
        "  a.yaml:2: strategy.first.lr: lr=-1.0 must be above 0",
        "  a.yaml:2: strategy.later.lr: got 'x', must be a number",
        "  a.yaml:2: strategy.later.epochs: got 'y', must be an int",
        "  a.yaml:2: strategy.backbone: got nothing, must be a string; it has no default, so give a value",
    ]


def test_defaults_are_filled_in_and_go_back_to_plain_values() -> None:
    values = plain(bound(where="x"))
    assert values == {"backbone": "net", **defaults(Method, skip=("inputs",)), "where": "x"}
    assert values["later"] == {"epochs": 170, "lr": 0.1, "steps": [80, 120], "extra": []}
    assert bound(**{k: v for k, v in values.items() if k != "backbone"}) == bound(where="x")
    assert "backbone" not in defaults(Method, skip=("inputs",))


def test_functions_and_unknown_annotations_bind_too() -> None:
    def function(
        a: int, /, b: int, *rest: int, c: str = "x", d: Callable[[], int] | None = None, **more: int
    ) -> None: ...

    assert mistakes(function, {"b": 1, "d": 3}) == [
        "strategy.d: got 3, must be left out (it cannot be set from a config) or null"
    ]
    assert mistakes(function, {"b": 1, "a": 3, "rest": 1, "more": 1})[0].startswith(
        "strategy.a: got 3, but there is no such"
    )
    assert list(parameters(function)) == ["b", "c", "d"]
    assert mistakes(object, {"x": 1}) == ["strategy.x: got 1, but there is no such option; there are no options at all"]
    assert mistakes(function, 3) == ["strategy: got 3, must be a mapping of options"]
    with pytest.raises(TypeError, match=r"annotation of .* option 'inputs' cannot be resolved"):
        bind(Method, {}, "", [])


def test_a_factory_default_is_made_anew_and_a_literal_one_is_not_true() -> None:
    errors: list[Mistake] = []
    first, second = (bind(Recipe, {}, "", errors)["extra"] for _ in range(2))
    assert first == second == []
    assert first is not second
    coerce(True, Literal[1], "x", errors)
    coerce(1.0, Literal[1], "y", errors)
    assert [str(error) for error in errors] == ["x: got true, must be 1", "y: got 1.0, must be 1"]


def test_describe_lists_options_and_those_of_records_with_the_values_in_force() -> None:
    rows = {row.name: row for row in describe(Method, skip=("inputs",))}
    assert rows["backbone"] == ("backbone", "str", "required", "name of it.")
    assert rows["loss"] == ("loss", "Literal['ce', 'bce']", "'ce'", "")
    assert rows["later"] == ("later", "Recipe | None", "", "of later tasks.")
    assert rows["later.epochs"] == ("later.epochs", "int", "170", "passes over the data.")
    assert rows["first.epochs"].default == "10"
    assert rows["later.steps"].default == "[80, 120]"
    assert rows["where"].type == "Path | None"


VALUES = (
    PLAIN
    | st.sampled_from(["auto", "ce", "1e-3", {"epochs": 3}, {"lr": "0.1"}, [1], {"steps": [1]}, "true"])
    | st.binary(max_size=2)
)
NAMES = st.sampled_from(list(parameters(Method, skip=("inputs",)))) | st.text(max_size=5) | st.integers()


@quick
@given(options=st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_mapping_gives_mistakes_or_arguments_of_the_right_types(options: dict[Any, Any]) -> None:
    errors: list[Mistake] = []
    result = bind(Method, options, "strategy", errors, skip=("inputs",))
    if errors:
        said = message(lambda: raise_all(errors))
        assert len(said.splitlines()) == len(errors) + (len(errors) > 1)
        assert all(e.key.startswith("strategy.") and (e.right or e.hint) for e in errors)
        return
    assert list(result) == list(parameters(Method, skip=("inputs",)))
    again: list[Mistake] = []
    for name, parameter in parameters(Method, skip=("inputs",)).items():
        if name != "rest":  # every result reads as its own type, unchanged
            assert coerce(result[name], parameter.hint, name, again) == result[name]
    assert not again


def test_the_type_of_a_record_is_spelled_by_its_options() -> None:
    assert wanted(Recipe | None) == "a mapping with the options epochs, lr, steps, extra or null"
