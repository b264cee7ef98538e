"""The published protocols' configs come to the published integers: bytes, networks, and the exemplars they leave."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from clearn import published
from clearn.config import load, shipped
from clearn.grids import Cell, cells
from clearn.learning.experiment import on_stream, prepare
from clearn.parts.rehearsal import Rehearsal
from clearn.stream import Facts, Inputs, Stream, TaskInfo
from clearn.streams.class_incremental import split

ROOT = Path(__file__).parents[2]
SIZES = {  # settings, budgets and methods, times three seeds
    "budgets/benchmark_cifar100": 4 * 12 * 3,
    "budgets/benchmark_imagenet100": 3 * 9 * 3,
    "budgets/memory_agnostic_cifar100": 5 * 9 * 3,
    "budgets/memory_agnostic_imagenet100": 6 * 9 * 3,
    "budgets/memory_aligned_cifar100": 6 * 9 * 3,
    "budgets/memory_aligned_imagenet100": 4 * 9 * 3,
}
ONE_NET = ("replay", "icarl", "podnet", "coil", "wa", "bic", "foster")
KEEPING = {*ONE_NET, "der_expand", "memo"}
WITHOUT = {"finetune", "lwf", "ewc"}
COSINE = 2_752  # parameters by which UCIR's ResNet32, that of PODNet and COIL, is heavier


class Empty(Stream):
    """The tasks of a setting, without their data."""

    def __init__(self, setting: str, sizes: list[int]) -> None:
        shape = published.CIFAR if setting.startswith("CIFAR") else published.IMAGENET
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        infos = tuple(
            TaskInfo(i, tuple(range(start, start + size)))
            for i, (start, size) in enumerate(zip(starts, sizes, strict=True))
        )
        super().__init__(Facts(Inputs(shape), infos, None, {"stream": "class_incremental"}))

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("no data are there")

    def task(self, index: int) -> Any:
        raise AssertionError("no data are there")


def listed(name: str) -> list[Cell]:
    """The runs of a config with seed 1."""
    found = list(cells(load(name)["grid"]))
    assert len(found) == SIZES[name]
    return [cell for cell in found if cell.label.endswith("seed=1")]


@cache
def resolved(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    config = load(name, overrides)
    del config["grid"]
    return prepare(config).config


def runs(name: str) -> list[dict[str, Any]]:
    return [resolved(name, cell.overrides) for cell in listed(name)]


def setting_of(config: dict[str, Any]) -> str:
    stream = config["stream"]
    data = {"cifar100": "CIFAR100", "folder": "ImageNet100"}[stream["data"]]
    return f"{data} B{stream['base']} Inc{stream['increment']}"


@cache
def weighed(setting: str, strategy: str, budget: str) -> tuple[int, int, int]:
    """Backbone parameters after the last task, T, and the exemplars that the budget then leaves.

    The network is grown on torch's meta device: eleven ResNet50 would take a gigabyte.
    """
    _, base, increment = setting.split()
    sizes = split(100, int(increment.removeprefix("Inc")), int(base.removeprefix("B")))
    options = json.loads(strategy)
    subject = on_stream(Empty(setting, sizes), options.pop("name"), options, json.loads(budget), 1, {})
    learner = subject.make().to("meta")
    with torch.device("meta"):
        params = []
        for info in subject.stream.infos:
            learner.grow(info)
            state = learner.state()
            params.append(sum(value.numel() for name, value in state.items() if learner.category(name) == "params"))
    weights = [4 * count for count in params]
    assert isinstance(learner.memory, Rehearsal)
    quotas = {
        learner.memory.exemplars.quota(subject.budget.room(weight, index, weights), 100, paper=True)
        for index, weight in enumerate(weights)
    }
    (quota,) = quotas  # that of the last task is used from the first
    assert quota is not None
    return params[-1], len(sizes), quota


def measured(config: dict[str, Any]) -> tuple[int, int, int]:
    strategy = {key: value for key, value in config["strategy"].items() if value is not None}
    return weighed(setting_of(config), json.dumps(strategy), json.dumps(config["budget"]))


SINGLE = {"CIFAR": "resnet32", "Image": "resnet18"}


def fewer(config: dict[str, Any], budget: int, single: int, image_bytes: int) -> int:
    """What a method with one net keeps: the published number, less what a heavier net of its own displaces."""
    heavier = COSINE if config["strategy"]["backbone"].startswith("cosine_") else 0
    left = published.room(budget, published.halves(SINGLE[setting_of(config)[:5]]).params + heavier, image_bytes)
    assert 0 <= single - left <= 4
    return left


def test_there_is_a_config_for_each_protocol_and_data_set() -> None:
    assert {name for name in shipped() if name.startswith("budgets/")} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_config_binds_in_every_cell_and_opens_with_its_command(name: str) -> None:
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    assert text.splitlines()[0] == f"# clearn sweep {name} stream.root=FOLDER"
    found = runs(name)
    labels = [cell.label for cell in listed(name)]
    assert len({json.dumps(config) for config in found}) == len(set(labels)) == len(found)
    assert max(map(len, labels)) < 200  # they name folders
    assert {(config["seed"], config["stream"]["order_seed"]) for config in found} == {(1, 1993)}
    for config in found:
        own = config["strategy"]
        if own["name"] in KEEPING:
            assert own["memory"]["remainder"] == "floor"
        assert own.get("loss", "softmax") == ("released" if own["name"] == "podnet" else "softmax")
        assert own.get("double_softmax", True)


@pytest.mark.parametrize("data", ["cifar100", "imagenet100"])
def test_benchmark_keeps_as_many_exemplars_whatever_nets_weigh(data: str) -> None:
    found = runs(f"budgets/benchmark_{data}")
    prefix = {"cifar100": "CIFAR100", "imagenet100": "ImageNet100"}[data]
    rows = {row.setting: row for row in published.benchmark() if row.setting.startswith(prefix + " ")}
    assert {setting_of(config) for config in found} == set(rows)
    for setting in rows:
        methods = {config["strategy"]["name"] for config in found if setting_of(config) == setting}
        assert methods == (KEEPING | WITHOUT if data == "cifar100" else KEEPING)
    for config in found:
        assert config["budget"]["policy"] == "none"
        if config["strategy"]["name"] in KEEPING:
            assert config["strategy"]["memory"]["total"] == rows[setting_of(config)].exemplars == 2000


def test_benchmark_bytes_are_those_of_the_nets_and_images() -> None:
    rows = {row.setting: row for row in published.benchmark()}
    row = rows["CIFAR100 B0 Inc10"]
    assert row.single_bytes == 4 * 463_504 + 2000 * 3072 == 7_998_016
    assert row.memo_bytes == 4 * 3_626_896 + 2000 * 3072
    assert row.der_bytes == 24_684_160
    large = rows["ImageNet1000 B0 Inc100"]
    assert (large.exemplars, large.der_bytes) == (20_000, 3_457_620_480)


GROWN = ["cifar100", pytest.param("imagenet100", marks=pytest.mark.slow)]  # timm's nets take a while to sketch


@pytest.mark.parametrize("data", GROWN)
def test_memory_aligned_leaves_the_published_exemplars(data: str) -> None:
    prefix = {"cifar100": "CIFAR100", "imagenet100": "ImageNet100"}[data]
    rows = {row.setting: row for row in published.aligned() if row.setting.startswith(prefix + " ")}
    found = runs(f"budgets/memory_aligned_{data}")
    assert len(found) == 9 * len(rows)
    for config in found:
        row, name = rows[setting_of(config)], config["strategy"]["name"]
        budget = config["budget"]
        assert (budget["bytes"], budget["policy"], budget["count"]) == (row.budget_bytes, "final", "paper")
        params, tasks, quota = measured(config)
        assert tasks == row.tasks
        if name in ONE_NET:
            assert quota == fewer(config, row.budget_bytes, row.single_exemplars, row.image_bytes)
        else:
            wanted = (row.memo_params, row.memo_exemplars) if name == "memo" else (None, row.der_exemplars)
            assert quota == wanted[1]
            assert params == (wanted[0] or tasks * published.halves(row.backbone).params)


# of every point: printed MiB, net of DER and MEMO, exemplars of one net, DER, MEMO; typed from the papers' table
POINTS = {
    "cifar100": [
        ("7.6", "convnet2", 2000, 2096, 2118),
        ("12.4", "resnet14", 3634, 2000, 2495),
        ("16.0", "resnet20", 4900, 2000, 2768),
        ("19.8", "resnet26", 6165, 2000, 3040),
        ("23.5", "resnet32", 7431, 2000, 3312),
    ],
    "imagenet100": [
        ("329", "convnet4", 2000, 2032, 2115),
        ("493", "resnet10", 3136, 2000, 2327),
        ("755", "resnet18", 4969, 2000, 2739),
        ("872", "timm/resnet26", 5779, 2000, 2915),
        ("1180", "resnet34", 7924, 2000, 4171),
        ("1273", "resnet50", 8574, 2000, 4270),
    ],
}


@pytest.mark.parametrize("data", GROWN)
def test_memory_agnostic_leaves_the_published_exemplars_at_every_point(data: str) -> None:
    setting = {"cifar100": "CIFAR100 B0 Inc10", "imagenet100": "ImageNet100 B50 Inc5"}[data]
    points = {point.budget_bytes: point for point in published.budget_points() if point.setting == setting}
    printed = dict(zip(points, POINTS[data], strict=True))
    found = runs(f"budgets/memory_agnostic_{data}")
    assert len(found) == 9 * len(points)
    assert {setting_of(config) for config in found} == {setting}
    for config in found:
        name, budget = config["strategy"]["name"], config["budget"]
        assert (budget["policy"], budget["count"]) == ("final", "paper")
        point, (mib, backbone, single, der, memo) = points[budget["bytes"]], printed[budget["bytes"]]
        assert mib == point.printed_mib
        params, tasks, quota = measured(config)
        assert tasks == point.tasks
        if name in ONE_NET:
            assert config["strategy"]["backbone"].removeprefix("cosine_") == point.single_backbone
            assert quota == fewer(config, point.budget_bytes, single, point.image_bytes)
        else:
            assert config["strategy"]["backbone"] == backbone
            assert (quota, params) == ((memo, point.memo_params) if name == "memo" else (der, point.der_params))


@pytest.mark.parametrize("method", sorted(KEEPING))
def test_aligned_cells_are_the_single_configs_that_state_the_papers_figures(method: str) -> None:
    single = prepare(load(f"class_incremental/published/{method}_cifar100_b0_inc10")).config
    (cell,) = (
        config
        for config in runs("budgets/memory_aligned_cifar100")
        if setting_of(config) == "CIFAR100 B0 Inc10" and config["strategy"]["name"] == method
    )
    assert single["strategy"] == cell["strategy"]
    assert single["stream"] == cell["stream"]
    like = single["budget"].pop("like")
    amount = published.final_bytes(**like, shape=published.CIFAR)
    assert single["budget"] | {"bytes": amount, "like": None} == cell["budget"]
