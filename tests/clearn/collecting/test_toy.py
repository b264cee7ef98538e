"""Adding a protocol is one class in one file and one config: a toy does all that the shipped ones do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clearn.folder import LEDGER, SCORES, RunFolder

TOY = '''"""Coin or truth: with probability `truth` the value, else what a fair die with k sides shows (Warner 1965)."""

from math import log

from clearn.frequency import Budgets, FrequencyProtocol, Rates, Symbol


class CoinOrTruth(FrequencyProtocol):
    """The value, or a random one; nothing is kept.

    Args:
        domains: values of the attribute.
        truth: chance of the value itself.
    """

    one_shot = True

    def __init__(self, domains: tuple[int, ...], truth: float = 0.25) -> None:
        symbols = [Symbol(k, None, Rates.of(truth + (1 - truth) / k, (1 - truth) / k)) for k in domains]
        eps = log(1 + truth * max(domains) / (1 - truth))
        super().__init__(domains, symbols, Budgets(eps, eps))
'''
CONFIG = """
stream: {data: csv, file: value.csv, rounds: 2}
protocol: {name: coin_or_truth, truth: 0.5}
runner: {repeats: 300}
"""


@pytest.fixture
def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with one file that registers one protocol, as pip would leave it."""
    site = here / "site"
    about = site / "toy-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "coin_or_truth_toy.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[clearn.privacy]\ncoin_or_truth = coin_or_truth_toy:CoinOrTruth\n")
    monkeypatch.syspath_prepend(str(site))
    (here / "toy.yaml").write_text(CONFIG)
    yield here
    sys.modules.pop("coin_or_truth_toy", None)


def test_it_runs_from_a_config(installed: Path, whole: Any) -> None:
    whole("run", "toy.yaml", "out=run")
    rows = RunFolder(Path("run")).rows(SCORES)
    p, q, k, n = 0.5 + 0.5 / 5, 0.5 / 5, 5, 600
    expected = (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / k) / (n * (p - q) ** 2)
    for row in rows:
        assert row["expected"] == pytest.approx(expected, rel=1e-6)
        assert sum(row["se"]["none"]) / 300 == pytest.approx(expected, rel=4 * (2 / 300 / (k - 1)) ** 0.5)
    figures = [row for row in RunFolder(Path("run")).rows(LEDGER) if row["kind"] == "figures"]
    assert figures[-1]["protocol"] == "coin_or_truth"
    assert figures[-1]["budgets"]["eps_1_effective"] == pytest.approx(1.791759, abs=1e-6)  # ln 6
    assert "coin_or_truth" in Path("run/report.html").read_text()


def test_it_is_listed_described_planned_checked_and_audited(installed: Path, works: Any, seeded: None) -> None:
    assert "coin_or_truth  from package toy (coin_or_truth_toy:CoinOrTruth)" in works("list", "protocols")
    assert "chance of the value itself" in works("show", "coin_or_truth")
    said = works("show", "toy.yaml")
    assert "> coin_or_truth " in said and "  l_osue " in said
    assert "coin_or_truth: conforms" in works("check", "coin_or_truth", "--option", "truth=0.4")
    assert works("audit", "coin_or_truth", "--trials", "20000", "--k", "4").count("yes") == 1


def test_other_protocols_ask_with_it(installed: Path, works: Any) -> None:
    works(
        "run", "toy.yaml", "out=run", "stream.file=people.csv", "runner.repeats=2",
        "protocol={name: smp, of: coin_or_truth, options: {truth: 0.5}}",
    )  # fmt: skip
    assert {row["k"] for row in RunFolder(Path("run")).rows(SCORES)} == {3, 5}


def test_it_is_checked_by_its_import_path_before_it_is_registered(installed: Path, works: Any) -> None:
    said = works("check", "coin_or_truth_toy:CoinOrTruth", "--kind", "privacy")
    assert said.count("ok  ") >= 9
    assert "coin_or_truth_toy:CoinOrTruth: conforms" in said


def test_a_config_cannot_name_an_import_path(installed: Path, fails: Any) -> None:
    said = fails("run", "toy.yaml", "out=run", "protocol=coin_or_truth_toy:CoinOrTruth")
    assert "a config holds no import path; register the class under the entry-point group clearn.privacy" in said
