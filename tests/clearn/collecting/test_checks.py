"""The conformance suite catches every way of cheating that it names; `clearn check` and `clearn audit` show it."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest

from clearn import cli
from clearn.collecting import checks, loop
from clearn.frequency import Budgets, population
from clearn.frequency.aggregate import Aggregate
from clearn.frequency.client import Client
from clearn.frequency.mechanism import Tally
from clearn.frequency.population import PerUser
from clearn.frequency.unary import Unary
from clearn.ledger import account
from clearn.state import Frozen
from privacy.longitudinal import LOSUE
from privacy.oracles import GRR

Patch = pytest.MonkeyPatch


def of(cls: type, **options: Any) -> checks.Subject:
    return checks.Subject(cls.__name__, cls, tuple(options.items()), checks.SIZES[-1:])


# --- cheats, each of which one check is there for


class Hiding(PerUser):
    """Users who keep something that no state shows: how often they were asked."""

    asked = 0

    def report(self, *args: Any) -> list[Tally]:
        self.asked += 1
        return [Tally(t.n, t.counts + self.asked - 1, t.trials) for t in super().report(*args)]


class HidingTogether(Aggregate):
    """The same for all users at once."""

    asked = 0

    def report(self, *args: Any) -> list[Tally]:
        self.asked += 1
        return [Tally(t.n, t.counts + self.asked - 1, t.trials) for t in super().report(*args)]


class Remembers(GRR):
    """A protocol that remembers how often it estimated."""

    estimated = 0

    def estimate(self, attribute: int, tally: Tally) -> Any:
        self.estimated += 1
        return super().estimate(attribute, tally) * (1 + self.estimated / 1000)


class Biased(GRR):
    def estimate(self, attribute: int, tally: Tally) -> Any:
        return super().estimate(attribute, tally) + 0.03


class TooSure(GRR):
    def variance(self, attribute: int, n: float, f: Any = 0.0) -> Any:
        return super().variance(attribute, n, f) / 2


class Promises(LOSUE):
    """It promises less than it spends."""

    def __init__(self, domains: tuple[int, ...]) -> None:
        super().__init__(domains, eps_inf=2.0, eps_1=1.0)
        self.budgets = Budgets(2.0, 0.9)


class Shrinks(LOSUE):
    def loss(self, rounds: int) -> float:
        return super().loss(1) / rounds


class KeepsMore(LOSUE):
    """Its formula forgets the bitmap of values met."""

    def __init__(self, domains: tuple[int, ...]) -> None:
        super().__init__(domains)
        (mechanism,) = self.mechanisms
        mechanism.state_bits = lambda met: met * mechanism.memo_bits  # type: ignore[method-assign]


def hide(patch: Patch) -> None:
    patch.setattr(loop, "PerUser", Hiding)


def hide_together(patch: Patch) -> None:
    patch.setattr(loop, "Aggregate", HidingTogether)


def nothing(patch: Patch) -> None:
    """The protocol itself is wrong."""


def weigh_less(patch: Patch) -> None:
    def without_memos(frozen: Frozen, category: Any) -> Any:
        light = {name: value for name, value in frozen.tensors.items() if "memo" not in name}
        return account(Frozen(light), category)

    patch.setattr(loop, "account", without_memos)


def unnamed(patch: Patch) -> None:
    real = PerUser.state
    patch.setattr(PerUser, "state", lambda self: {**real(self), "users/secret": np.zeros(3)})


def send_memos(patch: Patch) -> None:
    """Devices skip the fresh noise."""
    patch.setattr(Unary, "send", lambda self, memos, coins: memos)


def wrap_around(patch: Patch) -> None:
    """Wrong values become right ones."""

    def modulo(values: Any, domains: tuple[int, ...], n: int) -> Any:
        return np.resize(np.asarray(values).astype(np.int64), (n, len(domains))) % domains

    patch.setattr(population, "checked", modulo)


def forget(patch: Patch) -> None:
    """A device that is restarted draws its memos anew."""
    patch.setattr(Client, "from_bytes", classmethod(lambda cls, protocol, blob: cls(protocol)))


CHEATS: list[tuple[str, Callable[[Patch], None], checks.Subject, str]] = [
    ("check_state_holds_arrays_with_owners", unnamed, of(LOSUE), "users/secret"),
    (
        "check_rebuild_and_resume_change_nothing",
        hide,
        of(LOSUE),
        r"per_user: something outside `state\(\)` survives a round",
    ),
    (
        "check_rebuild_and_resume_change_nothing",
        hide_together,
        of(LOSUE),
        r"aggregate: something outside `state\(\)` survives a round",
    ),
    ("check_rebuild_and_resume_change_nothing", nothing, of(Remembers), "a stopped run scores otherwise"),
    ("check_ledger_equals_file", weigh_less, of(LOSUE), r"round 1: rows \d+, file \d+ bytes"),
    (
        "check_estimates_are_unbiased_with_the_stated_variance",
        nothing,
        of(Biased, eps=3.0),
        "estimates of attribute 0 are biased",
    ),
    (
        "check_estimates_are_unbiased_with_the_stated_variance",
        nothing,
        of(TooSure),
        r"MSE \S+, closed form \S+, z [5-9]",
    ),
    (
        "check_losses_grow_to_what_is_promised",
        nothing,
        of(Promises),
        "exceed eps_1=0.9, eps_inf=2.0, and nothing says so",
    ),
    ("check_losses_grow_to_what_is_promised", nothing, of(Shrinks), "losses shrink"),
    (
        "check_attacks_prove_no_more_than_the_loss",
        send_memos,
        of(LOSUE, eps_inf=4.0, eps_1=1.0),
        "prove a loss of [2-4]",
    ),
    ("check_devices_keep_what_the_cost_card_says", nothing, of(KeepsMore), "devices keep other bits than"),
    ("check_bad_values_are_refused", wrap_around, of(LOSUE), r"values uint8 \(600, 1\) up to 20\d were taken"),
    ("check_a_device_survives_a_restart", forget, of(LOSUE), "a client read from its bytes writes others"),
]


@pytest.mark.parametrize(
    ("name", "cheat", "subject", "said"), CHEATS, ids=[f"{c[0]}-{c[1].__name__}-{c[2].name}" for c in CHEATS]
)
def test_a_cheat_is_caught(
    name: str, cheat: Callable[[Patch], None], subject: checks.Subject, said: str, monkeypatch: Patch
) -> None:
    (check,) = [check for check in checks.ALL if check.__name__ == name]
    if cheat is not nothing:
        check(subject)
    cheat(monkeypatch)
    with pytest.raises(Exception, match=said) as caught:
        check(subject)
    assert isinstance(caught.value, AssertionError) or name == "check_state_holds_arrays_with_owners"


def test_every_check_catches_something() -> None:
    assert {cheat[0] for cheat in CHEATS} == {check.__name__ for check in checks.ALL}


def test_a_warning_makes_a_known_excess_honest() -> None:
    """the loses less than its eps, fakes lose more: both say so, and conform."""
    fakes = checks.subject("rs_fd")
    assert fakes.make().loss(1) > fakes.make().budgets.eps_1
    checks.check_losses_grow_to_what_is_promised(fakes)


# --- clearn check


def test_check_prints_every_promise(works: Any) -> None:
    said = works("check", "l_grr", "--option", "rule=published", "--option", "eps_inf=3")
    promises = [(check.__doc__ or "").split("\n")[0].rstrip(".") for check in checks.ALL]
    assert [line.removeprefix("ok").strip() for line in said.splitlines()[:-1]] == promises
    assert said.splitlines()[-1] == "l_grr: conforms"


def test_check_says_which_promise_is_broken_and_exits_with_1(
    here: Any, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    hide(monkeypatch)
    assert cli.main(["check", "l_osue"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "failed Rebuilding users and server from the weighed bytes" in captured.out
    assert "         per_user: something outside `state()` survives a round" in captured.out
    assert captured.out.splitlines()[-1] == "l_osue: 1 checks failed"


def test_a_protocol_that_raises_is_shown_and_the_other_checks_go_on(monkeypatch: Patch) -> None:
    def broken(self: Any, attribute: int, tally: Tally) -> Any:
        raise ZeroDivisionError("by nobody")

    monkeypatch.setattr(GRR, "estimate", broken)
    found = dict(checks.run(checks.subject("grr")))
    assert len(found) == len(checks.ALL)
    assert {problem for problem in found.values() if problem} == {"ZeroDivisionError: by nobody"}
    assert any(problem is None for problem in found.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "grr", "--option", "eps=-1"], "eps=-1.0 must lie in [0.001, 30]"),
        (["check", "hr", "--option", "eps=2"], "eps=2.0 must not exceed 1 for hr"),
        (
            ["check", "grr", "--option", "epss=1"],
            "option.epss: got 1, but there is no such option; did you mean 'eps'?",
        ),
        (["check", "grr", "--option", "eps=many"], "option.eps: got 'many', must be a number"),
        (["check", "l_oue", "--option", "alpha=0.95"], "the largest feasible eps_1 is"),
        (["check", "no_such_module:Thing", "--kind", "privacy"], "'no_such_module:Thing' cannot be imported"),
        (["check", "json:JSONDecoder", "--kind", "privacy"], "must be a class derived from clearn.frequency."),
        (["audit", "gr"], "protocol 'gr' is unknown; did you mean 'grr'?"),
        (["audit", "privacy.oracles:GRR"], "is not a name: a config holds no import path"),
        (["audit", "she"], "she is for simulations only and has no device to attack"),
        (["audit", "grr", "--k", "1"], "k must be at least 2"),
        (["audit", "grr", "--attributes", "2"], "this protocol answers one attribute, and the data have 2"),
        (["audit", "grr", "--option", "eps=0"], "eps=0.0 must lie in [0.001, 30]"),
        (["audit", "smp", "--option", "of=smp"], "of='smp' asks for several attributes itself"),
    ],
    ids=" ".join,
)
def test_bad_words_are_one_message(words: list[str], said: str, fails: Any) -> None:
    assert said in fails(*words)


@pytest.mark.parametrize("count", ["0", "-3", "1.5", "many", "nan", "inf", "1e400"])
@pytest.mark.parametrize("option", ["--trials", "--rounds", "--k", "--attributes"])
def test_a_count_that_is_none_shows_the_usage(
    option: str, count: str, here: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["audit", "grr", f"{option}={count}"])
    assert stopped.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err


# --- clearn audit


def rows(said: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines() if re.match(r"\s*\d+ ", line)]


def test_an_audit_stands_beside_the_exact_losses(works: Any, seeded: None) -> None:
    words = ["audit", "l_osue", "--k", "4", "--rounds", "3", "--option", "eps_inf=2", "--option", "alpha=0.5"]
    found = rows(works(*words, "--trials", "2e4"))
    assert [row[0] for row in found] == ["1", "2", "3"]
    assert [float(row[4]) for row in found] == pytest.approx([1.0, 1.64166, 1.89915], abs=1e-4)
    low = 0.005 ** (1 / 20_000)  # Clopper-Pearson after 20,000 of 20,000, and after none, with half of 1 % each
    ceiling = log(low / (1 - low))
    for _, right, wrong, proven, exact, share, most, holds in found:
        assert float(proven) <= float(exact) and holds == "yes"
        assert float(share) == pytest.approx(float(proven) / float(exact), abs=1e-3)
        assert log(float(right) / float(wrong)) == pytest.approx(float(exact), abs=0.3)
        assert float(most) == pytest.approx(ceiling, abs=0.01)
    assert float(found[0][5]) > 0.7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smp", ["--attributes", "3", "--option", "of=l_grr"]),
        ("allomfree", ["--attributes", "2"]),
        ("rs_fd", ["--attributes", "2"]),
        ("d_bit_flip_pm", ["--option", "sampled=1"]),
        ("rappor", []),
    ],
)
def test_every_kind_of_device_can_be_attacked(name: str, words: list[str], works: Any, seeded: None) -> None:
    (found,) = rows(works("audit", name, "--k", "5", "--trials", "3000", *words))
    assert found[-1] == "yes"


def test_a_device_that_loses_more_is_shown_and_exits_with_1(
    here: Any, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    send_memos(monkeypatch)
    assert cli.main(["audit", "l_osue", "--option", "eps_inf=4", "--option", "eps_1=1", "--trials", "20000"]) == 1
    (found,) = rows(capsys.readouterr().out)
    assert float(found[3]) > 2 and found[4] == "1.0000" and found[-1] == "NO"
