"""The bridge to Avalanche: each named strategy runs, its bytes are right, and what cannot be promised is said."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import checks, report
from clearn.cli import main
from clearn.errors import BudgetExceeded, ConfigError, StateError, UserError
from clearn.folder import LEDGER, SCORES, STATUS, RunFolder
from clearn.learning import Learning, on_stream
from clearn.recipe import Recipe
from clearn.runner import run, run_until
from clearn.state import decode
from clearn.stream import Inputs, Request, Stream, Task
from clearn.streams import class_incremental
from strategies.avalanche import Avalanche

pytest.importorskip("avalanche", reason="pip install 'clearn[avalanche]'")
torch.set_num_threads(1)

NAMED: dict[str, dict[str, Any]] = {
    "Naive": {},
    "Replay": {"mem_size": 40},
    "EWC": {"ewc_lambda": 0.4},
    "LwF": {"alpha": 1.0, "temperature": 2.0},
    "SI": {"si_lambda": 0.1},
    "MAS": {},
    "GEM": {"patterns_per_exp": 20},
    "AGEM": {"patterns_per_exp": 20},
    "GDumb": {"mem_size": 40},
    "iCaRL": {"memory_size": 40, "fixed_memory": True},
    "DER": {"mem_size": 40},
    "GSS-greedy": {"mem_size": 60},
    "LFL": {"lambda_e": 0.1},
    "Cumulative": {},
}
HEAD_FOR_ALL = ("iCaRL", "DER")
PHASE = {"epochs": 1, "lr": 0.05, "schedule": "constant", "batch_size": 16}
BODY = 4 * (64 * 100 + 100 + 100 * 100 + 100)  # bytes of the mlp on 8 x 8 digits: 64-100-100
ITEM = 64 + 1  # a digit and its label
INPUTS = Inputs((1, 8, 8))

Run = Callable[..., Path]


def head(n_classes: int) -> int:
    return 4 * n_classes * (100 + 1)


def digits() -> Stream:
    """Two tasks of the classes 0, 1 and 2, 3: 40 training digits a class."""
    data = class_incremental.build(data="digits", increment=[2, 2, 6], per_class_train=40, per_class_test=20)
    return First(data, 2)


class First(Stream):
    """The first tasks of a stream."""

    def __init__(self, stream: Stream, n: int) -> None:
        facts = stream.facts
        super().__init__(type(facts)(facts.inputs, facts.infos[:n], facts.augment, facts.about))
        self.whole = stream

    def task(self, index: int) -> Task:
        return self.whole.task(index)


def experiment(
    method: str = "Naive", options: Mapping[str, Any] | None = None, budget: Any = None, **more: Any
) -> Learning:
    more = {"backbone": "mlp", "first": PHASE, "later": PHASE, **more}
    if method in HEAD_FOR_ALL:
        more.setdefault("classes", 4)
    chosen = NAMED.get(method, {}) if options is None else options
    trainer = {"accelerator": "cpu", "threads": 1}
    return on_stream(digits(), "avalanche", {"method": method, "options": chosen, **more}, budget, 0, trainer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunFolder]:
    """Two tasks of a named strategy, run once."""
    done: dict[str, RunFolder] = {}

    def get(method: str) -> RunFolder:
        if method not in done:
            done[method] = RunFolder(run(experiment(method), tmp_path_factory.mktemp(method.lower())))
        return done[method]

    return get


def weighed(folder: RunFolder, step: int) -> dict[tuple[str, str], int]:
    rows = [row for row in folder.rows(LEDGER) if row["kind"] == "bytes" and row["step"] == step]
    return {(row["owner"], row["category"]): row["bytes"] for row in rows}


def figures(folder: RunFolder) -> list[dict[str, Any]]:
    return [row for row in folder.rows(LEDGER) if row["kind"] == "figures"]


@pytest.mark.parametrize("method", NAMED)
def test_each_named_strategy_learns_two_tasks_and_says_how_it_was_weighed(
    method: str, finished: Callable[[str], RunFolder]
) -> None:
    folder = finished(method)
    for row in figures(folder):
        assert row["total"] >= BODY + head(2), "at least the network is carried"
        assert (row["rebuilt"], row["weighed"]) == (False, "by inspection, not rebuilt")
        assert row["optimizer_steps"] > 0
        assert row["samples"] >= 80 or method == "GDumb"
    blob = folder.state_path(2).read_bytes()
    assert figures(folder)[1]["total"] == len(blob) - 8 - int.from_bytes(blob[:8], "little"), "rows weigh the file"
    scores = [row for row in folder.rows(SCORES) if row["step"] == 2]
    assert [row["total"] for row in scores] == [40, 40]
    right = {row["task"]: row["correct"] for row in scores}
    assert right[2] >= 20, f"{method} has not learned the newest task: {right}"
    if method in ("Replay", "iCaRL", "GDumb", "DER", "GSS-greedy", "Cumulative"):
        assert right[1] >= 20, f"{method} keeps samples and has forgotten the first task: {right}"


def test_naive_carries_the_network_and_its_clock(finished: Callable[[str], RunFolder]) -> None:
    clock = 6 * 8 + 3  # six counters; is_training, _distributed_check, do_final
    for step, n_classes in ((1, 2), (2, 4)):
        assert weighed(finished("Naive"), step) == {
            ("model", "params"): BODY,
            ("model", "head"): head(n_classes),
            ("memory", "meta"): clock,
        }


def test_replay_carries_a_sample_for_each_reference(finished: Callable[[str], RunFolder]) -> None:
    """40 samples by reference, the random number by which the reservoir chose each, the clock and four sizes."""
    folder = finished("Replay")
    found = weighed(folder, 2)
    assert found[("memory", "exemplars")] == 40 * ITEM
    assert found[("memory", "index")] == 40 * 4
    assert found[("memory", "meta")] == 6 * 8 + 3 + 8 + 2 * 8  # the clock; _num_exps; max_size of two groups
    assert sum(found.values()) == figures(folder)[1]["total"]
    assert [row["exemplars"] for row in figures(folder)] == [40, 40]
    kept = decode(folder.state_path(2).read_bytes()).tensors
    pixels = torch.cat([torch.as_tensor(kept[f"memory/exemplars/samples.{i}.inputs"]) for i in range(2)])
    labels = torch.cat([torch.as_tensor(kept[f"memory/exemplars/samples.{i}.labels"]) for i in range(2)])
    assert pixels.dtype == labels.dtype == torch.uint8
    stream = digits()
    for index in range(2):
        train = stream.task(index).train
        known = {row.numpy().tobytes() for row in train.fetch(torch.arange(len(train)))}
        rows = pixels[torch.isin(labels, torch.tensor(stream.infos[index].classes))]
        assert len(rows) == 20, "the memory is shared equally by the tasks"
        assert all(row.numpy().tobytes() in known for row in rows)


def test_ewc_carries_importance_and_anchor_of_each_task(finished: Callable[[str], RunFolder]) -> None:
    """Avalanche widens those of earlier tasks as the head grows, and anchors the newest task, which is a copy."""
    assert weighed(finished("EWC"), 1)[("memory", "importance")] == 2 * (BODY + head(2))
    assert weighed(finished("EWC"), 2)[("memory", "importance")] == 2 * 2 * (BODY + head(4))
    assert weighed(finished("EWC"), 2)[("memory", "meta")] == 6 * 8 + 3


def test_other_memories_by_hand(finished: Callable[[str], RunFolder]) -> None:
    net = BODY + head(4)
    assert weighed(finished("LwF"), 2)[("memory", "frozen_copy")] == net
    assert weighed(finished("GEM"), 2)[("memory", "exemplars")] == 40 * (64 + 8 + 8)  # with labels and task labels
    assert weighed(finished("GEM"), 2)[("memory", "subspace")] == net  # the first task's gradient
    assert weighed(finished("AGEM"), 2)[("memory", "exemplars")] == 40 * ITEM
    assert weighed(finished("DER"), 2)[("memory", "exemplars")] == 40 * (ITEM + 4 * 4)  # with four logits
    assert weighed(finished("GSS-greedy"), 2)[("memory", "exemplars")] == 60 * (4 * 64 + 8)  # pixels as float32
    assert weighed(finished("Cumulative"), 2)[("memory", "exemplars")] == 160 * ITEM  # everything
    assert weighed(finished("MAS"), 2)[("memory", "importance")] == 2 * net
    assert weighed(finished("iCaRL"), 2)[("memory", "exemplars")] == 40 * (64 + 8)


def test_two_runs_of_a_seed_are_equal(finished: Callable[[str], RunFolder], tmp_path: Path) -> None:
    torch.rand(3)
    again = RunFolder(run(experiment("Replay"), tmp_path))
    assert [row["sha256"] for row in figures(again)] == [row["sha256"] for row in figures(finished("Replay"))]


def test_it_keeps_the_promises_that_need_no_rebuild() -> None:
    subject = checks.subject("avalanche", ["method=Replay", "options.mem_size=12"])
    assert checks.promised(subject) == checks.WITHOUT_REBUILD
    assert [problem for _, problem in checks.run(subject) if problem] == []
    assert checks.promised(checks.subject("replay")) == checks.ALL


def test_the_recipe_s_rates_reach_avalanche_s_optimiser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rates: list[float] = []
    sgd = torch.optim.SGD

    class Spying(sgd):  # type: ignore[valid-type,misc]
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spying)
    phase = {"epochs": 3, "lr": 0.1, "milestones": [1], "batch_size": 40}
    run_until(experiment("Naive", first=phase), tmp_path, 1)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_batches_are_augmented(tmp_path: Path) -> None:
    seen: list[tuple[torch.dtype, int]] = []

    def augment(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        seen.append((batch.dtype, len(batch)))
        return batch.flip(3)

    stream = digits()
    stream.facts = type(stream.facts)(stream.inputs, stream.infos, augment, stream.about)
    of = {"backbone": "mlp", "first": PHASE, "later": PHASE}
    for method in ("Replay", "GSS-greedy"):
        seen.clear()
        options = {"method": method, "options": NAMED[method], **of}
        run(on_stream(stream, "avalanche", options, None, 0, {"accelerator": "cpu", "threads": 1}), tmp_path / method)
        assert {dtype for dtype, _ in seen} == {torch.uint8}
        assert max(n for _, n in seen) > 16, "replayed samples are augmented with the new ones"


def test_a_run_over_its_budget_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match=r"after task 1 the carried state weighs 70,\d{3} bytes .*budget.bytes=69"):
        run(experiment("Replay", {"mem_size": 40}, budget=69_000), tmp_path / "over")
    with pytest.raises(BudgetExceeded, match=r"the model alone weighs 67,208 bytes"):
        run(experiment("Replay", {"mem_size": 40}, budget=1000), tmp_path / "model")


@pytest.mark.parametrize("method", ["Replay", "GDumb", "DER"])
def test_a_size_of_null_fills_the_budget_by_measured_bytes(method: str, tmp_path: Path) -> None:
    more = 2 * (BODY + head(4)) if method == "GDumb" else BODY + head(4)  # its first network is kept as well
    budget = more + 3000
    folder = RunFolder(run(experiment(method, {"mem_size": None}, budget=budget), tmp_path))
    last = figures(folder)[1]
    assert all(row["total"] <= budget for row in figures(folder))
    assert last["exemplars"] > 25
    each = {"Replay": ITEM + 4, "GDumb": ITEM + 4, "DER": ITEM + 4 + 16}[method]
    assert last["slack"] < 3 * each, f"{last['slack']} bytes are left, and a sample takes {each}"


def test_sizes_that_a_budget_cannot_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mem_size=null fills the byte budget, but budget.bytes is null"):
        run(experiment("Replay", {"mem_size": None}), tmp_path)
    with pytest.raises(ConfigError, match=r"memory_size=null.* ICaRL cannot be resized: give a number.* 65 bytes"):
        Avalanche(INPUTS, "iCaRL", {"memory_size": None, "fixed_memory": True}, "mlp", classes=4)


def test_resume_is_refused_and_running_again_starts_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Callable[[str], RunFolder]
) -> None:
    config = ["class_incremental/avalanche_fashion_mnist", "strategy.method=Replay", "strategy.options.mem_size=20"]
    config += ["stream.data=digits", "stream.per_class_train=20", "strategy.backbone=mlp", "grid=null"]
    config += [f"strategy.{phase}.epochs=1" for phase in ("first", "later")]
    path = tmp_path / "run"
    assert main(["run", *config, f"out={path}"]) == 0
    whole = [row["sha256"] for row in figures(RunFolder(path))]
    assert main(["resume", str(path)]) == 0, "a finished run has nothing to go on with"

    folder = RunFolder(path)
    folder.drop_after(1)
    folder.put_status("stopped", 1, 2)
    capsys.readouterr()
    assert main(["resume", str(path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped after task 1 of 2" in said
    assert "can only start anew" in said
    assert "clearn run" in said

    assert main(["run", *config, f"out={path}"]) == 0
    assert "starting anew with task 1" in " ".join(capsys.readouterr().out.split())
    assert [row["sha256"] for row in figures(RunFolder(path))] == whole
    assert (folder.get_json(STATUS) or {})["state"] == "done"


def test_its_state_is_not_taken_up_again(finished: Callable[[str], RunFolder]) -> None:
    learner = Avalanche(INPUTS, "Replay", {"mem_size": 40}, "mlp")
    state = decode(finished("Replay").state_path(2).read_bytes()).tensors
    with pytest.raises(StateError, match=r"Avalanche's Replay cannot be taken up .* start the run anew"):
        learner.load(state, digits().infos)


def test_requests_to_forget_are_refused_before_training(tmp_path: Path) -> None:
    asked = experiment("Naive")
    facts = asked.stream.facts
    asked.stream.facts = type(facts)(facts.inputs, facts.infos, None, facts.about, (Request(1, (0,)),))
    with pytest.raises(ConfigError, match=r"1 requests to forget, but this strategy is weighed by inspection"):
        run(asked, tmp_path)


def test_reports_say_by_inspection(finished: Callable[[str], RunFolder]) -> None:
    runs = report.load([finished("Naive").path, finished("Replay").path])
    groups = report.groups(runs)
    assert all(group.options["weighed"] == "by inspection, not rebuilt" for group in groups)
    assert "by inspection, not rebuilt" in report.markdown(groups)
    assert "by inspection, not rebuilt" in report.csv(groups)
    page = report.html(groups, runs, "Avalanche")
    assert "a walk over its" in page


def test_a_strategy_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"method='Replai' is no strategy .* did you mean 'Replay'\?"):
        Avalanche(INPUTS, "Replai", {}, "mlp")
    with pytest.raises(ConfigError, match=r"method='os.system' is no strategy"):
        Avalanche(INPUTS, "os.system", {}, "mlp")
    with pytest.raises(ConfigError, match=r"method='AR1' is no strategy .* on a network of ours"):
        Avalanche(INPUTS, "AR1", {}, "mlp")  # brings a network of its own


def test_names_may_be_written_as_papers_do() -> None:
    for name in ("si", "SI", "synaptic_intelligence", "SynapticIntelligence"):
        assert type(Avalanche(INPUTS, name, {"si_lambda": 1.0}, "mlp").guest).__name__ == "SynapticIntelligence"


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match=r"strategy.options.ewc_lamda: .* no such option; did you mean 'ewc_lambda'"):
        Avalanche(INPUTS, "EWC", {"ewc_lambda": 1.0, "ewc_lamda": 2.0}, "mlp")
    with pytest.raises(ConfigError, match=r"strategy.options.ewc_lambda: got nothing, must be a number"):
        Avalanche(INPUTS, "EWC", {}, "mlp")
    with pytest.raises(ConfigError, match=r"strategy.options.mem_size: got 'many', must be an int"):
        Avalanche(INPUTS, "Replay", {"mem_size": "many"}, "mlp")
    with pytest.raises(ConfigError, match=r"strategy.options.model: got 'x', but there is no such option"):
        Avalanche(INPUTS, "Naive", {"model": "x"}, "mlp")
    with pytest.raises(ConfigError, match=r"EWC of Avalanche does not take .*mode='never'.*Mode must be"):
        Avalanche(INPUTS, "EWC", {"ewc_lambda": 1.0, "mode": "never"}, "mlp")


def test_how_many_classes_there_will_be() -> None:
    with pytest.raises(ConfigError, match=r"method=DER keeps outputs of the whole head.* write strategy.classes"):
        Avalanche(INPUTS, "DER", {"mem_size": 40}, "mlp")
    with pytest.raises(ConfigError, match=r"classes=0 must be 1 or more"):
        Avalanche(INPUTS, "Naive", {}, "mlp", classes=0)
    learner = Avalanche(INPUTS, "Naive", {}, "mlp", classes=3)
    learner.grow(digits().infos[0])
    with pytest.raises(ConfigError, match=r"strategy.classes=3, but task 2 brings class 4"):
        learner.grow(digits().infos[1])


def test_without_the_package_the_message_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "avalanche"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "avalanche", None)
    with pytest.raises(UserError, match=r"pip install 'clearn\[avalanche\]'"):
        Avalanche(INPUTS, "Naive", {}, "mlp")


def test_defaults_are_those_of_replay() -> None:
    learner = Avalanche(INPUTS)
    assert (learner.later, learner.first.epochs) == (Recipe(epochs=70, milestones=(30, 50), weight_decay=2e-4), 200)
    assert not learner.rebuilds
