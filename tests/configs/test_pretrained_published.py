"""Configs of the papers' sets hold published settings and figures; the comparison's cells are the single configs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from clearn import reproducing
from clearn.config import load, shipped
from clearn.grids import cells
from clearn.learning.experiment import prepare

ROOT = Path(__file__).parents[2]
FOLDER = "pretrained/published"
DATA = ("cifar100", "cub", "imagenet_r", "imagenet_a", "objectnet", "omnibenchmark", "vtab")
INCREMENTS = dict(zip(DATA, (5, 10, 20, 20, 10, 30, 10), strict=True))
CLASSES = dict(zip(DATA, (100, 200, 200, 200, 200, 300, 50), strict=True))
METHODS = ("simplecil", "aper_adapter", "ranpac", "ease", "l2p", "dualprompt", "coda_prompt", "slca", "mos")
UNEXPECTED = {f"ranpac_{data}" for data in DATA} | {"ease_omnibenchmark"}

PAPER = {  # average incremental accuracy / accuracy after the last task; specs "mos", section 6.1
    "l2p": "85.94/79.93 67.05/56.25 75.46/69.77 49.39/41.71 63.78/52.19 73.36/64.69 77.11/77.10",
    "dualprompt": "87.87/81.15 77.47/66.54 73.10/67.18 53.71/41.67 59.27/49.33 73.92/65.52 83.36/81.23",
    "coda_prompt": "89.11/81.96 84.00/73.37 77.97/72.27 53.54/42.73 66.07/53.29 77.03/68.09 83.90/83.02",
    "simplecil": "87.57/81.26 92.20/86.73 61.26/54.55 59.77/48.91 65.45/53.59 79.34/73.15 85.99/84.38",
    "aper_adapter": "90.65/85.15 92.21/86.73 75.82/67.95 60.47/49.37 67.18/55.24 80.75/74.37 85.95/84.35",
    "slca": "92.49/88.55 89.51/82.19 81.17/77.00 68.66/58.74 72.55/61.30 82.80/74.10 90.94/90.76",
    "ease": "91.51/85.80 92.23/86.81 81.74/76.17 65.34/55.04 70.84/57.86 81.11/74.85 93.61/93.55",
    # ImageNet-R and -A of the authors' logs, section 6.2, since the table shows other numbers there
    "mos": "93.30/89.25 93.49/90.12 82.75/77.83 67.08/56.22 74.69/63.62 85.91/80.05 92.62/92.79",
}
MOS = {  # epochs, lr, batch size, weight decay; section 4
    "cifar100": (20, 0.03, 48, 5e-4),
    "cub": (10, 0.01, 32, 5e-4),
    "imagenet_r": (10, 0.05, 16, 5e-3),
    "imagenet_a": (10, 0.05, 32, 5e-3),
    "objectnet": (10, 0.05, 48, 5e-3),
    "omnibenchmark": (10, 0.01, 16, 5e-4),
    "vtab": (20, 0.03, 32, 5e-3),
}
CIFAR_AND_R = {  # section 8: what is trained, and how on CIFAR-100 and ImageNet-R
    "aper_adapter": ("first", (20, 0.01, 48, 5e-4), (10, 0.05, 16, 5e-3)),
    "ranpac": ("first", (20, 0.01, 48, 5e-4), (10, 0.05, 16, 5e-3)),
    "ease": ("later", (20, 0.025, 48, 5e-4), (20, 0.05, 16, 5e-3)),
    "l2p": ("recipe", (5, 0.001875, 16, 0), (10, 0.001875, 32, 0)),
    "dualprompt": ("recipe", (5, 0.001, 24, 0), (10, 0.001, 24, 0)),
    "coda_prompt": ("recipe", (20, 0.001, 128, 0), (50, 0.001, 128, 0)),
    "slca": ("tune", (20, 0.01, 64, 5e-4), (50, 0.01, 64, 5e-4)),
}


@cache
def resolved(method: str, data: str) -> dict[str, Any]:
    return prepare(load(f"{FOLDER}/{method}_{data}")).config


def recipe(options: dict[str, Any]) -> tuple[float, ...]:
    return tuple(options[key] for key in ("epochs", "lr", "batch_size", "weight_decay"))


def test_there_is_one_config_for_each_method_and_set() -> None:
    cells_of = {f"{FOLDER}/{method}_{data}" for method in METHODS for data in DATA}
    assert {name for name in shipped() if name.startswith(FOLDER) and "/common/" not in name} == cells_of


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_a_config_binds_to_the_papers_protocol(method: str, data: str) -> None:
    name = f"{FOLDER}/{method}_{data}"
    config = resolved(method, data)
    stream, vit = config["stream"], config["strategy"]["vit"]
    assert config["name"] == f"{method}_{data}"
    assert config["strategy"]["name"] == method
    assert (stream["data"], stream["increment"], stream["base"]) == (data, INCREMENTS[data], 0)
    assert stream["order_seed"] == (None if data == "vtab" else 1993)
    assert (stream["size"], stream["resize"], stream["resample"], stream["augment"]) == (224, 256, "bicubic", "pilot")
    assert vit == {
        "name": "vit_base_patch16_224.augreg_in21k",
        "weights": True,
        "image_size": None,
        "normalise": "none",
        "compile": False,
    }
    other = ["strategy.vit.name=vit_base_patch16_224.augreg_in21k_ft_in1k", "strategy.vit.normalise=checkpoint"]
    assert prepare(load(name, other)).config["strategy"]["vit"]["normalise"] == "checkpoint"
    first = (ROOT / "configs" / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# clearn {'run' if f'{method}_{data}' in UNEXPECTED else 'reproduce'} {name}"


@pytest.mark.parametrize("method", METHODS)
def test_figures_are_the_published_ones(method: str) -> None:
    for column, data in enumerate(DATA):
        name = f"{FOLDER}/{method}_{data}"
        if f"{method}_{data}" in UNEXPECTED:
            assert "expects" not in load(name)
            continue
        average, last = PAPER[method].split()[column].split("/")
        expects = reproducing.plan(name).expects
        assert expects.figures == {"classifier": float(average)}
        assert f" Inc{INCREMENTS[data]}; {last} after the last task" in expects.source
        assert expects.verified is None
    if method == "mos":
        printed = [reproducing.plan(f"{FOLDER}/mos_{data}").expects.source for data in ("imagenet_r", "imagenet_a")]
        assert [text.rpartition("prints ")[2] for text in printed] == ["82.96 / 77.93", "69.13 / 59.12"]


@pytest.mark.parametrize("data", DATA)
def test_settings_of_mos(data: str) -> None:
    strategy = resolved("mos", data)["strategy"]
    epochs, lr, batch, decay = MOS[data]
    assert recipe(strategy["first"]) == recipe(strategy["later"]) == (epochs, lr, batch, decay)
    assert recipe(strategy["align"]) == (30, 0.005, 5 * batch, decay)
    assert {strategy[key]["schedule"] for key in ("first", "later", "align")} == {"cosine"}
    assert (strategy["alpha"], strategy["reg"], strategy["bottleneck"], strategy["merges_per_step"]) == (
        0.1,
        0.1,
        16,
        None,
    )
    assert strategy["statistics"]["mode"] == ("diagonal" if data == "imagenet_a" else "exact")
    assert strategy["ensemble"] == (data != "omnibenchmark")  # off in the logged run, section 3.4


@pytest.mark.parametrize("method", CIFAR_AND_R)
def test_settings_of_the_baselines(method: str) -> None:
    key, *both = CIFAR_AND_R[method]
    for data, right in zip(("cifar100", "imagenet_r"), both, strict=True):
        assert recipe(resolved(method, data)["strategy"][key]) == right
    options = resolved(method, "cifar100")["strategy"]
    match method:
        case "ease":
            assert options["bottleneck"] == 64
            assert [resolved("ease", data)["strategy"]["alpha"] for data in ("cub", "objectnet")] == [0.05, 0.2]
        case "ranpac":
            assert options["projection"]["features"] == 10_000
        case "slca":
            assert options["tune"]["milestones"] == [18]
            assert resolved("slca", "imagenet_r")["strategy"]["tune"]["milestones"] == [40]
        case "l2p" | "dualprompt" | "coda_prompt":
            assert options["recipe"]["optimizer"] == "adam"


@pytest.mark.parametrize("data", DATA)
def test_coda_prompt_is_told_how_many_tasks_there_are(data: str) -> None:
    assert resolved("coda_prompt", data)["strategy"]["tasks"] * INCREMENTS[data] == CLASSES[data]


# The comparison on Fashion-MNIST

COMPARED = "pretrained/compare_fashion_mnist"
SIZES = {COMPARED: 60, f"{COMPARED}_200": 200}


def one_run(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    config = load(name, ["strategy.vit.weights=mine.safetensors", *overrides])
    del config["grid"]
    return prepare(config).config


@cache
def compared(name: str = COMPARED) -> list[dict[str, Any]]:
    """Its cells at seed 0."""
    grid = load(name)["grid"]
    ready = [one_run(name, cell.overrides) for cell in cells(grid) if cell.label.startswith("seed=0 ")]
    assert len(ready) >= 15
    return ready


def test_the_comparison_holds_every_single_config_as_it_is() -> None:
    singles = [name for name in shipped() if name.endswith("_fashion_mnist") and name.startswith("pretrained/")]
    singles = [name for name in singles if "/common/" not in name and name not in SIZES]
    assert len(singles) >= 10
    cells_of = compared()
    strategies = [config["strategy"] for config in cells_of]
    for name in singles:
        single = prepare(load(name, ["strategy.vit.weights=mine.safetensors"])).config
        assert single["strategy"] in strategies, name
        assert single["stream"] | {"order_seed": 0} == cells_of[0]["stream"], name


def test_the_comparison_holds_the_controls() -> None:
    found = [config["strategy"] for config in compared()]
    of = {name: [options for options in found if options["name"] == name] for name in ("mos", "ranpac")}
    mos, *controls = of["mos"]
    changed = [{key: value for key, value in other.items() if value != mos[key]} for other in controls]
    assert changed == [{"merges_per_step": 1}, {"alpha": 0}, {"later_adapters": False}]
    assert [(options["adapt"], options["ridge"]) for options in of["ranpac"]] == [
        (True, "current"),
        (True, 10_000),
        (False, 10_000),
    ]


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_no_run_of_the_comparison_repeats_another(name: str, size: int) -> None:
    grid = load(name)["grid"]
    assert grid["seed"] == [0, 1, 2]
    labels = [cell.label for cell in cells(grid)]
    assert len(set(labels)) == len(labels) == 3 * len(grid["strategy"])
    assert max(map(len, labels)) < 200  # they name folders
    strategies = [str(config["strategy"]) for config in compared(name)]
    assert len(set(strategies)) == len(strategies) == len(grid["strategy"])
    assert {config["stream"]["per_class_train"] for config in compared(name)} == {size}
    first = (ROOT / "configs" / f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# clearn run {name}"


def test_each_seed_of_the_comparison_has_a_class_order_of_its_own() -> None:
    assert [one_run(COMPARED, (f"seed={seed}",))["stream"]["order_seed"] for seed in (0, 1, 2)] == [0, 1, 2]


def test_both_sizes_of_the_comparison_hold_the_same_methods() -> None:
    def told(config: dict[str, Any]) -> tuple[Any, ...]:
        keys = ("name", "merges_per_step", "alpha", "later_adapters", "ridge", "adapt", "backbone_rate")
        return tuple(config["strategy"].get(key) for key in keys)

    small, large = (list(map(told, compared(name))) for name in SIZES)
    assert small == large
