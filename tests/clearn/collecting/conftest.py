"""Small tables in a folder of their own, a config that asks for one of them, and commands run there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clearn import cli
from clearn.frequency.coins import SystemCoins
from clearn.sweeping import commanding

N = 600  # users of every table
CONFIG: dict[str, Any] = {
    "name": "small",
    "stream": {"name": "collections", "data": "csv", "file": "value.csv", "rounds": 3},
    "protocol": {"name": "l_osue", "eps_inf": 2.0, "alpha": 0.5},
    "runner": {"repeats": 2},
    "seed": 0,
}
Fails = Callable[..., str]
Works = Callable[..., str]


def table(path: Path, columns: dict[str, Any]) -> None:
    """Write a CSV file of columns of cells."""
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")


def tables(folder: Path) -> None:
    """value.csv: one attribute of 5 values. people.csv: 3 cities, 5 jobs. weeks.csv: one attribute, 4 rounds."""
    rng = np.random.default_rng(5)
    value = np.minimum(rng.geometric(0.4, N) - 1, 4)
    table(folder / "value.csv", {"v": value})
    table(folder / "people.csv", {"city": np.array(["ah", "be", "ce"])[rng.integers(3, size=N)], "job": value})
    weeks = [value]
    for _ in range(3):
        weeks.append(np.where(rng.random(N) < 0.3, rng.integers(5, size=N), weeks[-1]))
    table(folder / "weeks.csv", {f"w{t}": held for t, held in enumerate(weeks)})


def files(folder: Path) -> list[Path]:
    """All that is there, but for what libraries keep in hidden folders of the home, which this is too."""
    return [path for path in sorted(folder.rglob("*")) if not path.relative_to(folder).parts[0].startswith(".")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: tables, and small.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("CLEARN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    tables(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return tmp_path


@pytest.fixture
def whole(here: Path, capsys: pytest.CaptureFixture[str]) -> Works:
    """Run a command that must succeed; give what it prints."""

    def run(*words: str) -> str:
        capsys.readouterr()
        code = cli.main(list(words))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def works(whole: Works, monkeypatch: pytest.MonkeyPatch) -> Works:
    """The same without the summary and the page, which take longer than a small run and have tests of their own."""
    monkeypatch.setattr(commanding, "summary", lambda *_: None)
    return whole


@pytest.fixture
def fails(here: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail as a user's mistake, and leave no run folder; give its message."""

    def run(*words: str) -> str:
        capsys.readouterr()
        before = files(here)
        assert cli.main(list(words)) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("clearn: ")
        assert captured.err.count("clearn: ") == 1
        assert "Traceback" not in captured.out + captured.err
        assert files(here) == before, "a refused command leaves nothing behind"
        return captured.err

    return run


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give real devices coins that come again, since one in a hundred attacks goes beyond a bound of 99 %."""
    rng = np.random.default_rng(7)

    def words(self: SystemCoins, shape: tuple[int, ...], bits: int) -> Any:
        return rng.integers(0, 2**bits, shape, np.uint32 if bits == 32 else np.uint64)

    monkeypatch.setattr(SystemCoins, "words", words)
