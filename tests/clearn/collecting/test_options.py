"""A device's budget refuses or picks, by numbers that both the message and the closed forms give."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from clearn.collecting.options import CollectOptions, DeviceBudget
from clearn.errors import BudgetExceeded, ConfigError
from clearn.folder import LEDGER, RunFolder
from clearn.frequency.accounting import ProtocolCost


def card(worst: int = 30, sent: float = 5.0) -> ProtocolCost:
    return ProtocolCost(8.0, worst, 0, 0, sent, sent, 100)


def figures(path: str) -> dict[str, Any]:
    return [row for row in RunFolder(Path(path)).rows(LEDGER) if row["kind"] == "figures"][-1]


# --- the records


@pytest.mark.parametrize(
    ("worst", "limit", "fits"),
    [
        (0, 0, True),
        (1, 0, False),
        (32, 4, True),
        (33, 4, False),
        (8 * 2048, "2KiB", True),
        (8 * 2000 + 1, "2kB", False),
    ],
)
def test_secret_bits_are_whole_bytes_and_the_limit_may_be_reached(worst: int, limit: int | str, fits: bool) -> None:
    assert (DeviceBudget(client_bytes=limit).over(card(worst)) is None) == fits


@pytest.mark.parametrize(("sent", "limit", "fits"), [(5, 5, True), (5, 4.999, False), (1.953, 1.96, True)])
def test_bits_of_a_round_may_be_a_fraction(sent: float, limit: float, fits: bool) -> None:
    assert (DeviceBudget(bits_per_round=limit).over(card(sent=sent)) is None) == fits


def test_no_budget_lets_everything_pass() -> None:
    budget = DeviceBudget()
    assert budget.limit is None
    assert budget.over(card(10**12, 1e12)) is None
    budget.check(card(10**12, 1e12), "anything")


def test_the_refusal_has_both_numbers_and_the_remedies() -> None:
    with pytest.raises(BudgetExceeded) as caught:
        DeviceBudget(client_bytes="1KiB").check(card(8 * 190_314), "l_osue")
    said = str(caught.value)
    assert said.startswith("l_osue keeps up to 190,314 secret bytes on a device, over budget.client_bytes=1,024:")
    for remedy in (
        "raise that budget",
        "runner.memo=prf (32 bytes",
        "another protocol",
        "protocol=auto",
        "clearn show",
    ):
        assert remedy in said
    with pytest.raises(BudgetExceeded) as caught:
        DeviceBudget(bits_per_round=64).check(card(sent=1234), "l_osue")
    said = str(caught.value)
    assert said.startswith("l_osue sends up to 1,234 bits a round, over budget.bits_per_round=64:")
    assert "memo=prf" not in said, "a key does not shorten reports"
    with pytest.raises(BudgetExceeded) as caught:
        DeviceBudget(client_bytes=31).check(card(256), "l_osue")
    assert "memo=prf" not in str(caught.value), "a key does not fit either"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"client_bytes": "4M"}, "client_bytes='4M' can be read in two ways: write 4MB for 4,000,000 bytes or 4MiB"),
        ({"client_bytes": -1}, "client_bytes=-1 is negative"),
        ({"client_bytes": "12x"}, "client_bytes='12x' counts exemplars"),
        ({"client_bytes": "much"}, "client_bytes='much' is no amount of bytes"),
        ({"client_bytes": True}, "client_bytes=true is no amount of bytes"),
        ({"bits_per_round": 0}, "bits_per_round=0 must be a positive number of bits"),
        ({"bits_per_round": -3.5}, "bits_per_round=-3.5 must be a positive number"),
        ({"bits_per_round": float("inf")}, "bits_per_round=inf must be a positive number"),
        ({"bits_per_round": float("nan")}, "bits_per_round=nan must be a positive number"),
    ],
)
def test_amounts_that_are_none_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DeviceBudget(**options)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("repeats", [0, -1, 100_001])
def test_repeats_that_are_none_or_too_many_are_refused(repeats: int) -> None:
    with pytest.raises(ConfigError, match=rf"repeats={repeats} must lie in \[1, 100000\]"):
        CollectOptions(repeats=repeats)


# --- on the command line


def test_a_table_that_is_too_large_is_refused_and_a_key_fits(works: Any, fails: Any) -> None:
    """l_osue of k values keeps k^2 + k bits at worst: 1,263 bytes at k = 100."""
    words = ["run", "small.yaml", "out=run", "stream={data: synthetic, n: 2000, k: 100, file: null}"]
    said = fails(*words, "budget.client_bytes=1KiB")
    assert "l_osue keeps up to 1,263 secret bytes on a device, over budget.client_bytes=1,024" in said
    assert "runner.memo=prf" in said
    works(*words, "budget.client_bytes=1263")
    works("run", *words[1:2], "out=key", *words[3:], "budget.client_bytes=32", "runner.memo=prf")
    assert figures("key")["client"]["worst"] == 256
    assert figures("key")["budget"] == 32
    assert "keeps up to 32 secret bytes on a device, over budget.client_bytes=31" in fails(
        *words[:2], "out=over", *words[3:], "budget.client_bytes=31", "runner.memo=prf"
    )


def test_a_report_that_is_too_long_is_refused(works: Any, fails: Any) -> None:
    said = fails("run", "small.yaml", "out=run", "budget.bits_per_round=4")
    assert "l_osue sends up to 5 bits a round, over budget.bits_per_round=4" in said
    works("run", "small.yaml", "out=run", "budget.bits_per_round=4", "protocol=l_grr")


def test_of_several_attributes_the_longest_report_counts(works: Any, fails: Any) -> None:
    """A user answers the attribute of 3 values or that of 5: 4 bits on average, 5 at worst."""
    words = ["small.yaml", "out=run", "stream.file=people.csv", "protocol={name: smp, of: l_osue}"]
    assert "smp sends up to 5 bits a round, over budget.bits_per_round=4" in fails(
        "run", *words, "budget.bits_per_round=4"
    )
    works("run", *words, "budget.bits_per_round=5", "budget.client_bytes=4")
    assert figures("run")["round_bits"] == 4
    assert "smp keeps up to 4 secret bytes" in fails("run", *words[:1], "out=o", *words[2:], "budget.client_bytes=3")
    both = ["small.yaml", "out=o", "stream.file=people.csv", "protocol={name: spl, of: l_osue}"]
    assert "spl sends up to 8 bits a round" in fails("run", *both, "budget.bits_per_round=5")
    assert "spl keeps up to 6 secret bytes" in fails("run", *both, "budget.client_bytes=5")  # 12 + 30 bits


def test_auto_takes_the_best_that_fits_and_says_why(works: Any, fails: Any) -> None:
    words = ["small.yaml", "protocol=auto", "stream={data: synthetic, n: 2000, k: 40, file: null}"]
    reasons = {}
    for out, budget in (("free", []), ("small", ["budget.client_bytes=4"]), ("short", ["budget.bits_per_round=1"])):
        works("run", *words, f"out={out}", *budget)
        assert figures(out)["protocol"] == "auto"
        reasons[out] = figures(out)["choices"]["chosen"]
    # oue at eps_1 = 1 has the least error of all at k = 40: Vbar = [q (1-q) + (p (1-p) - q (1-q)) / k] / (n (p-q)^2)
    p, q = 0.5, 1 / (math.e + 1)
    error = (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / 40) / (2000 * (p - q) ** 2)
    assert re.fullmatch(
        rf"(allomfree|l_osue), expected MSE of a round's estimates {error:.3e}; 9 of 9 protocols fit the device",
        reasons["free"],
    )
    # of olh at eps_1 with g = 4 cells, which keeps 4 memos of 2 bits and a bitmap of 4 bits
    p, q = math.e / (math.e + 3), 1 / 4
    error = (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / 40) / (2000 * (p - q) ** 2)
    assert reasons["small"].startswith(f"loloha, expected MSE of a round's estimates {error:.3e}; 3 of 9 ")
    assert reasons["short"].startswith("bi_loloha, ") and "; 1 of 9 protocols fit the device" in reasons["short"]
    said = fails("run", *words, "out=none", "budget.bits_per_round=0.5")
    assert "none of 9 protocols fits the device; the cheapest, bi_loloha sends up to 1 bits a round" in said
    assert "memo=prf" not in said
    said = fails("run", *words, "out=none", "budget.client_bytes=0")
    assert "the cheapest, bi_loloha keeps up to 1 secret bytes" in said and "memo=prf" not in said
