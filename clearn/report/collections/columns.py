"""The numbers that a group of collection runs is compared by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

from clearn.metrics import Spread, spread
from clearn.report.collections.grouping import CollectionGroup
from clearn.report.collections.runs import CollectionRun, RoundFigures
from clearn.report.columns import Column, Kind

CollectionColumn = Column[CollectionGroup]

WORSE = "worse than guessing"
POSTS = {
    "none": "of the unbiased estimates as they are, which may be negative",
    "norm_mul": "of estimates clipped at 0 and divided by their sum",
    "norm_sub": "of estimates projected onto frequencies: 0 or more, with sum 1",
}


def columns(groups: Sequence[CollectionGroup]) -> list[CollectionColumn]:
    """Give the columns that any of the groups fills."""
    found = [*error_columns(posts(groups)), *privacy_columns(), *cost_columns(), *simulation_columns()]
    return [column for column in found if any(column.value(group) for group in groups)]


def posts(groups: Sequence[CollectionGroup]) -> list[str]:
    """Give the post-processings that any finished run was scored after."""
    return list(dict.fromkeys(post for group in groups if group.n for post in group.posts))


def error_columns(scored: Sequence[str]) -> list[CollectionColumn]:
    """Give MSE_avg after each post-processing, in closed form, and of the uniform guess."""

    def of(post: str) -> CollectionColumn:
        def value(group: CollectionGroup) -> Spread | None:
            return group.error(post)

        note = f"mean squared error {POSTS.get(post, f'after {post}')}; mean and deviation over repeats"
        return Column(f"mse_avg.{post}", post, "error", "error", value, note, post, flag=_worse(value))

    def constant(pick: Callable[[CollectionGroup], float | None]) -> Callable[[CollectionGroup], Spread | None]:
        return lambda group: spread([pick(group)]) if group.n else None

    expected, uniform = constant(lambda group: group.expected), constant(lambda group: group.uniform)
    closed = "closed form of the mean squared error before post-processing, at the true frequencies"
    guess = "mean squared error of saying 1/k for each of k values, without asking anybody"
    return [
        *map(of, scored),
        Column("mse_avg.expected", "expected", "error", "error", expected, closed),
        Column("mse_avg.uniform_guess", "uniform guess", "error", "error", uniform, guess),
        Column("mse_avg.mean_of_rounds", "mean of rounds", "error", "error", _all_rounds(linked=False),
               "the same of the mean of all rounds' estimates, where no value ever changes"),
        Column("mse_avg.linked", "linked", "error", "error", _all_rounds(linked=True),
               "the same of all reports of each user, decoded together"),
    ]  # fmt: skip


def _all_rounds(linked: bool) -> Callable[[CollectionGroup], Spread | None]:
    """Give the error after the last round of what several rounds say together, after the judged post-processing."""

    def value(group: CollectionGroup) -> Spread | None:
        found = group.so_far(group.headline or "none", linked) if group.rounds > 1 else []
        return found[-1] if found else None

    return value


def _worse(value: Callable[[CollectionGroup], Spread | None]) -> Callable[[CollectionGroup], str]:
    def flag(group: CollectionGroup) -> str:
        found, uniform = value(group), group.uniform
        return WORSE if found and uniform is not None and found.mean > uniform else ""

    return flag


def _last(
    key: str, title: str, part: str, kind: Kind, pick: Callable[[RoundFigures], float | None], note: str
) -> CollectionColumn:
    """Give a figure of the last round, summarised over runs."""
    return Column(key, title, part, kind, lambda group: group.spread(lambda run: pick(run.figures[-1])), note)


def privacy_columns() -> list[CollectionColumn]:
    """Give what the first report, all of them, and the rounds that were run lose."""
    first = _last("eps_1_effective", "first report", "privacy", "loss", lambda last: last.eps_1_effective,
                  "exact loss of the first report, by the rounded probabilities in use")  # fmt: skip
    ever = _last("eps_inf_effective", "for ever", "privacy", "loss", lambda last: last.eps_inf_effective,
                 "exact loss after infinitely many reports of one unchanged value")  # fmt: skip
    return [
        replace(first, flag=lambda group: _over("eps_1", group.eps_1, first.value(group))),
        replace(ever, flag=lambda group: _over("eps_inf", group.eps_inf, ever.value(group))),
        _last("loss_static", "static", "privacy", "loss", lambda last: last.static.mean,
              "eps_static after the last round, mean over users: as if each had kept its first value"),
        _last("loss_memo", "memo, mean", "privacy", "loss", lambda last: last.memo.mean,
              "eps_memo after the last round, mean over users: against trajectories that change when theirs do"),
        _last("loss_memo_max", "memo, max", "privacy", "loss", lambda last: last.memo.max,
              "eps_memo after the last round, of the user who lost most"),
        _last("loss_any", "any", "privacy", "loss", lambda last: last.any,
              "eps_any after the last round: a bound for any two trajectories"),
    ]  # fmt: skip


def _over(name: str, budget: float | None, exact: Spread | None) -> str:
    """Flag an exact loss that is finite and above its budget; what is infinite speaks for itself."""
    above = budget is not None and exact is not None and budget * (1 + 1e-6) < exact.mean < inf
    return f"over {name}" if above else ""


def more_privacy_columns() -> list[CollectionColumn]:
    """Give what only the CSV tells of losses."""
    return [
        _last("loss_static_max", "static, max", "privacy", "loss", lambda last: last.static.max,
              "eps_static after the last round, of the user who lost most"),
        _last("loss_literature", "literature, mean", "privacy", "loss", lambda last: last.literature.mean,
              "number of values (or cells) met times eps_inf, mean over users"),
        _last("loss_literature_max", "literature, max", "privacy", "loss", lambda last: last.literature.max,
              "the same of the user who met most"),
        _last("distinct", "values met", "privacy", "loss", lambda last: last.distinct,
              "values (or cells) that have a permanent answer, mean over users"),
    ]  # fmt: skip


def cost_columns() -> list[CollectionColumn]:
    """Give what a device keeps and sends, and what the server keeps; bytes as bits / 8."""
    return [
        _last("client_bytes_now", "secret, now", "cost", "bytes", lambda last: _bytes(last.client_now),
              "secret bytes on a device after the last round, by the formulas, mean over users"),
        _last("client_bytes_measured", "measured", "cost", "bytes", lambda last: _bytes(last.client_measured),
              "the same from the buffers of simulated devices"),
        _last("client_bytes_worst", "secret, worst", "cost", "bytes", lambda last: _bytes(last.client_worst),
              "the most secret bytes that a device may ever hold"),
        _last("client_bytes_public", "public", "cost", "bytes", lambda last: _bytes(last.client_public),
              "bytes that a device keeps and that are no secret, such as a hash seed"),
        _last("setup_bits", "bits, once", "cost", "bits", lambda last: last.setup_bits,
              "bits that a user sends once: its attribute, its hash seed, its buckets"),
        _last("round_bits", "bits, a round", "cost", "bits", lambda last: last.round_bits,
              "bits of one user's report"),
        _last("server_bytes", "server", "cost", "bytes", lambda last: last.server_bytes,
              "bytes that the server keeps after the last round, of one repeat"),
        _last("budget", "budget", "cost", "bytes", lambda last: last.budget,
              "secret bytes that a device may hold"),
    ]  # fmt: skip


def simulation_columns() -> list[CollectionColumn]:
    """Give how the run went on our machine: none of it is asked of real users."""

    def column(
        key: str, title: str, kind: Kind, pick: Callable[[CollectionRun], float | None], note: str
    ) -> CollectionColumn:
        return Column(key, title, "simulation", kind, lambda group: group.spread(pick), note)

    return [
        column("users", "users", "count", lambda run: run.figures[-1].users, "in the population"),
        column("rounds", "rounds", "count", lambda run: len(run.figures), "reports that each of them made"),
        column("bytes_total", "carried", "bytes", lambda run: run.figures[-1].total,
               "bytes carried after the last round by users and server of all repeats, as the ledger weighs them"),
        column("report_seconds", "report", "seconds", report_seconds, "wall seconds of all reports of all repeats"),
        column("reports_per_second", "reports/s", "rate", _speed, "users x rounds x repeats per second of reporting"),
        column("peak_host", "peak host", "bytes", _peak,
               "largest high-water mark of host memory in a round, above its start"),
    ]  # fmt: skip


def _bytes(bits: float | None) -> float | None:
    return None if bits is None else bits / 8


def report_seconds(run: CollectionRun) -> float | None:
    """Sum the wall seconds of reporting over the rounds; None if never measured."""
    taken = [step.seconds["report"] for step in run.figures if "report" in step.seconds]
    return sum(taken) if taken else None


def _speed(run: CollectionRun) -> float | None:
    seconds = report_seconds(run)
    reports = sum((step.users or 0) * (step.repeats or 1) for step in run.figures)
    return reports / seconds if seconds and reports else None


def _peak(run: CollectionRun) -> float | None:
    return max((step.peak_host for step in run.figures if step.peak_host is not None), default=None)
