"""The published budgets are recomputed exactly, never typed in."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.console import Console

from clearn.errors import ConfigError
from clearn.published import (
    Aligned,
    BudgetPoint,
    aligned,
    budget_points,
    der_params,
    halves,
    memo_params,
    room,
)
from clearn.published_areas import areas
from clearn.published_tables import show

# counted on the papers' own nets: generalized (params, statistics, counters, bytes), specialized likewise
COUNTS = {
    "convnet2": ((1_920, 128, 1, 8_200), (37_056, 128, 1, 148_744)),
    "resnet14": ((42_320, 416, 9, 171_016), (129_536, 512, 4, 520_224)),
    "resnet20": ((65_552, 608, 13, 264_744), (203_520, 768, 6, 817_200)),
    "resnet26": ((88_784, 800, 17, 358_472), (277_504, 1_024, 8, 1_114_176)),
    "resnet32": ((112_016, 992, 21, 452_200), (351_488, 1_280, 10, 1_411_152)),
    "convnet4": ((314_880, 768, 3, 1_262_616), (591_360, 1_024, 1, 2_369_544)),
    "resnet10": ((1_232_704, 2_688, 9, 4_941_640), (3_673_088, 3_072, 3, 14_704_664)),
    "resnet18": ((2_782_784, 4_480, 15, 11_149_176), (8_393_728, 5_120, 5, 33_595_432)),
    "timm/resnet26": ((3_444_032, 14_464, 22, 13_834_160), (10_502_144, 16_384, 7, 42_074_168)),
    "resnet34": ((8_170_304, 9_856, 29, 32_720_872), (13_114_368, 7_168, 7, 52_486_200)),
    "resnet50": ((8_543_296, 30_592, 43, 34_295_896), (14_964_736, 22_528, 10, 59_949_136)),
}

# setting: tasks, budget bytes, MiB to two decimals, single-net K, MEMO K, MEMO params
ALIGNED = {
    "CIFAR100 B0 Inc5": (20, 43_224_320, 41.22, 13_466, 4_771, 7_141_776),
    "CIFAR100 B0 Inc10": (10, 24_684_160, 23.54, 7_431, 3_312, 3_626_896),
    "CIFAR100 B0 Inc20": (5, 15_414_080, 14.70, 4_414, 2_583, 1_869_456),
    "CIFAR100 B50 Inc10": (6, 17_268_096, 16.47, 5_017, 2_729, 2_220_944),
    "CIFAR100 B50 Inc5": (11, 26_538_176, 25.31, 8_035, 3_458, 3_978_384),
    "CIFAR100 B50 Inc25": (3, 11_706_048, 11.16, 3_207, 2_291, 1_166_480),
    "ImageNet100 B0 Inc10": (10, 748_116_480, 713.46, 4_672, 2_665, 86_720_064),
    "ImageNet100 B50 Inc5": (11, 792_822_528, 756.09, 4_969, 2_739, 95_113_792),
    "ImageNet100 B0 Inc5": (20, 1_195_176_960, 1139.81, 7_642, 3_404, 170_657_344),
    "ImageNet100 B50 Inc10": (6, 569_292_288, 542.92, 3_484, 2_369, 53_145_152),
    "ImageNet1000 B0 Inc100": (10, 3_457_620_480, 3297.44, 22_672, 20_665, 86_720_064),
}

# backbone: printed MiB, single K, DER K and params, MEMO K and params
CIFAR_POINTS = {
    "convnet2": ("7.6", 2000, 2096, 389_760, 2118, 372_480),
    "resnet14": ("12.4", 3634, 2000, 1_718_560, 2495, 1_337_680),
    "resnet20": ("16.0", 4900, 2000, 2_690_720, 2768, 2_100_752),
    "resnet26": ("19.8", 6165, 2000, 3_662_880, 3040, 2_863_824),
    "resnet32": ("23.5", 7431, 2000, 4_635_040, 3312, 3_626_896),
}
# the same, with parameters in millions to two decimals (ConvNet4: three), as the table has them
IMAGENET_POINTS = {
    "convnet4": ("329", 2000, 2032, 9.969, 2115, 6.820),
    "resnet10": ("493", 3136, 2000, 53.96, 2327, 41.64),
    "resnet18": ("755", 4969, 2000, 122.94, 2739, 95.11),
    "timm/resnet26": ("872", 5779, 2000, 153.41, 2915, 118.97),
    "resnet34": ("1180", 7924, 2000, 234.13, 4171, 152.43),
    "resnet50": ("1273", 8574, 2000, 258.59, 4270, 173.16),
}


def rows() -> dict[str, Aligned]:
    return {row.setting: row for row in aligned()}


def points(setting: str) -> dict[str, BudgetPoint]:
    return {point.backbone: point for point in budget_points() if point.setting == setting}


@pytest.mark.parametrize("backbone", COUNTS)
def test_counts_of_both_halves(backbone: str) -> None:
    got = halves(backbone)
    for part, wanted in zip((got.generalized, got.specialized), COUNTS[backbone], strict=True):
        assert (part.params, part.statistics, part.counters, part.bytes) == wanted


def test_counts_of_whole_nets() -> None:
    totals = {"convnet2": 38_976, "resnet32": 463_504, "convnet4": 906_240, "resnet18": 11_176_512}
    assert {name: halves(name).params for name in totals} == totals
    assert halves("timm/resnet26").params == 13_946_176


def test_memo_and_der_params_grow_by_one_part_a_task() -> None:
    assert [memo_params("resnet32", b) for b in (6, 10, 11, 20)] == [
        2_220_944,
        3_626_896,
        3_978_384,
        7_141_776,
    ]
    assert der_params("resnet32", 10) == 4_635_040
    assert [memo_params("resnet18", b) for b in (10, 11)] == [86_720_064, 95_113_792]


def test_no_setting_is_missing() -> None:
    assert list(rows()) == list(ALIGNED)
    assert list(points("CIFAR100 B0 Inc10")) == list(CIFAR_POINTS)
    assert list(points("ImageNet100 B50 Inc5")) == list(IMAGENET_POINTS)
    assert len(budget_points()) == 11


@pytest.mark.parametrize("setting", ALIGNED)
def test_aligned_row(setting: str) -> None:
    row, (tasks, budget, mib, single, memo, params) = rows()[setting], ALIGNED[setting]
    assert (row.tasks, row.budget_bytes) == (tasks, budget)
    assert (row.single_exemplars, row.memo_exemplars, row.memo_params) == (single, memo, params)
    assert round(row.mib, 2) == mib
    gain = (tasks - 1) * 4 * halves(row.backbone).generalized.params // row.image_bytes
    assert row.memo_exemplars == row.der_exemplars + gain  # since T P - (G + T S) = (T - 1) G


@pytest.mark.parametrize("backbone", CIFAR_POINTS)
def test_cifar_point(backbone: str) -> None:
    point = points("CIFAR100 B0 Inc10")[backbone]
    models = (point.der_exemplars, point.der_params, point.memo_exemplars, point.memo_params)
    assert (point.printed_mib, point.single_exemplars, *models) == CIFAR_POINTS[backbone]
    assert (point.single_backbone, point.tasks) == ("resnet32", 10)


@pytest.mark.parametrize("backbone", IMAGENET_POINTS)
def test_imagenet_point(backbone: str) -> None:
    point = points("ImageNet100 B50 Inc5")[backbone]
    digits = 3 if backbone == "convnet4" else 2
    der, memo = round(point.der_params / 1e6, digits), round(point.memo_params / 1e6, digits)
    models = (point.der_exemplars, der, point.memo_exemplars, memo)
    assert (point.printed_mib, point.single_exemplars, *models) == IMAGENET_POINTS[backbone]
    assert (point.single_backbone, point.tasks) == ("resnet18", 11)


def test_exact_mib_of_points() -> None:
    assert [round(point.mib, 2) for point in points("CIFAR100 B0 Inc10").values()] == [
        7.63,
        12.42,
        16.12,
        19.83,
        23.54,
    ]
    wanted = [329.74, 492.96, 756.09, 872.31, 1180.25, 1273.55]
    assert [round(point.mib, 2) for point in points("ImageNet100 B50 Inc5").values()] == wanted


def test_everyone_stays_within_the_budget_by_less_than_one_image() -> None:
    for row in aligned():
        models = ((halves(row.backbone).params, row.single_exemplars), (row.memo_params, row.memo_exemplars))
        for params, exemplars in models:
            assert 0 <= row.budget_bytes - (4 * params + exemplars * row.image_bytes) < row.image_bytes
    row = rows()["CIFAR100 B0 Inc10"]
    assert 4 * row.memo_params + 3312 * 3072 == 4 * 463_504 + 7431 * 3072 == 24_682_048


def test_printed_figures_are_kept_only_where_they_differ() -> None:
    table = {
        row.setting: (row.printed_single_exemplars, row.printed_memo_exemplars)
        for row in aligned()
        if row.printed_single_exemplars or row.printed_memo_exemplars
    }
    assert table == {
        "ImageNet100 B0 Inc10": (4671, 2652),
        "ImageNet100 B50 Inc5": (4970, None),
        "ImageNet1000 B0 Inc100": (None, 20_666),
    }
    every: list[Aligned | BudgetPoint] = [*aligned(), *budget_points()]
    for row in every:
        assert row.printed_single_exemplars != row.single_exemplars
        assert row.printed_memo_exemplars != row.memo_exemplars


def test_exchange_rate() -> None:
    assert room(4 * 463_504, 0, 3072) == 603
    assert room(4 * 11_176_512, 0, 150_528) == 296  # the papers round 296.995 up


def test_unknown_backbone_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet32'"):
        memo_params("renset32", 3)


def test_import_loads_no_torch() -> None:
    code = "import sys, clearn.published; assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# AUC-A and AUC-L over the budget points: MiB and percent of the range, as the survey's table has them
AREAS = {
    "CIFAR100 B0 Inc10": """gem 4.31 27.1 1.70 10.7, podnet 9.42 59.2 6.80 42.8, replay 10.49 66.0 8.02 50.4,
        coil 10.60 66.7 7.82 49.2, bic 10.73 67.5 8.30 52.2, der_expand 10.74 67.5 8.95 56.3, wa 10.80 67.9 8.92 56.1,
        icarl 10.81 68.0 8.64 54.3, memo 10.85 68.2 9.03 56.8, foster 11.12 69.9 9.03 56.8""",
    "ImageNet100 B50 Inc5": """replay 553.6 58.6 470.1 49.8, bic 592.7 62.8 474.2 50.2, coil 601.9 63.8 486.5 51.5,
        icarl 607.1 64.3 527.5 55.9, foster 638.7 67.7 566.3 60.0, wa 666.0 70.6 581.7 61.6,
        der_expand 699.0 74.0 639.1 67.7, podnet 701.8 74.3 624.9 66.2, memo 713.0 75.5 654.6 69.3""",
}


@pytest.mark.parametrize("setting", AREAS)
def test_areas_are_mean_accuracies_over_the_printed_range(setting: str) -> None:
    wanted = {row.split()[0]: tuple(map(float, row.split()[1:])) for row in AREAS[setting].split(",")}
    found = {}
    for area in areas():
        if area.setting == setting:
            average, last = (round(100 * share, 1) for share in area.shares)
            found[area.method] = (area.average, average, area.last, last)
            assert area.range_mib == pytest.approx({"CIFAR": 15.9, "Image": 944}[setting[:5]])
    assert list(found) == list(wanted)
    for method, numbers in found.items():
        assert numbers == pytest.approx(wanted[method], abs=0.051)  # the table rounds areas before it divides them


@pytest.mark.parametrize("width", [80, 200])
def test_the_command_prints_every_point_with_exact_integers(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(width=width))
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    for setting in ("CIFAR100 B0 Inc10", "ImageNet100 B50 Inc5"):
        heads = [i for i, line in enumerate(lines) if line.startswith(f"Memory-agnostic: {setting}")]
        assert heads
        for point in points(setting).values():
            rows = [
                line.split() for at in heads for line in lines[at : at + 12] if line.split()[:1] == [f"{point.mib:.2f}"]
            ]
            printed = [word for row in rows for word in row]
            numbers = (
                point.budget_bytes,
                point.single_exemplars,
                point.der_exemplars,
                point.der_params,
                point.memo_exemplars,
                point.memo_params,
            )
            assert set(map(str, numbers)) <= set(printed)
            assert {point.printed_mib, point.backbone, point.single_backbone} <= set(printed)
