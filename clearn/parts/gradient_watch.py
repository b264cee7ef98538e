"""Sees every function that meets a parameter in a forward pass, so that the backward pass can be read sample by sample.

Functions are watched, not modules: a functional use of a weight does not escape, and no module needs a hook. Each
call is one of five: a function with a rule of `gradient_rules`; a function of parameters and buffers alone (a slice, a
transpose, a weight norm), whose result is differentiated by them afterwards; an expansion or an elementwise function
that brings a parameter to every sample (class token, positions, layer scale), which gets one copy per sample as a
leaf; one without a tensor to differentiate, such as a shape; and anything else, which is refused with `NoRule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clearn.parts.gradient_rules import RULES, Make, NoRule, Plain, Pulled, Rule, Use, summed_dtype

BROADCASTING = {
    *("add", "sub", "rsub", "subtract", "mul", "multiply", "div", "divide", "true_divide"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__"),
    *("add_", "sub_", "mul_", "div_", "__iadd__", "__isub__", "__imul__", "__itruediv__"),
}
"""Elementwise functions of two tensors, under which a parameter stands for one copy per sample."""

EXPANDING = {"expand", "expand_as", "repeat"}


class Watch(TorchFunctionMode):
    """Sees every function that meets a parameter during a forward pass over n samples.

    Attributes:
        uses: parameter's name -> what its uses will be; filled by the backward pass.
        pending: parameter's name -> how many of its uses await their gradient.
        trail: every decision, in order.
        saved: inputs that rules will read, with their version.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        constants: Iterable[Tensor],
        n: int,
        done: Callable[[str, list[Use]], None],
    ) -> None:
        super().__init__()
        self.n, self.done = n, done
        self.names = {id(p): name for name, p in parameters.items()}
        self.constants = {id(x) for x in constants}
        self.leaves: dict[str, Tensor] = {}
        self.made: dict[int, tuple[Tensor, list[str]]] = {}  # tensors made of parameters alone, and of which
        self.uses: dict[str, list[Use]] = {}
        self.pending: dict[str, int] = {}
        self.trail: list[tuple[Any, ...]] = []
        self.saved: list[tuple[Tensor, int]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        met = [x for x in _tensors((args, kwargs)) if id(x) in self.names or id(x) in self.made]
        if not met or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if all(self._from_parameters(x) for x in _tensors((args, kwargs))):
            return self._make(func, args, kwargs, met)
        name = getattr(func, "__name__", str(func))
        if (rule := RULES.get(func)) is not None:
            return self._by_rule(rule, func, args, kwargs, met)
        if name in BROADCASTING and len(met) == 1:
            return self._broadcast(name, func, args, kwargs, met[0])
        raise NoRule(f"{name} of a parameter and of data")

    def settle(self) -> None:
        """Refuse inputs that were changed in place after a rule had noted them.

        Raises:
            NoRule: one was.
        """
        if any(x._version != version for x, version in self.saved):
            raise NoRule("an input that is changed in place after its use")
        self.saved.clear()

    def finish(self) -> None:
        """Hand over the uses of parameters with several of them, after the backward pass."""
        for name, uses in self.uses.items():
            self.done(name, uses)
        self.uses.clear()

    def _from_parameters(self, x: Tensor) -> bool:
        return id(x) in self.names or id(x) in self.made or id(x) in self.constants

    def _leaf(self, name: str, parameter: Tensor) -> Tensor:
        """Give the parameter as a leaf that tensors made of it are differentiated by; the net's own needs none."""
        if name not in self.leaves:
            self.leaves[name] = parameter.detach().requires_grad_()
        return self.leaves[name]

    def _make(self, func: Any, args: Any, kwargs: Any, met: list[Tensor]) -> Any:
        """Call a function of parameters alone, and remember what came out; or expand one to a copy per sample."""

        def with_graph(x: Tensor) -> Tensor:
            return self._leaf(self.names[id(x)], x) if id(x) in self.names else x

        name = getattr(func, "__name__", str(func))
        out = func(*_replaced(args, with_graph), **_replaced(kwargs, with_graph))
        parents = sorted({parent for x in met for parent in self._parents(x)})
        if (
            name in EXPANDING
            and out.requires_grad
            and len(out) == self.n
            and (met[0].ndim < out.ndim or len(met[0]) == 1)
        ):
            return self._expand(name, out, parents)
        for x in _tensors(out):
            if x.requires_grad:
                self.made[id(x)] = (x, parents)
                self.trail.append((name, tuple(parents)))
        return out

    def _parents(self, x: Tensor) -> list[str]:
        return [self.names[id(x)]] if id(x) in self.names else self.made[id(x)][1]

    def _by_rule(self, rule: Rule, func: Any, args: Any, kwargs: Any, met: list[Tensor]) -> Tensor:
        """Call a function that has a rule; its output will tell the rule delta."""
        makes = [(x, make) for x, make in rule(self.n, summed_dtype(met[0]), *args, **kwargs) if x is not None]
        makes = [(x, make) for x, make in makes if any(x is y for y in met)]
        if len(makes) < len(met):
            raise NoRule(f"{func.__name__} of a parameter in an unusual place")
        first: Tensor = args[0] if args else kwargs["input"]
        self.saved.append((first, first._version))
        self.trail.append((func.__name__, len(first) // self.n, *(tuple(self._parents(x)) for x in met)))

        def without_graph(x: Tensor) -> Tensor:
            return x.detach() if id(x) in self.made else x

        out: Tensor = func(*_replaced(args, without_graph), **_replaced(kwargs, without_graph))
        if not out.requires_grad:
            out = _Start.apply(out, torch.zeros((), device=out.device, requires_grad=True))
        self._await(out, makes)
        return out

    def _broadcast(self, name: str, func: Any, args: Any, kwargs: Any, parameter: Tensor) -> Tensor:
        """Call an elementwise function with one copy of the parameter per sample."""
        others = [x for x in _tensors((args, kwargs)) if x is not parameter]
        x = others[0]
        if len(others) > 1 or x.ndim == 0 or len(x) % self.n or not _leads(x, parameter):
            raise NoRule(f"{name} of shapes {tuple(x.shape)} and {tuple(parameter.shape)} for {self.n} samples")
        shape, m = parameter.shape, len(x) // self.n
        self.trail.append((name, m, tuple(self._parents(parameter))))
        copies = parameter.detach().reshape((1,) * (x.ndim - parameter.ndim) + shape)
        copies = copies.expand(len(x), *copies.shape[1:]).requires_grad_()
        self._await(copies, [(parameter, lambda d: Plain(d.reshape(self.n, m, *shape).sum(1)))])

        def copied(y: Tensor) -> Tensor:
            return copies if y is parameter else y

        out: Tensor = func(*_replaced(args, copied), **_replaced(kwargs, copied))
        return out

    def _expand(self, name: str, out: Tensor, parents: list[str]) -> Tensor:
        """Hand on one leaf (n, ...) in place of an expanded parameter: a row is what one sample sees."""
        self.trail.append((name, "samples", tuple(parents)))
        row = out[:1]
        self.made[id(row)] = (row, parents)
        copies = row.detach().expand(out.shape).requires_grad_()
        self._await(copies, [(row, lambda d: Plain(d.unsqueeze(1)))])
        return copies

    def _await(self, out: Tensor, makes: list[tuple[Tensor, Make]]) -> None:
        """Make the uses when the gradient of `out` is there; a parameter's only use is handed over at once."""
        for x, _ in makes:
            for name in self._parents(x):
                self.pending[name] = self.pending.get(name, 0) + 1

        def arrived(delta: Tensor) -> None:
            with torch.no_grad(), torch.autocast(delta.device.type, enabled=False):
                for x, make in makes:
                    use = make(delta.to(summed_dtype(x)))
                    for name in self._parents(x):
                        self._keep(name, Pulled(use, x, self.leaves[name]) if id(x) in self.made else use)

        out.register_hook(arrived)

    def _keep(self, name: str, use: Use) -> None:
        if self.pending[name] == 1:
            self.done(name, [use])
        else:
            self.uses.setdefault(name, []).append(use)


class _Start(torch.autograd.Function):
    """Let gradients reach a fresh tensor that nothing before it needs; no copy, and in-place functions may follow."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(value)
        return value

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[None, None]:
        return None, None


class EvalOnly(TorchFunctionMode):
    """Refuses batch statistics, under which the gradient of a sample depends on its neighbours."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and (kwargs.get("training") or args[5:6] == (True,)):
            raise ValueError(
                "a batch norm uses the statistics of its batch although the net is in eval mode, so samples have no "
                "gradients of their own: let it track running statistics and follow eval()"
            )
        return func(*args, **kwargs)


def _leads(x: Tensor, parameter: Tensor) -> bool:
    """Whether broadcasting leaves the first dimension, the samples, to `x`."""
    return parameter.ndim < x.ndim or (parameter.ndim == x.ndim and len(parameter) == 1)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Walk the tensors in arguments: in tuples, lists and dictionaries."""
    match tree:
        case Tensor():
            yield tree
        case tuple() | list():
            for item in tree:
                yield from _tensors(item)
        case dict():
            for item in tree.values():
                yield from _tensors(item)


def _replaced(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Rebuild arguments with other tensors."""
    match tree:
        case Tensor():
            return change(tree)
        case tuple() | list():
            items = [_replaced(item, change) for item in tree]
            return tuple(items) if isinstance(tree, tuple) else items
        case dict():
            return {key: _replaced(item, change) for key, item in tree.items()}
    return tree
