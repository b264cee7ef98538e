"""Reports on synthetic runs that forget: pairing with retraining, verdicts, what is missing, and every writer."""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.numpy import load, save

from clearn import report
from clearn.folder import RunFolder
from clearn.forgetting import logit_confidences, u_lira
from clearn.report.unlearning.columns import all_measures, cell, digits, measures, signed
from clearn.report.unlearning.grouping import UnlearningGroup
from clearn.report.unlearning.runs import UnlearningRun, read_requests
from clearn.report.unlearning.sections import event_names
from clearn.report.unlearning.verdicts import judged
from clearn.state import encode, freeze

REQUESTS: list[dict[str, Any]] = [{"after": 2, "classes": [0]}, {"after": 3, "classes": None, "count": 8}]
TASKS, PER_TASK = 3, 2
VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass(frozen=True)
class Manner:
    """How a synthetic model answers after a request: probability of being right, by kind of sample."""

    forget: float
    stays: float = 0.95
    kept: float = 0.9
    forgotten: float | None = None


RETRAINED = Manner(forget=0.05, forgotten=0.05)
UNTOUCHED = Manner(forget=1.0, stays=1.0, kept=0.9, forgotten=0.95)
RUINED = Manner(forget=0.2, stays=0.2, kept=0.2, forgotten=0.2)


def scores(labels: np.ndarray, right: float, c: int, sharp: float, key: Sequence[int]) -> np.ndarray:
    """Give (n, c) float32 scores whose argmax is right on a share `right` of the samples exactly (rounded)."""
    rng = np.random.default_rng(list(key))
    n = len(labels)
    guessed = labels.copy()
    wrong = rng.permutation(n)[: n - round(right * n)]
    guessed[wrong] = (labels[wrong] + 1 + rng.integers(0, c - 1, len(wrong))) % c
    found = rng.normal(0, 0.3, (n, c))
    found[np.arange(n), guessed] += sharp + rng.random(n)
    return found.astype(np.float32)


def evidence(
    folder: Path, step: int, c: int, forget: np.ndarray, before: Manner, after: Manner, seed: int, who: int
) -> None:
    """Write the answers around a request; runs of one seed and manner before it have the same answers before."""
    stays = np.arange(60, dtype=np.int64) % (c - 1) + 1
    test = np.arange(40 * c, dtype=np.int64) % c
    labels = {"forget": forget, "stays": stays, "test": test}
    arrays = {f"labels/{name}": one for name, one in labels.items()}
    for when, manner, key in (("before", before, 0), ("after", after, who)):
        shares = {"forget": manner.forget, "stays": manner.stays, "test": manner.kept}
        for at, (name, one) in enumerate(labels.items()):
            arrays[f"{when}/{name}"] = scores(one, shares[name], c, 4.0, [seed, step, key, at])
        if manner.forgotten is not None:
            gone = test == 0
            arrays[f"{when}/test"][gone] = scores(test[gone], manner.forgotten, c, 4.0, [seed, step, key, 9])
    (folder / "evidence").mkdir(exist_ok=True)
    (folder / "evidence" / f"{step:04d}.safetensors").write_bytes(save(arrays))


def make(
    folder: Path,
    method: str = "ssd",
    seed: int = 0,
    *,
    manner: Manner = RETRAINED,
    requests: list[dict[str, Any]] | None = None,
    seconds: float = 2.0,
    state: str = "done",
    steps: int | None = None,
    strategy: str = "replay",
    who: int | None = None,
    **unlearner: Any,
) -> Path:
    """Write a run folder of 3 tasks of 2 classes with requests between them.

    Args:
        who: what a model's chance hangs on; of 0 are the answers before a request.
    """
    requests = REQUESTS if requests is None else requests
    folder.mkdir(parents=True)
    whole = {
        "stream": {"name": "class_incremental", "data": "digits", "order_seed": None, "requests": requests},
        "strategy": {"name": strategy, "epochs": 3},
        "unlearner": {"name": method} | unlearner,
        "budget": {"bytes": 9000},
        "seed": seed,
        "name": folder.name,
        "out": "runs",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole))
    facts = {"clearn": "0.1.0", "device": "cpu", "started": f"2025-01-0{seed % 9 + 1}T10:00:00"}
    (folder / "environment.json").write_text(json.dumps(facts | {"command": ["/home/someone/bin/clearn", "run"]}))
    asked = {request.step: request for request in read_requests(whole)}
    total = TASKS + len(asked)
    rows: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    task = 0
    for step in range(1, total + 1):
        task += step not in asked
        c = task * PER_TASK
        served = [one for at, one in asked.items() if at <= step]
        gone = {label for one in served for label in one.classes}
        rows += [
            score(step, one, gone, manner, readout) for one in range(1, task + 1) for readout in ("nme", "classifier")
        ]
        sizes = {("model", "params"): 1000, ("memory", "exemplars"): 500 * task - 300 * len(served)}
        sizes |= {("unlearner", "importance"): 64 * step}
        ledger += [
            {"kind": "bytes", "step": step, "owner": owner, "category": category, "bytes": size}
            for (owner, category), size in sizes.items()
        ]
        ledger.append(
            figures(step, sum(sizes.values()), seconds if step in asked else 5.0, asked.get(step) is not None)
        )
        if step in asked:
            forget = np.zeros(30, np.int64) if asked[step].classes else np.arange(8, dtype=np.int64) % (c - 1) + 1
            if asked[step].what == "nothing":
                forget = forget[:0]
            chance = who if who is not None else 0 if method == "nothing" else sum(map(ord, method))
            evidence(folder, step, c, forget, UNTOUCHED, manner, seed, chance)
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ledger))
    status = {"state": state, "step": total, "steps": steps or total, "message": None}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def score(step: int, task: int, gone: set[int], manner: Manner, readout: str) -> dict[str, Any]:
    classes = {}
    for label in (2 * task - 2, 2 * task - 1):
        share = (manner.forgotten or 0.0) if label in gone else 0.9
        classes[str(label)] = [round(40 * share), 40]
    right = sum(one[0] for one in classes.values())
    return {
        "step": step,
        "task": task,
        "probe": f"task {task}",
        "readout": readout,
        "headline": readout == "classifier",
        "correct": right,
        "total": 80,
        "classes": classes,
    }


def figures(step: int, total: int, seconds: float, request: bool) -> dict[str, Any]:
    logged = {"forget/samples": 30, "forget/thrown_out": 12, "unlearn/samples": 70, "unlearn/selected": 0.02}
    return {
        "kind": "figures",
        "step": step,
        "total": total,
        "shared": 0,
        "seconds": {"data": 0.0, "train": seconds, "select": 0.5, "evaluate": 9.0},
        "cpu_seconds": 3.0,
        "samples": 200,
        "logged": logged | {"unlearn/selected/head.weight": 7.0} if request else {},
    }


def original(folder: Path, seed: int = 0, **options: Any) -> Path:
    """Write a run whose unlearner leaves every answer as it was, bit for bit."""
    make(folder, "nothing", seed, manner=UNTOUCHED, who=0, **options)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of retraining, a control, a method that does well, one that ruins, and one unfinished run."""
    folder = tmp_path_factory.mktemp("unlearned")
    for seed in range(3):
        make(folder / f"retrain{seed}", "retrain", seed, seconds=19.5)
        original(folder / f"nothing{seed}", seed, seconds=0.0)
        make(folder / f"ssd{seed}", "ssd", seed)
        make(folder / f"ruin{seed}", "neggrad", seed, manner=RUINED)
    make(folder / "going", "ssd", 3, state="running", steps=9)
    return folder


@pytest.fixture(scope="module")
def groups(whole: Path) -> list[Any]:
    return grouped(whole)


@pytest.fixture(scope="module")
def html(whole: Path) -> str:
    return page(whole)


def grouped(path: Path) -> list[Any]:
    return report.groups(report.load([path]))


def named(runs: Path | list[Any], method: str) -> UnlearningGroup:
    found = [
        group for group in (grouped(runs) if isinstance(runs, Path) else runs) if group.method == method and group.n
    ]
    assert len(found) == 1
    assert isinstance(found[0], UnlearningGroup)
    return found[0]


def text(groups: Sequence[Any], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.terminal(groups, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def page(path: Path) -> str:
    runs = report.load([path])
    return report.html(report.groups(runs), runs, "A <page> & more")


# Reading


def test_a_config_with_an_unlearner_is_a_run_of_unlearning(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (run,) = report.load([tmp_path])
    assert isinstance(run, UnlearningRun)
    assert (run.state, run.step, run.steps, run.headline) == ("done", 5, 5, "classifier")
    assert [one.step for one in run.requests] == [3, 5]
    assert [one.words for one in run.requests] == ["class 0 after task 2", "8 samples after task 3"]
    assert [one.gone for one in run.requests] == [(0,), (0,)]


def test_requests_come_in_the_order_of_their_tasks_and_entries() -> None:
    entries = [{"after": 3, "ids": [5]}, {"after": 1, "classes": [1, 2]}, {"after": 3, "file": "a/b.txt"}]
    found = read_requests({"stream": {"requests": entries}, "unlearner": "ssd"})
    assert [(one.step, one.what) for one in found] == [
        (2, "classes 1, 2"),
        (5, "1 sample"),
        (6, "the samples of b.txt"),
    ]
    assert event_names(found, 7) == ["1", "R1", "2", "3", "R2", "R3", "4"]


def test_figures_of_a_request_are_the_method_s_own(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (run,) = report.load([tmp_path])
    assert isinstance(run, UnlearningRun)
    first = run.requests[0]
    assert run.kept(first) == 128  # weighed after task 2, before the request came
    assert run.freed(first) == 300
    assert run.figures[2].own_seconds == 2.5  # scoring is the engine's
    assert run.figures[2].read == 270


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_unfinished_runs_are_listed_and_spoil_no_mean(tmp_path: Path, state: str) -> None:
    make(tmp_path / "a", seed=0)
    cut = make(tmp_path / "b", seed=1, state=state, steps=5)
    shutil.rmtree(cut / "evidence")
    lines = (cut / "ledger.jsonl").read_text().splitlines(keepends=True)
    (cut / "ledger.jsonl").write_text("".join(lines[:7]) + lines[7][:20])
    (group,) = grouped(tmp_path)
    assert group.n == 1
    assert f"{state} after step 1 of 5" in text([group])


def test_a_torn_score_leaves_the_steps_before_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", state="running")
    lines = (folder / "scores.jsonl").read_text().splitlines(keepends=True)
    (folder / "scores.jsonl").write_text("".join(lines[:-1]) + lines[-1][:10])
    (run,) = report.load([tmp_path])
    assert (run.step, run.scored) == (4, 4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evidence/0003.safetensors", None, "evidence/0003.safetensors cannot be read"),
        ("evidence/0005.safetensors", b"torn", "evidence/0005.safetensors cannot be read"),
        ("evidence/0003.safetensors", save({"labels/forget": np.zeros(2)}), "evidence/0003.safetensors cannot be read"),
        ("ledger.jsonl", b"{}\n{}\n", "KeyError"),
        ("scores.jsonl", b"no json\n{}\n", "line 1 of scores.jsonl"),
        ("config.yaml", b"unlearner: ssd\nstream: {requests: [{classes: [0]}]}\n", "after"),
        ("config.yaml", b"a: [", "config.yaml cannot be read"),
    ],
)
def test_a_damaged_run_is_named_and_spoils_no_mean(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    make(tmp_path / "a")
    broken = make(tmp_path / "broken", seed=1)
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    runs = report.load([tmp_path])
    assert all(isinstance(run, UnlearningRun) for run in runs)
    assert [run.state for run in runs] == ["done", "damaged"]
    assert message in str(runs[1].message)
    assert "broken" in text(report.groups(runs))
    checked(page(tmp_path))


def test_labels_that_no_column_is_of_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    path = folder / "evidence" / "0003.safetensors"
    arrays = load(path.read_bytes())
    arrays["labels/test"] = arrays["labels/test"] + 10
    path.write_bytes(save(arrays))
    (run,) = report.load([tmp_path])
    assert "not among its 4 columns" in str(run.message)


# Measuring


def test_accuracies_are_those_that_were_written(tmp_path: Path) -> None:
    make(tmp_path / "a", manner=Manner(forget=0.5, stays=0.8, kept=0.9, forgotten=0.25))
    (group,) = grouped(tmp_path)
    first, second = group.runs[0].measured
    assert (first.before, first.forget, first.stays, first.forgotten) == (1.0, 0.5, 0.8, 0.25)
    assert first.kept == pytest.approx(0.9, abs=0.05)
    assert second.forgotten is None  # single samples go
    assert second.guess == pytest.approx(1 / 6)


def test_gaps_are_paired_by_seed_with_their_interval(tmp_path: Path) -> None:
    for seed, (mine, theirs) in enumerate([(0.5, 0.3), (0.7, 0.4), (0.9, 0.5)]):
        make(tmp_path / f"s{seed}", "ssd", seed, manner=Manner(forget=mine, forgotten=0.0))
        make(tmp_path / f"r{seed}", "retrain", seed, manner=Manner(forget=theirs, forgotten=0.0))
    make(tmp_path / "s9", "ssd", 9, manner=Manner(forget=0.0))  # no retrain run has its seed
    group = named(tmp_path, "ssd")
    gap = group.gap(group.requests[0], lambda one: one.forget)
    assert gap is not None
    assert gap.n == 3
    assert gap.mean == pytest.approx(0.3)
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's quantile with 2 degrees of freedom
    assert (gap.low, gap.high) == pytest.approx((0.3 - half, 0.3 + half))
    mean = group.number(group.requests[0], lambda one: one.forget)
    assert mean is not None
    assert mean.n == 4


def test_the_tug_of_war_and_divergence_are_those_of_the_pairs(groups: list[Any]) -> None:
    group = named(groups, "ssd")
    first = group.requests[0]
    (pair, *_), run, other = group.paired[0], *group.pairs[0]
    mine, theirs = run.measured[0], other.measured[0]
    product = np.prod([1 - abs(getattr(mine, name) - getattr(theirs, name)) for name in ("forget", "stays", "kept")])
    assert pair.tow == pytest.approx(float(product))
    assert pair.js_forget is not None
    assert 0 < pair.js_forget < math.log(2)
    speed = group.speed(first)
    assert speed is not None
    assert speed.mean == pytest.approx(20.0 / 2.5)


def test_a_relapse_is_told_against_retraining_s_stream(groups: list[Any]) -> None:
    group = named(groups, "nothing")
    first, second = group.requests
    found = group.relapse(first)
    assert found is not None
    assert found.mean == pytest.approx(38 / 40 - 2 / 40)
    assert group.relapse(second) is None  # single samples: no class of theirs went


def test_the_reference_is_of_the_same_strategy_and_requests(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", "retrain", strategy="icarl")
    make(tmp_path / "c", "retrain", requests=[{"after": 2, "classes": [0]}])
    groups = grouped(tmp_path)
    assert len({group.setting for group in groups}) == 3
    assert all(group.reference is None for group in groups)
    make(tmp_path / "d", "retrain")
    (group,) = [group for group in grouped(tmp_path) if group.method == "ssd"]
    assert group.reference is not None
    assert group.reference.runs[0].name == "d"


def test_reference_and_controls_come_first_and_say_so(groups: list[Any]) -> None:
    assert [(group.method, group.role) for group in groups] == [
        ("retrain", "reference"),
        ("nothing", "control"),
        ("ssd", "method"),
        ("neggrad", "method"),
        ("ssd", "method"),  # of another length, and unfinished
    ]


# Verdicts


def test_doing_nothing_and_destroying_the_model_both_fail_visibly(groups: list[Any], html: str) -> None:
    for method, words in (
        ("nothing", "did nothing in 3 of 3 seeds"),
        ("neggrad", "destroyed the model in 3 of 3 seeds"),
    ):
        group = named(groups, method)
        for request in group.requests:
            verdict = judged(group, request)
            assert verdict.words == words
            assert verdict.failed
            assert len([one for one in verdict.reasons if one.startswith("seed ")]) == 3
        assert words in text(groups)
        assert f'<span class="failed">{words}</span>' in html


def test_a_copy_of_retraining_is_indistinguishable_and_a_mere_mask_is_not(tmp_path: Path) -> None:
    one = [{"after": 2, "classes": [0]}]
    for seed in range(3):
        make(tmp_path / f"r{seed}", "retrain", seed, requests=one)
        make(tmp_path / f"c{seed}", "copy", seed, requests=one, who=sum(map(ord, "retrain")))
        masked = Manner(forget=0.9, forgotten=0.9)
        make(tmp_path / f"m{seed}", "mask", seed, requests=one, manner=masked)
    copy, mask = named(tmp_path, "copy"), named(tmp_path, "mask")
    assert judged(copy, copy.requests[0]).words == "indistinguishable"
    verdict = judged(mask, mask.requests[0])
    assert verdict.words == "apart"
    assert "forget" in verdict.more
    assert not verdict.failed


def test_one_seed_decides_nothing_but_failures(tmp_path: Path) -> None:
    make(tmp_path / "r", "retrain")
    make(tmp_path / "s", "ssd")
    original(tmp_path / "n")
    ssd, nothing = named(tmp_path, "ssd"), named(tmp_path, "nothing")
    assert judged(ssd, ssd.requests[0]).words == "undecided"
    assert judged(nothing, nothing.requests[0]).words == "did nothing in 1 of 1 seed"
    gap = ssd.gap(ssd.requests[0], lambda one: one.forget)
    assert gap is not None
    assert gap.low is None


def test_scores_that_are_not_finite_are_a_destroyed_model(tmp_path: Path) -> None:
    make(tmp_path / "r", "retrain")
    folder = make(tmp_path / "s", "ssd")
    path = folder / "evidence" / "0003.safetensors"
    arrays = load(path.read_bytes())
    arrays["after/test"] = np.full_like(arrays["after/test"], np.nan)
    path.write_bytes(save(arrays))
    group = named(tmp_path, "ssd")
    verdict = judged(group, group.requests[0])
    assert (verdict.words, verdict.failed) == ("destroyed the model in 1 of 1 seed", True)
    assert group.number(group.requests[0], lambda one: one.forget) is None
    checked(page(tmp_path))


def test_an_empty_request_is_told_as_such(tmp_path: Path) -> None:
    empty = [{"after": 2, "ids": []}]
    make(tmp_path / "r", "retrain", requests=empty)
    original(tmp_path / "n", requests=empty)
    group = named(tmp_path, "nothing")
    assert group.requests[0].what == "nothing"
    assert judged(group, group.requests[0]).words == "nothing was asked"
    assert "nan" not in text(grouped(tmp_path))
    checked(page(tmp_path))


# Without retraining


def test_without_retraining_gaps_say_so_and_failures_are_still_found(tmp_path: Path) -> None:
    make(tmp_path / "s", "ssd")
    original(tmp_path / "n")
    make(tmp_path / "d", "neggrad", manner=RUINED)
    groups = grouped(tmp_path)
    ssd = named(tmp_path, "ssd")
    gaps = [one for one in all_measures() if one.key.endswith(".gap") and one.key not in ("zrf.gap", "probe.gap")]
    assert {cell(one, ssd, ssd.requests[0]).main for one in gaps} == {"no retrain"}
    verdicts = {group.method: judged(group, group.requests[0]) for group in groups}
    assert (verdicts["ssd"].words, verdicts["ssd"].more) == ("not judged", "no retrain run")
    assert verdicts["nothing"].words.startswith("did nothing")
    assert verdicts["neggrad"].words.startswith("destroyed the model")
    for written in (text(groups), report.markdown(groups), page(tmp_path)):
        assert "No retrain run of" in " ".join(written.replace("\\", "").split())


def test_retraining_with_other_seeds_is_no_reference(tmp_path: Path) -> None:
    make(tmp_path / "s", "ssd", 0)
    make(tmp_path / "r", "retrain", 1)
    group = named(tmp_path, "ssd")
    gap = next(one for one in all_measures() if one.key == "forget.gap")
    assert cell(gap, group, group.requests[0]).main == "no such seed"
    assert judged(group, group.requests[0]).more == "no retrain run of these seeds"
    assert "No finished retrain run has the seeds of ssd" in text(grouped(tmp_path))


# What was tried on the model beyond asking it

ONE = [{"after": 2, "classes": [0]}]
TRIED = ("zrf", "zrf.gap", "probe_before", "probe", "probe.gap", "probe_others", "relearn", "ain", "moved")


def add(folder: Path, **arrays: np.ndarray) -> Path:
    """Add arrays to the evidence of the request of step 3, or replace them; `a__b` stands for 'a/b'."""
    path = folder / "evidence" / "0003.safetensors"
    path.write_bytes(save(load(path.read_bytes()) | {name.replace("__", "/"): one for name, one in arrays.items()}))
    return folder


def floats(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)


def relearning(curve: Sequence[float], original: float = 1.0) -> dict[str, np.ndarray]:
    return {"relearn__curve": floats(curve), "relearn__original": floats([original])}


def number(group: UnlearningGroup, key: str) -> Any:
    """Give a column's number at the first request."""
    (measure,) = [one for one in all_measures() if one.key == key]
    return measure.value(group, group.requests[0])


def shown(group: UnlearningGroup, key: str) -> str:
    (measure,) = [one for one in all_measures() if one.key == key]
    return cell(measure, group, group.requests[0]).plain


def test_older_evidence_has_no_column_of_what_was_not_tried(groups: list[Any]) -> None:
    ssd = named(groups, "ssd")
    keys = {one.key for one in measures(groups, ssd.requests[0])}
    assert keys.isdisjoint(TRIED)
    assert {"u_lira", "activation"} <= keys
    assert {shown(ssd, key) for key in TRIED} == {"–"}


def test_likeness_to_an_untrained_model_by_hand(tmp_path: Path) -> None:
    sure, other = np.zeros((30, 4), np.float32), np.zeros((30, 4), np.float32)
    sure[:, 0], other[:, 1] = 800, 800
    add(make(tmp_path / "s", requests=ONE), after__forget=sure, random__forget=other)
    add(make(tmp_path / "r", "retrain", requests=ONE), after__forget=other, random__forget=other)
    ssd = named(tmp_path, "ssd")
    assert number(ssd, "zrf").mean == pytest.approx(0)  # disjoint answers: JS = ln 2
    assert number(named(tmp_path, "retrain"), "zrf").mean == pytest.approx(1)
    assert number(ssd, "zrf.gap").mean == pytest.approx(-1)
    assert number(ssd, "activation").mean == pytest.approx(math.sqrt(2))


def test_the_probe_is_told_beside_retraining_s(tmp_path: Path) -> None:
    add(make(tmp_path / "s", requests=ONE), probe__before=np.array([4, 4, 8, 10]), probe__after=np.array([3, 4, 9, 10]))
    add(make(tmp_path / "r", "retrain", requests=ONE), probe__after=np.array([2, 4, 0, 0]))
    ssd = named(tmp_path, "ssd")
    found = {key: number(ssd, key).mean for key in ("probe_before", "probe", "probe.gap", "probe_others")}
    assert found == {"probe_before": 1.0, "probe": 0.75, "probe.gap": 0.25, "probe_others": 0.9}
    assert number(named(tmp_path, "retrain"), "probe_others") is None  # none was asked


def test_relearning_is_counted_and_divided_by_retraining_s(tmp_path: Path) -> None:
    for seed, (mine, theirs) in enumerate([([0.0, 0.95], [0, 0, 0.2, 0.4, 1]), ([0.96], [0.5, 1])]):
        add(make(tmp_path / f"s{seed}", seed=seed, requests=ONE), **relearning(mine))
        add(make(tmp_path / f"r{seed}", "retrain", seed, requests=ONE), **relearning(theirs))
    ssd = named(tmp_path, "ssd")
    assert number(ssd, "relearn").mean == 0.5  # 1 step, and none
    assert number(named(tmp_path, "retrain"), "relearn").mean == 2.5
    assert number(ssd, "ain").mean == pytest.approx((1 / 4 + 0) / 2)
    assert number(named(tmp_path, "retrain"), "ain") is None


NEVER = [0.1] * 201  # two hundred steps that lead nowhere


@pytest.mark.parametrize(
    ("curves", "steps", "index"),
    [
        ([(NEVER, [0, 1])], ">200", ">200"),
        ([(NEVER, [0, 1]), ([0, 0, 1], [0, 1])], ">101", ">101"),
        ([([0, 0, 1], NEVER)], "2", "<0.01"),
        ([(NEVER, NEVER)], ">200", "unknown in 1 of 1"),
        ([(NEVER, [0, 1]), ([0, 1], NEVER)], ">100", "unknown in 2 of 2"),
        ([([0, 1], [1]), ([0, 1], [0, 1])], "1 ± 0", "∞"),
        ([([1], [1]), ([1], [0, 1])], "0 ± 0", "0.5 ± 0.71"),
    ],
)
def test_relearning_that_did_not_end_is_a_bound_and_says_so(
    tmp_path: Path, curves: list[tuple[list[float], list[float]]], steps: str, index: str
) -> None:
    for seed, (mine, theirs) in enumerate(curves):
        add(make(tmp_path / f"s{seed}", seed=seed, requests=ONE), **relearning(mine))
        add(make(tmp_path / f"r{seed}", "retrain", seed, requests=ONE), **relearning(theirs))
    ssd = named(tmp_path, "ssd")
    assert shown(ssd, "relearn").removesuffix(" ± 0") == steps.removesuffix(" ± 0")
    assert shown(ssd, "ain") == index
    (row,) = csv_format.DictReader(io.StringIO(report.csv([ssd])))
    assert row["relearn.bound"] == (">" if ">" in steps else "")
    assert row["ain.bound"] == (index[0] if index[0] in "<>" else "unknown" if "unknown" in index else "")
    assert row["ain.mean"] == "inf" if index == "∞" else row["ain.mean"] != "inf"
    html = page(tmp_path)
    checked(html)
    assert html.count(index.replace(">", "&gt;").replace("<", "&lt;").split(" ±")[0]) >= 1
    assert "nan" not in text([ssd])


def test_an_original_that_knew_nothing_cannot_be_relearned(tmp_path: Path) -> None:
    add(make(tmp_path / "s", requests=ONE), **relearning([0.0], 0.0))
    assert number(named(tmp_path, "ssd"), "relearn") is None


def seeds_of(path: Path, n: int, **options: Any) -> UnlearningGroup:
    for seed in range(n):
        make(path / f"s{seed}", seed=seed, requests=ONE, manner=UNTOUCHED, **options)
        make(path / f"r{seed}", "retrain", seed, requests=ONE, **options)
    return named(path, "ssd")


def test_u_lira_attacks_the_seeds_of_one_request(tmp_path: Path) -> None:
    group = seeds_of(tmp_path, 5)
    ours, theirs = (
        np.stack([logit_confidences(run.evidence(one).after["forget"], np.zeros(30, np.int64)) for run in side])
        for one in group.requests
        for side in zip(*group.pairs, strict=True)
    )
    expected = u_lira(ours, theirs)
    found = number(group, "u_lira")
    assert found.mean == pytest.approx(expected.accuracy)
    assert found.mean > 0.9  # unlearned models are right, retrained ones are not
    assert found.n == 5
    assert number(group, "u_lira.tpr").mean == expected.roc.tpr_at(0.01)
    assert number(named(tmp_path, "retrain"), "u_lira") is None


@pytest.mark.parametrize(("n", "told"), [(2, [False, False]), (3, [True, False]), (5, [True, True])])
def test_u_lira_needs_seeds_enough(tmp_path: Path, n: int, told: list[bool]) -> None:
    group = seeds_of(tmp_path, n)
    assert [number(group, key) is not None for key in ("u_lira", "u_lira.tpr")] == told


@pytest.mark.parametrize("what", ["number", "labels", "order", "finite"])
def test_u_lira_needs_the_same_samples_in_every_seed(tmp_path: Path, what: str) -> None:
    seeds_of(tmp_path, 3)
    for name in ("s2", "r2"):
        folder = tmp_path / name
        arrays = load((folder / "evidence" / "0003.safetensors").read_bytes())
        scores = {key.replace("/", "__"): arrays[key] for key in ("before/forget", "after/forget", "labels/forget")}
        if what == "number":
            add(folder, **{key: one[:-1].copy() for key, one in scores.items()})
        elif what == "labels":
            add(folder, labels__forget=arrays["labels/forget"] + 1)
        elif what == "finite" and name == "s2":
            add(folder, after__forget=np.full_like(arrays["after/forget"], np.inf))
        elif what == "order":  # label 0 is of another class then
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["stream"]["order_seed"] = 7
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    group = named(tmp_path, "ssd")
    assert len(group.pairs) == 3
    assert number(group, "u_lira") is None


def states(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> Path:
    """Write the states around the request of step 3."""
    (folder / "state").mkdir()
    for step, one in ((2, before), (3, after)):
        RunFolder(folder).write_state(step, encode(freeze({name: np.asarray(value) for name, value in one.items()})))
    return folder


def test_moved_weights_by_hand(tmp_path: Path) -> None:
    before = {"model/a": floats([3, 4]), "model/bn.running_mean": floats([9]), "memory/x": floats([9])}
    after = {"model/a": floats([3, 5]), "model/bn.running_mean": floats([1]), "memory/x": floats([1])}
    states(make(tmp_path / "s", requests=ONE), before, after)
    assert number(named(tmp_path, "ssd"), "moved").mean == pytest.approx(0.2)
    assert shown(named(tmp_path, "ssd"), "moved").startswith("20.0")


@pytest.mark.parametrize("what", ["missing", "damaged", "grown", "infinite", "zero"])
def test_without_whole_states_no_weight_has_moved(tmp_path: Path, what: str) -> None:
    plain = {"model/a": floats([3, 4])}
    grown = {"model/a": floats([3, 4, 5])}
    changed = grown if what == "grown" else {"model/a": floats([3, np.inf])} if what == "infinite" else plain
    folder = states(make(tmp_path / "s", requests=ONE), {"model/a": np.zeros(2)} if what == "zero" else plain, changed)
    path = folder / "state" / "0002.safetensors"
    if what == "missing":
        path.unlink()
    elif what == "damaged":
        path.write_bytes(b"x" + path.read_bytes()[1:])
    group = named(tmp_path, "ssd")
    assert number(group, "moved") is None
    assert group.n == 1


@pytest.mark.parametrize(
    "arrays",
    [
        {"random__forget": np.zeros((29, 4), np.float32)},
        {"random__forget": np.full((30, 4), np.nan, np.float32)},
        {"probe__after": np.array([1, 2, 3])},
        {"probe__after": np.array([3, 2, 0, 0])},
        {"probe__before": floats([1, 2, 3, 4])},
        {"relearn__curve": floats([0, 1])},
        {"relearn__curve": floats([0, 1]), "relearn__original": floats([1, 1])},
        relearning([]),
        relearning([0.2]),
        relearning([0, 50]),
        relearning([0, np.nan]),
        relearning([0, 1], 2.0),
    ],
)
def test_malformed_arrays_are_a_damaged_run(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    add(make(tmp_path / "a", requests=ONE), **arrays)
    (run,) = report.load([tmp_path])
    assert run.state == "damaged"
    assert "evidence/0003.safetensors cannot be read" in str(run.message)


# Writing


@pytest.mark.parametrize("width", [60, 100, 240])
def test_terminal_keeps_numbers_whole_at_any_width(groups: list[Any], width: int) -> None:
    lines = text(groups, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "Request 1: class 0 after task 2" in lines
    assert "100.0 ± 0.0" in "\n".join(lines)


def test_markdown_tables_are_rectangular(groups: list[Any]) -> None:
    lines = report.markdown(groups).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) > 40
    width = 0
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            width = len(re.findall(r"(?<!\\)\|", line)) if not before.startswith("|") else width
            assert len(re.findall(r"(?<!\\)\|", line)) == width


def test_csv_has_a_row_per_group_and_request_with_exact_numbers(groups: list[Any]) -> None:
    rows = list(csv_format.DictReader(io.StringIO(report.csv(groups))))
    assert [(row["label"], row["request"]) for row in rows[:4]] == [
        ("retrain", "1"),
        ("retrain", "2"),
        ("nothing", "1"),
        ("nothing", "2"),
    ]
    nothing, group = rows[2], named(groups, "nothing")
    mean = group.number(group.requests[0], lambda one: one.stays)
    gap = group.gap(group.requests[0], lambda one: one.stays)
    assert mean is not None
    assert gap is not None
    assert float(nothing["stays.mean"]) == mean.mean
    assert float(nothing["stays.gap.low"]) == gap.low
    assert (nothing["role"], nothing["verdict"], nothing["reference"]) == (
        "control",
        "did nothing in 3 of 3 seeds",
        "retrain",
    )
    assert (rows[4]["kept_bytes.mean"], rows[4]["freed_bytes.mean"], rows[4]["samples.mean"]) == ("128", "300", "270")
    assert (rows[-1]["n"], rows[-1]["unfinished"], rows[-1]["request"]) == ("0", "1", "")


class Checker(HTMLParser):
    """Checks that elements nest and that ids are unique, and gathers what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        given = dict(attrs)
        assert len(given) == len(attrs), f"{tag} repeats an attribute"
        if given.get("id"):
            self.ids.append(given["id"] or "")
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert all(target.startswith("#") and target[1:] in checker.ids for target in checker.refers)
    return checker


def test_page_is_valid_and_fetches_nothing(whole: Path, html: str) -> None:
    checker = checked(html)
    assert not re.search(r"https?:|//cdn|@import|<link|<img", html)
    assert checker.seen.count("svg") == 2 * 3 + 2  # bars twice and the attack, each request; events and time
    assert "A &lt;page&gt; &amp; more" in html
    assert str(whole) not in html
    assert "/home/someone" not in html
    figures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) <= {"#ffffff"}


def test_page_tells_the_essentials(html: str) -> None:
    words = " ".join("".join(checked(html).text).split())
    for told in (
        "12 finished runs of 4 unlearners on class_incremental · digits · replay (2 requests). 1 more run in no mean",
        "Request 1: class 0 after task 2",
        "Request 2: 8 samples after task 3",
        "TPR at 0.1 % FPR",
        "With 40 unseen samples the smallest false positive rate above 0 is 2.5 %",
        "Forgotten at some request: 0",
        "Scalars changed by parameter",
        "Cost of request 2",
        "running after step 5 of 9",
        "nothing, forgotten",
    ):
        assert told in words, told
    assert not re.search(r"\bnan\b", words.lower())


def test_page_is_the_same_for_the_same_runs(whole: Path, html: str, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    assert page(tmp_path / "copy") == html


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    make(tmp_path / "a", state="failed", steps=7)
    groups = grouped(tmp_path)
    assert "failed after step 5 of 7" in text(groups)
    assert "<svg" not in page(tmp_path)
    assert "failed after step 5 of 7" in report.markdown(groups)


def test_names_are_escaped(tmp_path: Path) -> None:
    make(tmp_path / "a", "s[bold]<b>", note="<script>|*")
    make(tmp_path / "b", "s[bold]<b>", note="plain")
    assert "s[bold]" in text(grouped(tmp_path))
    html = page(tmp_path)
    checked(html)
    assert "<script>|" not in html
    assert "\\|\\*" in report.markdown(grouped(tmp_path))


def test_each_kind_has_its_own_part_and_file(tmp_path: Path) -> None:
    make(tmp_path / "runs" / "a")
    learned = make(tmp_path / "runs" / "b", requests=[])
    config = yaml.safe_load((learned / "config.yaml").read_text())
    (learned / "config.yaml").write_text(yaml.safe_dump(config | {"unlearner": None}))
    html = page(tmp_path / "runs")
    checked(html)
    assert re.findall(r'<h2 class="part" id="part-\d">(.*?)</h2>', html) == ["Learning", "Unlearning"]
    groups = grouped(tmp_path / "runs")
    files = report.csv_files(groups, tmp_path / "table.csv")
    assert [path.name for path in files] == ["table.learning.csv", "table.unlearning.csv"]
    with pytest.raises(ValueError, match="learning and unlearning share no columns"):
        report.csv(groups)


def test_numbers_are_printed_as_promised() -> None:
    assert [digits(value) for value in (0.5, 0.41249, 1234.5, 0.00004, 0.0)] == [
        "0.5",
        "0.412",
        "1,234",
        "0.00004",
        "0",
    ]
    assert [signed(value, "percent") for value in (0.0123, -0.0123, 0.0)] == ["+1.2", "-1.2", "0.0"]


def test_forked_runs_say_so_beside_runs_of_the_same_method_that_are_not(tmp_path: Path) -> None:
    for method in ("ssd", "jit"):
        folder = make(tmp_path / method, method)
        (folder / "environment.json").write_text(json.dumps({"forked_from": {"run": "a", "after": 3}}))
    make(tmp_path / "retrain", "retrain")
    assert {group.label for group in grouped(tmp_path)} == {"ssd", "jit", "retrain"}
    make(tmp_path / "whole", "ssd")
    assert {group.label for group in grouped(tmp_path)} == {"ssd", "ssd forked=yes", "jit", "retrain"}
