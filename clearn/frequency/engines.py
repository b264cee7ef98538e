"""Which engine simulates a collection: the rule, and why a choice is refused.

Aggregate counts have the law of the per-user engine's and cost binomial draws: 1 + |T| a value for each group of users'
pieces that are held in the same set T of rounds. The per-user engine costs a random bit a user, round and value, of
which about a hundred take as long as one binomial draw. So aggregate is chosen where sum_T (1 + |T|) < n tau / 100.
That errs towards the per-user engine, since `Aggregate` draws a round's noise once for all groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from clearn.errors import ConfigError
from clearn.frequency.aggregate import obstacle, samples
from clearn.frequency.groups import whole_groups
from clearn.frequency.lemmas import lemma_of
from clearn.frequency.linked import unlinkable
from clearn.frequency.protocol import FrequencyProtocol

if TYPE_CHECKING:
    from clearn.stream import Collection

Engine = Literal["aggregate", "per_user"]
Wanted = Literal["auto", "aggregate", "per_user"]
Decode = Literal["rounds", "linked"]
Exactness = Literal["joint", "moments", "marginals"]
LINKED = "decode=linked counts each user's own reports, which the aggregate engine does not have"
BITS_PER_DRAW = 100  # Bernoulli bits that take as long as one binomial draw


def choose(
    protocol: FrequencyProtocol, collection: Collection, wanted: Wanted = "auto", decode: Decode = "rounds"
) -> tuple[Engine, str]:
    """Choose an engine.

    Args:
        protocol: what users and server agree on.
        collection: the rounds.
        wanted: an engine, or "auto" for whichever is right and faster.
        decode: "rounds", each on its own; or "linked", all reports of a user together (see `linked`).

    Returns:
        The engine, and one sentence that says why.

    Raises:
        ConfigError: the wanted engine would be wrong or can't run, or none can.
    """
    if wanted not in get_args(Wanted):
        raise ConfigError(f"engine={wanted!r} is no engine: choose one of {', '.join(get_args(Wanted))}")
    if decode not in get_args(Decode):
        raise ConfigError(f"decode={decode!r} is no way to decode: choose one of {', '.join(get_args(Decode))}")
    if decode == "linked":
        _check_linked(protocol, collection)
    wrong = obstacle(protocol, collection) or (LINKED if decode == "linked" else None)
    if not collection.rows:
        if wanted == "per_user":
            raise ConfigError(
                "engine=per_user needs the value of every user, and this collection is known by its counts alone: "
                + ("write engine: aggregate" if wrong is None else f"give values user by user (besides, {wrong})")
            )
        if wrong is not None:
            raise ConfigError(
                f"no engine can simulate this: {wrong}, and the per-user engine needs the value of every user, while "
                "this collection is known by its counts alone: give values user by user, or choose another protocol"
            )
        return "aggregate", "only counts are known"
    if wanted == "aggregate" and wrong is not None:
        raise ConfigError(f"engine=aggregate would be wrong here: {wrong}; write engine: per_user (or auto)")
    if wanted != "auto":
        return wanted, "asked for"
    if wrong is not None:
        return "per_user", wrong
    return _faster(protocol, collection)


def exactness(protocol: FrequencyProtocol, collection: Collection, engine: Engine) -> Exactness:
    """What an engine gets right: the "joint" law of all counts, "moments" up to the second, or "marginals" alone."""
    found = {"joint"} if engine == "per_user" else {mechanism.aggregate for mechanism in protocol.mechanisms}
    if len(collection) == 1:
        found -= {"moments"}  # hashes are drawn user by user, so one round's counts are independent
    if "marginals" in found:
        return "marginals"
    return "moments" if "moments" in found else "joint"


def _faster(protocol: FrequencyProtocol, collection: Collection) -> tuple[Engine, str]:
    """The rule."""
    d, tau = len(protocol.domains), len(collection)
    asked = 1 if samples(protocol) else d
    bits = collection.n_users * tau * asked
    draws = 0
    for j, mechanism in enumerate(protocol.mechanisms):
        lemma = lemma_of(mechanism)
        assert lemma is not None, "checked by obstacle"
        if collection.static or not lemma.keeps:
            draws += tau + lemma.keeps
            continue
        groups = whole_groups(collection, j, lemma, most=bits / BITS_PER_DRAW / 2)  # a group takes 2 draws at least
        if groups is None:
            return "per_user", f"users' paths differ so much that {bits:,} single bits a value take less time"
        draws += groups.draws
    if draws < bits / BITS_PER_DRAW:
        return "aggregate", f"{draws:,} binomial draws a value instead of {bits:,} single bits"
    return "per_user", f"{bits:,} single bits a value take less time than {draws:,} binomial draws"


def _check_linked(protocol: FrequencyProtocol, collection: Collection) -> None:
    if not collection.static:
        raise ConfigError(
            "decode=linked takes a user's reports as answers about one unchanged value, and here values change: "
            "write decode: rounds"
        )
    if protocol.asks == "hidden":
        raise ConfigError("decode=linked would take fakes for answers: write decode: rounds")
    for j, mechanism in enumerate(protocol.mechanisms):
        why = unlinkable(mechanism)
        if why is not None:
            raise ConfigError(f"decode=linked does not suit attribute {j}: {why}; write decode: rounds")
