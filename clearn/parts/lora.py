"""LoRA on the queries, keys and values of a frozen vision transformer, through peft; stored as other adapters are.

timm projects to all three at once, so block l has one pair of matrices (Hu et al., ICLR 2022):

    qkv(x) = W x + b + B_l A_l x,    A_l (r, d), B_l (3d, r)

peft makes the layers that are trained: their first values, dropout and scaling. They are hosted without what they
wrap, so the network and the names of its weights stay untouched. A stored set is P = L 4dr numbers, k = 2.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from clearn.errors import ConfigError
from clearn.parts.adapters import AdapterSet, Bank, Place, Store

NAME = "task"
"""By which peft knows the one set that is trained."""


class Lora(AdapterSet):
    """One set that can be trained, peft's layers in a row; a fresh one is an exact no-op.

    Scaling is 1 (lora_alpha = r), and nothing is dropped out, as peft's own default has it.

    Args:
        depth: L.
        width: d.
        rank: r, 1 or more.
    """

    at: Place = "qkv"

    def __init__(self, depth: int, width: int, rank: int) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__()
        blocks = nn.ModuleList(
            nn.ModuleDict({"qkv": skip_init(nn.Linear, width, 3 * width, bias=False)}) for _ in range(depth)
        )
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=["qkv"]), blocks, NAME)
        self.layers = nn.ModuleList(block["qkv"] for block in blocks)  # type: ignore[index]
        for layer in self.layers:
            layer.base_layer = _Nothing()

    def branch(self, l: int, x: Tensor) -> Tensor:  # noqa: E741
        """(b, N, d) -> (b, N, 3d)."""
        added: Tensor = self.layers[l](x)
        return added


class LoraBank(Bank):
    """Stored sets of LoRA.

    Args:
        depth: L.
        width: d.
        rank: r.
        store: see `Bank`.

    Attributes:
        a: (T, L, r, d), peft's lora_A.
        b: (T, L, 3d, r), peft's lora_B.

    Raises:
        ConfigError: peft is not installed, or a rank below 1.
    """

    at: Place = "qkv"

    def __init__(self, depth: int, width: int, rank: int, store: Store = "float32") -> None:
        if find_spec("peft") is None:
            raise ConfigError(
                "adapter=lora is trained through peft, which is not installed: pip install 'clearn[language]', or "
                "write adapter: bottleneck"
            )
        if rank < 1:
            raise ConfigError(f"bottleneck={rank} must be 1 or more: the rank of LoRA's matrices; 8 or 16 are usual")
        self.depth, self.width, self.rank = depth, width, rank
        super().__init__({"a": (depth, rank, width), "b": (depth, 3 * width, rank)}, store)

    def fresh(self) -> Lora:
        """Make a set that can be trained."""
        return Lora(self.depth, self.width, self.rank)

    def apply_set(self, x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """(b, N, d) -> (b, N, 3d)."""
        return x @ tensors["a"].mT @ tensors["b"].mT

    def stacked(self, adapter: AdapterSet) -> dict[str, Tensor]:
        """(L, ...) by name."""
        parameters = dict(adapter.named_parameters())
        return {name: torch.stack([parameters[key] for key in keys]) for name, keys in self._keys().items()}

    def as_parameters(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """By peft's names."""
        return {key: tensors[name][l] for name, keys in self._keys().items() for l, key in enumerate(keys)}  # noqa: E741

    def _keys(self) -> dict[str, list[str]]:
        """Names of a trained set's parameters, a block each, by the name of a stored tensor."""
        return {
            name: [f"layers.{block}.{inner}.{NAME}.weight" for block in range(self.depth)]
            for name, inner in (("a", "lora_A"), ("b", "lora_B"))
        }


class _Nothing(nn.Module):
    """Stands where peft's layer has what it wraps, and adds nothing: the network itself computes that."""

    def forward(self, x: Tensor) -> Tensor:
        """Give a zero that broadcasts."""
        return x.new_zeros(())
