"""Trackers follow a run's rows: each step once, whoever wrote it, and never a bit of the result or a folder's name."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import clearn
from clearn import cli, report
from clearn.config import load
from clearn.errors import ConfigError
from clearn.experiment import bind, prepare
from clearn.folder import LEDGER, SCORES, STATUS, RunFolder
from clearn.progress import Progress
from clearn.runner import run, run_until
from clearn.sweeping.naming import default_folder, digest
from clearn.tracking import logs
from clearn.tracking.numbers import numbers
from clearn.tracking.trackers import TRACKERS, Csv, Tracker

RECIPE = {"epochs": 1, "lr": 0.05, "batch_size": 16}
SMALL = {"name": "class_incremental", "data": "digits", "per_class_train": 10, "per_class_test": 5}
TRAINER = {"threads": 1, "accelerator": "cpu"}
MLP = {"backbone": "mlp", "first": RECIPE}
CONFIGS: dict[str, dict[str, Any]] = {
    "learning": {
        "stream": {**SMALL, "increment": [4, 3, 3]},
        "strategy": {"name": "replay", **MLP, "later": RECIPE},
        "budget": {"bytes": "200KiB"},
        "trainer": TRAINER,
    },
    "unlearning": {
        "stream": {**SMALL, "increment": 10, "requests": [{"after": 1, "classes": [3], "look_back": True}]},
        "strategy": {"name": "finetune", **MLP},
        "unlearner": {"name": "head_row"},
        "budget": {"policy": "none"},
        "trainer": TRAINER,
    },
    "reading": {
        "stream": {
            "name": "documents",
            "data": "copying",
            "documents": 6,
            "tasks": 3,
            "upstream_documents": 16,
            "val_documents": 4,
        },
        "strategy": {"name": "majority"},
        "trainer": TRAINER,
    },
    "collecting": {
        "stream": {"name": "collections", "data": "csv", "file": "value.csv", "rounds": 3},
        "protocol": {"name": "l_osue", "eps_inf": 2.0, "alpha": 0.5},
        "runner": {"repeats": 2},
    },
}
LAST = {"learning": 3, "unlearning": 2, "reading": 3, "collecting": 3}
# Of sqlalchemy, by what mlflow asks of it.
FOREIGN = pytest.mark.filterwarnings("ignore:The .*noload.* loader strategy is deprecated")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed (clearn[trackers])")


Write = Callable[..., str]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own to run in, and no tracker that the machine's environment names."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a small config of a kind, and the table that collections ask."""
    values = np.minimum(np.random.default_rng(5).geometric(0.4, 300) - 1, 4)
    (tmp_path / "value.csv").write_text("\n".join(["v", *map(str, values)]) + "\n")

    def config(kind: str, **sections: Any) -> str:
        path = tmp_path / f"{kind}.yaml"
        path.write_text(yaml.safe_dump({"name": kind, "seed": 0, **CONFIGS[kind], **sections}))
        return str(path)

    return config


def results(path: Path) -> dict[str, bytes]:
    """All that must not depend on a tracker: states, scores, answers, evidence, and the ledger but for its times."""
    found = {
        str(one.relative_to(path)): one.read_bytes()
        for folder in ("state", "answers", "evidence")
        for one in sorted(path.glob(f"{folder}/*"))
    }
    timed = ("seconds", "cpu_seconds", "peak_host", "peak_device")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in RunFolder(path).rows(LEDGER)]
    return found | {"scores": (path / SCORES).read_bytes(), "ledger": json.dumps(rows).encode()}


def table(path: Path) -> list[dict[str, str]]:
    with (path / "tracking" / "csv" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def steps(path: Path) -> list[int]:
    return [int(row["step"]) for row in table(path)]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_run_with_a_tracker_equals_one_without_and_its_steps_are_all_there(kind: str, write: Write) -> None:
    config = write(kind)
    assert cli.main(["run", config, "out=plain"]) == 0
    assert cli.main(["run", config, "out=tracked", "tracker=csv"]) == 0
    plain, tracked = Path("plain"), Path("tracked")
    assert results(plain) == results(tracked)
    assert not (plain / "tracking").exists()
    assert default_folder(bind(load(config))) == default_folder(bind(load(config, ["tracker=csv"])))
    first = 0 if kind == "reading" else 1  # a reader's step 0 is what it was prepared with
    assert steps(tracked) == list(range(first, LAST[kind] + 1))
    last, figures = table(tracked)[-1], RunFolder(tracked).rows(LEDGER)[-1]
    assert float(last["bytes/total"]) == figures["total"]
    assert float(last["seconds/write"]) == figures["seconds"]["write"]
    scores = [row for row in RunFolder(tracked).rows(SCORES) if row["step"] == LAST[kind]]
    if kind == "collecting":
        assert float(last["error"]) == pytest.approx(np.mean(scores[0]["se"][scores[0]["headline"]]))
    else:
        judged = [row for row in scores if row["headline"]]
        right, total = (sum(row[key] for row in judged) for key in ("correct", "total"))
        assert float(last["accuracy"]) == pytest.approx(right / total)
    told = yaml.safe_load((tracked / "tracking/csv/hparams.yaml").read_text())
    method = "protocol.name" if kind == "collecting" else "strategy.name"
    assert told[method] == bind(load(config)).config[method.partition(".")[0]]["name"]


def test_numbers_of_every_kind_of_row() -> None:
    scores = [
        {"probe": "task 1", "readout": "nme", "headline": True, "correct": 3, "total": 4, "top5": 4},
        {"probe": "task 2", "readout": "nme", "headline": True, "correct": 0, "total": 1, "top5": 1},
        {"probe": "task 1", "readout": "classifier", "headline": False, "correct": 1, "total": 4},
    ]
    ledger = [
        {"kind": "bytes", "step": 1, "owner": "memory", "category": "exemplars", "bytes": 7},
        {"kind": "bytes", "step": 1, "owner": "model", "category": "head", "bytes": 40},
        {
            "kind": "figures",
            "step": 1,
            "total": 47,
            "budget": None,
            "seconds": {"train": 0.5},
            "rebuilt": True,
            "sha256": "ab",
            "logged": {"forget/samples": 3.0},
            "client": {"worst": 12, "measured_max": None},
            "loss": float("inf"),
        },
    ]
    assert numbers(scores, ledger) == {
        "accuracy": 0.6,
        "accuracy/nme": 0.6,
        "top5/nme": 1.0,
        "accuracy/nme/task 1": 0.75,
        "accuracy/nme/task 2": 0.0,
        "accuracy/classifier": 0.25,
        "accuracy/classifier/task 1": 0.25,
        "bytes/memory/exemplars": 7.0,
        "bytes/model/head": 40.0,
        "bytes/total": 47.0,
        "seconds/train": 0.5,
        "figures/logged/forget/samples": 3.0,
        "figures/client/worst": 12.0,
    }


def test_errors_of_a_collection_are_means_over_repeats_that_have_one() -> None:
    row = {
        "kind": "frequencies",
        "probe": "job/größe",
        "headline": "none",
        "se": {"none": [0.1, None, 0.3], "norm_sub": [9.0, 9.0, 9.0]},
        "running": None,
        "expected": 0.25,
        "expected_running": None,
        "uniform": 0.5,
    }
    found = numbers([row], [])
    assert found == pytest.approx(
        {"error/job_gr__e": 0.2, "error": 0.2, "expected/job_gr__e": 0.25, "uniform/job_gr__e": 0.5}
    )


def test_rows_are_read_from_the_end_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"step": step, "text": "x" * (step % 5)} for step in range(1, 30) for _ in range(2)]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for block in (1, 7, 64, 2**16):
        monkeypatch.setattr(logs, "BLOCK", block)
        for after in (0, 13, 28, 29):
            assert logs._rows(tmp_path / "rows", after) == [row for row in rows if row["step"] > after]


def stop_after(config: str, done: int, path: Path) -> None:
    run_until(bind(load(config)), path, done)


def scalars(path: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(path / "tracking" / "tensorboard"), purge_orphaned_data=False)
    found.Reload()
    return {tag: [one.step for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@needs("tensorboard")
def test_tensorboard_goes_on_without_repeating_a_step(write: Write, tmp_path: Path) -> None:
    config = write("learning", tracker="tensorboard")
    stop_after(config, 2, tmp_path / "run")
    run(bind(load(config)), tmp_path / "run")
    run(bind(load(config)), tmp_path / "run")  # nothing is left to do, or to log
    found = scalars(tmp_path / "run")
    assert found["bytes/total"] == found["accuracy"] == [1, 2, 3]
    assert found["accuracy/nme/task 2"] == [2, 3]
    told = yaml.safe_load((tmp_path / "run/tracking/tensorboard/hparams.yaml").read_text())
    assert told["strategy.first.lr"] == 0.05


@pytest.mark.slow  # making MLflow's database takes most of it
@FOREIGN
@needs("mlflow")
def test_mlflow_keeps_one_run_in_the_folder_over_a_resume(write: Write, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    config, path = write("learning", tracker={"name": "mlflow", "project": "fair"}), tmp_path / "a=b run"
    stop_after(config, 2, path)
    run(bind(load(config)), path)
    client = MlflowClient(f"sqlite:///{path / 'tracking/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("fair")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "a=b run")
    assert found.data.params["strategy.name"] == "replay"
    history = client.get_metric_history(found.info.run_id, "accuracy")
    assert [(one.step, one.value) for one in history] == [
        (step, value) for step, value in enumerate(accuracies(path), 1)
    ]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a=b run", "learning.yaml", "value.csv"]


def accuracies(path: Path) -> list[float]:
    rows = [row for row in RunFolder(path).rows(SCORES) if row["headline"]]
    counts = {step: [row for row in rows if row["step"] == step] for step in (1, 2, 3)}
    return [sum(r["correct"] for r in of) / sum(r["total"] for r in of) for of in counts.values()]


@needs("wandb")
def test_wandb_offline_logs_each_step_once_under_one_id(write: Write, tmp_path: Path) -> None:
    config, path = write("learning", tracker={"name": "wandb", "offline": True}), tmp_path / "run"
    stop_after(config, 2, path)
    run(bind(load(config)), path)
    sessions = sorted(path.glob("tracking/wandb/offline-run-*/*.wandb"))
    assert len(sessions) == 2
    assert len({one.name for one in sessions}) == 1
    records = [record for one in sessions for record in wandb_records(one)]
    logged = [
        (record.history.step.num, {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
                                   for item in record.history.item})
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]  # fmt: skip
    assert [step for step, _ in logged] == [1, 2, 3]
    assert [items["accuracy"] for _, items in logged] == pytest.approx(accuracies(path))
    told = {
        update.key or update.nested_key[0]
        for record in records
        if record.WhichOneof("record_type") in ("run", "config")
        for update in (record.run.config if record.HasField("run") else record.config).update
    }
    assert "strategy.name" in told
    assert not (tmp_path / "wandb").exists()


def wandb_records(path: Path) -> Iterator[Any]:
    """Read a .wandb file: 7 bytes, then LevelDB's log of protocol buffers in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if kind == 0:
            at += left
            continue
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            yield record
            held = b""


def test_csv_goes_on_without_repeating_a_step(write: Write, tmp_path: Path) -> None:
    config, path = write("collecting", tracker="csv"), tmp_path / "run"
    stop_after(config, 1, path)
    assert steps(path) == [1]
    assert cli.main(["resume", str(path)]) == 0  # needs nothing but the folder
    assert steps(path) == [1, 2, 3]


def test_a_tracker_asked_for_later_logs_what_was_done_before(write: Write, tmp_path: Path) -> None:
    config, path = write("collecting"), tmp_path / "run"
    stop_after(config, 2, path)
    assert not (path / "tracking").exists()
    run(bind(load(config, ["tracker=csv"])), path)
    assert steps(path) == [1, 2, 3]
    assert load(str(path / "config.yaml"))["tracker"]["name"] == "csv"
    run(bind(load(config)), path)
    assert "tracker" not in load(str(path / "config.yaml"))


def test_a_state_that_is_lost_repeats_a_step_but_not_in_the_log(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[int] = []
    monkeypatch.setitem(TRACKERS, "tensorboard", listening(log))
    config, path = write("collecting", tracker="tensorboard"), tmp_path / "run"
    run(bind(load(config)), path)
    (path / "state" / "0003.safetensors").write_bytes(b"damaged")
    run(bind(load(config)), path)
    assert log == [1, 2, 3]


def listening(log: list[int], fails_at: int | None = None, opens: bool = True) -> type[Tracker]:
    """Make a tracker that remembers the steps it was given."""

    class Listening(Tracker):
        def begin(self, params: Any, known: str | None) -> str:
            if not opens:
                raise RuntimeError("no such server")
            self.folder.mkdir(parents=True, exist_ok=True)
            return "it"

        def log(self, numbers: Any, step: int) -> None:
            if step == fails_at:
                raise OSError("the line is down")
            log.append(step)

        def end(self, how: str) -> None:
            return

    return Listening


class Notes(Progress):
    """Remembers what a person is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_tracker_that_fails_does_not_end_the_run_and_the_next_one_catches_up(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[int] = []
    monkeypatch.setitem(TRACKERS, "tensorboard", listening(log, fails_at=2))
    config, path, notes = write("collecting", tracker=["tensorboard", "csv"]), tmp_path / "run", Notes()
    run(bind(load(config)), path, notes)
    status = RunFolder(path).get_json(STATUS)
    assert status is not None
    assert status["state"] == "done"
    assert log == [1]
    assert steps(path) == [1, 2, 3]
    (said,) = [text for text in notes.said if "tracker" in text]
    assert "tensorboard failed after step 1 (OSError: the line is down)" in said
    assert f"clearn resume {path}" in said
    monkeypatch.setitem(TRACKERS, "tensorboard", listening(log))
    run(bind(load(config)), path)
    assert log == [1, 2, 3]


def test_a_tracker_that_cannot_be_opened_ends_the_run_before_its_first_step(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", listening([], opens=False))
    config = write("collecting", tracker="wandb")
    with pytest.raises(
        ConfigError, match=r"tracker=wandb cannot be opened: RuntimeError: no such server; run 'wandb lo"
    ):
        run(bind(load(config)), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").rows(SCORES)


def test_a_tracker_that_is_not_installed_is_said_once_before_anything_is_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
    config = write("learning")
    assert cli.main(["run", config, "tracker=[csv,mlflow,wandb]"]) == 2
    said = capsys.readouterr().err
    assert "tracker=mlflow, wandb needs" in said
    assert "pip install 'clearn[trackers]'" in said
    assert not (tmp_path / "runs").exists()
    assert cli.main(["sweep", config, "grid={seed: [0, 1]}", "tracker=mlflow"]) == 2
    assert capsys.readouterr().err.count("pip install") == 1
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match=r"pip install 'clearn\[trackers\]'"):
        clearn.collect(np.array([0, 1, 1]), "l_osue", out="run", tracker="wandb", progress=False, eps_inf=2.0)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tracker=csvv"], "did you mean 'csv'"),
        (["tracker=[]"], "must name a tracker"),
        (["tracker=[csv,csv]"], "must name each tracker once"),
        (["tracker=csv", "tracker.offline=true"], "offline=True has no effect without wandb"),
        (["tracker=csv", "tracker.uri=x"], "uri=x has no effect without mlflow"),
        (["tracker.project=x"], "tracker.name: got nothing"),
        (["tracker=csv", "tracker.url=x"], "did you mean 'uri'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["learning", "collecting"])
def test_mistakes_in_the_section_are_named(kind: str, overrides: list[str], said: str, write: Write) -> None:
    with pytest.raises(ConfigError) as error:
        prepare(load(write(kind), overrides))
    assert said in str(error.value)
    assert "command line" in str(error.value)


def test_another_tracker_drops_the_options_of_the_one_before(write: Write) -> None:
    config = write("learning", tracker={"name": "wandb", "offline": True, "project": "p"})
    assert prepare(load(config, ["tracker=csv"])).config["tracker"] == {
        "name": "csv",
        "project": None,
        "entity": None,
        "offline": False,
        "uri": None,
    }
    assert "tracker" not in prepare(load(config, ["tracker=null"])).config
    several = prepare(load(config, ["tracker=[csv,wandb]"])).config["tracker"]
    assert (several["name"], several["offline"], several["project"]) == (["csv", "wandb"], True, "p")


def test_a_tracker_is_no_part_of_a_run_s_identity(write: Write) -> None:
    config = write("learning")
    told = [prepare(load(config, extra)).config for extra in ([], ["tracker=csv"], ["tracker=[csv,tensorboard]"])]
    assert len({digest(one) for one in told}) == 1
    assert Counter("tracker" in one for one in told) == {True: 2, False: 1}


def test_a_report_puts_runs_with_and_without_a_tracker_together(write: Write) -> None:
    config = write("collecting")
    assert cli.main(["run", config, "out=runs/a", "tracker=csv"]) == 0
    assert cli.main(["run", config, "out=runs/b", "seed=1"]) == 0
    (group,) = report.groups(report.load([Path("runs")]))
    assert group.n == 2
    assert "tracker" not in report.html([group], list(group.runs), "t")


def test_python_runs_take_a_tracker_too(tmp_path: Path) -> None:
    values = np.arange(40) % 4
    path = clearn.collect(values, "l_osue", out=tmp_path / "run", rounds=2, tracker="csv", progress=False, eps_inf=2.0)
    assert steps(path) == [1, 2]
    x, y = np.arange(40 * 4, dtype=np.float32).reshape(40, 4), np.arange(40) % 4
    stream = clearn.from_arrays(x, y, increment=2)
    options: dict[str, Any] = {"backbone": "mlp", "first": RECIPE, "later": RECIPE, "trainer": TRAINER}
    path = clearn.run(stream, "replay", out=tmp_path / "b", tracker=["csv"], progress=False, budget="1MiB", **options)
    assert steps(path) == [1, 2]


def test_no_tracker_loads_no_logger() -> None:
    code = (
        "import sys, clearn.experiment, clearn.runner, clearn.tracking\n"
        "sys.exit(any(name in sys.modules for name in ('lightning', 'torch', 'wandb', 'mlflow', 'tensorboard')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_every_tracker_of_the_options_is_there() -> None:
    assert set(TRACKERS) == {"csv", "tensorboard", "wandb", "mlflow"}
    assert Csv.rewrites
