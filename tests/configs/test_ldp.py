"""Every shipped collection binds, every cell of its grid, and the page says how to run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearn.collecting import prepare
from clearn.config import load, shipped, summary
from clearn.grids import cells
from clearn.streams.tables import SOURCES

ROOT = Path(__file__).parents[2]
NAMES = [name for name in shipped() if name.startswith("ldp/")]


def test_the_collections_of_the_issue_are_shipped() -> None:
    promised = {"allomfree_adult", "allomfree_nursery", "allomfree_ms_fimu", "visits", "pwgtp", "one_billion"}
    assert {f"ldp/{name}" for name in promised} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_binds_before_any_data_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARN_DATA", raising=False)
    grid = load(name)["grid"]
    seen = set()
    for cell in cells(grid):
        config = load(name, cell.overrides)
        del config["grid"]
        resolved = prepare(config).config
        seen.add(str((resolved["protocol"], resolved["seed"])))
    assert len(seen) == len(list(cells(grid)))  # no cell repeats another


@pytest.mark.parametrize("name", NAMES)
def test_a_config_opens_with_its_command_and_what_to_expect(name: str) -> None:
    first = (ROOT / "configs" / f"{name}.yaml").read_text().splitlines()[0]
    local = load(name)["stream"]["data"] in SOURCES
    assert first == f"# clearn run {name}" + (" stream.root=FOLDER" if local else "")
    assert load(name)["name"] == Path(name).name
    assert len(summary(name)) > 40
