"""Configs: found, extended, overridden, resolved, bound to signatures; every mistake with place and remedy."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearn import config, layers, plugins
from clearn.binding import bind
from clearn.config import load
from clearn.errors import ConfigError
from clearn.mistakes import Mistake, raise_all

quick = settings(max_examples=100, deadline=None, database=None)

METHOD = '''"""{name}, a method for tests."""
from fake_base import Base


class {cls}(Base):
    def __init__(self, inputs, {options}):
        pass
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to write configs in, beside a house of two methods: memo (lr, blocks) and icarl (lr, loss)."""
    house = tmp_path / "house"
    (house / "strategies").mkdir(parents=True)
    (house / "strategies" / "__init__.py").touch()
    (house / "fake_base.py").write_text("class Base: ...\n")
    for name, cls, options in (
        ("memo", "Memo", "lr: float = 0.1, blocks: int = 1"),
        ("icarl", "ICarl", "lr=0.1, loss='ce'"),
    ):
        (house / "strategies" / f"{name}.py").write_text(METHOD.format(name=name, cls=cls, options=options))
    (house / "configs" / "sub").mkdir(parents=True)
    (house / "configs" / "quickstart.yaml").write_text("strategy: memo\nseed: 1\n")
    (house / "configs" / "sub" / "memo_digits.yaml").write_text("extends: quickstart\nseed: 2\n")
    monkeypatch.setattr(plugins, "ROOT", house)
    monkeypatch.setitem(plugins.KINDS, "strategies", plugins.Kind("strategy", "fake_base:Base"))
    monkeypatch.setattr(config, "_folder", lambda: house / "configs")
    monkeypatch.syspath_prepend(str(house))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "strategies"}
    importlib.invalidate_caches()
    yield work
    for name in [n for n in sys.modules if n.partition(".")[0] in ("strategies", "fake_base")]:
        del sys.modules[name]
    sys.modules.update(hidden)


def write(name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


# --- finding


def test_a_file_wins_over_a_shipped_config_and_yaml_may_be_left_out(here: Path) -> None:
    assert config.shipped() == ["quickstart", "sub/memo_digits"]
    for name in ("quickstart", "quickstart.yaml", "configs/quickstart.yaml"):
        assert config.find(name).parent.parent.name == "house"
    write("quickstart.yaml", "seed: 5\n")
    assert config.find("quickstart") == Path("quickstart.yaml")
    assert load("quickstart") == {"seed": 5}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("memo_digits", "did you mean 'sub/memo_digits'?"),
        ("quikstart", "did you mean 'quickstart'?"),
        ("/", "give the path of a YAML file"),
        ("", "give the path of a YAML file"),
        pytest.param("x" * 5000, "give the path of a YAML file", id="long"),
        ("a\0b", "give the path of a YAML file"),
    ],
)
def test_an_unknown_config_names_the_nearest(here: Path, name: str, hint: str) -> None:
    said = message(lambda: config.find(name))
    assert f"config {name!r} is neither a file nor a shipped config; {hint}; 'clearn list configs'" in said


# --- reading and extending


def test_a_child_is_laid_over_its_parent_option_by_option(here: Path) -> None:
    write("base.yaml", "stream: {name: images, data: digits}\nstrategy: {name: memo, lr: 0.1}\nseed: 1\n")
    write("mid.yaml", "extends: base\nstrategy: {lr: 5e-4}\n")
    Path("deep").mkdir()
    write("deep/child.yaml", "extends: ../mid.yaml\nseed: 3\nname: run-${seed}\n")
    loaded = load("deep/child")
    assert loaded == {
        "stream": {"name": "images", "data": "digits"},
        "strategy": {"name": "memo", "lr": 5e-4},
        "seed": 3,
        "name": "run-3",
    }
    assert loaded.origins["strategy.lr"] == "mid.yaml:2"
    assert loaded.origins["seed"] == "deep/child.yaml:2"


def test_extends_finds_shipped_configs_and_a_copy_may_extend_its_namesake(here: Path) -> None:
    write("mine.yaml", "extends: sub/memo_digits\n")
    write("quickstart.yaml", "extends: quickstart\nout: runs\n")
    assert load("mine") == {"strategy": {"name": "memo"}, "seed": 2}
    assert load("quickstart") == {"strategy": {"name": "memo"}, "seed": 1, "out": "runs"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: b\n", "a.yaml extends b.yaml extends a.yaml: a config cannot extend itself; take one of these"),
        ("extends: a\n", "a.yaml extends a.yaml: a config cannot extend itself"),
        (
            "seed: 1\nextends: quikstart\n",
            "a.yaml:2: extends: 'quikstart' is neither beside a.yaml nor shipped; did you",
        ),
        ("extends: [b]\n", "a.yaml:1: extends: got ['b'], must name one config"),
        ("seed: 1\nseed: 2\n", "a.yaml:2: the duplicate key seed is given twice: keep one of them"),
        ("strategy:\n\tlr: 1\n", "a.yaml:2: a tab stands before the text: YAML is indented with spaces"),
        ("strategy:\n  lr: [1\nseed: 2\n", "a.yaml:3: YAML cannot be read here"),
        ("strategy:\n  name: memo\n lr: 1\n", "a.yaml:3: YAML cannot be read here"),
        ("seed: !!python/object/apply:os.getcwd []\n", "a.yaml:1: could not determine a constructor for the tag"),
        ("seed: 1\n---\nseed: 2\n", "a.yaml:2: YAML cannot be read here"),
        ("- 1\n", "a.yaml: holds no sections: write e.g. 'strategy:'"),
        ("", "a.yaml: holds no sections"),
        ("memo\n", "a.yaml: holds no sections"),
        ("strategy: &x {a: *x}\n", "a.yaml: a value contains itself"),
        pytest.param("seed: " + "9" * 5000 + "\n", "a.yaml: holds a value that cannot be", id="digits"),
        ("name: a\0b\n", "a.yaml: cannot be read"),
        ("name: ${\n", "a.yaml"),
        ("strategy: {? [a, b] : 1}\n", "a.yaml"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_message_with_file_and_line(here: Path, text: str, said: str) -> None:
    write("a.yaml", text)
    write("b.yaml", "extends: a\n")
    assert message(lambda: load("a")).startswith(said)


def test_bytes_that_are_no_text_are_refused(here: Path) -> None:
    Path("a.yaml").write_bytes(b"name: \xff\n")
    assert message(lambda: load("a")) == "a.yaml: is not UTF-8 text (byte 6): save it as UTF-8"


def test_all_sections_at_fault_are_named_together(here: Path) -> None:
    write("a.yaml", "stream: {data: digits}\nstrateg: memo\ndata: cifar\nstrategy.lr: 3\ntrainer: [1]\n1: 2\nfoo: 1\n")
    assert message(lambda: load("a", ["digits"])).splitlines() == [
        "6 mistakes in the config:",
        "  command line: got 'digits', must be of the form section.option=value; write digits=VALUE",
        "  a.yaml:2: strateg: got 'memo', but there is no such section; did you mean 'strategy'?",
        "  a.yaml:3: data: got 'cifar', but there is no such section; did you mean 'stream.data'?",
        "  a.yaml:4: strategy.lr: got 3, but there is no such section; write 'strategy' and, indented below it, 'lr'",
        "  a.yaml:6: 1: got 2, but there is no such section; the sections are extends, name, seed, out, stream, "
        "strategy, unlearner, protocol, budget, trainer, runner, tracker, grid, sweep, expects",
        "  a.yaml:7: foo: got 1, but there is no such section; the sections are extends, name, seed, out, stream, "
        "strategy, unlearner, protocol, budget, trainer, runner, tracker, grid, sweep, expects",
    ]
    write("a.yaml", "seed: one\ntrainer: [1]\nname: [x]\nstrategy: {name: 3}\n")
    assert message(lambda: load("a")).splitlines() == [
        "4 mistakes in the config:",
        "  a.yaml:1: seed: got 'one', must be an int",
        "  a.yaml:2: trainer: got [1], must be a mapping of options",
        "  a.yaml:3: name: got ['x'], must be a string",
        "  a.yaml:4: strategy.name: got 3, must be a string; write it in quotes",
    ]


# --- overrides


def test_overrides_are_yaml_values_laid_over_the_file(here: Path) -> None:
    write("a.yaml", "strategy: {name: memo, lr: 0.1, first: {epochs: 3, lr: 1}}\nbudget: 3MB\n")
    loaded = load(
        "a", ["strategy.first.epochs=1e1", "strategy.milestones=[1, 2]", "seed=3", "seed=4", "budget=4MiB", "out=a=b"]
    )
    assert loaded["strategy"] == {"name": "memo", "lr": 0.1, "first": {"epochs": 10.0, "lr": 1}, "milestones": [1, 2]}
    assert (loaded["seed"], loaded["budget"], loaded["out"]) == (4, {"bytes": "4MiB"}, "a=b")
    assert loaded.origins["strategy.first.epochs"] == "command line"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "command line: got 'seed', must be of the form section.option=value; write seed=VALUE"),
        ("seed=", "command line: got 'seed=', must be of the form section.option=value; write seed=null for no value"),
        ("+seed=3", "command line: got '+seed=3', must be of the form section.option=value; leave out the '+'"),
        (
            "extends=b",
            "command line: got 'extends=b', must be of the form section.option=value; only a file can extend",
        ),
        (
            "strategy.a[0]=3",
            "command line: got 'strategy.a[0]=3', must be of the form section.option=value; give the whole",
        ),
        (
            "strategy..a=3",
            "command line: got 'strategy..a=3', must be of the form section.option=value; options are words",
        ),
        ("=3", "command line: got '=3', must be of the form section.option=value; options are words"),
        ("strategy.a=[1", "command line: strategy.a: got '[1', must be a YAML value; put quotes around it"),
        ("strategy.a=${x", "command line: strategy.a: got '${x'"),
        ("seed.x=3", "command line: seed: got {'x': 3}, must be an int"),
        ("lr=3", "command line: lr: got 3, but there is no such section; did you mean 'strategy.lr'?"),
        (
            "strategy=icral",
            "command line: strategy.name: strategy 'icral' is unknown; did you mean 'icarl'?; 'clearn list",
        ),
        (
            "strategy=os.path",
            "command line: strategy.name: strategy 'os.path' is not a name: a config holds no import path",
        ),
    ],
)
def test_an_override_that_cannot_be_applied_says_what_to_write(here: Path, override: str, said: str) -> None:
    write("a.yaml", "strategy: {name: memo, lr: 0.1}\nseed: 1\n")
    assert message(lambda: load("a", [override])).startswith(said)


def test_another_method_drops_only_what_the_old_one_alone_has(here: Path) -> None:
    write("a.yaml", "strategy: {name: memo, lr: 0.1, blocks: 2, size: 3}\n")
    assert load("a", ["strategy=icarl"])["strategy"] == {
        "name": "icarl",
        "lr": 0.1,
        "size": 3,
    }  # a mistake stays, to be shown
    kept = load("a", ["strategy.blocks=5", "strategy=icarl"])
    assert kept["strategy"] == {"name": "icarl", "lr": 0.1, "size": 3, "blocks": 5}
    errors: list[Mistake] = []
    options = {key: value for key, value in kept["strategy"].items() if key != "name"}
    bind(plugins.find("strategies", "icarl"), options, "strategy", errors, skip=("inputs",))
    assert message(lambda: raise_all(errors, kept.origins)).splitlines() == [
        "2 mistakes in the config:",
        "  a.yaml:1: strategy.size: got 3, but there is no such option; the options are lr, loss",
        "  command line: strategy.blocks: got 5, but there is no such option; the options are lr, loss",
    ]
    write("a.yaml", "strategy:\n  lr: 0.1\n  name: memo\n  blocks: 2\n  size: 3\n")
    write("b.yaml", "extends: a\nstrategy: icarl\n")
    assert load("b")["strategy"] == {"name": "icarl", "lr": 0.1, "size": 3}
    assert load("b").origins["strategy.name"] == "b.yaml:2"
    write("gone.yaml", "strategy: {name: not_installed, lr: 0.1, other: 2}\n")
    assert load("gone", ["strategy=memo"])["strategy"] == {"name": "memo", "lr": 0.1}


def test_a_budget_given_one_way_replaces_the_other_way(here: Path) -> None:
    like = {"method": "der_expand", "backbone": "resnet32", "tasks": 10, "exemplars": 2000}
    write("a.yaml", f"budget: {{like: {like}, policy: final}}\n")
    assert load("a", ["budget=4MiB"])["budget"] == {"policy": "final", "bytes": "4MiB"}
    assert load("a", ["budget=null"])["budget"] == {"like": None, "policy": "final", "bytes": None}
    assert load("a", ["budget.bytes=null"])["budget"] == {"like": like, "policy": "final", "bytes": None}
    write("b.yaml", "budget: 603x\n")
    assert load("b", [f"budget.like={like}"])["budget"] == {"like": like}


def test_the_command_line_takes_a_section_away(here: Path) -> None:
    write("a.yaml", "grid: {seed: [0, 1]}\nunlearner: {name: ssd, alpha: 5}\nseed: 3\n")
    assert load("a", ["grid=null", "unlearner=null"]) == {"seed": 3}
    assert load("a", ["grid=null", "grid.seed=[7]"]) == {
        "seed": 3,
        "unlearner": {"name": "ssd", "alpha": 5},
        "grid": {"seed": [7]},
    }
    assert "grid" not in load("a", ["grid.seed=[7]", "grid=null"])


@pytest.mark.parametrize(
    ("section", "hint"),
    [("grid", "grid=null takes it away"), ("budget", "write budget.OPTION=VALUE")],
)
def test_an_empty_section_on_the_command_line_would_change_nothing(here: Path, section: str, hint: str) -> None:
    write("a.yaml", "grid: {seed: [0, 1]}\n")
    with pytest.raises(
        ConfigError, match=f"{section}: got {{}}, must name options: an empty mapping changes none.*{hint}"
    ):
        load("a", [f"{section}={{}}"])


def test_a_grid_is_flat_however_it_is_written(here: Path) -> None:
    write("a.yaml", "grid: {strategy.lr: [1, 2], strategy: {name: [memo, icarl]}}\n")
    grid = load("a", ["grid.seed=[1,2,3]", "grid.strategy.lr=[5]"])["grid"]
    assert grid == {"strategy.lr": [5], "strategy.name": ["memo", "icarl"], "seed": [1, 2, 3]}


# --- interpolations


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:HOME}",
        "x${oc.env:HOME,y}",
        "${oc.${name}:HOME}",
        "${${name}:HOME}",
        "${oc.create:{a:1}}",
        "[a, '${ oc.env:HOME}']",
    ],
)
def test_resolvers_are_refused(here: Path, value: str) -> None:
    write("a.yaml", f"name: oc.env\nstrategy:\n  x: {value}\n")
    said = message(lambda: load("a"))
    assert said.startswith("a.yaml:3: strategy.x")
    assert "may refer to options of this config only, e.g. ${seed}" in said


def test_interpolations_stay_within_the_config(here: Path) -> None:
    write("a.yaml", "seed: 3\nstrategy: {x: '${seed}', y: 'a${.x}:b', z: ['${strategy.x}']}\n")
    assert load("a")["strategy"] == {"x": 3, "y": "a3:b", "z": [3]}
    for value, said in [
        (
            "${sed}",
            "a.yaml:1: name: got '${sed}', must refer to options of this config; Interpolation key 'sed'",
        ),
        ("${name}", "a.yaml"),
        ("\\${seed}", "a.yaml:1: name: got '${seed}', is no plain text"),
        ("???", "a.yaml:1: name: got ???, must be given; write it in the config, or name=VALUE behind the command"),
    ]:
        write("a.yaml", f"name: '{value}'\nseed: 1\n")
        assert message(lambda: load("a")).startswith(said), value
    write("a.yaml", "name: ???\nseed: 1\n")
    assert load("a", ["name=x"])["name"] == "x"


# --- anything at all

WORDS = st.sampled_from(
    [
        "name",
        "seed",
        "strategy",
        "budget",
        "grid",
        "stream",
        "bytes",
        "x",
        ": ",
        ":\n",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "${",
        "}",
        ".",
        "&a ",
        "*a",
        "<<",
        "!!set ",
        "!x ",
        "'",
        '"',
        "\t",
        "???",
        "1",
        "1e3",
        "null",
        "|",
        "#",
        "=",
        "%",
    ]
)


@quick
@given(text=st.lists(WORDS, max_size=14).map("".join), override=st.lists(WORDS, max_size=5).map("".join))
def test_any_text_is_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, override: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.yaml"
    path.write_text(text, encoding="utf-8")
    for overrides in ([], [override], [f"strategy.x={override}"]):
        try:
            loaded = load(str(path), overrides)
        except ConfigError as error:
            said = str(error)
        else:
            said = "read"
            assert set(loaded) <= set(config.SECTIONS) - {"extends"}
        assert said


# --- saving

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@quick
@given(options=st.dictionaries(st.text(min_size=1, max_size=6), PLAIN, max_size=4), seed=st.integers())
def test_a_saved_config_loads_back_equal_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], seed: int
) -> None:
    path = tmp_path_factory.mktemp("save") / "config.yaml"
    saved = {"strategy": {**options, "name": "memo"}, "seed": seed}
    try:
        config.save(saved, path)
    except ConfigError:
        assert not list(path.parent.iterdir())
        return
    assert same(dict(load(str(path))), saved)
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "text", ["1e-3", "yes", "null", "0777", "1:30", "~", "", " a ", "a: b", "#", "é\n", "'", "2024-01-01", "-", "<<"]
)
def test_text_stays_text_when_saved(tmp_path: Path, text: str) -> None:
    config.save({"strategy": {"x": text, "n": 1e-3, "t": [True, None]}}, tmp_path / "c.yaml")
    assert load(str(tmp_path / "c.yaml")) == {"strategy": {"x": text, "n": 1e-3, "t": [True, None]}}


def test_what_yaml_would_change_is_not_saved(tmp_path: Path) -> None:
    for value in ("${seed}", "???"):
        said = message(lambda value=value: config.save({"strategy": {"x": value}}, tmp_path / "c.yaml"))
        assert said == f"{tmp_path / 'c.yaml'}: strategy.x: got {value!r}, has a meaning of its own in YAML"
    with pytest.raises(TypeError, match="a config cannot hold"):
        config.save({"strategy": {"x": object()}}, tmp_path / "c.yaml")
    assert not list(tmp_path.iterdir())


# --- imports


def test_importing_config_and_plugins_loads_nothing_heavy() -> None:
    heavy = ("torch", "lightning", "omegaconf", "yaml", "numpy", "importlib.metadata")
    code = f"import sys, clearn.config, clearn.plugins; print([m for m in {heavy!r} if m in sys.modules])"
    root = Path(config.__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_layers_and_words_have_no_gaps() -> None:
    assert set(config.SECTIONS) == {"extends", *layers.SCALARS, *layers.MAPPINGS}
    assert {known.section for known in plugins.KINDS.values()} < set(layers.NAMED)
