"""Every block of the documentation that is marked as a tutorial runs as printed, page by page, in one empty folder.

A page marks the fenced block that follows a line `<!-- tutorial -->`; `<!-- tutorial: slow -->` takes longer.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from clearn import cli

DOCS = Path(__file__).parents[2] / "docs"
MARKED = re.compile(r"<!-- tutorial(?:: (?P<speed>\w+))? -->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if "<!-- tutorial" in path.read_text())


@dataclass(frozen=True)
class Block:
    """What stands in one fence."""

    language: str
    text: str
    slow: bool


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text()
    found = [Block(one["language"], one["text"], one["speed"] == "slow") for one in MARKED.finditer(text)]
    assert len(found) == text.count("<!-- tutorial"), f"docs/{page} has a mark that no fence follows"
    return found


def run(chosen: list[Block]) -> None:
    """Run commands through the command line's own entry, and Python in one namespace."""
    names: dict[str, object] = {"__name__": "tutorial"}
    for block in chosen:
        match block.language:
            case "python":
                exec(compile(block.text, "tutorial", "exec"), names)
            case "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    command, *words = shlex.split(line, comments=True)
                    assert command == "clearn", f"a tutorial runs clearn alone, not {command}"
                    assert cli.main(words) == 0, line
            case other:
                raise AssertionError(f"a tutorial in {other} cannot be run: leave the mark out")


def test_the_pages_that_newcomers_read_have_tutorials() -> None:
    assert {"index.md", "ledger.md", "budgets.md", "reproduce.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_tutorials_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [block for block in blocks(page) if not block.slow]
    assert chosen
    run(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.slow for block in blocks(page))])
def test_slow_tutorials_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks(page) if block.slow])


def test_the_get_started_page_leaves_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks("index.md") if "runs/first" in block.text])
    assert {"report.html", "report.csv"} <= {path.name for path in tmp_path.iterdir()}
    for name in ("first", "other"):
        assert (tmp_path / f"runs/{name}/state/0005.safetensors").exists()
    assert "carried by runs/first" in capsys.readouterr().out


def test_the_page_on_the_ledger_prints_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run([block for block in blocks("ledger.md") if block.language == "python"])
    (shown,) = re.findall(r"```text\n(.*?)```", (DOCS / "ledger.md").read_text(), re.DOTALL)
    assert shown == "".join(capsys.readouterr().out.splitlines(keepends=True)[-2:])
