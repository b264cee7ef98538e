"""Reports on synthetic runs of readers: right answers, what the memory adds, retention, bytes, and what is left out."""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from clearn import report
from clearn.report.reading.grouping import ReadingGroup
from clearn.report.reading.runs import ReadingRun
from clearn.report.reading.verdicts import Gain, judged, paired_error, unpaired_error

ASKED = 40  # questions of a task, half of each kind
DOCUMENTS = 10
VOID = {"meta", "link", "br", "hr", "img", "input"}
RIGHT = ((20,), (18, 24), (16, 20, 28))  # right answers by step and task: 64 of 120 at the end
CONTROLS = {"empty": 2, "shuffled": 3}  # of each task


def make(
    folder: Path,
    method: str = "amortised",
    seed: int = 0,
    *,
    right: Sequence[Sequence[int]] = RIGHT,
    controls: Mapping[str, int] = CONTROLS,
    readout: str = "memory",
    requests: Sequence[Mapping[str, Any]] = (),
    gone: int = 0,
    bank: int = 1000,
    networks: int = 5000,
    shared: int = 2**20,
    meta: bool = True,
    paired: bool = False,
    state: str = "done",
    steps: int | None = None,
    stream: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    asked: int = ASKED,
    **config: Any,
) -> Path:
    """Write a run folder: `right` are right answers per step and task; a request is a step, its row has no new task.

    Args:
        gone: right answers after the request on the 8 forgotten questions of task 1.
        paired: have the file of answers say which are right, the first ones of each probe.
    """
    folder.mkdir(parents=True)
    tasks = max(map(len, right), default=steps)
    whole = {
        "stream": {"name": "documents", "data": "copying", "tasks": tasks, "order_seed": None, "requests": [*requests]}
        | dict(stream or {}),
        "strategy": {"name": method, "lm": {"model": "tiny"}} | dict(options or {}),
        "budget": {"bytes": None},
        "runner": {"rebuild": True, "controls": "end"},
        "seed": seed,
        "name": folder.name,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole | config))
    facts = {"clearn": "0.1.0", "device": "cpu", "started": f"2025-03-0{seed % 9 + 1}T10:00:00"}
    (folder / "environment.json").write_text(json.dumps(facts | {"command": ["clearn", "run", method]}))
    logged = {"meta/epochs": 4, "meta/best_epoch": 3, "meta/f1": 0.5, "meta/seconds": 90.0} if meta else {}
    ledger = weigh(0, 0, networks, shared, logged=logged)
    scores: list[dict[str, Any]] = []
    is_request = {int(one["after"]) + number for number, one in enumerate(requests, 1)}
    held = 0
    for step, row in enumerate(right, 1):
        counts = {readout: row}
        if step == len(right):
            counts |= {name: [value] * len(row) for name, value in controls.items()}
        for name, of in counts.items():
            for task, correct in enumerate(of, 1):
                forgotten = 8 if task == 1 and any(step >= one for one in is_request) else 0
                scores.append(score(step, task, name, name == readout, correct, asked - forgotten))
                if forgotten:
                    scores.append(score(step, task, name, name == readout, gone, 8, ", forgotten"))
        documents = 2 if step in is_request else DOCUMENTS
        held += -documents if step in is_request else documents
        extra = {"documents": documents, "held": held, "questions": asked * len(row), "budget": None, "slack": None}
        ledger += weigh(step, bank * held // DOCUMENTS, networks, shared, **extra)
        mine = [row for row in scores if row["step"] == step]
        write_answers(folder, step, mine, paired)
    write_lines(folder / "scores.jsonl", scores)
    write_lines(folder / "ledger.jsonl", ledger)
    status = {"state": state, "step": len(right), "steps": steps or len(right), "message": None}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def score(
    step: int, task: int, readout: str, headline: bool, correct: int, total: int, more: str = ""
) -> dict[str, Any]:
    half = total // 2
    names = min(correct, half)
    return {
        "step": step,
        "task": task,
        "probe": f"task {task}{more}",
        "readout": readout,
        "headline": headline,
        "correct": correct,
        "total": total,
        "classes": {"name": [names, half], "number": [correct - names, total - half]},
        "prefix": min(correct + 2, total),
        "f1": correct + 0.25 * (total - correct),
    }


def weigh(step: int, bank: int, networks: int, shared: int, **more: Any) -> list[dict[str, Any]]:
    sizes = {("memory", "codes"): bank, ("model", "params"): networks, ("model", "shared_pretrained"): shared}
    rows: list[dict[str, Any]] = [
        {"kind": "bytes", "step": step, "owner": owner, "category": category, "bytes": size}
        for (owner, category), size in sizes.items()
        if size
    ]
    total = bank + networks + shared
    figures = {
        "kind": "figures",
        "step": step,
        "total": total,
        "shared": shared,
        "delta": total - shared,
        "bank": bank,
        "peak_host": 1e6 * (step + 1),
        "seconds": {"data": 0.0, "train": 0.0, "select": 0.5, "evaluate": 0.8, "controls": 0.3},
        "logged": {},
        "rebuilt": True,
    }
    return [*rows, figures | more]


def write_answers(folder: Path, step: int, rows: Sequence[Mapping[str, Any]], paired: bool) -> None:
    """Write a line a question in the order of the probes: the first so many of each are right."""
    lines = []
    for probe in dict.fromkeys((row["task"], row["probe"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["probe"]) == probe]
        for at in range(mine[0]["total"]):
            line: dict[str, Any] = {
                "task": probe[0],
                "document": f"d{at}",
                "said": {row["readout"]: "x" for row in mine},
            }
            lines.append(line | ({"right": {row["readout"]: at < row["correct"] for row in mine}} if paired else {}))
    (folder / "answers").mkdir(exist_ok=True)
    write_lines(folder / "answers" / f"{step:04d}.jsonl", lines)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def grouped(path: Path) -> list[ReadingGroup]:
    found = report.groups(report.load([path]))
    assert all(isinstance(group, ReadingGroup) for group in found)
    return found  # type: ignore[return-value]  # as just asserted


def only(path: Path) -> ReadingGroup:
    (group,) = grouped(path)
    return group


def run_of(path: Path) -> ReadingRun:
    (run,) = report.load([path])
    assert isinstance(run, ReadingRun)
    return run


def mean(found: Any) -> float:
    assert found is not None
    return float(found.mean)


# Numbers


def test_scores_are_those_of_the_last_step_by_hand(tmp_path: Path) -> None:
    run = run_of(make(tmp_path / "one"))
    assert run.state == "done" and run.step == run.steps == 3
    assert run.headline == "memory" and run.readouts[0] == "memory"
    assert run.numbers["memory"] == {  # 16 + 20 + 28 of 120 right, 2 more of each task by the prefix
        "em": 64 / 120,
        "prefix_em": 70 / 120,
        "f1": (64 + 0.25 * 56) / 120,
        "forgotten.em": None,
        "forgotten.prefix_em": None,
        "forgotten.f1": None,
    }
    assert run.number("empty", "em") == 6 / 120
    assert run.number("shuffled", "f1") == (9 + 0.25 * 111) / 120


def test_a_table_holds_every_number_by_hand(tmp_path: Path) -> None:
    make(tmp_path / "one")
    (row,) = csv_format.DictReader(io.StringIO(report.csv(grouped(tmp_path))))
    expected = {
        "em": 64 / 120,
        "shuffled.em": 9 / 120,
        "empty.f1": (6 + 0.25 * 114) / 120,
        "em.name": (16 + 20 + 20) / 60,
        "em.number": 8 / 60,
        "first_task.em": 16 / 40,
        "first_task.em.share": 16 / 20,
        "first_task.f1.share": (16 + 6) / (20 + 5),
        "all_tasks.em.share": (16 + 20) / (20 + 24),
        "bytes_bank": 3000,
        "bytes_per_document": 100,
        "bytes_networks": 5000,
        "bytes_delta": 8000,
        "bytes_shared": 2**20,
        "held": 30,
        "meta_seconds": 90,
        "meta_epochs": 4,
        "meta_f1": 0.5,
        "ms_per_document": 1000 * 3 * 0.5 / 30,
        "ms_per_question": 1000 * 3 * 0.8 / (40 + 80 + 120),
    }
    assert {key: float(row[f"{key}.mean"]) for key in expected} == pytest.approx(expected)
    assert float(row["gain.empty"]) == pytest.approx(58 / 120)
    assert float(row["gain.empty.error"]) == pytest.approx(unpaired_error(64, 6, 120))
    assert row["verdict"] == "works" and row["headline"] == "memory" and row["n"] == "1"


def test_the_preparation_is_in_no_step_s_bytes(tmp_path: Path) -> None:
    run = run_of(make(tmp_path / "one"))
    assert [step.get("params") for step in run.categories] == [5000, 5000, 5000]
    assert run.prepared is not None and run.prepared.networks == 5000


def test_means_and_deviations_are_over_seeds(tmp_path: Path) -> None:
    make(tmp_path / "s0", seed=0)
    make(tmp_path / "s1", seed=1, right=((20,), (18, 24), (16, 20, 40)))
    group = only(tmp_path)
    found = group.number("memory", "em")
    assert found is not None and found.n == 2
    assert found.mean == pytest.approx((64 + 76) / 240)
    assert found.std == pytest.approx(12 / 120 / math.sqrt(2))


def test_a_section_that_is_on_is_named_as_one_that_is_off(tmp_path: Path) -> None:
    make(tmp_path / "on", options={"lora": {"rank": 8, "alpha": 16.0}})
    make(tmp_path / "off", options={"lora": None})
    groups = report.groups(report.load([tmp_path]))
    assert {group.label for group in groups} == {"amortised lora=on", "amortised lora=none"}
    make(tmp_path / "more", options={"lora": {"rank": 4, "alpha": 16.0}})
    groups = report.groups(report.load([tmp_path]))
    assert {group.label for group in groups} == {"amortised rank=8", "amortised rank=4", "amortised lora=none"}


@pytest.mark.parametrize("section", ["meta", "tune"])
def test_seeds_of_the_training_are_seeds_and_one_training_of_several_runs_is_said(tmp_path: Path, section: str) -> None:
    for seed in (0, 1, 2):
        make(tmp_path / "apart" / f"s{seed}", seed=seed, options={section: {"seed": seed, "epochs": 3}})
        make(tmp_path / "one" / f"s{seed}", seed=seed, options={section: {"seed": 7, "epochs": 3}})
    (apart,) = report.groups(report.load([tmp_path / "apart"]))
    assert (apart.n, apart.trainings, apart.label) == (3, 3, "amortised")
    (one,) = report.groups(report.load([tmp_path / "one"]))
    assert (one.n, one.trainings) == (3, 1)
    for group, said in ((apart, False), (one, True)):
        page = report.html([group], group.runs, "x")
        assert ("Trainings before the stream that these runs rest on: amortised 1." in page) == said
    make(tmp_path / "none" / "s0", "bm25", options={"tune": None}, meta=False)
    make(tmp_path / "none" / "s1", "bm25", seed=1, options={"tune": None}, meta=False)
    (none,) = report.groups(report.load([tmp_path / "none"]))
    assert (none.n, none.trainings) == (2, None)


def test_other_seeds_of_the_order_are_one_group_and_other_options_are_two(tmp_path: Path) -> None:
    make(tmp_path / "a", seed=0, stream={"order_seed": 1})
    make(tmp_path / "b", seed=1, stream={"order_seed": 2})
    make(tmp_path / "c", options={"k": 3})
    make(tmp_path / "d", "bm25", options={"lm": {"model": "other", "dtype": "bfloat16"}})
    labels = {group.label: (group.n, group.options) for group in grouped(tmp_path)}
    assert labels.keys() == {"amortised", "amortised k=3", "bm25"}
    assert labels["amortised"][0] == 2
    assert labels["bm25"][1] == {"strategy.lm.model": "other"}  # another language model must be seen


# What the memory adds


def test_errors_of_differences_by_hand() -> None:
    share, other = 65 / 122, 10 / 122
    by_hand = math.sqrt((share * (1 - share) + other * (1 - other)) / 122)
    assert unpaired_error(64, 9, 120) == pytest.approx(by_hand)
    assert paired_error(55, 0, 120) == pytest.approx(math.sqrt(56 - 55**2 / 122) / 122)
    assert paired_error(3, 5, 100) == pytest.approx(paired_error(5, 3, 100))


def test_an_error_tends_to_the_binomial_one() -> None:
    n = 10**6
    assert unpaired_error(n // 2, n // 5, n) == pytest.approx(math.sqrt((0.25 + 0.16) / n), rel=1e-4)
    assert paired_error(n // 2, n // 5, n) == pytest.approx(math.sqrt((0.7 - 0.09) / n), rel=1e-4)


@pytest.mark.parametrize("right", [1, 2])
def test_a_question_or_two_prove_nothing(right: int) -> None:
    told = Gain(1.0, paired_error(right, 0, right), 1, True)
    assert not told.told
    assert Gain(1.0, paired_error(8, 0, 8), 1, True).told


def test_answers_that_say_what_is_right_are_paired(tmp_path: Path) -> None:
    group = only(make(tmp_path / "one", paired=True))
    found = group.gains["shuffled"]
    assert found is not None and found.paired
    assert found.mean == pytest.approx(55 / 120)
    assert found.error == pytest.approx(paired_error(55, 0, 120))
    assert "of two counts" not in report.markdown([group])


def test_lost_questions_count_as_well_as_gained_ones(tmp_path: Path) -> None:
    folder = make(tmp_path / "one", paired=True)
    path = folder / "answers" / "0003.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:40]:  # the control's 3 of task 1 are now others than the memory's 16
        line["right"]["shuffled"] = line["document"] in ("d37", "d38", "d39")
    write_lines(path, lines)
    found = only(folder).gains["shuffled"]
    assert found is not None and found.paired
    assert found.error == pytest.approx(paired_error(64 - 6, 3, 120))


@pytest.mark.parametrize("how", ["missing", "short", "torn", "silent", "another"])
def test_answers_that_do_not_bear_out_the_counts_are_not_paired(tmp_path: Path, how: str) -> None:
    folder = make(tmp_path / "one", paired=True)
    path = folder / "answers" / "0003.jsonl"
    lines = path.read_text().splitlines()
    if how == "missing":
        path.unlink()
    elif how == "short":
        path.write_text("\n".join(lines[:-1]))
    elif how == "torn":
        path.write_text("\n".join(lines)[:-9])
    elif how == "silent":
        path.write_text("\n".join(lines).replace('"right"', '"said_right"'))
    else:
        path.write_text("\n".join(lines).replace('"memory": true', '"memory": false', 1))
    group = only(folder)
    found = group.gains["shuffled"]
    assert found is not None and not found.paired
    assert found.error == pytest.approx(unpaired_error(64, 9, 120))
    assert "Standard errors are of two counts" in report.markdown([group])


def test_the_error_over_seeds_is_the_larger_of_questions_and_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        make(tmp_path / "same" / f"s{seed}", seed=seed)
    same = only(tmp_path / "same").gains["empty"]
    assert same is not None and same.n == 2
    assert same.error == pytest.approx(unpaired_error(64, 6, 120))  # the same answers twice are no more questions
    for seed, last in ((0, (4, 4, 4)), (1, (40, 40, 40))):
        make(tmp_path / "apart" / f"s{seed}", seed=seed, right=((20,), (18, 24), last))
    apart = only(tmp_path / "apart").gains["empty"]
    assert apart is not None
    assert apart.mean == pytest.approx((6 + 114) / 240)
    assert apart.error == pytest.approx(0.9 / math.sqrt(2) / math.sqrt(2))  # |0.05 - 0.95| over two seeds
    assert not apart.told


def test_a_memory_works_if_it_beats_both_controls() -> None:
    good, bad, harm = (Gain(mean, 0.125, 1, True) for mean in (0.375, 0.374, -0.375))
    assert judged({"shuffled": good, "empty": good}).words == "works"
    for gains, more in (
        ({"shuffled": bad, "empty": good}, "over shuffled"),
        ({"shuffled": good, "empty": bad}, "over empty"),
        ({"shuffled": bad, "empty": bad}, "over shuffled and empty"),
        ({"shuffled": harm, "empty": good}, "worse than shuffled"),
    ):
        found = judged(gains)
        assert (found.words, found.more, found.failed) == ("adds nothing that can be told", more, True)
    assert judged({"shuffled": None, "empty": good}).more == "no shuffled control"
    assert judged({"shuffled": None, "empty": None}).words == "not judged"
    assert not Gain(0.0, 0.0, 1, True).told


def test_a_memory_no_better_than_a_foreign_one_is_told(tmp_path: Path) -> None:
    group = only(make(tmp_path / "one", controls={"empty": 2, "shuffled": 21}))
    assert group.verdict.words == "adds nothing that can be told" and group.verdict.more == "over shuffled"
    assert "adds nothing that can be told: over shuffled" in report.markdown([group])
    page = report.html([group], list(group.runs), "t")
    assert '<span class="failed">adds nothing that can be told</span>' in page


def test_a_reader_without_controls_is_not_judged(tmp_path: Path) -> None:
    make(tmp_path / "closed", "closed_book", readout="answer", controls={}, bank=0, networks=0, meta=False)
    make(tmp_path / "one")
    closed = next(group for group in grouped(tmp_path) if group.method == "closed_book")
    assert closed.headline == "answer" and closed.controls == ()
    assert closed.verdict.words == "not judged" and closed.verdict.more == "no controls"
    assert mean(closed.number("answer", "em")) == 64 / 120


def test_other_readouts_stand_beside_the_controls(tmp_path: Path) -> None:
    group = only(make(tmp_path / "one", controls={**CONTROLS, "random_codes": 4}))
    assert group.readouts == ("memory", "empty", "shuffled", "random_codes")
    assert "random codes EM %" in report.markdown([group])
    assert mean(group.number("random_codes", "em")) == 12 / 120


# Retention, forgetting, kinds


def test_retention_is_by_step_and_task(tmp_path: Path) -> None:
    group = only(make(tmp_path / "one"))
    assert group.read == [10, 20, 30] and group.step_names == ["10", "20", "30"]
    assert [mean(one) for one in group.curve(lambda t: t.em, [1])] == [0.5, 0.45, 0.4]
    assert [mean(one) for one in group.share(lambda t: t.em, 1)] == pytest.approx([1, 0.9, 0.8])
    second = group.share(lambda t: t.em, 2)
    assert second[0] is None and mean(second[2]) == pytest.approx(20 / 24)
    assert "Retention of task 1 by documents read: EM %" in report.markdown([group])


def test_a_share_of_nothing_is_not_defined(tmp_path: Path) -> None:
    folder = make(tmp_path / "one", right=((0,), (4, 0)))
    run = run_of(folder)
    assert run.share(lambda t: t.em, 1) == [None, None]
    assert run.kept(lambda t: t.em) is None
    assert "EM kept" not in report.markdown([only(folder)])


def test_one_task_has_no_retention(tmp_path: Path) -> None:
    group = only(make(tmp_path / "one", right=((20,),)))
    text = report.markdown([group])
    assert "Retention" not in text and "Right answers" in text
    page = report.html([group], list(group.runs), "t")
    assert "Retention of the first" not in page and "Task by task" not in page


def test_forgotten_documents_are_counted_apart(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "one",
        right=((20,), (18, 24), (14, 24), (13, 20, 28)),
        requests=[{"after": 2, "count": 2, "seed": 0}],
        gone=1,
        paired=True,
    )
    run, group = run_of(folder), only(folder)
    assert run.state == "done" and run.requests == (3,)
    assert run.read == [10, 20, 20, 30] and group.step_names == ["10", "20", "R1", "30"]
    assert run.number("memory", "em") == 61 / 112 and run.number("memory", "forgotten.em") == 1 / 8
    assert run.curve(lambda t: t.em, forgotten=True) == [None, None, 1 / 8, 1 / 8]
    assert run.curve(lambda t: t.em, [1]) == [20 / 40, 18 / 40, 14 / 32, 13 / 32]
    kept = (13 + 20) / (20 / 40 * 32 + 24 / 40 * 40)  # first values weighted by the questions that are left
    assert run.kept(lambda t: t.em) == pytest.approx(kept)
    found = group.gains["empty"]
    assert found is not None and found.paired  # forgotten questions are none of the memory's
    assert found.mean == pytest.approx((61 - 6) / 112)
    assert found.error == pytest.approx(paired_error(55, 0, 112))
    assert run.figures[-1].held == 28
    text = report.markdown([group])
    assert "### Forgotten documents" in text and "| 12.5 |" in text
    assert "1 request to forget" in report.html([group], [run], "t")


def test_streams_with_other_requests_are_compared_apart(tmp_path: Path) -> None:
    make(tmp_path / "a", right=((20,), (18, 24), (14, 24)), requests=[{"after": 2, "entity": "Ada"}])
    make(tmp_path / "b", right=((20,), (18, 24), (14, 24)), requests=[{"after": 2, "documents": ["d1", "d2"]}])
    make(tmp_path / "c", right=((20,), (18, 24)))
    settings = {group.setting for group in grouped(tmp_path)}
    assert settings == {
        "documents · copying · forget documents about Ada after task 2",
        "documents · copying · forget 2 documents after task 2",
        "documents · copying · no requests",
    }


def test_a_task_without_questions_is_whole(tmp_path: Path) -> None:
    folder = make(tmp_path / "one", right=((20,), (18, 24)))
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    write_lines(folder / "scores.jsonl", [row for row in rows if row["task"] == 2])
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    for row in ledger:
        row |= {"questions": {1: 0, 2: 40}.get(row["step"], 0)} if row["kind"] == "figures" else {}
    write_lines(folder / "ledger.jsonl", ledger)
    run = run_of(folder)
    assert run.state == "done" and run.tallies[0] == {}
    assert run.number("memory", "em") == 24 / 40
    assert report.html([only(folder)], [run], "t")


# Unfinished and damaged runs


def test_a_prepared_run_that_read_nothing_is_told(tmp_path: Path) -> None:
    make(tmp_path / "prep", right=(), steps=3, state="stopped")
    run = run_of(tmp_path / "prep")
    assert run.step == 0 and run.prepared is not None and run.prepared.logged["meta/f1"] == 0.5
    groups = grouped(tmp_path)
    told = "stopped after preparing, with no document read"
    assert told in report.markdown(groups)
    assert told in report.html(groups, [run], "t") and "0 finished runs" in report.html(groups, [run], "t")
    (row,) = csv_format.DictReader(io.StringIO(report.csv(groups)))
    assert (row["n"], row["unfinished"], row["verdict"]) == ("0", "1", "")


def test_a_run_that_is_preparing_has_nothing_yet(tmp_path: Path) -> None:
    folder = make(tmp_path / "one", right=(), steps=3, state="running")
    (folder / "ledger.jsonl").unlink()
    assert "running after step 0 of 3" in report.markdown(grouped(tmp_path))


def test_an_unfinished_run_is_in_no_mean(tmp_path: Path) -> None:
    make(tmp_path / "s0")
    make(tmp_path / "s1", seed=1, right=((20,), (1, 1)), steps=3, state="stopped", stream={"tasks": 3})
    make(tmp_path / "s2")
    group = only(tmp_path)
    assert group.n == 1 and mean(group.number("memory", "em")) == 64 / 120
    text = report.markdown([group])
    assert "s1 (amortised): stopped after step 2 of 3" in text
    assert "s2 (amortised): has the seeds of s0" in text


def test_scores_that_are_cut_short_make_a_finished_run_damaged(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    text = (folder / "scores.jsonl").read_text()
    (folder / "scores.jsonl").write_text(text[:-30])  # the last row is a control's
    run = run_of(folder)
    assert run.state == "damaged" and run.step == 2
    assert run.message is not None and "scores.jsonl holds 2 and ledger.jsonl 3 whole steps of 3" in run.message


def test_a_ledger_that_is_cut_short_makes_a_finished_run_damaged(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    (folder / "ledger.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert run_of(folder).state == "damaged"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"correct": 41}, "41 of 40 must lie in [0, 40]"),
        ({"prefix": -1}, "-1 of 40 must lie in [0, 40]"),
        ({"f1": 40.5}, "40.5 of 40 must lie in [0, 40]"),
        ({"classes": {"name": [1, 40]}}, "the kinds of answers do not sum to 16 right of 40"),
        ({"total": 0, "correct": 0, "prefix": 0, "f1": 0, "classes": {}}, "no question was asked"),
        ({"prefix": None}, "TypeError"),
    ],
)
def test_impossible_scores_are_told(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    folder = make(tmp_path / "one")
    rows = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    wrong = next(row for row in rows if (row["step"], row["task"], row["readout"]) == (3, 1, "memory"))
    wrong |= change
    write_lines(folder / "scores.jsonl", rows)
    run = run_of(folder)
    assert run.state == "damaged" and run.message is not None and why in run.message
    assert "damaged" in report.markdown(grouped(folder))


def test_a_step_that_was_repeated_counts_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    rows = (folder / "scores.jsonl").read_text().splitlines()
    again = json.dumps(json.loads(rows[0]) | {"correct": 10, "classes": {"name": [10, 20], "number": [0, 20]}})
    (folder / "scores.jsonl").write_text("\n".join([*rows, again]) + "\n")
    run = run_of(folder)
    assert run.state == "done" and run.curve(lambda t: t.em)[0] == 10 / 40


def test_a_run_without_a_readable_config_is_told_by_its_scores(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    (folder / "config.yaml").write_text("{")
    assert run_of(folder).state == "damaged"


# Writers


class Tags(HTMLParser):
    """Checks that tags are closed in order, and gathers what could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def several(folder: Path) -> list[ReadingGroup]:
    """Make runs of three methods, two seeds each, one of them without any bytes."""
    for seed in (0, 1):
        make(folder / f"a{seed}", seed=seed)
        make(folder / f"b{seed}", "bm25", seed, bank=90_000, networks=0, meta=False)
        make(folder / f"c{seed}", "closed_book", seed, readout="answer", controls={}, bank=0, networks=0, meta=False)
    return grouped(folder)


def test_the_page_is_whole_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    groups = several(tmp_path)
    page = report.html(groups, report.load([tmp_path]), "Readers <b>")
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and len(tags.ids) == len(set(tags.ids))
    assert all(link.startswith("#") for link in tags.links)
    assert "Readers &lt;b&gt;" in page and "<b>" not in page
    assert page.count("<svg") == 5  # progress, retention, two of bytes, time
    assert page == report.html(groups, report.load([tmp_path]), "Readers <b>")


def test_every_word_of_the_request_is_on_the_page(tmp_path: Path) -> None:
    page = report.html(several(tmp_path), report.load([tmp_path]), "t")
    for words in ("prefix", "shuffled EM", "verdict", "Right answers for the bank", "shared", "validation F1",
                  "per document", "per question", "F1 on them, % of the first value"):  # fmt: skip
        assert words in page, words
    assert re.search(
        r"6 finished runs of 3 methods on documents · copying \(30 documents, 120 questions, 3 tasks\)", page
    )


def test_terminal_and_markdown_print_the_same_numbers(tmp_path: Path) -> None:
    groups = several(tmp_path)
    text = report.markdown(groups)
    console = Console(file=io.StringIO(), width=250)
    report.terminal(groups, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    numbers = set(re.findall(r"\d+\.\d ± \d+\.\d", text))
    assert len(numbers) > 8
    assert all(number in printed for number in numbers)
    assert "53.3 ± 0.0" in text and "+45.8 ± 5.2" in text and "works" in printed


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    report.terminal(several(tmp_path), console)
    assert isinstance(console.file, io.StringIO)
    assert max(map(len, console.file.getvalue().splitlines())) <= width
    assert "…" not in console.file.getvalue()


def test_the_best_reader_comes_first(tmp_path: Path) -> None:
    make(tmp_path / "a", "worse", right=((20,), (18, 24), (1, 1, 1)))
    make(tmp_path / "b", "better")
    assert [group.method for group in grouped(tmp_path)] == ["better", "worse"]


def test_readers_share_no_table_with_other_runs(tmp_path: Path) -> None:
    make(tmp_path / "reader")
    other = tmp_path / "learner"
    other.mkdir()
    (other / "config.yaml").write_text(
        yaml.safe_dump({"stream": {"name": "class_incremental"}, "strategy": {"name": "ewc"}})
    )
    (other / "status.json").write_text(json.dumps({"state": "running", "step": 0, "steps": 5}))
    runs = report.load([tmp_path])
    groups = report.groups(runs)
    assert {type(group).__name__ for group in groups} == {"LearningGroup", "ReadingGroup"}
    files = report.csv_files(groups, tmp_path / "t.csv")
    assert {path.name for path in files} == {"t.learning.csv", "t.reading.csv"}
    page = report.html(groups, runs, "t")
    assert '<h2 class="part" id="part-1">Reading</h2>' in page


def test_a_name_cannot_write_markup(tmp_path: Path) -> None:
    make(tmp_path / "one", "<i>x|y_z")
    groups = grouped(tmp_path)
    page = report.html(groups, report.load([tmp_path]), "t")
    assert "<i>" not in page and "&lt;i&gt;x" in page
    assert "x\\|y\\_z" in report.markdown(groups)


def test_bytes_of_one_size_are_drawn_too(tmp_path: Path) -> None:
    make(tmp_path / "a", "one")
    make(tmp_path / "b", "two", bank=1100)
    groups = grouped(tmp_path)
    assert "Right answers for the bank" in report.html(groups, report.load([tmp_path]), "t")
    shutil.rmtree(tmp_path / "b")
    make(tmp_path / "c", "none", bank=0, networks=0)
    make(tmp_path / "d", "nothing", bank=0, networks=0)
    shutil.rmtree(tmp_path / "a")
    groups = grouped(tmp_path)
    assert "Right answers for the bank" in report.html(groups, report.load([tmp_path]), "t")
