"""LoRA: what peft trains and what the bank reads back give the same features, and the network keeps its names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError
from clearn.parts import lora
from clearn.parts.adapters import AdapterBank, Store
from clearn.parts.frozen_vit import FrozenViT, Vit
from clearn.parts.lora import LoraBank
from clearn.state import content_hash
from clearn.stream import Inputs

torch.set_num_threads(1)

peft = pytest.importorskip("peft")

L, D, R = 6, 64, 3


def network() -> FrozenViT:
    torch.manual_seed(0)
    return FrozenViT(Inputs((3, 8, 8)), Vit("test_vit", weights=False, image_size=32))


def images(n: int = 4) -> Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def filled(n: int, store: Store = "float32") -> tuple[LoraBank, list[lora.Lora]]:
    bank, sets = LoraBank(L, D, R, store), []
    for seed in range(n):
        torch.manual_seed(seed)
        sets.append(bank.fresh().eval())
        with torch.no_grad():
            for parameter in sets[-1].parameters():
                parameter.normal_(std=0.3)
        bank.grow()
        bank.add(sets[-1])
    return bank, sets


def test_a_fresh_set_of_4dr_numbers_a_block_adds_nothing() -> None:
    net, bank = network(), LoraBank(L, D, R)
    fresh = bank.fresh()
    assert sum(p.numel() for p in fresh.parameters()) == L * 4 * D * R
    assert all(p.requires_grad for p in fresh.parameters())
    tokens = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))
    assert not any(bool(fresh.branch(block, tokens).any()) for block in range(L))
    # Without LoRA the last block leaves out the projection that LoRA would add to, so sums come in another order.
    torch.testing.assert_close(net(images(), fresh), net(images()), rtol=1e-5, atol=1e-5)
    for _ in range(2):
        bank.grow()
    assert sum(value.nbytes for value in bank.state_dict().values()) == 4 * 2 * L * 4 * D * R


def test_features_are_those_of_a_network_that_peft_has_changed() -> None:
    net, (bank, sets) = network(), filled(2)
    changed = copy.deepcopy(net)
    config = peft.LoraConfig(r=R, lora_alpha=R, target_modules=["qkv"])
    peft.inject_adapter_in_model(config, changed.net, "mine")
    with torch.no_grad():
        for block, (a, b) in enumerate(zip(bank.a[1], bank.b[1], strict=True)):
            layer = changed.net.blocks[block].attn.qkv
            layer.lora_A["mine"].weight.copy_(a)
            layer.lora_B["mine"].weight.copy_(b)
        theirs = changed(images())
        torch.testing.assert_close(net(images(), sets[1]), theirs)
        torch.testing.assert_close(net(images(), bank.one(1)), theirs)
        assert not torch.allclose(net(images()), theirs)


def test_the_network_keeps_names_values_and_no_hook() -> None:
    net, (bank, _) = network(), filled(1)
    before = {name: content_hash(value) for name, value in net.state_dict().items()}
    plain = net(images())
    net.train()
    fresh = bank.fresh()
    bank.take(0, fresh)
    net(images(), fresh)[:, 0].sum().backward()  # all features together are the same after any norm
    assert all(p.grad is not None and bool(p.grad.any()) for p in fresh.parameters())
    assert {name: content_hash(value) for name, value in net.state_dict().items()} == before
    assert not any(block.attn.qkv._forward_hooks for block in net.net.blocks)
    assert torch.equal(net(images()), plain)
    with pytest.raises(RuntimeError):
        net(images(), LoraBank(L, 32, R).fresh())  # of another width
    assert torch.equal(net(images()), plain)


@pytest.mark.parametrize("store", ["float32", "float16", "int8"])
def test_each_image_goes_through_its_own_set(store: Store) -> None:
    net, (bank, _) = network(), filled(3, store)
    which = torch.tensor([2, 0, 1, 0])
    with torch.no_grad():
        routed = net(images(), bank.select(which))
        alone = torch.cat([net(images()[i : i + 1], bank.one(t)) for i, t in enumerate(which.tolist())])
    torch.testing.assert_close(routed, alone)
    weight = sum(value.nbytes for value in bank.state_dict().values())
    numbers = L * 4 * D * R
    assert (
        weight == {"float32": 12 * numbers, "float16": 6 * numbers, "int8": 2 * numbers + 2 * (numbers + 8 * L)}[store]
    )


def test_means_and_copies_have_the_names_of_peft_s_parameters() -> None:
    bank, sets = filled(3)
    mean, own = bank.mean(2), [dict(one.named_parameters()) for one in sets]
    assert mean.keys() == own[0].keys()
    for name, value in mean.items():
        torch.testing.assert_close(value, (own[0][name] + own[1][name]) / 2)
    fresh = bank.fresh()
    bank.take(2, fresh)
    assert all(torch.equal(value, own[2][name]) for name, value in fresh.named_parameters())


def test_without_peft_it_is_refused_with_the_line_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'clearn\[language\]'"):
        LoraBank(L, D, R)
    AdapterBank(L, D, R)  # needs none


def test_a_rank_below_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="bottleneck=0 must be 1 or more"):
        LoraBank(L, D, 0)
