"""LoRA on the attention of a frozen language model, through peft, beside the network instead of inside it.

For a projection W of one of the last n layers (Hu et al., ICLR 2022; specs "mbc", section 5):

    W x + (alpha / r) B A drop(x),    A (r, inputs) Kaiming-uniform, B (outputs, r) zero

peft makes the pairs: first values, dropout (before A; MBC's code has it between A and B) and scaling. They are hosted
without what they wrap and added by hooks, so the names of the network's weights stay as published. It also lets one
pair serve part of a fused projection, which peft cannot: GPT-2's c_attn projects to queries, keys and values at once,
and a pair for "k" and "v" is A (r, D), B (2D, r), with exact zeros for the queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from clearn.errors import ConfigError, demand
from clearn.parts.language.loading import require

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

TARGETS = ("q", "k", "v", "o")
"""Projections to queries, keys and values, and out of the attention."""

PAIR = "pair"
"""By which peft knows the one pair of a projection."""


@dataclass(frozen=True)
class Site:
    """A projection that a pair stands beside.

    Attributes:
        path: of the projection inside the network.
        targets: which of `TARGETS` the pair serves, as one word: "k", or "kv" of a fused projection.
        inputs: width of what is projected.
        parts: widths of the projection's outputs in order, and whether the pair adds to each.
    """

    path: str
    targets: str
    inputs: int
    parts: tuple[tuple[int, bool], ...]

    @property
    def outputs(self) -> int:
        """How many of the projection's outputs the pair adds to."""
        return sum(width for width, served in self.parts if served)


class Lora(nn.Module):
    """Pairs for the projections of some layers; fresh ones are exact no-ops.

    Args:
        sites: see `sites`.
        rank: r, 1 or more.
        alpha: above 0.
        dropout: of each projection's inputs while training, in [0, 1).
    """

    def __init__(self, sites: Sequence[Site], rank: int, alpha: float, dropout: float) -> None:
        require("peft")
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__()
        demand(
            ("rank", rank, rank >= 1, "1 or more: 8 or 16 are usual"),
            ("alpha", alpha, 0 < alpha < float("inf"), "above 0 and finite: twice the rank is usual"),
            ("dropout", dropout, 0 <= dropout < 1, "in [0, 1)"),
        )
        self.sites = tuple(sites)
        names = [f"{index}_{site.targets}" for index, site in enumerate(self.sites)]
        self.pairs = nn.ModuleDict(
            {
                name: skip_init(nn.Linear, site.inputs, site.outputs, bias=False)
                for name, site in zip(names, sites, strict=True)
            }
        )
        scale: Any = alpha  # Any: peft says int, and divides
        recipe = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=r"\d+_[qkvo]+")
        inject_adapter_in_model(recipe, self.pairs, PAIR)
        for pair in self.pairs.values():
            pair.base_layer = _Nothing()

    @contextmanager
    def beside(self, net: nn.Module) -> Iterator[None]:
        """Have a network's projections add their pairs for the time of one forward pass."""
        hooks: list[RemovableHandle] = []
        try:
            for site, pair in zip(self.sites, self.pairs.values(), strict=True):
                hooks.append(net.get_submodule(site.path).register_forward_hook(partial(_added, pair, site)))
            yield
        finally:
            for hook in hooks:
                hook.remove()


def sites(net: nn.Module, layers: nn.ModuleList, targets: Sequence[str], last: int | None) -> list[Site]:
    """Find the projections of a network's attention.

    Args:
        net: that holds the layers.
        layers: all of them, in order.
        targets: of `TARGETS`.
        last: in how many of the last layers; None for all.

    Raises:
        ConfigError: unknown targets, no such layers, or an attention with projections that we do not know.
    """
    demand(
        ("targets", list(targets), bool(targets) and set(targets) <= set(TARGETS), f"one or more of {list(TARGETS)}"),
        ("last", last, last is None or 1 <= last <= len(layers), f"in [1, {len(layers)}], or null for all layers"),
    )
    paths = {module: path for path, module in net.named_modules()}
    chosen = layers if last is None else layers[-last:]
    wanted = "".join(target for target in TARGETS if target in targets)
    return [site for layer in chosen for site in _of_layer(layer, paths, wanted)]


def _of_layer(layer: nn.Module, paths: dict[nn.Module, str], wanted: str) -> Iterator[Site]:
    for attention in layer.modules():
        children = dict(attention.named_children())
        out = children.get("o_proj", children.get("out_proj", children.get("c_proj")))
        if out is not None and {"q_proj", "k_proj", "v_proj"} <= children.keys():
            single = {letter: children[f"{letter}_proj"] for letter in "qkv"} | {"o": out}
            yield from (_site(single[letter], paths, letter, 1, letter) for letter in wanted)
            return
        if out is not None and "c_attn" in children:
            if fused := wanted.replace("o", ""):
                yield _site(children["c_attn"], paths, fused, 3, "qkv")
            if "o" in wanted:
                yield _site(out, paths, "o", 1, "o")
            return
    raise ConfigError(
        f"LoRA does not know the projections of {type(layer).__name__}: it stands beside q_proj, k_proj and v_proj (as "
        "in Llama, SmolLM2, Qwen, Mistral, OPT) or c_attn (as in GPT-2); take such a model, or do without LoRA"
    )


def _site(projection: nn.Module, paths: dict[nn.Module, str], served: str, split: int, letters: str) -> Site:
    """Describe one projection, a Linear or GPT-2's transposed kind, whose outputs are `split` equal parts."""
    weight = projection.weight
    assert isinstance(weight, Tensor), "projections hold matrices"
    outputs, inputs = weight.shape if isinstance(projection, nn.Linear) else weight.shape[::-1]
    parts = tuple((outputs // split, letter in served) for letter in letters)
    return Site(paths[projection], served, inputs, parts)


def _added(pair: nn.Module, site: Site, _: nn.Module, args: tuple[Tensor], projected: Tensor) -> Tensor:
    """Add a pair's outputs to its part of a projection: a forward hook."""
    delta: Tensor = pair(args[0])
    if all(served for _, served in site.parts):
        return projected + delta
    own = iter(delta.split([width for width, served in site.parts if served], dim=-1))
    parts = projected.split([width for width, _ in site.parts], dim=-1)
    return torch.cat(
        [part + next(own) if served else part for part, (_, served) in zip(parts, site.parts, strict=True)], dim=-1
    )


class _Nothing(nn.Module):
    """Stands where peft's layer has what it wraps, and adds nothing: the network itself computes that."""

    def forward(self, x: Tensor) -> Tensor:
        """Give a zero that broadcasts."""
        return x.new_zeros(())
