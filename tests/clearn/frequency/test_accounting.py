from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from clearn.frequency import Budgets, FrequencyProtocol, Hashed, Mechanism, Rates, Symbol, Unary
from clearn.frequency.accounting import Accountant, Figure, ProtocolCost, Spent, cost, occurrences
from clearn.frequency.coins import SimulatedCoins
from clearn.frequency.devices import Devices


def l_grr(k: int, eps_inf: float, eps_1: float) -> Symbol:
    """L-GRR with the exact rule."""
    A, E = math.exp(eps_inf), math.exp(eps_1)
    R = (A * E + (k - 2) * E - (k - 1)) / (A - E)
    return Symbol(k, Rates.of(A / (A + k - 1), 1 / (A + k - 1)), Rates.of(R / (R + k - 1), 1 / (R + k - 1)))


def l_osue(k: int, eps_inf: float, eps_1: float) -> Unary:
    A, E = math.exp(eps_inf), math.exp(eps_1)
    q2 = (A - E) / ((A - 1) * (E + 1))
    return Unary(k, Rates.of(0.5, 1 / (A + 1)), Rates.of(1 - q2, q2))


def l_sue(k: int, eps_inf: float, eps_1: float) -> Unary:
    a, e = math.exp(eps_inf / 2), math.exp(eps_1 / 2)
    q2 = (a - e) / ((a - 1) * (e + 1))
    return Unary(k, Rates.of(a / (a + 1), 1 / (a + 1)), Rates.of(1 - q2, q2))


def loloha(k: int, g: int, eps_inf: float, eps_1: float) -> Hashed:
    by_cell = l_grr(g, eps_inf, eps_1)
    return Hashed(k, g, by_cell.permanent, by_cell.instant)


def grr(k: int, eps: float) -> Symbol:
    E = math.exp(eps)
    return Symbol(k, None, Rates.of(E / (E + k - 1), 1 / (E + k - 1)))


class Toy(FrequencyProtocol):
    answers_all = True

    def __init__(self, *mechanisms: Mechanism, eps_inf: float = 2.0, eps_1: float = 1.0, **how: Any) -> None:
        super().__init__([m.k for m in mechanisms], mechanisms, Budgets(eps_inf, eps_1), **how)


def after(protocol: FrequencyProtocol, *cells: Any) -> list[Spent]:
    held = [np.asarray(rows) for rows in cells]
    return list(Accountant(protocol, held[0].shape[1]).over(held))


# Losses


@pytest.mark.parametrize(("mechanism", "two"), [(l_grr(2, 2, 1), 1.64166), (l_sue(5, 2, 1), 1.61156)])
def test_static_loss_is_eps_1_first_then_the_exact_loss_of_t_reports_and_stays_below_eps_inf(
    mechanism: Mechanism, two: float
) -> None:
    lost = [spent.static[0] for spent in after(Toy(mechanism), [[1] * 40])]
    assert lost[0] == pytest.approx(1, abs=1e-8)
    assert lost[1] == pytest.approx(two, abs=1e-5)
    assert np.all(np.diff(lost) >= 0)
    assert lost[-1] == pytest.approx(2, abs=1e-6)


def test_a_trajectory_by_hand_and_the_memo_of_a_value_that_returns() -> None:
    protocol = Toy(l_grr(3, 2, 1))
    one, two, three = (protocol.loss(t) for t in (1, 2, 3))
    rounds = after(protocol, [[0, 1, 0, 0, 2], [1, 1, 1, 2, 2]])  # A -> B -> A -> A -> C, and B B B C C
    assert [spent.static.tolist() for spent in rounds] == [
        [one, one],
        [one, two],
        [two, three],
        [three, three],
        [three, three],
    ]
    by_hand = [[one, one], [2 * one, two], [two + one, three], [three + one, three + one]]
    by_hand.append([three + 2 * one, three + two])
    for spent, right in zip(rounds, by_hand, strict=True):
        assert spent.memo == pytest.approx(right)
    assert [spent.distinct.tolist() for spent in rounds] == [[1, 1], [2, 1], [2, 1], [2, 2], [3, 2]]
    assert [spent.literature.tolist() for spent in rounds] == [[2, 2], [4, 2], [4, 2], [4, 4], [6, 4]]
    assert [spent.any[0] for spent in rounds] == pytest.approx([t * protocol.loss_any() for t in range(1, 6)])
    last = rounds[-1].summary()
    assert last.memo == Figure(pytest.approx(three + (2 * one + two) / 2), pytest.approx(three + 2 * one))
    assert (last.distinct, last.met) == (Figure(2.5, 3), (2.5,))


def _worst_pairs(eps_inf: float, eps_1: float, rounds: int) -> tuple[float, float]:
    """Largest log ratio between any two trajectories of two values, and between any two that change together."""
    mechanism = l_grr(2, eps_inf, eps_1)
    assert mechanism.permanent is not None
    assert mechanism.instant is not None
    p1, p2 = mechanism.permanent.p, mechanism.instant.p
    words = np.array(list(itertools.product((0, 1), repeat=rounds)))  # trajectories, and outputs
    chance = np.zeros((len(words), len(words)))  # P(output | trajectory)
    for memo in itertools.product((0, 1), repeat=2):
        drawn = math.prod(p1 if memo[v] == v else 1 - p1 for v in (0, 1))
        sent = np.array(memo)[words]  # (trajectories, rounds)
        agree = (sent[:, None, :] == words[None, :, :]).sum(axis=2)
        chance += drawn * p2**agree * (1 - p2) ** (rounds - agree)
    logs = np.log(chance)
    any_pair = max(float((row - logs).max()) for row in logs)
    return any_pair, float((logs - logs[::-1]).max())  # the opposite trajectory has the same blocks


def test_eps_memo_is_exact_for_users_who_change_together_and_only_eps_any_bounds_the_rest() -> None:
    any_pair, together = _worst_pairs(2, 1, 8)
    assert (any_pair, together) == (pytest.approx(6.16, abs=0.005), pytest.approx(3.95, abs=0.005))
    protocol = Toy(l_grr(2, 2, 1))
    trajectories = np.array(list(itertools.product((0, 1), repeat=8)), np.uint8)
    last = after(protocol, trajectories)[-1]
    assert last.memo.max() == pytest.approx(together, abs=1e-6)
    assert last.static.max() == pytest.approx(2.00, abs=0.005)
    assert last.literature.max() == 4 < any_pair < last.any[0]  # the literature's sum is no bound on any pair
    assert _worst_pairs(0.5, 0.15, 8)[0] == pytest.approx(1.73, abs=0.005)


def test_half_the_rounds_elsewhere_is_told_apart_without_a_bound() -> None:
    mechanism, h = l_grr(2, 2, 1), 10
    assert mechanism.permanent is not None
    told = 2 * math.log(mechanism.permanent.p) + h * Toy(mechanism).loss_any()
    assert told == pytest.approx(13.8, abs=0.03)
    zeros_then_ones = after(Toy(mechanism), [[0] * h + [1] * h])[-1]
    assert zeros_then_ones.memo[0] < told < zeros_then_ones.any[0]


def test_one_shot_protocols_spend_their_budget_in_every_round_whatever_users_hold() -> None:
    rounds = after(Toy(grr(4, 0.5), eps_inf=0.5, eps_1=0.5), [[0, 1, 0], [2, 2, 2]])
    for t, spent in enumerate(rounds, 1):
        for column in (spent.static, spent.memo, spent.any, spent.literature):
            assert column == pytest.approx([0.5 * t] * 2, abs=1e-8)


def test_losses_add_where_all_attributes_are_answered() -> None:
    parts = l_grr(3, 1, 0.5), l_osue(4, 1, 0.5)
    protocol = Toy(*parts)
    last = after(protocol, [[0, 0], [1, 2]], [[3, 3], [3, 3]])[-1]
    a, b = protocol.mechanisms
    assert last.static == pytest.approx([a.loss(2) + b.loss(2), a.loss(1) + b.loss(2)])
    assert last.memo == pytest.approx([a.loss(2) + b.loss(2), 2 * a.loss(1) + b.loss(2)])
    assert last.any == pytest.approx([2 * (a.loss_any() + b.loss_any())] * 2)
    assert last.distinct.tolist() == [2, 3]
    assert last.literature.tolist() == [2, 3]  # eps_inf = 2 is halved between the attributes
    assert last.met == (1.5, 1.0)


def test_each_user_spends_on_its_own_attribute_only() -> None:
    protocol = Toy(l_grr(3, 2, 1), l_osue(4, 2, 1), l_grr(5, 2, 1), asks="one")
    a, b, _ = protocol.mechanisms
    last = after(protocol, [[0, 0]], [[3, 1], [2, 2]], np.empty((0, 2), int))[-1]
    assert last.static == pytest.approx([a.loss(2), b.loss(1), b.loss(2)])
    assert last.memo == pytest.approx([a.loss(2), 2 * b.loss(1), b.loss(2)])
    assert last.any == pytest.approx([2 * a.loss_any(), 2 * b.loss_any(), 2 * b.loss_any()])
    assert last.met == (1.0, 1.5, 0.0)


def test_fakes_guard_the_tuple_so_every_user_spends_the_protocol_s_loss() -> None:
    protocol = Toy(grr(3, 1.0), grr(5, 1.0), eps_inf=0.6, eps_1=0.6, asks="hidden")
    last = after(protocol, [[0, 0]], [[3, 1], [2, 2]])[-1]
    assert last.static == pytest.approx([protocol.loss(2)] * 3)


def test_a_user_s_meetings_are_counted_as_a_loop_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearn.frequency.accounting.BLOCK", 100)  # several blocks of users
    cells = np.random.default_rng(0).integers(0, 4, (37, 30)).astype(np.uint8)
    naive = [[list(row[: t + 1]).count(row[t]) for t in range(30)] for row in cells.tolist()]
    ranks = occurrences(cells)
    assert ranks.T.tolist() == naive
    assert ranks.dtype == np.uint8
    assert occurrences(np.zeros((2, 300), np.uint8)).dtype == np.uint16


def test_a_billion_users_who_never_change_need_no_table() -> None:
    mechanisms = l_grr(3, 2, 1), l_osue(40, 2, 1), l_grr(5, 2, 1)
    one, every = Toy(*mechanisms, asks="one"), Toy(*mechanisms)
    a, b, c = (m.loss(6) for m in one.mechanisms)
    *_, last = Accountant(one, 6).unchanged([3 * 10**9, 10**9, 0])
    found = last.summary()
    assert found.static == found.memo == Figure(pytest.approx((3 * a + b) / 4), pytest.approx(max(a, b)))
    assert (found.distinct, found.literature, found.met) == (Figure(1, 1), Figure(2, 2), (1, 1, 0))
    assert found.any.mean == pytest.approx(6 * (3 * one.mechanisms[0].loss_any() + one.mechanisms[1].loss_any()) / 4)
    *_, last = Accountant(every, 6).unchanged([10**9] * 3)
    assert last.summary().static == Figure(pytest.approx(a + b + c), pytest.approx(a + b + c))
    assert last.summary().literature.mean == pytest.approx(2)


def test_users_who_never_change_are_those_of_a_table_in_which_nobody_does() -> None:
    protocol = Toy(l_grr(3, 2, 1), l_osue(4, 2, 1), asks="one")
    tables = [np.repeat([[0], [2], [1]], 5, axis=1), np.repeat([[3]], 5, axis=1)]
    for closed, counted in zip(Accountant(protocol, 5).unchanged([3, 1]), after(protocol, *tables), strict=True):
        for figure, other in zip(_flat(closed), _flat(counted), strict=True):
            assert figure == pytest.approx(other)


def _flat(spent: Spent) -> list[float]:
    found = spent.summary()
    figures = (found.static, found.memo, found.any, found.literature, found.distinct)
    return [*(number for figure in figures for number in (figure.mean, figure.max)), *found.met]


def test_any_two_users_are_told_apart_at_once_where_the_memo_itself_is_sent() -> None:
    memo_only = Symbol(3, l_grr(3, 2, 1).permanent, None)
    last = after(Toy(memo_only), [[0, 1]])[-1]
    assert last.any[0] == math.inf
    assert last.memo[0] == pytest.approx(4, abs=1e-6)


# The cost card


def test_cost_of_one_attribute_by_the_formulas() -> None:
    n, rounds = 1000, 10
    assert cost(Toy(l_osue(41, 2, 1)), n, rounds, met=3) == ProtocolCost(
        3 * 41 + 41, 1722, 0, 0, 41.0, 41.0, 8 * rounds * 41
    )
    assert math.ceil(1722 / 8) == 216
    symbol = cost(Toy(l_grr(41, 2, 1)), n, rounds)
    assert (symbol.client_worst, symbol.bits_round) == (287, 6)
    hashed = cost(Toy(loloha(41, 4, 2, 1)), n, rounds, met=2.5)
    assert hashed == ProtocolCost(9.0, 12, 64, 64, 2.0, 2.0, 8 * rounds * 41 + 8 * n)
    large = cost(Toy(l_osue(1234, 2, 1)), 9123, 80, met=48.36)
    assert large.client_worst == 1234**2 + 1234
    assert large.client_now == pytest.approx(48.36 * 1234 + 1234)
    assert (large.client_now - 1234) / 8 == pytest.approx(7.5e3, rel=0.01)
    assert cost(Toy(grr(4, 1)), n, rounds).client_worst == 0


def test_a_key_takes_32_bytes_whatever_was_met_and_nothing_where_nothing_is_kept() -> None:
    card = cost(Toy(l_osue(1234, 2, 1)), 10, 5, memo="prf")
    assert (card.client_now, card.client_worst) == (256, 256)
    assert cost(Toy(grr(4, 1)), 10, 5, memo="prf").client_worst == 0


def test_cost_of_several_attributes_is_the_sum_or_the_worst_and_the_mean() -> None:
    parts = l_grr(3, 2, 1), l_osue(8, 2, 1), loloha(9, 4, 2, 1)
    every = cost(Toy(*parts), 100, 5, met=[1, 2, 3])
    assert every == ProtocolCost(5 + 24 + 10, 9 + 72 + 12, 64, 64, 12.0, 12.0, 8 * 5 * 20 + 800)
    one = cost(Toy(*parts, asks="one"), 100, 5, met=[1, 2, 3])
    assert one == ProtocolCost(13, 72, 64 + 2, 64 + 2, 4.0, 8.0, 8 * 5 * 20 + math.ceil(800 / 3))
    hidden = cost(Toy(grr(3, 1), grr(9, 1), asks="hidden"), 100, 5)
    assert hidden == ProtocolCost(0, 0, 1, 0, 6.0, 6.0, 8 * 5 * 12)


def test_linked_decoding_needs_a_counter_for_every_user_and_value_it_answers() -> None:
    alone, one = Toy(l_osue(8, 2, 1)), Toy(l_osue(8, 2, 1), l_osue(4, 2, 1), asks="one")
    assert cost(alone, 100, 5, linked=True).server - cost(alone, 100, 5).server == 100 * 8
    assert cost(alone, 100, 300, linked=True).server - cost(alone, 100, 300).server == 100 * 8 * 2
    assert cost(one, 100, 5, linked=True).server - cost(one, 100, 5).server == 100 * (8 + 4) / 2


def test_the_card_agrees_with_the_buffers_of_simulated_devices() -> None:
    values = np.random.default_rng(2).integers(0, 7, (50, 6, 1))
    protocol = Toy(l_osue(7, 2, 1))
    devices = Devices(protocol, 50, SimulatedCoins(np.random.default_rng(3)), "table")
    for t in range(6):
        list(devices.answer(0, values[:, t, 0], SimulatedCoins(np.random.default_rng(t))))
    last = after(protocol, values[:, :, 0])[-1]
    bits = devices.memo.bits()
    assert bits.tolist() == [protocol.mechanisms[0].state_bits(int(met)) for met in last.distinct]
    assert cost(protocol, 50, 6, last.met).client_now == pytest.approx(float(bits.mean()))
