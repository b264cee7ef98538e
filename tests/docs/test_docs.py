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
        assert load(str(path))["stream"]["name"].endswith("incremental")
