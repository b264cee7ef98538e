"""`clearn show CONFIG` of a collection: all protocols' error, loss and cost in closed form, before anyone is asked."""

from __future__ import annotations

import re
from math import ceil, e, exp, log, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearn import cli

N, K, ROUNDS = 600, 5, 3  # of value.csv and small.yaml
KEEPS = ["l_grr", "l_sue", "l_osue", "l_oue", "l_soue", "loloha", "ololoha", "bi_loloha", "allomfree"]
LEAKS = ["grr", "sue", "oue", "blh", "olh", "ss", "the", "she", "hr", "d_bit_flip_pm"]
# at (eps_inf, eps_1) = (2, 1): check values of the spec's section 3, n times the variance of a rare value
RARE = {
    "l_sue": 3.917698, "l_osue": 3.682694, "l_oue": 4.467197, "l_soue": 3.888770, "l_grr": 1.936764,
    "bi_loloha": 4.682694, "ololoha": 4.199428, "loloha": 3.691655,
}  # fmt: skip
SAME = {"grr": "l_grr", "sue": "l_sue", "oue": "l_osue", "blh": "bi_loloha", "hr": "bi_loloha", "olh": "loloha"}


def sections(said: str) -> list[dict[str, list[str]]]:
    """The three blocks of the table, the config's own protocol first: name -> cells."""
    lines = said.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.strip().startswith("───"))
    found: list[dict[str, list[str]]] = [{}]
    for line in lines[rule + 1 :]:
        words = [word for word in re.split(r"\s{2,}", line.strip()) if word]
        if line and not words:
            found.append({})
        elif line.startswith("  "):
            found[-1][words[0]] = words[1:]
        else:
            break
    return [block for block in found if block]


def composed(name: str) -> tuple[float, float]:
    """(ps, qs) of the first report at (2, 1): a one-shot oracle's at eps_1, or of two steps by the spec's values."""
    root, big, odds = exp(0.5), e**2, (e**3 - 1) / (e**2 - e)

    def twice(p1: float, q1: float, p2: float, q2: float) -> tuple[float, float]:
        return p1 * p2 + (1 - p1) * q2, q1 * p2 + (1 - q1) * q2

    return {
        "l_grr": (e / (e + K - 1), 1 / (e + K - 1)),
        "l_sue": (root / (root + 1), 1 / (root + 1)),
        "l_osue": (0.5, 1 / (e + 1)),
        "l_oue": twice(0.5, 1 / (big + 1), 0.5, 0.0809366186),
        "l_soue": twice(e / (e + 1), 1 / (e + 1), 0.5, 0.0720241815),
        "bi_loloha": (e / (e + 1), 0.5),
        "ololoha": twice(big / (big + 2), 1 / 3, odds / (odds + 2), 1 / (odds + 2)),
        "loloha": (e / (e + 3), 0.25),
    }[name]


def permanent(name: str) -> tuple[float, float]:
    """(p1, q1) of the memo at eps_inf = 2, as the server counts it: a hash supports another value with 1/g."""
    big = e**2
    return {
        "l_grr": (big / (big + K - 1), 1 / (big + K - 1)),
        "l_sue": (e / (e + 1), 1 / (e + 1)),
        "l_osue": (0.5, 1 / (big + 1)),
        "bi_loloha": (big / (big + 1), 0.5),
        "loloha": (big / (big + 3), 0.25),
    }[name]


def mean_variance(p: float, q: float) -> float:
    """Vbar = [qs (1-qs) + (ps (1-ps) - qs (1-qs)) / k] / (n (ps-qs)^2): the spec's section 4."""
    return (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / K) / (N * (p - q) ** 2)


@pytest.fixture
def shown(works: Any) -> list[dict[str, list[str]]]:
    return sections(works("show", "small.yaml"))


# --- what is there


def test_every_protocol_has_a_row_in_its_section_best_first(shown: list[dict[str, list[str]]]) -> None:
    own, keep, leak = shown
    assert list(own) == ["> l_osue"]
    assert own["> l_osue"] == keep["l_osue"]
    assert set(keep) == set(KEEPS)
    assert set(leak) == set(LEAKS)
    for rows in (keep, leak):
        errors = [float(cells[0]) for cells in rows.values()]
        assert errors == sorted(errors)
    for cells in keep.values():
        assert float(cells[2]) <= 1 and float(cells[4]) <= 2
    for cells in leak.values():
        assert cells[4] == "∞" or float(cells[2]) > 1


def test_the_plan_names_the_population_the_engine_and_the_guess_to_beat(works: Any) -> None:
    said = works("show", "small.yaml")
    held = np.bincount(np.loadtxt("value.csv", int, skiprows=1), minlength=K) / N
    assert "600 users, one attribute of 5 values, 3 rounds, values that never change" in said
    assert re.search(r"^engine: aggregate \(\d+ binomial draws a value instead of", said, re.MULTILINE)
    assert f"guessing uniform frequencies: MSE {((held - 1 / K) ** 2).mean():.3e} in the first round" in said
    assert "closed forms at eps_inf 2, eps_1 1: first those that keep both, then those that don't" in said
    assert "client_bytes: null" in said and "alpha: 0.5" in said
    assert not Path("runs").exists(), "nothing is run"


# --- what the numbers are


@pytest.mark.parametrize("name", ["l_grr", "l_sue", "l_osue", "bi_loloha", "loloha"])
def test_the_error_of_a_round_and_of_the_mean_are_the_closed_forms(
    name: str, shown: list[dict[str, list[str]]]
) -> None:
    first, floor = mean_variance(*composed(name)), mean_variance(*permanent(name))
    assert shown[1][name][:2] == [f"{first:.3e}", f"{floor + (first - floor) / ROUNDS:.3e}"]


@pytest.mark.parametrize(("name", "like"), [(name, name) for name in RARE if name not in SAME] + list(SAME.items()))
def test_the_error_of_a_round_agrees_with_the_check_values(
    name: str, like: str, shown: list[dict[str, list[str]]]
) -> None:
    p, q = composed(like)
    assert q * (1 - q) / (p - q) ** 2 == pytest.approx(RARE[like], abs=2e-6)
    assert (shown[1] | shown[2])[name][0] == f"{mean_variance(p, q):.3e}"


def test_losses_after_reports_are_those_of_the_spec(works: Any) -> None:
    """(2, 1): after two reports L-SUE 1.61156, L-OSUE 1.64166, L-OUE 1.62889, L-SOUE 1.47246 (section 5.3)."""
    _, keep, leak = sections(works("show", "small.yaml", "stream.rounds=2"))
    after = {"l_sue": 1.61156, "l_osue": 1.64166, "l_oue": 1.62889, "l_soue": 1.47246}
    assert {name: keep[name][2:5] for name in after} == {n: ["1", f"{loss:.4g}", "2"] for n, loss in after.items()}
    big, odds = e**2, (e**3 + 3 * e - 4) / (e**2 - e)  # A, and R of the exact rule at k = 5
    assert keep["l_grr"][2:5] == ["1", f"{log((big * odds**2 + 4) / (odds**2 + big + 3)):.4g}", "2"]
    published = (e**3 - 1) / (e**2 - e)  # of g = 3 cells
    assert keep["ololoha"][2] == f"{log((big * published + 2) / (big + published + 1)):.4g}"
    assert leak["grr"][2:5] == ["1", "2", "∞"]
    assert leak["d_bit_flip_pm"][2:5] == ["2", "2", "2"]


def test_costs_are_the_formulas_of_the_spec(shown: list[dict[str, list[str]]]) -> None:
    """Section 10: secret bytes at worst, public bits, bits at set-up, bits a round."""
    width = ceil(log2(K))
    expected = {
        "l_grr": [K * width + K, 0, 0, width],
        "l_osue": [K * K + K, 0, 0, K],
        "l_sue": [K * K + K, 0, 0, K],
        "bi_loloha": [2 + 2, 64, 64, 1],
        "loloha": [4 * 2 + 4, 64, 64, 2],
        "grr": [0, 0, 0, width],
        "oue": [0, 0, 0, K],
        "olh": [0, 0, 0, 64 + 2],
        "d_bit_flip_pm": [(K + 1) * (K + 1), 0, 0, K],
        "she": [0, 0, 0, 64 * K],
    }
    rows = shown[1] | shown[2]
    for name, (bits, *rest) in expected.items():
        assert [int(cell) for cell in rows[name][5:]] == [ceil(bits / 8), *rest], name


def test_a_key_takes_32_bytes_whatever_is_met(works: Any) -> None:
    _, keep, leak = sections(works("show", "small.yaml", "runner.memo=prf"))
    assert {cells[5] for cells in keep.values()} == {"32"}
    assert {name: cells[5] for name, cells in leak.items()} == {n: "32" if n == "d_bit_flip_pm" else "0" for n in LEAKS}


# --- budgets, several attributes, what cannot be had


def test_a_device_budget_says_who_fits(works: Any, fails: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = works("show", "small.yaml", "budget={client_bytes: 4, bits_per_round: 3}", "protocol=l_grr")
    rows = {name.removeprefix("> "): cells for block in sections(said) for name, cells in block.items()}
    assert {name for name, cells in rows.items() if cells[-1] == "yes"} == {
        "l_grr", "allomfree", "loloha", "ololoha", "bi_loloha", "grr", "ss", "hr"
    }  # fmt: skip
    assert {cells[-1] for cells in rows.values()} == {"yes", "no"}
    assert "l_osue keeps up to 4 secret bytes on a device, over budget.client_bytes=3" in fails(
        "show", "small.yaml", "budget.client_bytes=3"
    )
    cli.main(["show", "small.yaml", "budget.client_bytes=3"])
    assert sections(capsys.readouterr().out)[0]["> l_osue"][-1] == "no", "the table comes before the refusal"


def test_what_is_infeasible_is_listed_with_the_reason(works: Any) -> None:
    said = works("show", "small.yaml", "protocol.alpha=0.9")
    _, keep, _ = sections(said)
    assert not {"l_oue", "l_soue"} & set(keep)
    assert "not to be had: l_oue: eps_1=1.8 is too near eps_inf=2 for l_oue: the largest feasible eps_1 is 1.66" in said
    assert (
        "not to be had: l_soue: eps_1=1.8 is too near eps_inf=2 for l_soue: the largest feasible eps_1 is 1.31" in said
    )
    assert "not to be had: hr: eps=1.8 must not exceed 1 for hr" in said
    assert "not to be had" not in works("show", "small.yaml")


def test_several_attributes_are_planned_by_every_solution(works: Any) -> None:
    said = works("show", "small.yaml", "stream.file=people.csv", "protocol={name: allomfree, alpha: 0.5}")
    assert "600 users, 2 attributes of 3, 5 values, 3 rounds" in said
    own, keep, leak = sections(said)
    assert list(own) == ["> allomfree"]
    solutions = {f"{way} of {inner}" for way in ("smp", "spl") for inner in KEEPS if inner != "allomfree"}
    assert set(keep) == solutions | {"allomfree"}
    oracles = {f"{way} of {inner}" for way in ("smp", "spl") for inner in LEAKS}
    fakes = {f"{way} of {inner}" for way in ("rs_fd", "rs_rfd") for inner in ("grr", "sue", "oue")}
    assert set(leak) == oracles | fakes
    assert leak["rs_fd of grr"][:3] == [leak["rs_fd of grr"][0], "–", f"{log(2 * (e - 1) + 1):.4g}"]
    assert keep["smp of l_osue"][6:9] == ["1", "1", "4"], "which attribute it answers is kept and told, once"
    assert keep["spl of l_osue"][6:9] == ["0", "0", "8"]
    # SPL: all users, half of the budget. SMP: half of the users, all of it, and a sample of them at f = 1/k
    assert float(keep["smp of l_grr"][0]) < float(keep["spl of l_grr"][0])
    errors = []
    for k in (3, 5):
        p, q = e / (e + k - 1), 1 / (e + k - 1)
        half, flat = N / 2, 1 / k
        noise = (q * (1 - q) + (p * (1 - p) - q * (1 - q)) / k) / (half * (p - q) ** 2)
        errors.append(noise + flat * (1 - flat) / half * (N - half) / (N - 1))
    assert keep["smp of l_grr"][0] == f"{np.mean(errors):.3e}"
    assert "attribute 0 (k=3): l_grr: Var* " in said


def test_what_auto_chose_and_what_a_protocol_warns_of_stand_below(works: Any) -> None:
    said = works("show", "small.yaml", "protocol={name: auto, alpha: 0.5}")
    assert re.search(
        r"^chosen: (l_grr|allomfree), expected MSE of a round's estimates .*; 9 of 9 protocols fit", said, re.M
    )
    own, keep, _ = sections(said)
    assert own["> auto"] == keep["l_grr"]
    assert "note: the loses 0.896 of the eps=1" in works("show", "small.yaml", "protocol={name: the, eps: 1}")


@pytest.mark.parametrize("columns", ["40", "80", "500"])
def test_no_number_is_cut_on_a_narrow_terminal(
    columns: str, works: Any, seeded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    said = works("show", "small.yaml")
    assert "…" not in said
    assert sections(said)[1]["l_osue"][:1] == [f"{mean_variance(*composed('l_osue')):.3e}"]
    assert "…" not in works("audit", "grr", "--trials", "1000")
