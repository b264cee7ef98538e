"""Every protocol that could collect given attributes under given privacy budgets: for planning, and for choosing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearn import plugins
from clearn.binding import bind
from clearn.errors import ConfigError, UserError
from clearn.frequency.budgets import Budgets
from clearn.frequency.protocol import FrequencyProtocol
from clearn.mistakes import Mistake
from clearn.signatures import REQUIRED, parameters

SLACK = 1e-6  # relative, of a loss that thresholds of 32 random bits may lie above the promise
INNER = "of"  # the option by which a solution for several attributes names the protocol that it asks each one with


@dataclass(frozen=True)
class Candidate:
    """A protocol under the budgets, or why there is none.

    Attributes:
        name: as in a config, e.g. "l_osue" or "smp of l_osue".
        options: that made it, as in a config.
        protocol: None where it cannot be had.
        why: the reason, then.
    """

    name: str
    options: Mapping[str, Any]
    protocol: FrequencyProtocol | None
    why: str = ""


def candidates(domains: Sequence[int], budgets: Budgets) -> Iterator[Candidate]:
    """Make every known protocol for these attributes.

    A one-shot oracle gets eps_1, which it spends anew in every round. Protocols whose options say nothing of a budget
    (Bloom RAPPOR is set by its own probabilities) are left out, and so is what chooses among the others.

    Args:
        domains: (d,) values of each attribute.
        budgets: eps_inf and eps_1 over all attributes of a user.
    """
    known: dict[str, type[FrequencyProtocol]] = {n: plugins.find("privacy", n) for n in plugins.names("privacy")}
    single = {name: cls for name, cls in known.items() if INNER not in parameters(cls) and not cls.chooses}
    for name, cls in known.items():
        if cls.chooses:
            continue
        if name in single:
            options = _options(cls, budgets, cls.one_shot)
            if options is not None and (len(domains) == 1 or cls.for_several):
                yield _made(name, cls, domains, options)
        elif len(domains) > 1:
            for inner, of in single.items():
                options = None if of.for_several else _options(of, budgets, of.one_shot)
                if options is not None and _suits(cls, {INNER: inner, **options}):
                    yield _made(f"{name} of {inner}", cls, domains, {INNER: inner, **options})


def keeps_budgets(protocol: FrequencyProtocol, budgets: Budgets) -> bool:
    """Whether it loses no more than eps_1 with the first report and eps_inf for ever, but for rounded thresholds."""
    first, ever = protocol.loss(1), protocol.loss_for_ever()
    return first <= budgets.eps_1 * (1 + SLACK) and ever <= budgets.eps_inf * (1 + SLACK)


def planned_mse(protocol: FrequencyProtocol, n_users: int, rounds: int = 1) -> float:
    """Expected error averaged over attributes, for the mean of so many rounds of unchanged values, without any prior.

    Variances are linear in f and frequencies sum to 1, so their mean over values needs no f; what a random sample of
    the users adds does, and is taken at f = 1/k.
    """
    errors = []
    for j, mechanism in enumerate(protocol.mechanisms):
        n = n_users * (protocol.shares[j] if protocol.asks == "one" else 1)
        flat = np.full(mechanism.answers, 1 / mechanism.answers)
        errors.append(protocol.expected_mse(j, n, n_users, flat, rounds))
    return float(sum(errors) / len(errors))


def _options(cls: type[FrequencyProtocol], budgets: Budgets, one_shot: bool) -> dict[str, float] | None:
    """The budget in a protocol's own words, or None where it has none for it."""
    wanted = {"eps": budgets.eps_1} if one_shot else {"eps_inf": budgets.eps_inf, "eps_1": budgets.eps_1}
    known = parameters(cls, skip=("domains",))
    required = {name for name, option in known.items() if option.default is REQUIRED}
    found = {name: value for name, value in wanted.items() if name in known}
    return found if found and required <= set(found) else None


def _suits(cls: type[FrequencyProtocol], options: Mapping[str, Any]) -> bool:
    """Whether a solution takes this inner protocol and has options for its budget."""
    errors: list[Mistake] = []
    bind(cls, options, "", errors, skip=("domains",))
    return not errors


def _made(name: str, cls: type[FrequencyProtocol], domains: Sequence[int], options: Mapping[str, Any]) -> Candidate:
    try:
        return Candidate(name, options, cls(tuple(domains), **options))
    except (ConfigError, UserError) as error:
        return Candidate(name, options, None, str(error))
