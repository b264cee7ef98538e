"""A run of a protocol over a collection: squared errors per round, attribute and repeat, and what each round cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from clearn.metrics import spread
from clearn.report.collections.errors import Errors
from clearn.report.runs import Figures, Row, Run, common, known, section, whole_steps


@dataclass(frozen=True)
class Extent:
    """A number that differs between users; infinite where nothing bounds it, None where it was not computed."""

    mean: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class RoundFigures(Figures):
    """What one round weighed and took, and what it cost users and server. None: not told.

    Attributes:
        engine: "aggregate" or "per_user".
        exactness: what that engine gets right: "joint", "moments" or "marginals".
        users: in the population.
        repeats: independent collections of the same data.
        client_now: secret bits that a device holds now, by the formulas, mean over users.
        client_worst: the most it may ever hold.
        client_public: bits it keeps that are no secret, such as a hash seed.
        client_measured: secret bits, mean over users, from the buffers of simulated devices.
        setup_bits: sent once.
        round_bits: sent in each round.
        server_bytes: kept by the server, of one repeat.
        static: loss of users as if they had kept their first value.
        memo: loss of users against trajectories that change when theirs do.
        literature: number of memoised values or cells met, times eps_inf.
        any: bound on the loss between two arbitrary trajectories.
        distinct: values or cells met so far, mean over users.
        eps_inf: promised for ever.
        eps_1: promised of the first report.
        eps_inf_effective: lost for ever by the probabilities in use; infinite for an oracle that spends anew.
        eps_1_effective: lost with the first report by them.
        profile: "best" or "paper", where a protocol has both.
        choices: what the protocol decided from public numbers.
        warnings: of the protocol, a sentence each.
    """

    engine: str | None = None
    exactness: str | None = None
    users: int | None = None
    repeats: int | None = None
    client_now: float | None = None
    client_worst: float | None = None
    client_public: float | None = None
    client_measured: float | None = None
    setup_bits: float | None = None
    round_bits: float | None = None
    server_bytes: float | None = None
    static: Extent = Extent()
    memo: Extent = Extent()
    literature: Extent = Extent()
    any: float | None = None
    distinct: float | None = None
    eps_inf: float | None = None
    eps_1: float | None = None
    eps_inf_effective: float | None = None
    eps_1_effective: float | None = None
    profile: str | None = None
    choices: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CollectionRun(Run):
    """One run folder of a protocol.

    Attributes:
        errors: of its estimates; None where no round was scored.
    """

    word: ClassVar[str] = "round"

    figures: tuple[RoundFigures, ...] = ()
    errors: Errors | None = None

    @classmethod
    def from_rows(cls, path: Path, config: Row, environment: Row, scores: list[Row], ledger: list[Row]) -> Self:
        categories, weighed = whole_steps(ledger)
        return cls(
            path=path,
            config=config,
            environment=environment,
            headline=next((str(row["headline"]) for row in scores if row.get("headline")), None),
            categories=categories,
            figures=tuple(map(_figures, weighed)),
            errors=Errors.from_rows(scores),
        )

    @property
    def scored(self) -> int:
        return 0 if self.errors is None else len(self.errors)

    @property
    def seeds(self) -> tuple[Any, ...]:
        """(simulation seed, seed of the order of values)."""
        return self.config.get("seed"), section(self.config, "stream").get("order_seed")

    @cached_property
    def numbers(self) -> dict[str, dict[str, float | None]]:
        """By post-processing, "mse_avg", the mean over this run's repeats."""
        if self.errors is None:
            return {}
        found = {post: spread(self.errors.average(post)) for post in self.errors.squared}
        return {post: {"mse_avg": None if one is None else one.mean} for post, one in found.items()}


def _figures(row: Row) -> RoundFigures:
    client, loss, budgets = (_part(row, name) for name in ("client", "loss", "budgets"))
    return RoundFigures(
        **common(row),
        engine=known(row, "engine", str),
        exactness=known(row, "exactness", str),
        users=known(row, "users", int),
        repeats=known(row, "repeats", int),
        client_now=known(client, "now_mean", float),
        client_worst=known(client, "worst", float),
        client_public=known(client, "public", float),
        client_measured=known(client, "measured_mean", float),
        setup_bits=known(row, "setup_bits", float),
        round_bits=known(row, "round_bits", float),
        server_bytes=known(row, "server_bytes", float),
        static=_extent(loss, "static"),
        memo=_extent(loss, "memo"),
        literature=_extent(loss, "literature"),
        any=_bound(loss, "any"),
        distinct=known(row, "distinct_mean", float),
        eps_inf=known(budgets, "eps_inf", float),
        eps_1=known(budgets, "eps_1", float),
        eps_inf_effective=_bound(budgets, "eps_inf_effective"),
        eps_1_effective=_bound(budgets, "eps_1_effective"),
        profile=known(row, "profile", str),
        choices={str(name): str(text) for name, text in _part(row, "choices").items()},
        warnings=tuple(str(text) for text in row.get("warnings") or ()),
    )


def _part(row: Row, name: str) -> dict[str, Any]:
    found = row.get(name) or {}
    if not isinstance(found, dict):
        raise TypeError(f"{name} of ledger.jsonl, step {row.get('step')}, holds {found!r}, not a mapping")
    return found


def _extent(loss: Row, name: str) -> Extent:
    of_one = _part(loss, name)
    return Extent(_bound(of_one, "mean"), _bound(of_one, "max"))


def _bound(row: Row, name: str) -> float | None:
    """Read a loss: null is written for infinity, which JSON does not have; None where there is no such entry."""
    if name not in row:
        return None
    return math.inf if row[name] is None else float(row[name])
