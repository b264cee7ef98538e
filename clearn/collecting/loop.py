"""A step of collecting: users report, freeze, weigh, write, forget the objects, rebuild them from the bytes, score.

What is carried is what real parties would carry: every device's permanent answers (or key), and the server's counts.
The true values and the attribute sizes are the stream's and the protocol's, which are public here.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from clearn import seeds
from clearn.collecting.linking import Links
from clearn.collecting.options import POSTS
from clearn.collecting.server import Server
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.frequency.accounting import Accountant, Figure, Summary, cost
from clearn.frequency.aggregate import Aggregate
from clearn.frequency.engines import Engine
from clearn.frequency.mechanism import Array, Floats, Tally
from clearn.frequency.memo import MemoKind
from clearn.frequency.population import PerUser, Population
from clearn.frequency.postprocess import postprocess
from clearn.frequency.protocol import FrequencyProtocol, Post
from clearn.ledger import account
from clearn.progress import Progress
from clearn.runner import Loop, cpu_seconds, ledger_rows
from clearn.state import Frozen, State, decode, encode, freeze, thaw
from clearn.stream import Collection, Round

if TYPE_CHECKING:
    from clearn.collecting.experiment import Collecting

CATEGORIES = {"known": "index", "key": "keys", "public": "keys", "attribute": "meta"}  # all else of clients is memo


Errors = dict[str, list[float | None]]


class CollectingLoop(Loop):
    """All repeats of a collection on their way through its rounds."""

    arrays = "numpy"

    def __init__(self, experiment: Collecting, folder: RunFolder, progress: Progress) -> None:
        super().__init__(folder, progress, experiment.steps)
        self.experiment = experiment
        self.spent: list[Summary] = []
        self.populations: list[Population] = []
        self.links: list[Links] = []
        self.server = self._server()

    def _server(self) -> Server:
        slots = tuple(mechanism.slots for mechanism in self.experiment.protocol.mechanisms)
        return Server(self.experiment.options.repeats, slots)

    def reset(self) -> None:
        """No users, no counts."""
        self.populations, self.links, self.server = [], [], self._server()

    def restore(self, frozen: Frozen, step: int) -> None:
        """Rebuild users and server from what was written."""
        state = thaw(frozen)
        self.reset()
        self.server.load(state, step)
        for repeat in range(self.experiment.options.repeats):
            mark = f"@{repeat:05d}"
            own = {name.removesuffix(mark): value for name, value in state.items() if name.endswith(mark)}
            self._populate(repeat)
            self.populations[repeat].load(own)
            if self.links:
                self.links[repeat].load(own)

    def _populate(self, repeat: int) -> None:
        """Draw the users of one repeat."""
        of = self.experiment
        rng = seeds.numpy_generator(of.seed, 0, f"users/{repeat}")
        users = population(of.engine, of.protocol, of.collection, rng, of.options.memo)
        self.populations.append(users)
        if of.options.decode == "linked":
            assert isinstance(users, PerUser), "checked when the engine was chosen"
            self.links.append(Links(of.protocol, users, of.steps))

    def state(self) -> State:
        """Everything carried: each repeat's users, and the server's counts."""
        found = self.server.state()
        for repeat, population in enumerate(self.populations):
            own = population.state() | (self.links[repeat].state() if self.links else {})
            found |= {f"{name}@{repeat:05d}": value for name, value in own.items()}
        return found

    def step(self, index: int) -> None:
        """Ask one round, leave everything behind, and score from what was written."""
        experiment = self.experiment
        cpu, clock = cpu_seconds(), time.perf_counter()
        seconds: dict[str, float] = {}

        def lap(name: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            seconds[name], clock = now - clock, now

        asked = experiment.collection.round(index)
        self.progress.round(index, experiment.collection.n_users, experiment.options.repeats)
        lap("data")
        if not self.populations:
            for repeat in range(experiment.options.repeats):
                self._populate(repeat)
        self.server.add([self._ask(repeat, asked) for repeat in range(experiment.options.repeats)])
        lap("report")
        held = [population.client_bits() for population in self.populations]
        frozen = freeze(self.state())
        weights = account(frozen, category)
        blob = encode(frozen)
        digest = self.folder.write_state(index + 1, blob)
        lap("write")
        if experiment.options.rebuild:
            self.restore(decode(blob, torch=False), index + 1)
        lap("rebuild")
        rows = self.scores(index)
        lap("evaluate")
        self.folder.add_rows(SCORES, rows)
        figures = {
            "framing": len(blob) - weights.carried,
            "budget": experiment.budget.limit,
            "slack": None,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds() - cpu,
            "rebuilt": experiment.options.rebuild,
            "sha256": digest,
            **self.figures(index, held, weights.rows()),
        }
        self.folder.add_rows(LEDGER, ledger_rows(index + 1, weights, figures))
        for row in () if index else rows:  # who answers what never changes
            errors = row["se"]["none"]
            if None in errors:
                self.progress.note(
                    f"{row['probe']!r} has no estimate in {errors.count(None)} of {len(errors)} repeats, where nobody "
                    "answers it, or one of its buckets: ask more users, or fewer attributes"
                )
        known = [[error for error in row["se"][row["headline"]] if error is not None] for row in rows]
        means = [np.mean(errors) for errors in known if errors]
        error = float(np.mean(means)) if means else math.nan
        guess = float(np.mean([row["uniform"] for row in rows]))
        self.progress.collected(error, guess, -(-experiment.cost.client_worst // 8))

    def _ask(self, repeat: int, asked: Round) -> list[Tally]:
        """One round of one repeat."""
        rng = seeds.numpy_generator(self.experiment.seed, asked.index, f"report/{repeat}")
        return self.populations[repeat].report(asked, rng, self.links[repeat].note if self.links else None)

    def scores(self, index: int) -> list[dict[str, Any]]:
        """The errors of this round's estimates, and of the mean of all rounds' where no value ever changes."""
        of = self.experiment
        truth, found = of.collection.round(index).counts, []
        for j, attribute in enumerate(of.collection.attributes):
            counts = of.protocol.mechanisms[j].coarse(truth[j])
            f = counts / counts.sum()
            ns, se = self._errors(j, f, slice(index, index + 1))
            running = None
            if of.collection.static:
                running = self._errors(j, f, slice(0, index + 1))[1] if index else se
            found.append(
                {
                    "step": index + 1,
                    "kind": "frequencies",
                    "probe": attribute.name,
                    "attribute": j,
                    "k": len(f),
                    "n": ns,
                    "se": se,
                    "running": running,
                    "linked": self._linked(j, f, ns, index + 1) if self.links else None,
                    "expected": self._expected(j, f, ns, 1),
                    "expected_running": None if running is None else self._expected(j, f, ns, index + 1),
                    "uniform": float(np.mean((f - 1 / len(f)) ** 2)),
                    "headline": self._headline,
                    "engine": of.engine,
                }
            )
        return found

    def _expected(self, attribute: int, f: Floats, ns: list[int], rounds: int) -> float | None:
        """The closed form for the mean of so many rounds, averaged over repeats; None where there is none."""
        of = self.experiment
        errors = [of.protocol.expected_mse(attribute, n, of.collection.n_users, f, rounds) for n in ns]
        known = [error for error in errors if np.isfinite(error)]
        return float(np.mean(known)) if known else None

    @property
    def _headline(self) -> Post:
        return self.experiment.options.post or self.experiment.protocol.post

    def _errors(self, attribute: int, f: Floats, rounds: slice) -> tuple[list[int], Errors]:
        """Users who answered, and the errors of estimates from the sum of some rounds."""
        repeats = range(self.experiment.options.repeats)
        tallies = [self.server.tally(repeat, attribute, rounds) for repeat in repeats]
        ns = [tally.n // (rounds.stop - rounds.start) for tally in tallies]
        raw = [self.experiment.protocol.estimate(attribute, tally) for tally in tallies]
        return ns, self._squared(attribute, raw, f, ns)

    def _linked(self, attribute: int, f: Floats, ns: list[int], rounds: int) -> Errors:
        """The errors of estimates from all reports of each user, decoded together."""
        return self._squared(attribute, [links.estimate(attribute, rounds) for links in self.links], f, ns)

    def _squared(self, attribute: int, raw: list[Floats], f: Floats, ns: list[int]) -> Errors:
        """Mean squared errors by post-processing, one per repeat; None where nobody answered."""
        names: dict[Post, None] = dict.fromkeys((*POSTS, self._headline))
        errors: Errors = {name: [] for name in names}
        for estimate, n in zip(raw, ns, strict=True):
            for name in names:
                processed = postprocess(name, estimate, self.experiment.protocol, attribute, n)
                error = float(np.mean((processed - f) ** 2))
                errors[name].append(None if np.isnan(error) else error)
        return errors

    def figures(self, index: int, held: list[Array | None], weights: dict[tuple[str, str], int]) -> dict[str, Any]:
        """What the ledger's row of figures says of users, costs and losses."""
        of, protocol, card = self.experiment, self.experiment.protocol, self.experiment.cost
        repeats = of.options.repeats
        spent = self.losses()[index]
        bits = held[0]  # of the first repeat, as the losses are
        met = cost(protocol, of.collection.n_users, of.steps, spent.met, of.options.memo).client_now
        return {
            "engine": of.engine,
            "exactness": of.exactness,
            "users": of.collection.n_users,
            "repeats": repeats,
            "client": {
                "now_mean": met,
                "worst": card.client_worst,
                "public": card.client_public,
                "measured_mean": None if bits is None else float(bits.mean()),
                "measured_max": None if bits is None else int(bits.max()),
            },
            "setup_bits": card.bits_setup,
            "round_bits": card.bits_round,
            "server_bytes": sum(size for (owner, _), size in weights.items() if owner == "server") / repeats,
            "loss": {
                "static": _figure(spent.static),
                "memo": _figure(spent.memo),
                "any": _figure(spent.any)["max"],
                "literature": _figure(spent.literature),
            },
            "distinct_mean": spent.distinct.mean,
            "budgets": {
                "eps_inf": protocol.budgets.eps_inf,
                "eps_1": protocol.budgets.eps_1,
                "eps_inf_effective": _finite(protocol.loss_for_ever()),
                "eps_1_effective": protocol.loss(1),
            },
            "profile": protocol.profile,
            "protocol": of.name,
            "choices": ({"chosen": protocol.reason} if protocol.reason else {}) | protocol.choices(),
            "warnings": protocol.warnings(),
        }

    def losses(self) -> list[Summary]:
        """What users have lost after each round: of the first repeat, whose users chose attributes and hashes."""
        if not self.spent:
            of, first = self.experiment, self.populations[0]
            accountant = Accountant(of.protocol, of.steps)
            if of.collection.static:
                after = accountant.unchanged(first.answering())
            else:
                rounds = [first.cells(asked) for asked in of.collection]
                after = accountant.over([np.stack(held, axis=1) for held in zip(*rounds, strict=True)])
            self.spent = [spent.summary() for spent in after]
        return self.spent


def population(
    engine: Engine, protocol: FrequencyProtocol, collection: Collection, rng: np.random.Generator, memo: MemoKind
) -> Population:
    """Make users; what is drawn once (attributes, hash seeds, keys, all permanent answers at once) comes from rng."""
    if engine == "aggregate":
        return Aggregate(protocol, collection, rng)
    return PerUser(protocol, collection, rng, memo=memo)


def category(name: str) -> str:
    """The ledger's category of an entry."""
    owner, _, rest = name.partition("/")
    return "counts" if owner == "server" else CATEGORIES.get(rest.partition("@")[0].partition(".")[0], "memo")


def _figure(figure: Figure) -> dict[str, float | None]:
    return {"mean": _finite(figure.mean), "max": _finite(figure.max)}


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if np.isfinite(value) else None
