"""What may be chosen of a frozen language model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from clearn.errors import demand
from clearn.parts.language.loading import TINY


@dataclass(frozen=True)
class Lm:
    """The frozen language model.

    Attributes:
        model: "tiny" for a random network of two layers over 300 words; otherwise a folder in Hugging Face's layout
            with .safetensors weights, or a name on its hub.
        dtype: in which it computes; "auto": bfloat16 where the GPU or processor multiplies it natively, else float32.
        sequence_tokens: of question and answer together; a longer question loses its front.
        document_tokens: of a document; a longer one loses its end.
        new_tokens: at most so many are generated.
        batch: questions that are answered at once.
    """

    model: str = TINY
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    sequence_tokens: int = 128
    document_tokens: int = 256
    new_tokens: int = 16
    batch: int = 16

    def __post_init__(self) -> None:
        demand(
            ("lm.model", repr(self.model), bool(self.model.strip()), "'tiny', a folder or a name"),
            ("lm.dtype", self.dtype, self.dtype in ("auto", "float32", "bfloat16"), "auto, float32 or bfloat16"),
            ("lm.new_tokens", self.new_tokens, self.new_tokens >= 1, "1 or more"),
            (
                "lm.sequence_tokens",
                self.sequence_tokens,
                self.sequence_tokens > self.new_tokens,
                f"more than lm.new_tokens={self.new_tokens}, so that a question has room before its answer",
            ),
            ("lm.document_tokens", self.document_tokens, self.document_tokens >= 1, "1 or more"),
            ("lm.batch", self.batch, self.batch >= 1, "1 or more"),
        )

    def settled(self) -> Lm:
        """Replace the dtype "auto" by what this machine is good at; the built-in model computes in float32."""
        if self.dtype != "auto":
            return self
        return replace(self, dtype="bfloat16" if self.model != TINY and _bfloat16_is_native() else "float32")


def _bfloat16_is_native() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
