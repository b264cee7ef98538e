"""The sections of a config that only collections have, as frozen records whose signatures are the schema."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clearn.errors import BudgetExceeded, ConfigError
from clearn.frequency.accounting import KEY_BITS, ProtocolCost
from clearn.frequency.engines import Decode, Wanted
from clearn.frequency.memo import MemoKind
from clearn.frequency.protocol import Post
from clearn.options import parse_bytes

POSTS: tuple[Post, ...] = ("none", "norm_mul", "norm_sub")  # the errors that every row of scores holds


@dataclass(frozen=True)
class DeviceBudget:
    """Section `budget` of a collection: what one user's device may keep and send, at worst.

    Attributes:
        client_bytes: secret bytes that a device ever keeps, e.g. 64 or 2KiB; null for no limit.
        bits_per_round: bits of one report; null for no limit.
    """

    client_bytes: int | str | None = None
    bits_per_round: float | None = None

    def __post_init__(self) -> None:
        if self.client_bytes is not None:
            try:
                parse_bytes(self.client_bytes)
            except ConfigError as error:
                raise ConfigError(f"client_bytes={error}") from None
        if self.bits_per_round is not None and not 0 < self.bits_per_round < math.inf:
            raise ConfigError(f"bits_per_round={self.bits_per_round} must be a positive number of bits")

    @property
    def limit(self) -> int | None:
        """Bytes, or None."""
        return None if self.client_bytes is None else parse_bytes(self.client_bytes)

    def over(self, cost: ProtocolCost) -> str | None:
        """Say by how much a protocol is over, or None where it fits."""
        worst, sent = -(-cost.client_worst // 8), cost.bits_round_worst
        if self.limit is not None and worst > self.limit:
            return f"keeps up to {worst:,} secret bytes on a device, over budget.client_bytes={self.limit:,}"
        if self.bits_per_round is not None and sent > self.bits_per_round:
            return f"sends up to {sent:,.4g} bits a round, over budget.bits_per_round={self.bits_per_round:g}"
        return None

    def check(self, cost: ProtocolCost, title: str) -> None:
        """Refuse a protocol that is over.

        Raises:
            BudgetExceeded: with both numbers, and what can be done.
        """
        over = self.over(cost)
        if over is not None:
            key = "secret bytes" in over and (self.limit or 0) >= KEY_BITS // 8
            remedy = "runner.memo=prf (32 bytes whatever is met), " if key else ""
            raise BudgetExceeded(
                f"{title} {over}: raise that budget, or choose {remedy}another protocol, or protocol=auto, which "
                "takes the most accurate one that fits; 'clearn show CONFIG' lists what each would cost"
            )


@dataclass(frozen=True)
class CollectOptions:
    """Section `runner` of a collection: how it is simulated; none of it moves what a protocol promises.

    Attributes:
        rebuild: throw users and server away after every round and rebuild both from the written bytes.
        engine: per_user simulates every device; aggregate draws the server's counts from their exact distribution, at a
            cost that does not depend on the number of users; auto takes whichever is right and faster.
        repeats: independent collections of the same data, 1 or more; errors are given with their spread over them.
        memo: where a device keeps its permanent answers: a table of those it met, or prf, one secret key of 32 bytes
            from which they are recomputed.
        decode: rounds estimates each round on its own; linked also decodes all reports of a user together, where
            nobody's value changes, at the price of a counter a user and value at the server.
        post: post-processing of the headline error: none, norm, norm_mul, norm_sub, norm_cut, base_cut, mle_grr, ibu;
            null takes the protocol's own.
    """

    rebuild: bool = True
    engine: Wanted = "auto"
    repeats: int = 1
    memo: MemoKind = "table"
    decode: Decode = "rounds"
    post: Post | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= 100_000:
            raise ConfigError(f"repeats={self.repeats} must lie in [1, 100000]")
