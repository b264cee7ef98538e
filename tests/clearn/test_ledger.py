"""The ledger: what is weighed is what is written, published counts come out exactly, a budget is kept at every task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from clearn import checks, published
from clearn.errors import BudgetExceeded
from clearn.folder import LEDGER, RunFolder
from clearn.learning import Learning
from clearn.ledger import CATEGORIES, Account, Budget, Leaf, account
from clearn.parts.exemplars import Exemplars, Memory
from clearn.runner import run
from clearn.state import freeze
from clearn.strategy import Strategy
from clearn.stream import Inputs, Stream
from clearn.streams import from_arrays
from strategies.der_expand import DerExpand
from strategies.finetune import Finetune
from strategies.icarl import ICarl
from strategies.memo import Memo

torch.set_num_threads(1)

CIFAR = Inputs((3, 32, 32))
B0_INC10 = 24_684_160  # DER's final bytes: 10 ResNet32 and 2,000 images


@cache
def cifar_shaped(base: int = 0, increment: int = 10) -> Stream:
    """100 classes of 3 x 32 x 32 images, cut as CIFAR100 is; one black image a class, since only shapes matter."""
    images, labels = np.zeros((100, 3, 32, 32), np.uint8), np.arange(100)
    return from_arrays(images, labels, images, labels, base=base, increment=increment, layout="NCHW")


def planned(make: Callable[[Inputs], Strategy], budget: Budget, stream: Stream) -> Learning:
    return Learning(stream, lambda: make(stream.inputs), budget)


@cache
def memo_plan() -> tuple[Account, ...]:
    return tuple(planned(lambda inputs: Memo(inputs, "resnet32"), Budget(), cifar_shaped()).plan())


def quotas(budget: Budget, plan: tuple[Account, ...], stream: Stream) -> list[int | None]:
    """Exemplars that the budget leaves room for after each task, as a memory that fills it counts them."""
    weights = [step.paper() if budget.count == "paper" else step.carried for step in plan]
    memory = Exemplars(Memory(), stream.inputs)
    seen, found = 0, []
    for index, info in enumerate(stream.infos):
        seen += len(info.classes)
        found.append(memory.quota(budget.room(weights[index], index, weights), seen, budget.count == "paper"))
    return found


def named(**sizes: int) -> Account:
    """An account with so many bytes of float32 in each category."""
    return Account(tuple(Leaf(f"model/{name}", name, size, size // 4) for name, size in sizes.items()))


# --- rows


def test_rows_are_by_owner_and_category_and_add_up_to_what_is_carried() -> None:
    frozen = freeze(
        {
            "model/net.weight": torch.zeros(3, 4),
            "model/net.steps": torch.tensor(0),
            "memory/images": torch.zeros(2, 5, dtype=torch.uint8),
            "memory/labels": torch.zeros(2, dtype=torch.uint8),
        },
        shared={"model/base": ("0" * 64, 1000)},
    )
    category = {"model/net.weight": "params", "model/net.steps": "buffers"}
    found = account(frozen, lambda name: category.get(name, "exemplars"))
    assert found.rows() == {
        ("memory", "exemplars"): 12,
        ("model", "params"): 48,
        ("model", "buffers"): 8,
        ("model", "shared_pretrained"): 1000,
    }
    assert (found.carried, found.shared) == (68, 1000)
    assert found.carried == frozen.nbytes
    assert found.paper(nominal_items=7) == 4 * 12 + 7


@pytest.mark.parametrize("category", ["weights", "", "shared_pretrained", "Params"])
def test_a_category_that_is_not_ours_to_give_is_refused(category: str) -> None:
    frozen = freeze({"model/a": torch.ones(1)})
    with pytest.raises(ValueError, match=r"'model/a' has category .*: choose one of params, buffers, head"):
        account(frozen, lambda _: category)


def test_every_category_can_be_weighed() -> None:
    own = [name for name in CATEGORIES if name != "shared_pretrained"]
    frozen = freeze({f"memory/{name}": torch.ones(i + 1) for i, name in enumerate(own)})
    rows = account(frozen, lambda name: name.partition("/")[2]).rows()
    assert rows == {("memory", name): 4 * (i + 1) for i, name in enumerate(own)}


def test_the_published_counting_leaves_out_all_but_backbone_parameters() -> None:
    assert named(params=400, buffers=80, head=40, exemplars=900, meta=8).paper(30) == 430


def test_pretrained_leaves_weigh_beside_the_budget() -> None:
    found = Account((*named(params=10).leaves, Leaf("model/base", "shared_pretrained", 10**9, 0)))
    Budget(10).check(found.carried, 0, 1)


def test_weighing_takes_time_in_proportion_to_the_entries() -> None:
    """Looking up a category once went through all parameters: 80 seconds for what follows, now a fraction of one."""

    class Many(Strategy):
        def __init__(self) -> None:
            super().__init__(CIFAR)
            self.blocks = torch.nn.ModuleList(torch.nn.BatchNorm1d(1) for _ in range(2000))
            self.head = torch.nn.Linear(1, 3)
            self.frozen = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2))])
            self.register_buffer("means", torch.zeros(5))

    learner = Many()
    started = time.perf_counter()
    found = account(freeze({**learner.state(), "model/statistic": torch.ones(1)}), learner.category).rows()
    assert time.perf_counter() - started < 10
    assert found == {
        ("model", "params"): 4 * (2000 * 2 + 2),
        ("model", "buffers"): 2000 * (4 + 4 + 8) + 4 * 5 + 4,
        ("model", "head"): 4 * 6,
    }


# --- published counts


def test_resnet32_and_memo_weigh_what_the_papers_nets_weigh() -> None:
    net = Finetune(CIFAR, "resnet32")
    plan = planned(lambda inputs: Finetune(inputs, "resnet32"), Budget(), cifar_shaped()).plan()
    rows = plan[-1].rows()
    assert sum(value.nbytes for value in net.state().values()) == 1_863_352
    assert rows["model", "params"] + rows["model", "buffers"] == 1_863_352
    assert rows["model", "head"] == 4 * 100 * 65

    after_ten = memo_plan()[-1]
    assert after_ten.carried == 14_820_120 == 452_200 + 10 * 1_411_152 + 256_400
    assert after_ten.rows()["model", "head"] == 4 * 100 * 641 == 256_400
    assert after_ten.paper() == 4 * 3_626_896
    assert after_ten.paper(3312 * 3072) == 24_682_048


@pytest.mark.parametrize("row", published.aligned(), ids=lambda row: row.setting)
def test_published_exemplar_numbers_follow_from_our_budget(row: published.Aligned) -> None:
    budget = Budget(row.budget_bytes, count="paper", policy="final")
    single = published.halves(row.backbone).params
    for params, exemplars in (
        (single, row.single_exemplars),
        (row.memo_params, row.memo_exemplars),
        (published.der_params(row.backbone, row.tasks), row.der_exemplars),
    ):
        weight = named(params=4 * params).paper()
        room = budget.room(weight, 0, [weight])
        assert room is not None
        assert room // row.image_bytes == exemplars
        budget.check(weight + exemplars * row.image_bytes, row.tasks - 1, row.tasks)
        with pytest.raises(BudgetExceeded):
            budget.check(weight + (exemplars + 1) * row.image_bytes, row.tasks - 1, row.tasks)


@pytest.mark.parametrize(
    ("base", "increment", "setting"),
    [(0, 10, "CIFAR100 B0 Inc10"), (0, 20, "CIFAR100 B0 Inc20"), (50, 10, "CIFAR100 B50 Inc10")],
)
def test_published_exemplar_numbers_follow_from_our_networks(base: int, increment: int, setting: str) -> None:
    row = next(row for row in published.aligned() if row.setting == setting)
    stream = cifar_shaped(base, increment)
    budget = Budget(row.budget_bytes, count="paper", policy="final")
    for method, exemplars in (
        (ICarl, row.single_exemplars),
        (Memo, row.memo_exemplars),
        (DerExpand, row.der_exemplars),
    ):
        plan = tuple(planned(lambda inputs, m=method: m(inputs, "resnet32"), budget, stream).plan())  # type: ignore[misc]
        assert quotas(budget, plan, stream) == [exemplars] * row.tasks, method.__name__


def test_full_bytes_at_the_published_numbers() -> None:
    stream = cifar_shaped()
    der = planned(lambda inputs: DerExpand(inputs, "resnet32"), Budget(), stream).plan()[-1].carried
    single = planned(lambda inputs: ICarl(inputs, "resnet32"), Budget(), stream).plan()[-1].carried
    assert der + 2000 * 3073 == 25_035_920
    assert memo_plan()[-1].carried + 3300 * 3073 == 24_961_020
    assert single + 7400 * 3073 == 24_629_552


# --- policies


def test_memo_keeps_fewer_exemplars_as_it_grows_under_the_every_policy() -> None:
    paper = quotas(Budget(B0_INC10, "every", count="paper"), memo_plan(), cifar_shaped())
    assert paper == [7431, 6974, 6516, 6058, 5601, 5143, 4685, 4228, 3770, 3312]
    full = quotas(Budget(B0_INC10, "every", count="full"), memo_plan(), cifar_shaped())
    assert full == [7425, 6963, 6500, 6035, 5568, 5100, 4630, 4158, 3684, 3209]


def test_the_final_policy_gives_every_task_the_last_ones_quota() -> None:
    assert quotas(Budget(B0_INC10, "final", count="paper"), memo_plan(), cifar_shaped()) == [3312] * 10
    assert quotas(Budget(B0_INC10, "final"), memo_plan(), cifar_shaped()) == [3209] * 10


def test_the_growth_policy_adds_a_step_for_each_task() -> None:
    first = memo_plan()[0].carried + 100 * 3073
    step = 1_411_152 + 50 * 3073  # a block and 50 images more; the head's growth comes out of the images
    found = [n for n in quotas(Budget(first, "growth", step), memo_plan(), cifar_shaped()) if n is not None]
    assert (len(found), found[0]) == (10, 100)
    assert all(1 <= later - now <= 50 for now, later in pairwise(found))


def test_a_limit_by_policy() -> None:
    assert [Budget(100).at(i, 3) for i in range(3)] == [100, 100, 100]
    assert [Budget(100, "final").at(i, 3) for i in range(3)] == [None, None, 100]
    assert [Budget(100, "growth", 7).at(i, 3) for i in range(3)] == [100, 107, 114]
    assert [Budget(100, "none").at(i, 3) for i in range(3)] == [None] * 3
    assert [Budget(None, "every").at(i, 3) for i in range(3)] == [None] * 3
    assert Budget(100, "none").room(10**9, 0, [10**9]) is None
    assert Budget().room(10**9, 0, [10**9]) is None


def test_room_by_policy() -> None:
    planned_bytes = [40, 50, 70]
    assert [Budget(100).room(m, i, planned_bytes) for i, m in enumerate(planned_bytes)] == [60, 50, 30]
    assert [Budget(100, "final").room(m, i, planned_bytes) for i, m in enumerate(planned_bytes)] == [30, 30, 30]
    assert [Budget(100, "growth", 20).room(m, i, planned_bytes) for i, m in enumerate(planned_bytes)] == [60, 70, 70]
    assert Budget(100, "final").room(45, 0, planned_bytes) == 25, "what is carried beside the plan is taken off"
    assert Budget(60).room(70, 2, planned_bytes) == -10


def test_a_budget_takes_the_last_byte_and_refuses_the_next() -> None:
    budget = Budget(1_000_000)
    budget.check(1_000_000, 2, 5)
    with pytest.raises(BudgetExceeded) as caught:
        budget.check(1_000_001, 2, 5)
    assert str(caught.value) == (
        "after task 3 the carried state weighs 1,000,001 bytes (full counting), 1 over budget.bytes=1,000,000 (policy "
        "every): raise budget.bytes, choose a smaller backbone or fewer exemplars, or weigh only with "
        "budget.policy=none"
    )
    Budget(10, "final").check(11, 0, 2)
    with pytest.raises(BudgetExceeded):
        Budget(10, "final").check(11, 1, 2)


def test_a_model_over_its_budget_is_refused_before_anything_is_trained() -> None:
    stream = cifar_shaped()
    experiment = planned(lambda inputs: Memo(inputs, "resnet32"), Budget(10_000_000), stream)
    with pytest.raises(BudgetExceeded, match="after task 7 the model alone weighs"):
        experiment.check_budget(list(memo_plan()))


# --- over a run


@pytest.mark.parametrize("codec", ["raw", "png", "kbit:4"])
def test_memo_fills_every_boundary_to_less_than_an_item(codec: str, tmp_path: Path) -> None:
    """Model grows, room shrinks: bytes stay below the budget by less than an item, exemplars never grow in number."""
    subject = checks.subject("memo", ["memory.total=null", f"memory.codec={codec}", "specialized=1"])
    bare = checks.experiment(subject).plan()[-1].carried
    budget = bare + 1500  # room for at most 7 raw items at the end; each task brings 24 samples
    folder = RunFolder(run(checks.experiment(subject, budget=Budget(budget)), tmp_path / "run"))
    figures = [row for row in folder.rows(LEDGER) if row["kind"] == "figures"]
    assert len(figures) == checks.N_TASKS
    all_samples = 2 * checks.PER_CLASS
    for row in figures:
        assert row["delta"] == budget - row["slack"] <= budget
        stored = next(
            r["bytes"] for r in folder.rows(LEDGER) if r["step"] == row["step"] and r.get("category") == "exemplars"
        )
        largest = stored if row["exemplars"] == 0 else 3 * 8 * 8 + 150
        assert row["slack"] < largest or row["exemplars"] == all_samples * row["step"]
    kept = [row["exemplars"] for row in figures]
    assert kept[-1] > 0
    if codec != "png":  # PNG items differ in size, so other classes may fit in larger numbers
        assert kept[1:] == sorted(kept[1:], reverse=True)


def test_exemplars_weigh_their_pixels_and_a_byte_of_label(tmp_path: Path) -> None:
    subject = checks.subject("replay", ["memory.total=9"])
    folder = RunFolder(run(checks.experiment(subject), tmp_path / "run"))
    rows = [row for row in folder.rows(LEDGER) if row.get("category") == "exemplars"]
    assert [row["bytes"] for row in rows] == [9 * (3 * 8 * 8 + 1)] * checks.N_TASKS


def test_paper_counting_is_what_the_budget_checks_where_it_is_asked_for(tmp_path: Path) -> None:
    subject = checks.subject("replay", ["memory.total=null"])
    free = checks.experiment(subject)
    params = free.plan()[-1].paper()
    paper = replace(free, budget=Budget(params + 5 * 192, count="paper"))  # heads, statistics and labels come on top
    folder = RunFolder(run(paper, tmp_path / "run"))
    figures = [row for row in folder.rows(LEDGER) if row["kind"] == "figures"]
    assert [row["exemplars"] for row in figures] == [5] * checks.N_TASKS
    assert all(row["paper"] == params + 5 * 192 < row["delta"] for row in figures)
    assert [row["slack"] for row in figures] == [0] * checks.N_TASKS
