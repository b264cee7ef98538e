"""What the documentation shows runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clearn import checks

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found, f"docs/{page} shows no {language}"
    return found


@pytest.fixture(scope="module")
def pixel_means(tmp_path_factory: pytest.TempPathFactory) -> checks.Subject:
    folder = tmp_path_factory.mktemp("third_party")
    (folder / "pixel_means.py").write_text(blocks("method.md", "python")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield checks.subject("pixel_means:PixelMeans")


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_the_method_of_the_tutorial_conforms(check, pixel_means: checks.Subject) -> None:
    check(pixel_means)


def test_the_first_snippet_on_data_runs_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippet = blocks("data.md", "python")[0].replace(
        'out="runs/mine"', 'out="runs/mine", first={"epochs": 1}, later={"epochs": 1}'
    )
    for _ in range(2):
        exec(compile(snippet, "data.md", "exec"), {})
    assert (tmp_path / "runs/mine/state/0002.safetensors").exists()


def test_the_config_sections_on_data_bind(tmp_path: Path) -> None:
    from clearn.config import load

    for number, text in enumerate(blocks("data.md", "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load(str(path))["stream"]["name"] in ("class_incremental", "domain_incremental", "collections")


def test_what_the_page_on_privacy_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearn import cli
    from clearn.collecting import checks as protocol_checks

    monkeypatch.chdir(tmp_path)
    simulate, deploy, lazy = blocks("privacy.md", "python")
    exec(compile(simulate, "privacy.md", "exec"), {})
    assert (tmp_path / "runs/answers/state/0004.safetensors").exists()
    exec(compile(deploy, "privacy.md", "exec"), {})
    (tmp_path / "lazy_protocol.py").write_text(lazy)
    monkeypatch.syspath_prepend(str(tmp_path))
    of = protocol_checks.subject("lazy_protocol:Lazy")
    assert [problem for _, problem in protocol_checks.run(of) if problem] == []

    rows = [f"{'abc'[i % 3]},{'xy'[i % 2]}" for i in range(60)]
    (tmp_path / "people.csv").write_text("\n".join(["job,country", *rows]) + "\n")
    (config,) = blocks("privacy.md", "yaml")
    (tmp_path / "mine.yaml").write_text(config)
    assert cli.main(["show", "mine.yaml"]) == 0
    assert cli.main(["run", "mine.yaml", "runner.repeats=2", "out=runs/mine"]) == 0
    assert (tmp_path / "runs/mine/report.html").exists()


def test_what_the_page_on_unlearning_shows_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clearn import cli

    monkeypatch.chdir(tmp_path)
    (config,) = blocks("unlearning.md", "yaml")
    (tmp_path / "mine.yaml").write_text(config)
    assert cli.main(["run", "mine.yaml", "out=runs/mine"]) == 0
    assert len(list((tmp_path / "runs/mine/evidence").iterdir())) == 3
    capsys.readouterr()
    (snippet,) = blocks("unlearning.md", "python")
    exec(compile(snippet, "unlearning.md", "exec"), {})
    assert capsys.readouterr().out.split() == ["0.941192", "[0.]"]
