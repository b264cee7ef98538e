"""Retrain: learn the stream again from fresh weights without the forgotten samples. The gold standard.

Every weight is drawn anew, not the head alone (released code of SSD re-initialises only the last linear layer of a
ResNet, so its "retrain" starts from features that saw the forgotten samples); the method, its options and its recipe
are the strategy's own, task by task in the order of the stream.

Kept from training until a request: nothing of its own, but all samples that stay have to be at hand: exemplars are no
substitute. Read at a request: all that stays. Cost: all epochs of all tasks, times the share that stays.
"""

from __future__ import annotations

from clearn.context import Context
from clearn.errors import ConfigError
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


class Retrain(Unlearner):
    """Put a strategy in the place of the old one that never saw the forgotten samples."""

    looks_back = True

    def check(self, request: Forget) -> None:
        """Refuse a request that does not let past tasks be read."""
        if request.past is None:
            raise ConfigError(
                "retrain learns all past tasks again, but this request does not allow looking back: write "
                "look_back: true in the request, or choose a method that needs less, e.g. ssd"
            )

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> Strategy:
        """Learn all past tasks in order; a task that lost all its samples leaves its structure alone."""
        assert request.past is not None, "check refuses this"
        fresh = ctx.fresh().to(ctx.device)
        for task in request.past:
            if len(task.train):
                fresh.learn(task, ctx)
            else:
                fresh.grow(task.info)
        return fresh.to(ctx.device).eval()
