"""What `clearn show` prints of a collection before anybody is asked: error, loss and cost of each protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clearn.collecting.experiment import Collecting, prepare
from clearn.collecting.printing import print_whole
from clearn.frequency.accounting import ProtocolCost, cost
from clearn.frequency.candidates import Candidate, candidates, keeps_budgets, planned_mse
from clearn.frequency.protocol import FrequencyProtocol


@dataclass(frozen=True)
class Plan:
    """A protocol's row.

    Attributes:
        name: as in a config.
        mse: expected error of one round, averaged over attributes and values.
        mse_mean: of the mean of all rounds, if nobody's value changes.
        losses: exact loss after the first report, after all rounds, and for ever, of an unchanged value.
        cost: bits and bytes.
        over: what it is over, or None where it fits the device's budget.
        keeps: whether it loses no more than eps_1 with the first report and eps_inf for ever.
    """

    name: str
    mse: float
    mse_mean: float
    losses: tuple[float, float, float]
    cost: ProtocolCost
    over: str | None
    keeps: bool


def show(config: Mapping[str, Any], console: Console) -> None:
    """Print the resolved config, the collection, and what every protocol would do under the same privacy budgets."""
    from omegaconf import OmegaConf

    subject = prepare(config).build()
    console.print(OmegaConf.to_yaml(OmegaConf.create(subject.config)).rstrip(), highlight=False, markup=False)
    _say(console, f"\n{_population(subject)}\nengine: {subject.engine} ({subject.why})")
    own, budgets = plan(subject.name, subject.protocol, subject), subject.protocol.budgets
    listed = list(candidates(subject.collection.domains, budgets))
    others = [plan(one.name, one.protocol, subject) for one in listed if one.protocol is not None]
    table = _table(own, sorted(others, key=lambda row: (not row.keeps, row.mse)), subject)
    print_whole(table, console)
    for text in _below(subject, listed):
        _say(console, text)
    subject.check()


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def plan(name: str, protocol: FrequencyProtocol, subject: Collecting) -> Plan:
    """Work out one protocol's row."""
    n, rounds = subject.collection.n_users, subject.steps
    card = cost(protocol, n, rounds, memo=subject.options.memo)
    losses = (protocol.loss(1), protocol.loss(rounds), protocol.loss_for_ever())
    mses = planned_mse(protocol, n), planned_mse(protocol, n, rounds)
    keeps = keeps_budgets(protocol, subject.protocol.budgets)
    return Plan(name, *mses, losses, card, subject.budget.over(card), keeps)


def _table(own: Plan, others: list[Plan], subject: Collecting) -> Table:
    rounds = subject.steps
    budgets = subject.protocol.budgets
    table = Table(
        title=f"closed forms at eps_inf {budgets.eps_inf:g}, eps_1 {budgets.eps_1:g}: first those that keep both, then "
        "those that don't (one-shot protocols spend eps_1 anew in every round), best first",
        box=SIMPLE_HEAD,
    )
    table.add_column("\nprotocol")
    several = rounds > 1
    names = ["MSE\na round"] + ([f"MSE of\n{rounds} rounds' mean"] if several else [])
    names += ["eps\nfirst"] + ([f"eps\nafter {rounds}"] if several else []) + ["eps\never"]
    names += ["secret B\nat worst", "public\nbits", "bits\nset-up", "bits\na round"]
    limited = subject.budget.limit is not None or subject.budget.bits_per_round is not None
    for name in names + (["\nfits"] if limited else []):
        table.add_column(name, justify="right")
    last = sum(row.keeps for row in others)
    for place, (mark, row) in enumerate([("> ", own), *(("  ", row) for row in others)]):
        first, after, ever = (f"{loss:.4g}" if loss < 1e6 else "∞" for loss in row.losses)
        cells = [f"{row.mse:.3e}"] + ([_number(row.mse_mean)] if several else [])
        cells += [first] + ([after] if several else []) + [ever]
        card = row.cost
        cells += [f"{-(-card.client_worst // 8):,}", str(card.client_public), str(card.bits_setup)]
        cells += [f"{card.bits_round:.4g}"] + ([("no" if row.over else "yes")] if limited else [])
        table.add_row(mark + row.name, *cells, end_section=place in (0, last))
    return table


def _number(error: float) -> str:
    return "–" if math.isnan(error) else f"{error:.3e}"  # a mean of rounds with fakes has no closed form


def _population(subject: Collecting) -> str:
    collection = subject.collection
    sizes = [str(attribute.k) for attribute in collection.attributes]
    values = ", ".join(sizes[:12]) + (", ..." if len(sizes) > 12 else "")
    kind = "values that never change" if collection.static else "values that change"
    d = len(sizes)
    what = f"{d} attributes of {values} values" if d > 1 else f"one attribute of {values} values"
    return f"{collection.n_users:,} users, {what}, {len(collection)} round{'s'[: len(collection) > 1]}, {kind}"


def _below(subject: Collecting, listed: list[Candidate]) -> list[str]:
    """Lines under the table: the guess to beat, what the protocol decided, and what cannot be had."""
    protocol = subject.protocol
    guesses = []
    for j, counts in enumerate(subject.collection.round(0).counts):
        f = protocol.mechanisms[j].coarse(counts) / counts.sum()
        guesses.append(float(((f - 1 / len(f)) ** 2).mean()))
    lines = [f"guessing uniform frequencies: MSE {sum(guesses) / len(guesses):.3e} in the first round"]
    if protocol.reason:
        lines.append(f"chosen: {protocol.reason}")
    lines += [f"{name}: {text}" for name, text in protocol.choices().items()]
    lines += [f"note: {text}" for text in protocol.warnings()]
    return lines + [f"not to be had: {one.name}: {one.why}" for one in listed if one.protocol is None]
