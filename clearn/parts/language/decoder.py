"""What a plain decoder is: layers in a row, keys and values in a cache, and a matrix from states to the vocabulary.

transformers has hundreds of classes that continue text. One is tried on two tokens instead of trusted by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearn.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far two ways to compute the same state may lie apart, as a share of its largest entry."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder.

    Attributes:
        width: D.
        depth: L.
        kv_heads: H_kv.
        head_size: h.
        positions: the longest sequence that it takes.
    """

    width: int
    depth: int
    kv_heads: int
    head_size: int
    positions: int


def body(net: PreTrainedModel) -> Any:  # Any: the class is the architecture's own
    """Give what is below the vocabulary's matrix, up to and with the final norm."""
    return net.base_model


def layers(net: PreTrainedModel) -> nn.ModuleList:
    """Give the row of layers."""
    depth = net.config.num_hidden_layers
    rows = [module for module in net.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not rows:
        raise TypeError("it has no row of layers")
    return rows[0]


@torch.no_grad()
def measured(net: PreTrainedModel, option: str, name: str) -> Shape:
    """Try a network on two tokens.

    Args:
        net: in evaluation mode.
        option: the config's name of `name`, for messages.
        name: of the network.

    Raises:
        ConfigError: tokens see later ones, layers keep no keys and values or such of different sizes, or the output is
            more than a matrix.
        DataError: it computes numbers that are not finite.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    try:
        layers(net)
        both = body(net)(input_ids=torch.tensor([[0, 1]]), past_key_values=cache, use_cache=True).last_hidden_state
        alone = body(net)(input_ids=torch.tensor([[0]]), use_cache=False).last_hidden_state
        logits = net(input_ids=torch.tensor([[0, 1]]), use_cache=False).logits
        ours = net.get_output_embeddings()(both)
        kept = [tuple(entry[0].shape) for entry in cache]  # a layer each: (1, H_kv, 2, h)
    except (TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError, IndexError) as error:
        raise _unusable(option, name, f"it cannot be run on embeddings with a cache: {error}") from error
    if not bool(logits.isfinite().all()):
        raise DataError(
            f"{option}={name} computes numbers that are not finite: its weights are damaged; get them again"
        )
    if not _agree(both[:, :1], alone):
        raise _unusable(option, name, "its tokens see later ones")
    if not _agree(ours, logits):
        raise _unusable(option, name, "its output is more than a matrix")
    sizes = {(shape[1], shape[3]) for shape in kept}
    if len(kept) != net.config.num_hidden_layers or len(sizes) != 1 or any(shape[2] != 2 for shape in kept):
        raise _unusable(option, name, "its layers do not all keep keys and values of one size")
    (heads, size) = sizes.pop()
    limit = getattr(net.config, "max_position_embeddings", None)  # none where positions are relative
    return Shape(both.shape[-1], len(kept), heads, size, limit or 1 << 30)


def _agree(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= CLOSE[a.dtype] * b.abs().max())


def _unusable(option: str, name: str, why: str) -> ConfigError:
    return ConfigError(
        f"{option}={name} is no plain decoder: {why}; take one such as SmolLM2, Llama, Qwen2 or GPT-2, or 'tiny'"
    )
