from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.tuned_vit import TunedViT
from clearn.state import content_hash
from clearn.stream import Inputs

torch.set_num_threads(1)

INPUTS, TINY = Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=16)
X = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_it_computes_what_the_frozen_one_does_and_is_drawn_alike() -> None:
    torch.manual_seed(0)
    tuned = TunedViT(INPUTS, TINY)
    torch.manual_seed(0)
    frozen = FrozenViT(INPUTS, TINY)
    assert torch.equal(tuned(X), frozen(X))


def test_every_weight_takes_a_gradient() -> None:
    tuned = TunedViT(INPUTS, TINY)
    tuned(X).square().sum().backward()
    assert all(p.requires_grad and p.grad is not None and bool(p.grad.any()) for p in tuned.parameters())


def test_modes_can_be_set_where_the_frozen_one_stays() -> None:
    tuned = TunedViT(INPUTS, TINY)
    assert all(module.training for module in nn.Sequential(tuned).train().modules())
    assert not any(module.training for module in tuned.eval().modules())
    assert not any(module.training for module in FrozenViT(INPUTS, TINY).train().modules())


def test_training_spoils_neither_the_kept_checkpoint_nor_its_hashes(tmp_path: Path) -> None:
    path = tmp_path / "test_vit.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    options = Vit("test_vit", str(path), 16)
    tuned = TunedViT(INPUTS, options)
    before = tuned(X).detach()
    with torch.no_grad():
        for p in tuned.parameters():
            p.add_(1.0)
    fresh = TunedViT(INPUTS, options)
    assert torch.equal(fresh(X), before)
    assert fresh.pretrained_hashes == {name: content_hash(value) for name, value in fresh.state_dict().items()}
