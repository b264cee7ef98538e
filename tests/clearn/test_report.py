"""Reports on synthetic run folders: what is averaged, what is left out, and what every writer makes of it."""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from clearn import report
from clearn.errors import UserError
from clearn.report.columns import cell, number_text
from clearn.report.grouping import settings
from clearn.report.learning.grouping import memory_curves

STREAM = {"name": "class_incremental", "data": "digits", "order_seed": 0}
BUDGET = {"bytes": 5000, "policy": "every", "count": "full"}
SIZES = (20, 60, 40)  # test samples per task, unequal on purpose
VOID = {"meta", "link", "br", "hr", "img", "input"}


def make(
    folder: Path,
    method: str = "replay",
    seed: int = 0,
    *,
    right: Sequence[Sequence[float]] = ((0.9,), (0.8, 0.9), (0.7, 0.8, 0.9)),
    nme: float | None = None,
    budget: dict[str, Any] | None = BUDGET,
    domain: bool = False,
    shared: int = 0,
    state: str = "done",
    steps: int | None = None,
    weight: int = 1000,
    **config: Any,
) -> Path:
    """Write a run folder: `right` are accuracies per step and task; `nme` is added to them for a second read-out."""
    folder.mkdir(parents=True)
    whole = {
        "stream": STREAM,
        "strategy": {"name": method},
        "budget": budget,
        "trainer": {"epochs": 3},
        "runner": {"rebuild": True},
        "seed": seed,
        "name": folder.name,
        "out": "runs",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(whole | config))
    facts = {"clearn": "0.1.0", "python": "3.11.2", "device": "cpu", "started": f"2025-01-0{seed % 9 + 1}T10:00:00"}
    (folder / "environment.json").write_text(
        json.dumps(facts | {"command": ["/home/someone/bin/clearn", "run", method]})
    )
    scores, ledger = [], []
    for step, row in enumerate(right, 1):
        for task, accuracy in enumerate(row, 1):
            for readout in ("classifier",) if nme is None else ("classifier", "nme"):
                scores.append(score(step, task, accuracy + (nme or 0) * (readout == "nme"), readout, nme, domain))
        sizes = {("model", "params"): weight, ("model", "head"): 40 * step, ("memory", "exemplars"): 500}
        sizes |= {("model", "shared_pretrained"): shared} if shared else {}
        ledger += [
            {"kind": "bytes", "step": step, "owner": owner, "category": category, "bytes": size}
            for (owner, category), size in sizes.items()
        ]
        ledger.append(figures(step, sum(sizes.values()), shared, budget))
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ledger))
    status = {"state": state, "step": len(right), "steps": steps or len(right), "message": None}
    (folder / "status.json").write_text(json.dumps(status))
    return folder


def score(step: int, task: int, accuracy: float, readout: str, nme: float | None, domain: bool) -> dict[str, Any]:
    total = SIZES[task - 1]
    correct = round(accuracy * total)
    first = 0 if domain else 2 * (task - 1)
    classes = {first: [correct // 2, total // 2], first + 1: [correct - correct // 2, total - total // 2]}
    return {
        "step": step,
        "task": task,
        "probe": f"task {task}",
        "readout": readout,
        "headline": readout == ("classifier" if nme is None else "nme"),
        "correct": correct,
        "total": total,
        "classes": classes,
        "top5": total,
    }


def figures(step: int, total: int, shared: int, budget: dict[str, Any] | None) -> dict[str, Any]:
    limit = None if budget is None else budget["bytes"]
    return {
        "kind": "figures",
        "step": step,
        "total": total,
        "shared": shared,
        "delta": total - shared,
        "framing": 100,
        "budget": limit,
        "slack": None if limit is None else limit - total + shared,
        "paper": 900,
        "exemplars": 10,
        "peak_host": 1e6 * step,
        "peak_device": None,
        "transient": 3000,
        "seconds": {"data": 0.1, "train": 2.0, "evaluate": 0.25},
        "cpu_seconds": 2.0,
        "optimizer_steps": 30,
        "samples": 1000,
        "sha256": "ab",
    }


def grouped(path: Path) -> list[report.Group]:
    return report.groups(report.load([path]))


def terminal_text(groups: list[report.Group], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    report.terminal(groups, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def csv_rows(groups: list[report.Group]) -> list[dict[str, str]]:
    return list(csv_format.DictReader(io.StringIO(report.csv(groups))))


# Reading


def test_load_finds_runs_at_any_depth_once(tmp_path: Path) -> None:
    make(tmp_path / "sweep" / "b")
    make(tmp_path / "sweep" / "deep" / "a", seed=1)
    (tmp_path / "sweep" / ".hidden").mkdir()
    (tmp_path / "sweep" / "notes.txt").write_text("not a run")
    runs = report.load([tmp_path, tmp_path / "sweep" / "b"])
    assert [run.name for run in runs] == ["b", "a"]
    assert all(run.finished and run.steps == 3 for run in runs)


def test_paths_that_are_no_runs_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        report.load([tmp_path / "empty", tmp_path / "file", tmp_path / "gone"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "empty holds no run: a run folder has config.yaml" in lines[0]
    assert "file is a file" in lines[1]
    assert "gone does not exist" in lines[2]


def test_a_half_written_last_line_is_as_if_never_written(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    torn = make(tmp_path / "torn", state="running")
    for name in ("scores.jsonl", "ledger.jsonl"):
        text = (torn / name).read_text()
        (torn / name).write_text(text[: len(text) - 30])
    run = report.load([torn])[0]
    assert (run.state, run.step, run.steps) == ("running", 2, 3)
    assert report.load([whole])[0].step == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scores.jsonl", '{"step": 1, "ta{"step": 1}\n{"step": 1}\n', "line 1 of scores.jsonl is no JSON mapping"),
        ("scores.jsonl", '{"step": 1, "task": 1}\n', "readout"),
        ("ledger.jsonl", '[1]\n{"kind": "figures"}\n', "line 1 of ledger.jsonl"),
        ("ledger.jsonl", '{"kind": "figures", "step": 1, "total": "many"}\n', "many"),
        ("config.yaml", "a: [1, 2", "config.yaml cannot be read"),
        ("config.yaml", "- 1\n", "config.yaml holds list"),
        ("scores.jsonl", "", "status says done, but scores.jsonl holds 0"),
        ("ledger.jsonl", "", "ledger.jsonl 0 whole steps of 3"),
    ],
)
def test_a_damaged_run_is_listed_and_spoils_no_mean(tmp_path: Path, name: str, text: str, message: str) -> None:
    make(tmp_path / "good")
    bad = make(tmp_path / "bad", seed=1)
    (bad / name).write_text(text)
    groups = grouped(tmp_path)
    assert sum(group.n for group in groups) == 1
    damaged = next(run for run in report.load([bad]))
    assert damaged.state == "damaged"
    assert message in (damaged.message or "")
    assert "leave the folder out" in (damaged.message or "")
    for text in (terminal_text(groups), report.markdown(groups), report.html(groups, report.load([tmp_path]), "x")):
        assert "bad" in text
        assert "damaged after step 0" in text


def test_missing_or_torn_small_files_are_survived(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "environment.json").write_text('{"clearn": ')
    (run / "status.json").unlink()
    found = report.load([run])[0]
    assert (found.environment, found.state, found.finished, found.step) == ({}, "unknown", False, 3)


def test_a_step_written_twice_counts_once(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for name in ("scores.jsonl", "ledger.jsonl"):
        text = (run / name).read_text()
        (run / name).write_text(text + text)
    (group,) = grouped(run)
    assert csv_rows([group])[0]["classifier.last_accuracy.pooled.mean"] == repr((14 + 48 + 36) / 120)
    assert group.categories()[-1] == {"params": 1000, "head": 120, "exemplars": 500}


# Grouping


def test_runs_that_differ_only_in_seeds_are_one_group(tmp_path: Path) -> None:
    for seed in range(3):
        stream = STREAM | {"order_seed": seed}
        make(tmp_path / f"r{seed}", seed=seed, right=((0.9,), (0.8, 0.9), (0.7 + 0.05 * seed, 0.8, 0.9)), stream=stream)
    (group,) = grouped(tmp_path)
    assert (group.label, group.n, group.options) == ("replay", 3, {})
    last = [(14 + seed + 48 + 36) / 120 for seed in range(3)]  # pooled over unequal tasks
    found = group.number("classifier", "last_accuracy.pooled")
    assert found is not None
    assert found.mean == pytest.approx(last[1])
    assert found.std == pytest.approx(1 / 120)


def test_a_key_that_is_null_says_the_same_as_one_that_is_missing(tmp_path: Path) -> None:
    asked = {"after": 1, "classes": [0]}
    make(tmp_path / "old", seed=0, stream=STREAM | {"requests": [asked]})
    make(tmp_path / "new", seed=1, stream=STREAM | {"merge": None, "requests": [asked | {"column": None}]})
    make(tmp_path / "merged", seed=1, stream=STREAM | {"merge": [[0, 1]], "requests": [asked]})
    assert sorted(group.n for group in grouped(tmp_path)) == [1, 2]
    assert len({group.setting for group in grouped(tmp_path)}) == 2


def test_groups_are_named_by_what_differs(tmp_path: Path) -> None:
    make(tmp_path / "a", "replay", strategy={"name": "replay", "lr": 0.1, "select": "herding"})
    make(tmp_path / "b", "replay", strategy={"name": "replay", "lr": 0.01, "select": "herding"})
    make(tmp_path / "c", "wa", strategy={"name": "wa", "gamma": 1})
    groups = {group.label: group.options for group in grouped(tmp_path)}
    assert groups == {
        "replay lr=0.1": {"strategy.lr": "0.1"},
        "replay lr=0.01": {"strategy.lr": "0.01"},
        "wa": {},
    }


def test_options_outside_the_strategy_are_told_for_all_methods(tmp_path: Path) -> None:
    make(tmp_path / "a", "replay", trainer={"epochs": 70})
    make(tmp_path / "b", "icarl", trainer={"epochs": 170})
    make(tmp_path / "c", "finetune", trainer={"epochs": 70}, budget=None)
    groups = {group.label: group.options for group in grouped(tmp_path)}
    assert groups == {
        "replay": {"trainer.epochs": "70"},
        "icarl": {"trainer.epochs": "170"},
        "finetune": {"trainer.epochs": "70", "budget": "none"},
    }


def test_two_runs_of_the_same_seeds_count_once(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "again")
    groups = grouped(tmp_path)
    assert groups[0].n == 1
    assert "again (replay), has the seeds of a" in terminal_text(groups)


def test_a_forked_run_is_apart_from_runs_of_its_config(tmp_path: Path) -> None:
    make(tmp_path / "a")
    forked = make(tmp_path / "b", seed=1)
    (forked / "environment.json").write_text(json.dumps({"forked_from": {"run": "a", "step": 2}}))
    assert {group.label for group in grouped(tmp_path)} == {"replay", "replay forked=yes"}


def test_streams_are_never_mixed(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", right=((0.9,),), stream=STREAM | {"data": "fashion_mnist"})
    make(tmp_path / "c", stream=STREAM | {"increment": 2})
    make(tmp_path / "d", stream=STREAM | {"increment": 5})
    names = set(settings(grouped(tmp_path)))
    assert names == {
        "class_incremental · digits",
        "class_incremental · digits · increment=2",
        "class_incremental · digits · increment=5",
        "class_incremental · fashion_mnist",
    }


def test_a_run_without_rebuild_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "bridge", "avalanche")
    rows = [json.loads(line) | {"rebuilt": False} for line in (run / "ledger.jsonl").read_text().splitlines()]
    (run / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = grouped(run)
    assert "runner.rebuild=no" in terminal_text(groups)
    assert "not rebuilt from them" in report.html(groups, report.load([run]), "x")


def test_budget_sweeps_become_curves(tmp_path: Path) -> None:
    for limit, accuracy in ((4000, 0.5), (8000, 0.6), (16000, 0.8)):
        right = ((accuracy,), (accuracy,) * 2, (accuracy,) * 3)
        for method in ("replay", "memo"):
            make(tmp_path / f"{method}{limit}", method, right=right, weight=limit, budget=BUDGET | {"bytes": limit})
    groups = grouped(tmp_path)
    curves = memory_curves(groups, delta=False)
    assert set(curves) == {"replay", "memo"}
    assert [size.mean for size, _ in curves["memo"]] == pytest.approx([4620, 8620, 16620])
    assert [accuracy.mean for _, accuracy in curves["memo"]] == pytest.approx([0.5, 0.6, 0.8])
    assert "Areas under accuracy for memory" in report.html(groups, report.load([tmp_path]), "x")


def test_networks_that_suit_each_budget_make_one_curve_and_networks_that_are_compared_do_not(tmp_path: Path) -> None:
    for limit, net in ((4000, "resnet14"), (8000, "resnet20"), (16000, "resnet32")):
        for method, backbone in (("memo", net), ("replay", "resnet32")):
            strategy = {"name": method, "backbone": {"name": backbone}}
            budget = BUDGET | {"bytes": limit}
            make(tmp_path / f"{method}{limit}", method, weight=limit, budget=budget, strategy=strategy)
    assert {name: len(points) for name, points in memory_curves(grouped(tmp_path), delta=False).items()} == {
        "memo": 3,
        "replay": 3,
    }
    strategy = {"name": "memo", "backbone": {"name": "resnet32"}}  # a second network at one of its budgets
    make(tmp_path / "another", "memo", weight=8000, budget=BUDGET | {"bytes": 8000}, strategy=strategy)
    make(tmp_path / "more", "memo", weight=4000, budget=BUDGET | {"bytes": 4000}, strategy=strategy)
    found = memory_curves(grouped(tmp_path), delta=False)
    assert {name: len(points) for name, points in found.items()} == {"memo name=resnet32": 3, "replay": 3}


def test_the_curve_has_areas_with_a_deviation_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Straight lines through three points, by hand: 0.5, 0.6 and 0.8 at 4,620, 8,620 and 16,620 bytes; seed 1 + 0.1."""
    from clearn import cli

    for limit, accuracy in ((4000, 0.5), (8000, 0.6), (16000, 0.8)):
        for seed in (0, 1):
            right = tuple((accuracy + seed / 10,) * n for n in (1, 2, 3))
            where = tmp_path / f"replay{limit}-{seed}"
            make(where, "replay", right=right, weight=limit, budget=BUDGET | {"bytes": limit}, seed=seed)
    assert cli.main(["report", str(tmp_path), "--curve", "--markdown", str(tmp_path / "curve.md")]) == 0
    said = capsys.readouterr().out
    mean = (4000 * 0.55 + 8000 * 0.70) / 12000  # of seed 0
    assert f"{100 * mean + 5:.1f} ± 7.1" in said
    assert "AUC-A %" in said
    assert "AUC-L MiB" in said
    low, high = math.log2(8620 / 4620), math.log2(16620 / 8620)
    doublings = (low * 0.55 + high * 0.70) / (low + high)
    assert f"{100 * doublings + 5:.1f} ± 7.1" in said
    page = report.html(grouped(tmp_path), report.load([tmp_path]), "x")
    heads = re.findall(r"<button type=\"button\">(AUC[^<]*)<", page)
    assert heads == [f"AUC-{which} {unit}" for which in "AL" for unit in ("%", "MiB", "log %")]
    for share in (mean, doublings):  # AUC-A and, as all tasks are equal here, AUC-L too
        assert page.count(f">{100 * share + 5:.1f} ± 7.1<") == 2
    assert "Areas from 0.004 to 0.016 MiB of measured bytes" in (tmp_path / "curve.md").read_text()
    assert "| replay | 55.0 ± 7.1 | 65.0 ± 7.1 | 85.0 ± 7.1 |" in (tmp_path / "curve.md").read_text()
    assert cli.main(["report", str(tmp_path / "replay4000-0"), "--curve"]) == 0
    assert "No method was run under two budgets or more" in capsys.readouterr().out


def test_budgets_that_do_not_meet_have_no_area(tmp_path: Path) -> None:
    for method, limits in (("replay", (4000, 6000)), ("memo", (8000, 9000))):
        for limit in limits:
            make(tmp_path / f"{method}{limit}", method, weight=limit, budget=BUDGET | {"bytes": limit})
    runs = report.load([tmp_path])
    assert "share no range of memory" in report.html(report.groups(runs), runs, "x")


# Writing


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two read-outs, a run of two seeds, an unfinished run, no budget, pretrained weights, one task, domains."""
    root = tmp_path / "runs"
    for seed in range(2):
        right = ((0.9,), (0.8, 0.9), (0.65 + 0.05 * seed, 0.8, 0.9))
        make(root / f"icarl-{seed}", "icarl", seed, nme=0.05, right=right)
        make(root / f"finetune-{seed}", "finetune", seed, budget=None, right=((0.9,), (0.1, 0.9), (0.0, 0.1, 0.9)))
    make(root / "mos", "mos", shared=3 * 2**20)
    make(root / "going", "icarl", 2, nme=0.05, right=((0.9,), (0.8, 0.9)), state="running", steps=3)
    make(
        root / "single", "finetune", right=((0.95,),), budget=None, stream={"name": "class_incremental", "data": "one"}
    )
    make(root / "domain", domain=True, stream={"name": "domain_incremental", "data": {"name": "rotated", "angle": 30}})
    return root


def test_terminal_states_n_and_both_readouts(mixed: Path) -> None:
    text = terminal_text(grouped(mixed))
    icarl = next(line for line in text.splitlines() if line.strip().startswith("icarl"))
    assert icarl.split()[:2] == ["icarl", "2"]
    last = {"classifier": (13.5 + 48 + 36) / 120, "nme": (14.5 + 51 + 38) / 120}
    assert f"{100 * last['classifier']:.1f} ± 0.6" in icarl
    assert f"{100 * last['nme']:.1f} ± 0.6" in icarl
    assert icarl.count("*") == 1  # the headline read-out's average
    assert "going (icarl), running after step 2 of 3" in text
    assert "standard deviation (divisor n - 1)" in text


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_terminal_keeps_numbers_whole_at_any_width(mixed: Path, width: int) -> None:
    text = terminal_text(grouped(mixed), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for whole in ("81.2 ± 0.6", "1.6 KiB", "3.00 MiB", "finetune", "exemplars"):
        assert whole in text
    assert not re.search(r"finetun\s", text)


def test_markdown_tables_are_rectangular(mixed: Path) -> None:
    text = report.markdown(grouped(mixed))
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    assert len(blocks) == 9  # accuracy, memory and time for each of three streams
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "going (icarl): running after step 2 of 3" in text


def test_csv_holds_exact_numbers(mixed: Path) -> None:
    rows = {(row["label"], row["setting"].rpartition(" ")[2]): row for row in csv_rows(grouped(mixed))}
    icarl, finetune = rows["icarl", "digits"], rows["finetune", "digits"]
    assert (icarl["n"], icarl["unfinished"], icarl["headline"]) == ("2", "1", "nme")
    assert float(icarl["nme.last_accuracy.pooled.mean"]) == pytest.approx((14.5 + 51 + 38) / 120)
    assert icarl["classifier.last_accuracy.pooled.n"] == "2"
    assert finetune["nme.last_accuracy.pooled.mean"] == ""
    assert (icarl["bytes_total.mean"], icarl["bytes_largest.mean"], icarl["slack.mean"]) == ("1620", "1620", "3380")
    assert (finetune["budget.mean"], finetune["slack.mean"]) == ("", "")
    assert float(icarl["samples_per_second.mean"]) == pytest.approx(500)
    assert float(finetune["classifier.forgetting.chaudhry.mean"]) == pytest.approx((0.9 + 0.8) / 2)
    mos = rows["mos", "digits"]
    assert (mos["bytes_delta.mean"], mos["bytes_shared.mean"]) == ("1620", str(3 * 2**20))
    single = rows["finetune", "one"]
    assert single["classifier.forgetting.chaudhry.mean"] == single["classifier.bwt.mean"] == ""
    assert single["classifier.last_accuracy.pooled.std"] == ""
    assert rows["replay", "rotated"]["classifier.last_accuracy.old.mean"] == ""
    assert "nan" not in report.csv(grouped(mixed)).lower()


class Checker(HTMLParser):
    """Checks nesting and unique ids, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute: {names}"
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        self.refers += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        self.refers += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for _, value in attrs))
        if tag == "th":
            assert given.get("scope") in ("row", "col", "colgroup") or "over" in (given.get("class") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes the wrong element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_page_is_valid_and_fetches_nothing(mixed: Path) -> None:
    runs = report.load([mixed])
    page = report.html(report.groups(runs), runs, "A <comparison> & more")
    checker = checked(page)
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.refers, "figures refer to their own markers"
    assert all(target.startswith("#") for target in checker.refers)
    assert {target[1:] for target in checker.refers} <= set(checker.ids)
    assert not re.search(r"https?:|//cdn|@import|<link|<img", page)
    assert checker.seen.count("svg") > 8
    assert checker.seen.count("figure") == checker.seen.count("figcaption") > 8
    assert "A &lt;comparison&gt; &amp; more" in page
    assert str(mixed) not in page
    assert "/home/someone" not in page


def test_page_has_no_stray_colours_and_keeps_text_as_text(mixed: Path) -> None:
    runs = report.load([mixed])
    page = report.html(report.groups(runs), runs, "x")
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) <= {"#ffffff"}  # the rest are variables, light or dark
    assert "tasks learned</text>" in figures
    assert "DejaVu" not in figures


def test_forgetting_is_drawn_after_each_step_as_if_the_stream_ended_there(tmp_path: Path) -> None:
    """By hand: after step 2 task 1 fell from 0.9 to 0.8; after step 3 tasks 1, 2 from 0.9, 0.9 to 0.7, 0.8."""
    groups = grouped(make(tmp_path / "a", right=((0.9,), (0.8, 0.9), (0.7, 0.8, 0.9))))
    curve = [one.mean if one else None for one in groups[0].forgetting("classifier")]
    assert curve[0] is None
    assert curve[1:] == pytest.approx([0.1, 0.15], abs=0.011)  # 20 test samples, so accuracies are rounded
    page = report.html(groups, report.load([tmp_path]), "x")
    assert "Forgetting as tasks are learned" in page


def test_page_is_the_same_for_the_same_runs(mixed: Path, tmp_path: Path) -> None:
    runs = report.load([mixed])
    first = report.html(report.groups(runs), runs, "x")
    shutil.copytree(mixed, tmp_path / "copy" / "runs")
    again = report.load([tmp_path / "copy" / "runs"])
    assert report.html(report.groups(again), again, "x") == first


def test_page_tells_the_essentials(mixed: Path) -> None:
    runs = report.load([mixed])
    text = " ".join("".join(checked(report.html(report.groups(runs), runs, "x")).text).split())
    for words in (
        "7 finished runs of 4 methods in 5 configurations",
        "2025-01-01 10:00 to 2025-01-03 10:00",
        "running after step 2 of 3",
        "Classes that repeat over tasks have no old and new",
        "harmonic mean",
        "forgetting.chaudhry",
        "3.00 MiB shared pretrained",
        "from scratch",
    ):
        assert words in text, words
    assert "nan" not in text.lower()


def test_page_of_twenty_runs_stays_small(tmp_path: Path) -> None:
    for i in range(20):
        make(tmp_path / f"r{i}", f"method_{i}", right=((0.9,), (0.8, 0.9), (0.7, 0.8, 0.9)), nme=0.01)
    runs = report.load([tmp_path])
    page = report.html(report.groups(runs), runs, "x")
    checked(page)
    assert len(page.encode()) < 1_000_000


def test_nothing_finished_is_said_and_drawn_as_such(tmp_path: Path) -> None:
    make(tmp_path / "a", state="failed", steps=5)
    groups = grouped(tmp_path)
    assert "failed after step 3 of 5" in terminal_text(groups)
    assert "±" not in terminal_text(groups)
    assert csv_rows(groups)[0]["n"] == "0"
    page = report.html(groups, report.load([tmp_path]), "x")
    checked(page)
    assert "<svg" not in page


def test_names_are_escaped(tmp_path: Path) -> None:
    make(tmp_path / "a<b>", "re[bold]play", strategy={"name": "re[bold]play", "note": "<script>|*"})
    make(tmp_path / "b", "re[bold]play", strategy={"name": "re[bold]play", "note": "plain"})
    groups = grouped(tmp_path)
    assert "re[bold]play" in terminal_text(groups)
    assert "<script>|" not in report.html(groups, report.load([tmp_path]), "x")
    assert "\\|\\*" in report.markdown(groups)
    checked(report.html(groups, report.load([tmp_path]), "x"))


def test_numbers_are_printed_as_promised() -> None:
    assert number_text(-0.0001, "percent") == "0.0"
    assert number_text(-0.0125, "percent") == "-1.2"
    assert number_text(0.8055555, "percent") == "80.6"
    assert number_text(2**20 - 1, "bytes") == "1,024.0 KiB"
    assert number_text(123.4, "seconds") == "123"
    assert cell(None, "bytes") == "–"
