"""The conformance suite for protocols: promises that any of them, ours or a third party's, can be held to.

From the command line, `clearn check l_osue` or `clearn check mypkg.myprotocol:MyClass`; from pytest:

    import pytest
    from clearn.collecting import checks

    @pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
    def test_conforms(check):
        check(checks.subject("mypkg.myprotocol:MyClass"))

Every check asks a small made-up population and raises AssertionError with what was promised and what happened instead.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np

from clearn import plugins
from clearn.binding import bind
from clearn.collecting.experiment import Collecting
from clearn.collecting.loop import category, population
from clearn.collecting.options import CollectOptions
from clearn.errors import ConfigError, DataError
from clearn.folder import LEDGER, SCORES, RunFolder
from clearn.frequency import FrequencyProtocol
from clearn.frequency.audit import audit
from clearn.frequency.candidates import INNER
from clearn.frequency.client import Client
from clearn.frequency.engines import Engine, choose
from clearn.frequency.population import PerUser
from clearn.ledger import CATEGORIES
from clearn.mistakes import Mistake, raise_all
from clearn.promises import held
from clearn.runner import run as run_experiment
from clearn.runner import run_until
from clearn.signatures import parameters
from clearn.state import check_leaf
from clearn.stream import Attribute, Collection, Round

N_USERS, ROUNDS = 600, 3
SIZES = (3, 4)  # values of the made-up attributes; a protocol that answers one gets the last
TRIALS = 20_000
WIDE = 4.5  # standard errors; of the hundred comparisons of one suite none leaves them by chance


@dataclass(frozen=True)
class Subject:
    """A protocol under test.

    Attributes:
        name: as printed.
        cls: its class.
        options: of its constructor.
        domains: of the attributes that it is asked about.
    """

    name: str
    cls: type
    options: tuple[tuple[str, Any], ...]
    domains: tuple[int, ...]

    def make(self) -> FrequencyProtocol:
        """The protocol."""
        protocol = self.cls(self.domains, **dict(self.options))
        assert isinstance(protocol, FrequencyProtocol)
        return protocol.within(lambda cost: None, N_USERS, ROUNDS, "table")


class Toy(Collection):
    """A few hundred users; half of them change one value after the first round and change it back later."""

    def __init__(self, domains: Sequence[int], static: bool, n_users: int = N_USERS, rounds: int = ROUNDS) -> None:
        attributes = [Attribute(f"a{j}", k) for j, k in enumerate(domains)]
        super().__init__(attributes, n_users, rounds, static, True, {"toy": [*domains, n_users, rounds, static]})
        skew = np.random.default_rng(0).random((n_users, len(domains))) ** 2
        self.start = (skew * np.asarray(domains)).astype(np.uint8)

    def round(self, index: int) -> Round:
        """Values, and how many users hold each."""
        values = self.start.copy()
        if not self.static and index % 2:
            values[::2] = (values[::2] + 1) % np.asarray(self.domains, np.uint8)
        counts = tuple(np.bincount(column, minlength=k) for column, k in zip(values.T, self.domains, strict=True))
        return Round(index, counts, values)


def subject(what: str, options: Sequence[str] = ()) -> Subject:
    """Make a subject of a protocol's name or of "module" or "module:Class"; options are "KEY=VALUE", dot form.

    Raises:
        ConfigError: an unknown protocol, or options that it refuses.
    """
    from omegaconf import OmegaConf

    cls = plugins.find("privacy", what) if what in plugins.names("privacy") else plugins.find_reference("privacy", what)
    assert issubclass(cls, FrequencyProtocol)
    errors: list[Mistake] = []
    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)))
    assert isinstance(given, dict)
    bound = bind(cls, {str(key): value for key, value in given.items()}, "option", errors, skip=("domains",))
    raise_all(errors)
    several = cls.for_several or INNER in parameters(cls)
    found = Subject(what, cls, tuple(bound.items()), SIZES if several else SIZES[-1:])
    found.make()
    return found


def check_state_holds_arrays_with_owners(of: Subject) -> None:
    """Whatever users and server carry is an array under 'owner/name', in a known category."""
    for engine in _engines(of, static=True):
        with _Run(of, engine, static=True) as found:
            for name, value in found.folder.read_state(ROUNDS).frozen.tensors.items():
                check_leaf(name, value)
                assert category(name) in CATEGORIES, f"'{name}' is in no category"


def check_rebuild_and_resume_change_nothing(of: Subject) -> None:
    """Rebuilding users and server from the weighed bytes after each round, or stopping and going on, moves no bit."""
    for static in (True, False):
        for engine in _engines(of, static):
            with (
                _Run(of, engine, static) as once,
                _Run(of, engine, static, rebuild=False) as kept,
                _Run(of, engine, static, stop=1) as stopped,
            ):
                assert once.hashes == kept.hashes, f"{engine}: something outside `state()` survives a round"
                assert once.scores == kept.scores, f"{engine}: scores differ with the rebuild and without it"
                assert once.hashes == stopped.hashes, f"{engine}: a stopped run ends otherwise"
                assert once.scores == stopped.scores, f"{engine}: a stopped run scores otherwise"


def check_ledger_equals_file(of: Subject) -> None:
    """The bytes in the ledger are the array bytes in the state file, and its rows add up to them."""
    for engine in _engines(of, static=True):
        with _Run(of, engine, static=True) as found:
            for step in range(1, ROUNDS + 1):
                blob = found.folder.state_path(step).read_bytes()
                payload = len(blob) - 8 - int.from_bytes(blob[:8], "little")
                rows = [row for row in found.folder.rows(LEDGER) if row["step"] == step]
                total = sum(row["bytes"] for row in rows if row["kind"] == "bytes")
                figures = next(row for row in rows if row["kind"] == "figures")
                assert total == figures["delta"] == payload, f"round {step}: rows {total}, file {payload} bytes"


def check_estimates_are_unbiased_with_the_stated_variance(of: Subject) -> None:
    """Over repeats, estimates lie around the truth, and their spread is that of the closed form, in every engine."""
    protocol, collection, repeats = of.make(), Toy(of.domains, static=True, rounds=1), 200
    asked = collection.round(0)
    for engine in _engines(of, static=True):
        estimates: list[list[Any]] = [[] for _ in of.domains]
        expected: list[list[float]] = [[] for _ in of.domains]
        for repeat in range(repeats):
            rng = np.random.default_rng(repeat)
            for j, tally in enumerate(population(engine, protocol, collection, rng, "table").report(asked, rng)):
                if tally.n:
                    truth = _truth(protocol, asked, j)
                    estimates[j].append(protocol.estimate(j, tally) - truth)
                    expected[j].append(protocol.expected_mse(j, tally.n, N_USERS, truth))
        for j in range(len(of.domains)):
            errors = np.array(estimates[j])
            bias = errors.mean(0) / (errors.std(0, ddof=1) / np.sqrt(len(errors)))
            assert np.abs(bias).max() < WIDE, f"{engine}: estimates of attribute {j} are biased, z = {bias.round(1)}"
            squares = (errors**2).mean(1)
            z = (squares.mean() - np.mean(expected[j])) / (squares.std(ddof=1) / np.sqrt(len(squares)))
            assert abs(z) < WIDE, (
                f"{engine}: MSE {squares.mean():.4g}, closed form {np.mean(expected[j]):.4g}, z {z:.1f}"
            )


def check_losses_grow_to_what_is_promised(of: Subject) -> None:
    """The exact loss grows with reports, from eps_1 to eps_inf at most; where it is otherwise a warning says so."""
    protocol = of.make()
    losses = [protocol.loss(t) for t in (1, 2, 4, 8)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(losses)), f"losses shrink: {losses}"
    assert losses[-1] <= protocol.loss_for_ever() * (1 + 1e-9), f"{losses} above {protocol.loss_for_ever()} for ever"
    promised, first = protocol.budgets.eps_inf, protocol.budgets.eps_1
    kept = losses[0] <= first * (1 + 1e-6) and (protocol.one_shot or protocol.loss_for_ever() <= promised * (1 + 1e-6))
    assert kept or protocol.warnings(), f"losses {losses} exceed eps_1={first}, eps_inf={promised}, and nothing says so"


def check_attacks_prove_no_more_than_the_loss(of: Subject) -> None:
    """What an attack on the device's own code proves stays within the exact loss."""
    protocol = of.make()
    if any(mechanism.simulation_only for mechanism in protocol.mechanisms):
        return  # there is no device to attack
    for rounds in (1, 2):
        found = audit(protocol, 0, 1, trials=TRIALS, rounds=rounds, confidence=0.9999)
        assert found.holds, f"{rounds} reports prove a loss of {found.eps_lower:.3f}, above {found.eps_exact:.3f}"


def check_devices_keep_what_the_cost_card_says(of: Subject) -> None:
    """The secret bits in the devices' real buffers are those of the formula, user by user."""
    protocol, collection = of.make(), Toy(of.domains, static=False)
    if "per_user" not in _engines(of, static=False):
        return
    users = PerUser(protocol, collection, np.random.default_rng(0))
    met: list[list[Any]] = [[] for _ in of.domains]
    for asked in collection:
        users.report(asked, np.random.default_rng(asked.index))
        for j, cells in enumerate(users.cells(asked)):
            met[j].append(cells)
    expected = np.zeros(N_USERS, np.int64)
    for j, mechanism in enumerate(protocol.mechanisms):
        held = np.stack(met[j], axis=1)
        distinct = np.array([len(set(row)) for row in held.tolist()])
        bits = [mechanism.state_bits(int(n)) for n in distinct]
        expected[users.devices.members[j]] += np.asarray(bits, np.int64)
    assert np.array_equal(users.client_bits(), expected), "devices keep other bits than `Mechanism.state_bits` says"


def check_bad_values_are_refused(of: Subject) -> None:
    """Values out of range, of another shape, or no integers: one clear error before anything is drawn."""
    protocol, collection = of.make(), Toy(of.domains, static=True)
    if "per_user" not in _engines(of, static=True):
        return
    users = PerUser(protocol, collection, np.random.default_rng(0))
    good = collection.round(0)
    assert good.values is not None
    for wrong in (good.values + 200, good.values[:-1], good.values.astype(float), good.values.astype(int) - 9):
        before = json.dumps({k: v.tolist() for k, v in users.state().items()})
        try:
            users.report(Round(0, good.counts, wrong), np.random.default_rng(0))
        except DataError:
            after = json.dumps({k: v.tolist() for k, v in users.state().items()})
            assert before == after, "a refused round left something behind"
        else:
            raise AssertionError(f"values {wrong.dtype} {wrong.shape} up to {wrong.max()} were taken")


def check_a_device_survives_a_restart(of: Subject) -> None:
    """A real client written to bytes and read again answers on from the same memo, and its reports can be read."""
    protocol = of.make()
    if not _has_device(protocol):
        return
    client = Client(protocol)
    for _ in range(2):
        client.report([0] * len(of.domains)).to_bytes()
    kept = client.to_bytes()
    assert Client.from_bytes(protocol, kept).to_bytes() == kept, "a client read from its bytes writes others"


ALL: tuple[Callable[[Subject], None], ...] = tuple(
    value for name, value in list(globals().items()) if name.startswith("check_") and name != "check_leaf"
)


def _engines(of: Subject, static: bool) -> list[Engine]:
    """The engines that are right for a protocol."""
    protocol, collection = of.make(), Toy(of.domains, static)
    found: list[Engine] = []
    for engine in get_args(Engine):
        try:
            choose(protocol, collection, engine)
        except ConfigError:
            continue
        found.append(engine)
    assert found, "no engine takes this protocol"
    return found


def _has_device(protocol: FrequencyProtocol) -> bool:
    """Whether there is a real client: noise may leak, and groups of equal size need all users at once."""
    several = protocol.asks != "all" and len(protocol.domains) > 1
    leaks = any(mechanism.simulation_only for mechanism in protocol.mechanisms)
    return not leaks and not (several and protocol.split == "equal")


def _truth(protocol: FrequencyProtocol, asked: Round, attribute: int) -> Any:
    counts = protocol.mechanisms[attribute].coarse(asked.counts[attribute])
    return counts / counts.sum()


class _Run:
    """A run of the toy collection in a folder that lives as long as the block."""

    def __init__(self, of: Subject, engine: Engine, static: bool, rebuild: bool = True, stop: int = 0) -> None:
        self.of, self.engine, self.static, self.rebuild, self.stop = of, engine, static, rebuild, stop

    def _experiment(self) -> Collecting:
        """Make everything anew, as another process would that goes on with a run."""
        options = CollectOptions(rebuild=self.rebuild, engine=self.engine, repeats=2)
        config = {"protocol": {"name": self.of.name, "engine": self.engine}, "seed": 3}
        toy = Toy(self.of.domains, self.static)
        return Collecting(toy, self.of.make(), options=options, seed=3, config=config, name=self.of.name)

    def __enter__(self) -> _Run:
        with ExitStack() as stack:  # which removes the folder where a protocol under test raises
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearn-checks-")), "run")
            if self.stop:
                run_until(self._experiment(), path, self.stop)
            run_experiment(self._experiment(), path)
            self.folder = RunFolder(path, "numpy")
            figures = [row for row in self.folder.rows(LEDGER) if row["kind"] == "figures"]
            self.hashes = [row["sha256"] for row in figures]
            self.scores = self.folder.rows(SCORES)
            assert len(self.hashes) == ROUNDS, f"{len(self.hashes)} of {ROUNDS} rounds were carried out"
            self._holder = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.close()


def run(of: Subject) -> Iterator[tuple[str, str | None]]:
    """Run all checks; give (what is promised, None or what happened instead) one by one."""
    return held(of, ALL)
