"""Do nothing: the untouched original, a control that every table of unlearning needs.

Exemplars of the forgotten samples still leave the memory, which the engine sees to before any unlearner; the network
keeps what it learned. An evaluation that does not show this as a failure measures nothing.

Kept from training until a request: nothing. Read at a request: nothing. Cost: 0 epochs.
"""

from __future__ import annotations

from clearn.context import Context
from clearn.strategy import Strategy
from clearn.stream import Forget
from clearn.unlearner import Unlearner


class Nothing(Unlearner):
    """Leave the network as it is, bit for bit."""

    def forget(self, strategy: Strategy, request: Forget, ctx: Context) -> None:
        """Change nothing."""
