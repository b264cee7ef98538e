"""`clearn reproduce` runs what a config says, compares the mean with the figure it states, and exits by the verdict."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from clearn import cli, reproducing
from clearn.errors import ConfigError
from clearn.folder import STATUS

CONFIG = """
name: tiny
stream: {{name: class_incremental, data: digits, increment: [5, 5], per_class_train: 20, per_class_test: 10}}
strategy:
  name: finetune
  backbone: mlp
  first: {{epochs: 1, lr: 0.05, batch_size: 16}}
  later: {{epochs: 1, lr: 0.05, batch_size: 16}}
trainer: {{threads: 1, accelerator: cpu}}
expects: {{source: a book, figures: {{classifier: {figure}}}, tolerance: 1.0, {over}}}
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(figure: float, over: str = "over: {seed: [0, 1]}") -> str:
    Path("tiny.yaml").write_text(CONFIG.format(figure=figure, over=over))
    return "tiny.yaml"


def test_a_mean_within_the_tolerance_is_reached_and_one_below_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", write(100.0)]) == 1
    first = row(printed := capsys.readouterr().out)
    measured, spread = float(first[2]), float(first[3])
    assert (first[:2], first[4]) == (["classifier", "100.0"], "2")
    assert float(first[5]) == pytest.approx(measured - 100, abs=0.051)
    assert first[6].startswith("not reached")
    assert spread > 0
    assert printed.index("1/2 seed=0") < printed.index("2/2 seed=1")

    assert cli.main(["reproduce", write(measured + 0.9)]) == 0
    second = row(printed := capsys.readouterr().out)
    assert (second[2:5], second[6]) == (first[2:5], "reached")
    assert "task 1/2" not in printed  # the same runs: nothing is trained again
    assert cli.main(["reproduce", write(measured + 1.1)]) == 1


def row(printed: str) -> list[str]:
    """Cells of the table's line about the classifier."""
    line = next(line for line in printed.splitlines() if "classifier" in line)
    return [cell.strip() for cell in line.strip("│ ").split("│")]


def test_runs_go_where_they_are_told_to() -> None:
    assert cli.main(["reproduce", write(0.0), "out=here"]) == 0
    assert len(list(Path("here").glob(f"*/{STATUS}"))) == 2
    assert cli.main(["reproduce", write(0.0, ""), "out=alone"]) == 0
    assert (Path("alone") / STATUS).exists()
    assert not Path("runs").exists()


def test_stopped_it_says_the_command_that_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from strategies.finetune import Finetune

    learn = Finetune.learn

    def interrupted(*args: Any) -> None:
        learn(*args)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Finetune, "learn", interrupted)
        assert cli.main(["reproduce", write(0.0), "out=here"]) not in (0, 1, 2)
    assert "clearn reproduce tiny.yaml out=here" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["reproduce", "tiny.yaml", "out=here"]) == 0


def test_a_read_out_that_the_method_lacks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yaml").write_text(CONFIG.format(figure=1.0, over="").replace("classifier", "nme"))
    assert cli.main(["reproduce", "tiny.yaml"]) == 2
    assert "has no such read-out; it has classifier" in " ".join(capsys.readouterr().err.split())


def test_a_config_without_a_figure_names_those_that_have_one() -> None:
    with pytest.raises(ConfigError, match=r"states no expected figure.*class_incremental/parity/memo"):
        reproducing.plan("quickstart")
