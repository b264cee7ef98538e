"""Methods by name: listed without an import, imported only from the sibling folder, others by entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearn import plugins
from clearn.errors import ConfigError, UserError

BASE = "from fake_base import Base\n"
FILES = {
    "fake_base.py": "class Base: ...\n",
    "strategies/__init__.py": "",  # as ours has: a folder without it loses to any later one that has it
    "strategies/replay.py": (
        f'"""Replay: stored samples.\n\nMore."""\n{BASE}class Replay(Base): ...\nclass _Own(Base): ...\n'
    ),
    "strategies/bare.py": f"{BASE}from strategies.replay import Replay\nclass Bare(Base): ...\n",
    "strategies/_private.py": "raise SystemExit\n",
    "strategies/helpers.py": '"""No method here."""\nclass Record: ...\n',
    "strategies/two.py": f'"""Two."""\n{BASE}class A(Base): ...\nclass B(Base): ...\n',
    "strategies/other.py": '"""Not one of ours."""\nclass Other(dict): ...\n',
    "strategies/broken.py": '"""Broken."""\ndef (:\n',
    "strategies/bridge.py": f'"""Bridge."""\nimport no_such_package_xyz\n{BASE}class Bridge(Base): ...\n',
    "strategies/ours_missing.py": '"""Ours."""\nimport clearn.no_such_module\nclass Gone(dict): ...\n',
    "strategies/family.py": f'''"""A family."""
{BASE}
__methods__: dict[str, str] = {{"grr": "Randomized", "olh": "Hashing"}}

class Randomized(Base):
    """Generalised randomised response."""

class Hashing(Base): ...
''',
    "strategies/tools.py": '"""Says it has none."""\n__methods__ = {}\nclass Error(Exception): ...\n',
    "third.py": f'"""Third."""\n{BASE}class Third(Base): ...\n',
    "third_two.py": f"{BASE}class A(Base): ...\nclass B(Base): ...\n",
}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with methods in it, as clearn's own would be."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    monkeypatch.setitem(plugins.KINDS, "strategies", plugins.Kind("strategy", "fake_base:Base"))
    monkeypatch.syspath_prepend(str(tmp_path))
    offer(monkeypatch)
    ours = ("strategies", "fake_base", "third", "third_two")
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in ours}
    importlib.invalidate_caches()
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in ours]:
        del sys.modules[name]
    sys.modules.update(hidden)


def offer(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Pretend that an installed package registers these strategies."""
    group = "clearn.strategies"
    points = [importlib.metadata.EntryPoint(name=name, value=value, group=group) for name, value in values.items()]

    def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_listing_reads_summaries_without_importing(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, thirdparty="third:Third")
    assert plugins.names("strategies") == {
        "bare": "",
        "bridge": "Bridge.",
        "broken": "cannot be read: syntax error in line 2",
        "grr": "Generalised randomised response.",
        "olh": "",
        "other": "Not one of ours.",
        "ours_missing": "Ours.",
        "replay": "Replay: stored samples.",
        "thirdparty": "from module third (third:Third)",
        "two": "Two.",
    }
    assert not [name for name in sys.modules if name.partition(".")[0] in ("strategies", "third", "fake_base")]


def test_a_kind_without_a_folder_has_no_methods(house: Path) -> None:
    assert plugins.names("unlearn") == plugins.names("privacy") == {}


def test_the_one_public_class_of_the_file_is_the_method(house: Path) -> None:
    assert plugins.find("strategies", "replay").__name__ == "Replay"
    assert plugins.find("strategies", "bare").__qualname__ == "Bare"  # what it imports is not its own
    assert plugins.find("strategies", "grr").__name__ == "Randomized"
    assert plugins.find("strategies", "olh").__name__ == "Hashing"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("replya", "strategy 'replya' is unknown; did you mean 'replay'?; 'clearn list strategies' shows"),
        (
            "qqqqqq",
            "strategy 'qqqqqq' is unknown; it may be misspelt or not installed; 'clearn list strategies' shows",
        ),
        ("_private", "strategy '_private' is unknown"),
        ("helpers", "strategy 'helpers' is unknown"),
        ("family", "strategy 'family' is unknown"),
        ("", "strategy '' is unknown"),
        (
            "third:Third",
            "strategy 'third:Third' is not a name: a config holds no import path; register the class under the "
            "entry-point group clearn.strategies",
        ),
        ("strategies.replay", "strategy 'strategies.replay' is not a name"),
        ("../third", "strategy '../third' is not a name"),
    ],
)
def test_an_unknown_name_is_a_config_error(house: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plugins.find("strategies", name)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "two",
            "strategies.two must define exactly one public class derived from fake_base.Base, or",
        ),
        ("other", "strategies.other must define exactly one public class derived from fake_base.Base"),
        ("bridge", "strategy 'bridge' needs the package 'no_such_package_xyz', which is missing: install it"),
    ],
)
def test_a_file_that_gives_no_method_says_why(house: Path, name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        plugins.find("strategies", name)
    assert str(caught.value).startswith(said)


def test_a_missing_module_of_our_own_is_not_blamed_on_the_user(house: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"clearn.no_such_module"):
        plugins.find("strategies", "ours_missing")


def test_entry_points_are_methods_too(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(
        monkeypatch,
        one="third:Third",
        alone="third",
        pair="third_two",
        gone="no_such:A",
        wrong="third:nothing",
    )
    assert plugins.find("strategies", "one") is plugins.find("strategies", "alone")
    for name, said in {
        "pair": "third_two must define exactly one public class",
        "gone": "strategy 'gone' of module no_such cannot be imported (No module named 'no_such')",
        "wrong": "third:nothing must be a class derived from fake_base.Base, got None",
    }.items():
        with pytest.raises(UserError) as caught:
            plugins.find("strategies", name)
        assert str(caught.value).startswith(said)


def test_two_owners_of_one_name_are_both_named(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, replay="third:Third")
    assert plugins.names("strategies")["replay"] == "Replay: stored samples."
    with pytest.raises(
        UserError, match=r"'replay' is offered by clearn \(strategies/replay.py\) and module third: uninstall"
    ):
        plugins.find("strategies", "replay")


def test_a_hidden_folder_names_the_one_that_hides_it(
    house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "strategies").mkdir(parents=True)
    (tmp_path / "elsewhere" / "strategies" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    with pytest.raises(UserError) as caught:
        plugins.find("strategies", "replay")
    assert str(caught.value) == (
        f"the package 'strategies' is found at {tmp_path / 'elsewhere' / 'strategies'}, which hides clearn's own at "
        f"{tmp_path / 'strategies'}: rename it, or run from another folder"
    )


def test_a_module_of_that_name_hides_it_too(house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "strategies.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"strategies.py, which hides clearn's own"):
        plugins.find("strategies", "replay")
    monkeypatch.setitem(sys.modules, "strategies", types.ModuleType("strategies"))
    with pytest.raises(UserError, match=r"cannot be imported: put .* on the Python path"):
        plugins.find("strategies", "replay")


def test_a_reference_from_python_needs_no_registration(house: Path) -> None:
    assert plugins.find_reference("strategies", "third:Third") is plugins.find_reference("strategies", "third")
    for reference, said in {
        "third:Missing": "third:Missing must be a class derived from",
        "third.py": "'third.py' cannot be imported",
        "../third": "'../third' is no import path: write module:class",
        "": "'' is no import path",
    }.items():
        with pytest.raises(UserError) as caught:
            plugins.find_reference("strategies", reference)
        assert str(caught.value).startswith(said)


def test_our_own_methods_are_listed_with_a_summary_each_and_without_torch() -> None:
    code = (
        "import sys; from clearn import plugins; listed = [plugins.names(k) for k in plugins.KINDS]; "
        "assert listed[0] and all(all(l.values()) for l in listed), listed; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=plugins.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_strategy_reads_and_why_it_trains_alone_is_known_without_torch() -> None:
    code = (
        "import sys; from clearn import plugins; r, a = plugins.readers(), plugins.alone(); "
        "print(sorted(r & {'mac', 'bm25', 'replay'}), sorted(a), a['mos'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=plugins.ROOT, capture_output=True, text=True, check=True)
    why = "its loss tells each image of a batch from all others (reg: 0 does without)"
    assert done.stdout.strip() == f"['bm25', 'mac'] ['avalanche', 'dark_er', 'gdumb', 'l2p', 'mos'] {why} False"


@pytest.mark.parametrize("name", sorted(plugins.names("strategies")))
def test_what_is_read_from_a_file_is_what_its_class_says(name: str) -> None:
    from clearn.reader import Reader

    found = plugins.find("strategies", name)
    assert issubclass(found, Reader) == (name in plugins.readers())
    assert found.alone in ("", plugins.alone().get(name))
