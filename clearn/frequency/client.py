"""A real deployment: the program on one user's device, its message, and the server's end that counts messages.

A `Client` draws every coin from the operating system through a source that it makes itself: no argument lets a seed in,
and a simulation is of another type. What it keeps is secret: its memos, or the key that they are drawn from. Store
`to_bytes()` BEFORE the report is sent, since a memo that is lost and drawn anew costs eps_inf a second time.

A report, all integers little-endian:

    1 byte    version, 1
    8 bytes   fingerprint of the protocol; a server refuses a foreign one
    2 bytes   index of the attribute answered, 65535 where all are
    then, for each attribute answered, in order
        what the device disclosed once (hash seed, bucket indices): a report needs no list of users beside it
        its report, `memo_bits` bits, high bit first, padded with zeros to a whole byte

A client's state: the same first 9 bytes, then the arrays of `Devices.state` as safetensors. Neither holds code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from clearn.errors import ConfigError, DataError, StateError
from clearn.frequency.coins import SystemCoins
from clearn.frequency.devices import Block, Devices, checked, fingerprint, nothing, tally
from clearn.frequency.mechanism import Array, Floats, Tally
from clearn.frequency.memo import MemoKind
from clearn.frequency.packing import pack, unpack
from clearn.frequency.protocol import FrequencyProtocol
from clearn.state import decode, encode, freeze, thaw

VERSION = 1
EVERY = 65535  # in place of an attribute's index
HEAD = 11  # bytes before the first answer


@dataclass(frozen=True)
class Report:
    """One device's message of one round; says nothing of who sent it, but for its public draws.

    Attributes:
        fingerprint: 8 bytes of the protocol.
        attribute: the one answered, or None for all.
        body: the answers, in the form above.
    """

    fingerprint: bytes
    attribute: int | None
    body: bytes

    def to_bytes(self) -> bytes:
        """Write the message."""
        index = EVERY if self.attribute is None else self.attribute
        return bytes([VERSION]) + self.fingerprint + index.to_bytes(2, "little") + self.body

    @classmethod
    def from_bytes(cls, blob: bytes) -> Report:
        """Read a message.

        Raises:
            DataError: too short, or of another version.
        """
        if len(blob) < HEAD or blob[0] != VERSION:
            raise DataError(
                f"{len(blob)} bytes that begin with {blob[:1].hex() or 'nothing'} are no report of version {VERSION}: "
                "update the client, or look for what damaged it on its way"
            )
        index = int.from_bytes(blob[9:HEAD], "little")
        return cls(blob[1:9], None if index == EVERY else index, blob[HEAD:])


class Client:
    """One user's device in a real collection.

    Args:
        protocol: what it and the server agree on.
        memo: "prf": 32 secret bytes, for any number of values. "table": the permanent answers themselves.

    Raises:
        ConfigError: a protocol that is not for real devices.
    """

    def __init__(self, protocol: FrequencyProtocol, memo: MemoKind = "prf") -> None:
        _deployable(protocol)
        self.protocol = protocol
        self._coins = SystemCoins()
        self._devices = Devices(protocol, 1, self._coins, memo)

    @property
    def attribute(self) -> int | None:
        """The attribute that this user answers for ever; None where all are, or where nobody may know."""
        chosen = self._devices.attribute
        return None if chosen is None or self.protocol.asks == "hidden" else int(chosen[0])

    def report(self, values: Sequence[int]) -> Report:
        """Answer one round.

        Args:
            values: (d,) the user's value of each attribute, from 0.

        Raises:
            DataError: another number of values, or one outside its attribute's domain.
        """
        row = checked(np.asarray(values)[None], self.protocol.domains, 1)
        body = b""
        for j, mechanism in enumerate(self.protocol.mechanisms):
            for block in self._devices.answer(j, row[:, j], self._coins):
                body += _wire(block.public).tobytes() + pack(mechanism, block.reports).tobytes()
        return Report(fingerprint(self.protocol), self.attribute, body)

    def secret_bits(self) -> int:
        """Bits of memos or key that this device holds now."""
        return int(self._devices.memo.bits()[0])

    def to_bytes(self) -> bytes:
        """Write all that this device keeps, which is secret."""
        return bytes([VERSION]) + fingerprint(self.protocol) + encode(freeze(self._devices.state()))

    @classmethod
    def from_bytes(cls, protocol: FrequencyProtocol, blob: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            StateError: damaged, or of another version or protocol.
        """
        if blob[:1] != bytes([VERSION]) or blob[1:9] != fingerprint(protocol):
            raise StateError(
                "this is not the state of a client of this protocol: keep the protocol it was made for, since a new "
                "memo costs its whole budget again"
            )
        state = thaw(decode(blob[9:], torch=False))
        client = cls(protocol, "prf" if "client/key" in state else "table")
        client._devices.load(state)
        return client


class Fleet:
    """Many devices that run what a `Client` runs, on the operating system's coins: for audits.

    Args:
        protocol: what they and the server agree on.
        n: devices.
        memo: how they keep permanent answers.
    """

    def __init__(self, protocol: FrequencyProtocol, n: int, memo: MemoKind = "table") -> None:
        self.protocol = protocol
        self._coins = SystemCoins()
        self._devices = Devices(protocol, n, self._coins, memo)

    def report(self, values: Array) -> list[list[Block]]:
        """Answer one round: for each attribute, blocks of reports with the devices that sent them.

        Args:
            values: (n, d) integers.

        Raises:
            DataError: another shape, or a value outside its attribute's domain.
        """
        rows = checked(values, self.protocol.domains, self._devices.n)
        return [list(self._devices.answer(j, rows[:, j], self._coins)) for j in range(len(self.protocol.mechanisms))]


class Receiver:
    """The server's end of one round: takes messages, keeps counts and no message.

    Args:
        protocol: what it and the devices agree on.
    """

    def __init__(self, protocol: FrequencyProtocol) -> None:
        _deployable(protocol)
        self.protocol = protocol
        self._fingerprint = fingerprint(protocol)
        self._template = [mechanism.public(0, SystemCoins()) for mechanism in protocol.mechanisms]
        self.tallies = [nothing(mechanism) for mechanism in protocol.mechanisms]

    def add(self, blob: bytes) -> None:
        """Count one message, whole or not at all.

        Raises:
            DataError: of another protocol, cut short, or with an answer that no device gives.
        """
        report = Report.from_bytes(blob)
        if report.fingerprint != self._fingerprint:
            raise DataError(
                f"this report is of protocol {report.fingerprint.hex()}, and this server's is "
                f"{self._fingerprint.hex()}: give devices and server the same attributes and budgets"
            )
        found, rest = {}, report.body
        for j in self._answered(report.attribute):
            found[j], rest = self._read(j, rest)
        if rest:
            raise DataError(f"{len(rest)} bytes are left over after the last answer: this report is damaged")
        for j, one in found.items():
            self.tallies[j] += one

    def estimates(self) -> list[Floats]:
        """Frequencies of every attribute, unbiased; nan where nobody answered."""
        return [self.protocol.estimate(j, tally) for j, tally in enumerate(self.tallies)]

    def _answered(self, attribute: int | None) -> Sequence[int]:
        d = len(self.protocol.domains)
        alone = self.protocol.asks == "one" and d > 1
        if alone != (attribute is not None) or (attribute is not None and attribute >= d):
            right = f"one attribute below {d}" if alone else "all attributes"
            raise DataError(f"this report answers attribute {attribute}, and devices of this protocol answer {right}")
        return range(d) if attribute is None else [attribute]

    def _read(self, attribute: int, body: bytes) -> tuple[Tally, bytes]:
        """One answer, counted, and the bytes after it."""
        mechanism, template = self.protocol.mechanisms[attribute], self._template[attribute]
        width = template.shape[1] * template.itemsize
        end = width + -(-mechanism.memo_bits // 8)
        if len(body) < end:
            raise DataError(f"the answer of attribute {attribute} has {len(body)} bytes, and {end} are needed")
        public = np.frombuffer(body[:width], _wire(template).dtype).astype(template.dtype)[None]
        row = np.frombuffer(body[width:end], np.uint8)[None]
        reports = unpack(mechanism, row)
        if not np.array_equal(pack(mechanism, reports), row) or not mechanism.valid(reports, public).all():
            raise DataError(f"the answer of attribute {attribute} is one that no device gives: this report is damaged")
        return tally(mechanism, public, reports), body[end:]


def _deployable(protocol: FrequencyProtocol) -> None:
    if any(mechanism.simulation_only for mechanism in protocol.mechanisms):
        raise ConfigError(
            f"{type(protocol).__name__} is for simulation only, since the low bits of its noise would tell the value: "
            "choose another protocol"
        )
    if protocol.split == "equal" and protocol.asks != "all" and len(protocol.domains) > 1:
        raise ConfigError(
            "split=equal needs all users at once, and a device draws its attribute alone: write split: independent"
        )


def _wire(public: Array) -> Array:
    """Little-endian, on every machine."""
    return public.astype(public.dtype.newbyteorder("<"))
