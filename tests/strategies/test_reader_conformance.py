"""Every shipped reader keeps every promise of its conformance suite; the folder says which readers there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearn import cli, plugins
from clearn.reader import Reader
from clearn.reading import checks

torch.set_num_threads(1)

NAMES = tuple(name for name in plugins.names("strategies") if issubclass(plugins.find("strategies", name), Reader))
SUBJECTS = [*((name, ()) for name in NAMES)]


def test_no_reader_and_no_check_is_missing() -> None:
    baselines = {"closed_book", "majority", "oracle", "bm25", "dense", "uniform", "salient", "lora_only"}
    assert {"mac", "mbc", "cmt"} | baselines == set(NAMES)
    assert len(checks.ALL) >= 17
    assert all(check.__doc__ for check in checks.ALL)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    ("name", "options"), SUBJECTS, ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_conforms(name: str, options: tuple[str, ...], check: Callable[[checks.Subject], None]) -> None:
    check(checks.subject(name, options))


def test_the_command_holds_readers_to_their_own_suite(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "majority"]) == 0
    said = capsys.readouterr().out
    assert "A reader that has read nothing answers every question" in said
    assert "majority: conforms" in said
