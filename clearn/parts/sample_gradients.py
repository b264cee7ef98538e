"""Sums over samples of squared (or absolute) per-sample gradients, for any net, in three exact ways.

- *rules*: one forward and one backward pass over the batch, read sample by sample (`gradient_watch`).
- *vmap*: torch.func's vectorised gradient, for nets with a function that has no rule (fused attention, say).
- *loop*: one backward pass per sample, for what vmap cannot do.

The choice is made from the net itself. Any way but the loop must first agree with the loop on two samples, and the
rules must later make the same decisions, call by call, as they made there; otherwise the next way takes over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearn.parts.gradient_rules import Magnitude, NoRule, Plain, Sets, Use, add_up, summed_dtype
from clearn.parts.gradient_watch import EvalOnly, Watch

Way = Literal["rules", "vmap", "loop"]

MATERIAL = 2**26
"""How many numbers vmap's per-sample gradients may have at a time: 256 MB of float32, or one sample."""

AGREEMENT = 1e-2
"""By how much a way may differ from the loop on two samples, relative to the norm of a tensor's gradients.

A use that was missed or samples that were mixed up differ by their own size; rounding, also where it flips a ReLU,
by far less.
"""


@dataclass(frozen=True)
class Objective:
    """What is differentiated, and what is summed of the gradients.

    Attributes:
        losses: (outputs (b, ...), targets (b, ...)) -> (b,), each of its own sample alone.
        magnitude: torch.square (Fisher) or torch.abs (LFSSD).
    """

    losses: Callable[[Tensor, Tensor], Tensor]
    magnitude: Magnitude = torch.square


class _Called(nn.Module):
    """A net behind the function that calls it, so that torch.func can swap the net's parameters."""

    def __init__(self, net: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.called = net, forward

    def forward(self, inputs: Tensor) -> Tensor:
        """Call the net."""
        return self.called(inputs)


class SampleGradients:
    """Adds up magnitudes of per-sample gradients, batch by batch; use it inside `untouched(net)`.

    Args:
        net: whose parameters are meant.
        objective: what is differentiated.
        names: of parameters, as in `named_parameters`; None means those that require a gradient.
        forward: inputs (b, ...) -> outputs (b, ...), None calls the net.

    Attributes:
        parameters: the chosen ones, by name; a shared one has its first name.
        way: how gradients are made, known after the first batch.

    Raises:
        LookupError: a name that the net does not have.
        ValueError: no parameter is left.
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Objective,
        names: Sequence[str] | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.net, self.objective = net, objective
        self.forward = forward or net.__call__
        self.parameters = chosen(net, names)
        self.way: Way = "rules"
        self._checked = 0  # on how many samples, at most 2
        self._trail: list[tuple[Any, ...]] = []
        self._fallback: Way | None = None

    def zeros(self) -> dict[str, Tensor]:
        """Make sums to add to: float32, or float64 for parameters that are."""
        return {name: torch.zeros_like(p, dtype=summed_dtype(p)) for name, p in self.parameters.items()}

    def add(self, sums: Sequence[dict[str, Tensor]], inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Add the gradients of n samples.

        Args:
            sums: k of them; changed.
            inputs: (n, ...), n at least 1, on the device of the net.
            targets: (n, ...).
            weights: (k, n) float, on the CPU.

        Raises:
            ValueError: a batch norm in train mode, or losses that are not (n,).
        """
        pair = inputs[:2], targets[:2]
        with EvalOnly():
            if self._checked < len(pair[0]):
                self._check(*pair)
            if self.way == "rules":
                try:
                    self._by_rules(sums, inputs, targets, weights)
                except NoRule:  # other calls than those that were checked: raised before anything was added
                    self._run(self._general(*pair), sums, inputs, targets, weights)
            else:
                self._run(self.way, sums, inputs, targets, weights)

    def _check(self, inputs: Tensor, targets: Tensor) -> None:
        """Choose the way by what agrees with the loop."""
        self._checked, self._trail, self._fallback = len(inputs), [], None
        self.way = "rules" if self._agrees("rules", inputs, targets) else self._general(inputs, targets)

    def _general(self, inputs: Tensor, targets: Tensor) -> Way:
        if self._fallback is None:
            self._fallback = "vmap" if self._agrees("vmap", inputs, targets) else "loop"
        return self._fallback

    def _agrees(self, way: Way, inputs: Tensor, targets: Tensor) -> bool:
        """Compare a way with the loop, in full precision."""
        weights = torch.ones(1, len(inputs))
        wanted, found = self.zeros(), self.zeros()
        with torch.autocast(inputs.device.type, enabled=False):
            self._loop([wanted], inputs, targets, weights)
            try:
                self._run(way, [found], inputs, targets, weights)
            except torch.OutOfMemoryError:
                raise
            except (NoRule, RuntimeError, NotImplementedError, TypeError, ValueError):
                return False
        return _close(found, wanted, self.objective.magnitude)

    def _run(
        self, way: Way, sums: Sequence[dict[str, Tensor]], inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> None:
        ways = {"rules": self._by_rules, "vmap": self._vmap, "loop": self._loop}
        ways[way](sums, inputs, targets, weights)

    def _by_rules(self, sums: Sequence[dict[str, Tensor]], inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """One forward and one backward pass; only the gradients between layers are left to autograd."""
        sets = self._sets(weights)

        def done(name: str, uses: list[Use]) -> None:
            add_up(uses, [total[name] for total in sums], sets, self.objective.magnitude)

        constants = [*self.net.buffers(), *self.net.parameters()]
        watch = Watch(self.parameters, constants, len(inputs), done)
        with watch:
            losses = self._losses(self.forward(inputs), targets)
        watch.settle()
        self._trail = self._trail or watch.trail
        if watch.trail != self._trail:
            raise NoRule("calls that differ from those that were checked")
        if losses.requires_grad:
            losses.sum().backward()
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            watch.finish()

    def _vmap(self, sums: Sequence[dict[str, Tensor]], inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """torch.func's per-sample gradients, as many samples at a time as `MATERIAL` allows."""
        called = _Called(self.net, self.forward)
        values = {f"net.{name}": p.detach() for name, p in self.parameters.items()}

        def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = torch.func.functional_call(called, values, (x[None],))
            return self._losses(outputs, y[None]).sum()

        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        tile = max(1, MATERIAL // max(1, sum(p.numel() for p in values.values())))
        for a in range(0, len(inputs), tile):
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # the only attention that vmap batches
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # slow, and still right
                found = gradients(values, inputs[a : a + tile], targets[a : a + tile])
            sets = self._sets(weights[:, a : a + tile])
            for name in self.parameters:
                use = Plain(found.pop(f"net.{name}"))
                add_up([use], [total[name] for total in sums], sets, self.objective.magnitude)

    def _loop(self, sums: Sequence[dict[str, Tensor]], inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """One backward pass per sample."""
        for i in range(len(inputs)):
            found = gradients_of(self.parameters, partial(self.loss, inputs[i : i + 1], targets[i : i + 1]))
            sets = self._sets(weights[:, i : i + 1])
            for name, gradient in found.items():
                add_up([Plain(gradient[None])], [total[name] for total in sums], sets, self.objective.magnitude)

    def _sets(self, weights: Tensor) -> Sets:
        first = next(iter(self.parameters.values()))
        return Sets(weights.to(first.device, summed_dtype(first)), weights.tolist())

    def loss(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum the losses of a batch: (n, ...), (n, ...) and (n,) -> ()."""
        losses = self._losses(self.forward(inputs), targets)
        return losses.sum() if weights is None else losses @ weights.to(losses.dtype)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = self.objective.losses(outputs, targets)
        if losses.shape != (len(targets),):
            raise ValueError(
                f"losses have shape {tuple(losses.shape)}, but must be ({len(targets)},): one number for each sample; "
                "let the objective sum over what else there is"
            )
        return losses


def gradients_of(parameters: dict[str, Tensor], loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Differentiate a scalar by parameters that require no gradient elsewhere; those it does not reach are left out."""
    for p in parameters.values():
        p.requires_grad_()
    try:
        value = loss()
        if not value.requires_grad:
            return {}
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    finally:
        for p in parameters.values():
            p.requires_grad_(False)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def chosen(net: nn.Module, names: Sequence[str] | None) -> dict[str, Tensor]:
    """Look parameters up by name; None means all that require a gradient.

    Raises:
        LookupError: a name that the net does not have.
        ValueError: no parameter is left.
    """
    there = dict(net.named_parameters())
    if names is None:
        names = [name for name, p in there.items() if p.requires_grad]
    if not names:
        raise ValueError(
            "no parameter is chosen: none of the net's requires a gradient, or the list of names is empty; "
            "name the ones that are meant, frozen ones may be among them"
        )
    if unknown := [name for name in names if name not in there]:
        raise LookupError(
            f"the net has no parameter '{unknown[0]}': its names are {', '.join(list(there)[:3])}, ...; "
            "give names of net.named_parameters(), where a shared one has its first name"
        )
    return {name: there[name] for name in there if name in set(names)}


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Put the net into eval mode, no parameter asking for gradients; at the end put modes, flags and buffers back."""
    modes = [(module, module.training) for module in net.modules()]
    flags = [(p, p.requires_grad) for p in net.parameters()]
    buffers = [(b, b._version, b.clone()) for b in net.buffers()]
    try:
        net.eval()
        for p, _ in flags:
            p.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for p, flag in flags:
            p.requires_grad_(flag)
        for buffer, version, value in buffers:
            if buffer._version != version:
                buffer.copy_(value)


def _close(found: dict[str, Tensor], wanted: dict[str, Tensor], magnitude: Magnitude) -> bool:
    """Compare sums on the scale of gradients, tensor by tensor, by root mean squares.

    Some gradients are zero but for rounding (keys' bias in attention), so a floor is set by the largest.
    """

    def size(x: Tensor) -> float:
        return float(x.square().mean().sqrt()) if x.numel() else 0.0

    if magnitude is torch.square:
        found, wanted = ({name: x.sqrt() for name, x in sums.items()} for sums in (found, wanted))
    sizes = {name: size(x) for name, x in wanted.items()}
    floor = 100 * max((torch.finfo(x.dtype).eps * sizes[name] for name, x in wanted.items()), default=0.0)
    return all(size(found[name] - x) <= AGREEMENT * sizes[name] + floor for name, x in wanted.items())
