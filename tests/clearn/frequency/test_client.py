"""Real devices: the operating system's coins alone, messages that a server counts or refuses, and a memo that lasts."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clearn.frequency.client as module
from clearn.errors import ConfigError, DataError, StateError
from clearn.frequency import Hashed, Rates
from clearn.frequency.buckets import Buckets
from clearn.frequency.client import HEAD, Client, Fleet, Receiver, Report
from clearn.frequency.coins import SimulatedCoins, SystemCoins
from clearn.frequency.hadamard import Hadamard
from clearn.frequency.laplace import Laplace
from clearn.frequency.population import PerUser
from clearn.frequency.subset import Subset
from clearn.plugins import find

pytestmark = pytest.mark.usefixtures("urandom")
quick = settings(max_examples=60, deadline=None, database=None)
MEMOS = ["prf", "table"]


def kinds(make: Any) -> dict[str, Any]:
    half = Rates.of(0.6, 0.5)
    return {
        "unary": make.unary(11),
        "symbol": make.symbol(11),
        "hashed": make.hashed(11, 3),
        "olh": make.one_shot(make.hashed(11, 3)),
        "buckets": Buckets(11, 5, 2, Rates.of(0.7, 0.3), expected=False),
        "subset": Subset(11, 3, Rates.of(0.5, 0.25)),
        "hadamard": Hadamard(11, half),
    }


# What a client is made of


def test_no_argument_lets_a_seed_in() -> None:
    assert list(inspect.signature(Client).parameters) == ["protocol", "memo"]
    assert list(inspect.signature(Client.report).parameters) == ["self", "values"]
    assert list(inspect.signature(Client.from_bytes).parameters) == ["protocol", "blob"]
    assert not [name for name, value in vars(module).items() if value is SimulatedCoins]


def test_a_client_and_a_simulation_have_no_type_in_common() -> None:
    assert set(Client.__mro__) & set(PerUser.__mro__) == {object}


@pytest.mark.parametrize("memo", MEMOS)
def test_every_coin_is_the_operating_systems(make: Any, memo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = make.protocol(make.hashed(50, 30), make.hashed(50, 30), asks="one")
    asked: list[int] = []
    monkeypatch.setattr("clearn.frequency.coins.os.urandom", lambda size: asked.append(size) or bytes(size))
    monkeypatch.setattr(np.random, "default_rng", lambda *_: pytest.fail("numpy's generators are no secret"))
    reports = [Client(protocol, memo).report([7, 7]).to_bytes() for _ in range(3)]
    assert len(set(reports)) == 1  # with the coins held still nothing else moves
    assert sum(asked) > 0
    monkeypatch.setattr("clearn.frequency.coins.os.urandom", _bytes(5))
    assert len({Client(protocol, memo).report([7, 7]).to_bytes() for _ in range(20)}) == 20


def _bytes(seed: int) -> Any:
    return np.random.Generator(np.random.PCG64(seed)).bytes


def test_simulation_only_and_equal_groups_are_refused(make: Any) -> None:
    noisy = make.protocol(Laplace(4, 2.0))
    for kind in (Client, Receiver):
        with pytest.raises(ConfigError, match="Toy is for simulation only"):
            kind(noisy)
    with pytest.raises(ConfigError, match="split=equal needs all users at once"):
        Client(make.protocol(make.unary(3), make.unary(3), asks="one", split="equal"))
    with pytest.raises(ConfigError, match="memo='disk' must be"):
        Client(make.protocol(make.unary(3)), "disk")  # type: ignore[arg-type]


# Messages


@pytest.mark.parametrize("kind", ["unary", "symbol", "hashed", "olh", "buckets", "subset", "hadamard"])
def test_a_report_comes_back_from_its_bytes_and_is_counted(make: Any, kind: str) -> None:
    mechanism = kinds(make)[kind]
    protocol = make.protocol(mechanism)
    client, receiver = Client(protocol), Receiver(protocol)
    for value in range(11):
        report = client.report([value])
        blob = report.to_bytes()
        assert Report.from_bytes(blob) == report
        template = mechanism.public(0, SystemCoins())
        assert len(blob) == HEAD + template.shape[1] * template.itemsize + -(-mechanism.memo_bits // 8)
        receiver.add(blob)
    assert receiver.tallies[0].n == 11
    assert receiver.estimates()[0].shape == (mechanism.answers,)


def test_a_report_has_the_bytes_that_the_format_says(make: Any) -> None:
    protocol = make.protocol(make.unary(3), make.symbol(300))
    report = Client(protocol).report([2, 299])
    blob = report.to_bytes()
    assert blob[0] == 1
    assert blob[1:9] == report.fingerprint
    assert blob[9:11] == b"\xff\xff"
    assert len(blob) == 11 + 1 + 2
    assert blob[11] & 0x1F == 0


def test_only_the_attribute_drawn_is_answered_and_it_stays(make: Any) -> None:
    protocol = make.protocol(make.symbol(3), make.unary(9), asks="one")
    clients = [Client(protocol) for _ in range(40)]
    assert {client.attribute for client in clients} == {0, 1}
    for client in clients:
        for _ in range(2):
            report = client.report([2, 8])
            assert report.attribute == client.attribute
            assert len(report.body) == (1, 2)[report.attribute]


def test_fakes_are_sent_with_the_true_answer_and_nobody_told(make: Any) -> None:
    n, protocol = 3000, find("privacy", "rs_fd")((3, 4), of="grr", eps=1.0)
    receiver, values = Receiver(protocol), np.stack([np.zeros(n, int), np.full(n, 3)], axis=1)
    for row in values:
        client = Client(protocol)
        assert client.attribute is None
        receiver.add(client.report(row).to_bytes())
    for j, k in enumerate(protocol.domains):
        f = np.bincount(values[:, j], minlength=k) / n
        assert receiver.tallies[j].n == n
        assert np.all(np.abs(receiver.estimates()[j] - f) < 4 * np.sqrt(protocol.variance(j, n, f)))


@pytest.mark.parametrize("memo", MEMOS)
def test_a_server_estimates_from_messages_alone(make: Any, memo: Any) -> None:
    protocol, n = make.protocol(make.unary(4), make.hashed(5, 3), asks="one"), 1500
    clients, receivers = [Client(protocol, memo) for _ in range(n)], [Receiver(protocol) for _ in range(2)]
    values = np.stack([np.arange(n) % 3, np.arange(n) % 2 * 4], axis=1)
    for receiver in receivers:
        for client, row in zip(clients, values, strict=True):
            receiver.add(client.report(row).to_bytes())
    answered = np.array([client.attribute for client in clients])
    for j, k in enumerate(protocol.domains):
        mine = values[answered == j, j]
        f = np.bincount(mine, minlength=k) / len(mine)
        for receiver in receivers:
            assert receiver.tallies[j].n == len(mine)
            assert np.all(np.abs(receiver.estimates()[j] - f) < 4 * np.sqrt(protocol.variance(j, len(mine), f)))
    assert not np.array_equal(receivers[0].tallies[0].counts, receivers[1].tallies[0].counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blob: b"", "0 bytes that begin with nothing are no report of version 1"),
        (lambda blob: blob[:5], "5 bytes that begin with 01"),
        (lambda blob: b"\x02" + blob[1:], "begin with 02 are no report"),
        (lambda blob: blob[:3] + bytes([blob[3] ^ 1]) + blob[4:], "this report is of protocol"),
        (
            lambda blob: blob[:9] + b"\x00\x00" + blob[11:],
            "answers attribute 0, and devices of this protocol answer all",
        ),
        (lambda blob: blob[:-1], "the answer of attribute 1 has 0 bytes, and 1 are needed"),
        (lambda blob: blob + b"\x00", "1 bytes are left over"),
        (lambda blob: blob[:-1] + b"\xe0", "attribute 1 is one that no device gives"),  # symbol 7 of 5
        (lambda blob: blob[:-1] + bytes([blob[-1] | 1]), "attribute 1 is one that no device gives"),  # padding
    ],
)
def test_what_no_device_of_this_protocol_sends_is_refused_whole(make: Any, change: Any, message: str) -> None:
    protocol = make.protocol(make.unary(3), make.symbol(5))
    receiver = Receiver(protocol)
    with pytest.raises(DataError, match=message):
        receiver.add(change(Client(protocol).report([0, 0]).to_bytes()))
    assert [tally.n for tally in receiver.tallies] == [0, 0]


@quick
@given(st.binary(max_size=60))
def test_a_server_survives_any_bytes(blob: bytes) -> None:
    protocol = _two()
    good = Client(protocol).report([1, 1]).to_bytes()
    for message in (blob, good[:9] + blob, good[:11] + blob):
        receiver = Receiver(protocol)
        try:
            receiver.add(message)
        except DataError:
            assert [tally.n for tally in receiver.tallies] == [0, 0]


def _two() -> Any:
    from clearn.frequency import FrequencyProtocol, Symbol, Unary, one_budget

    class Pair(FrequencyProtocol):
        answers_all = True

    keep = Rates.of(0.5, 0.25)
    return Pair((3, 3), (Symbol(3, None, keep), Unary(3, None, keep)), one_budget(1.0))


def test_buckets_and_sets_that_cannot_be_are_refused(make: Any) -> None:
    for kind, place, bad in [("buckets", HEAD, 7), ("subset", -2, 0xFF)]:
        protocol = make.protocol(kinds(make)[kind])
        blob = bytearray(Client(protocol).report([0]).to_bytes())
        blob[place] = bad
        with pytest.raises(DataError, match="no device gives"):
            Receiver(protocol).add(bytes(blob))


def test_protocols_that_differ_have_other_fingerprints(make: Any) -> None:
    same = [make.protocol(make.unary(5)) for _ in range(2)]
    others = [
        make.protocol(make.unary(6)),
        make.protocol(make.unary(5, 2.0, 1.1)),
        make.protocol(make.symbol(5)),
        make.protocol(make.unary(5), eps_inf=20.0),  # words of 64 bits
        make.protocol(make.memo_only(make.unary(5))),
        make.protocol(make.unary(5), make.unary(5)),
        make.protocol(make.unary(5), make.unary(5), asks="one"),
        make.protocol(make.unary(5), make.unary(5), asks="one", shares=(0.4, 0.6)),
    ]
    found = [module.fingerprint(protocol) for protocol in same + others]
    assert found[0] == found[1]
    assert len(set(found)) == 1 + len(others)
    assert all(len(one) == 8 for one in found)


def test_values_a_device_cannot_have_are_refused(make: Any) -> None:
    client = Client(make.protocol(make.unary(3), make.unary(4)))
    for values in ([0], [0, 0, 0], [3, 0], [0, -1], [0.0, 1.0], [None, 0], "ab"):
        with pytest.raises(DataError, match=r"values are|values have shape|must lie in"):
            client.report(values)  # type: ignore[arg-type]
    assert client.report(np.array([2, 3], np.uint8)).attribute is None


# What a client keeps


@pytest.mark.parametrize("memo", MEMOS)
def test_a_client_read_back_keeps_its_memo_seed_and_attribute(make: Any, memo: Any) -> None:
    quiet = [make.memo_only(make.hashed(40, 8)), make.memo_only(make.unary(40))]
    protocol = make.protocol(*quiet, asks="one")
    for _ in range(6):
        client = Client(protocol, memo)
        before = [client.report([value, value]).to_bytes() for value in (3, 30, 3)]
        blob = client.to_bytes()
        again = Client.from_bytes(protocol, blob)
        assert before[0] == before[2] == again.report([3, 3]).to_bytes()
        assert before[1] == again.report([30, 30]).to_bytes()
        assert again.to_bytes() == blob
        assert again.attribute == client.attribute


def test_a_client_says_how_many_secret_bits_it_holds(make: Any) -> None:
    protocol = make.protocol(make.unary(9))
    table, prf = Client(protocol, "table"), Client(protocol)
    assert prf.secret_bits() == 256
    assert table.secret_bits() == 9
    for value in (4, 5, 4):
        table.report([value])
    assert table.secret_bits() == protocol.mechanisms[0].state_bits(2) == 27
    assert Client.from_bytes(protocol, table.to_bytes()).secret_bits() == 27


def test_the_state_of_another_protocol_or_a_damaged_one_is_refused(make: Any) -> None:
    protocol, other = make.protocol(make.unary(9)), make.protocol(make.unary(8))
    blob = Client(protocol).to_bytes()
    for of, bad in [(other, blob), (protocol, b"\x02" + blob[1:]), (protocol, b"")]:
        with pytest.raises(StateError, match="not the state of a client of this protocol"):
            Client.from_bytes(of, bad)
    with pytest.raises(StateError, match="not a state that clearn wrote"):
        Client.from_bytes(protocol, blob[:40])


def test_a_one_shot_client_keeps_nothing(make: Any) -> None:
    protocol = make.protocol(make.one_shot(make.unary(9)))
    client = Client(protocol)
    assert client.secret_bits() == 0
    assert client.report([3]) != client.report([3])
    assert Client.from_bytes(protocol, client.to_bytes()).to_bytes() == client.to_bytes()


def test_a_fleet_of_one_runs_what_a_client_runs(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = make.protocol(make.hashed(11, 3))
    assert isinstance(protocol.mechanisms[0], Hashed)
    for memo in MEMOS:
        sent = []
        for _ in range(2):
            monkeypatch.setattr("clearn.frequency.coins.os.urandom", _bytes(3))
            sent.append(Client(protocol, memo).report([4]).body)  # type: ignore[arg-type]
        monkeypatch.setattr("clearn.frequency.coins.os.urandom", _bytes(3))
        ((block,),) = Fleet(protocol, 1, memo).report([[4]])  # type: ignore[arg-type]
        body = (
            block.public.astype("<u8").tobytes()
            + np.packbits(protocol.mechanisms[0].to_bits(block.reports), axis=1).tobytes()
        )
        assert sent == [body, body]
