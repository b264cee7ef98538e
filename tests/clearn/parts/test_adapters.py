from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from clearn.parts.adapters import DROPOUT, SCALE, Adapter, AdapterBank, Store, quantised
from clearn.state import content_hash

torch.set_num_threads(1)


def trained(depth: int, width: int, bottleneck: int, seed: int) -> Adapter:
    """A set whose every number is drawn."""
    torch.manual_seed(seed)
    adapter = Adapter(depth, width, bottleneck)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    return adapter.eval()


def filled(n: int, depth: int = 2, width: int = 6, bottleneck: int = 3) -> tuple[AdapterBank, list[Adapter]]:
    bank = AdapterBank(depth, width, bottleneck)
    adapters = [trained(depth, width, bottleneck, seed) for seed in range(n)]
    for adapter in adapters:
        bank.grow()
        bank.add(adapter)
    return bank, adapters


@pytest.mark.parametrize(
    ("width", "bottleneck", "count", "n_bytes"),
    [
        (768, 16, 304_320, 1_217_280),
        (384, 16, 152_256, 609_024),
        (192, 16, 76_224, 304_896),
        (768, 64, 1_189_632, 4_758_528),
        (384, 64, 595_200, 2_380_800),
        (192, 64, 297_984, 1_191_936),  # by the spec's formula; its table has 768 more
    ],
)
def test_sizes_are_those_of_the_specs_table(width: int, bottleneck: int, count: int, n_bytes: int) -> None:
    adapter = Adapter(12, width, bottleneck)
    assert sum(p.numel() for p in adapter.parameters()) == count == 12 * (2 * width * bottleneck + bottleneck + width)
    assert sum(p.nbytes for p in adapter.parameters()) == n_bytes
    bank = AdapterBank(12, width, bottleneck)
    bank.grow()
    bank.grow()
    assert sum(value.nbytes for value in bank.state_dict().values()) == 2 * n_bytes


def test_a_fresh_set_adds_nothing_and_starts_as_published() -> None:
    adapter = Adapter(2, 100, 50)
    assert not adapter.branch(1, torch.randn(3, 4, 100)).any()
    assert float(adapter.down.detach().abs().max()) <= 0.1  # 1 / sqrt(100)
    variance = float(adapter.down.detach().var())
    assert variance == pytest.approx(0.01 / 3, rel=4 * (0.8 / 10_000) ** 0.5)  # uniform: Var(s^2)/s^4 = 0.8 / n
    assert not any(getattr(adapter, name).any() for name in ("down_bias", "up", "up_bias"))


def test_a_branch_is_the_published_formula() -> None:
    adapter, x = trained(2, 6, 3, 0), torch.randn(4, 5, 6)
    down, up = nn.Linear(6, 3), nn.Linear(3, 6)
    with torch.no_grad():
        down.weight.copy_(adapter.down[1].T)
        down.bias.copy_(adapter.down_bias[1])
        up.weight.copy_(adapter.up[1].T)
        up.bias.copy_(adapter.up_bias[1])
    torch.testing.assert_close(adapter.branch(1, x), 0.1 * up(down(x).relu()))
    assert SCALE == 0.1


def test_dropout_falls_on_the_bottleneck_while_training_only() -> None:
    adapter = Adapter(1, 4, 2000)
    with torch.no_grad():
        adapter.down.zero_()
        adapter.down_bias.fill_(1.0)
        adapter.up.fill_(1 / 2000)
    x = torch.zeros(1, 1, 4)
    torch.testing.assert_close(adapter.eval().branch(0, x), torch.full((1, 1, 4), 0.1))
    torch.manual_seed(0)
    share = float(adapter.train().branch(0, x)[0, 0, 0].detach()) / 0.1 * (1 - DROPOUT)  # of units that are kept
    assert share == pytest.approx(0.9, abs=4 * (0.9 * 0.1 / 2000) ** 0.5)
    assert share != 0.9


def test_each_image_goes_through_its_own_set() -> None:
    bank, adapters = filled(3)
    x, which = torch.randn(7, 5, 6), torch.tensor([2, 0, 1, 1, 0, 2, 2])
    for block in (0, 1):
        routed = bank.select(which).branch(block, x)
        alone = torch.cat([adapters[t].branch(block, x[i : i + 1]) for i, t in enumerate(which.tolist())])
        torch.testing.assert_close(routed, alone)
        for t, adapter in enumerate(adapters):
            assert torch.equal(bank.one(t).branch(block, x), adapter.branch(block, x))
            torch.testing.assert_close(bank.select(torch.full((7,), t)).branch(block, x), adapter.branch(block, x))


def test_stored_sets_are_copies_that_growing_leaves_alone() -> None:
    bank, adapters = filled(2)
    before = {name: content_hash(value) for name, value in bank.state_dict().items()}
    with torch.no_grad():
        for parameter in adapters[1].parameters():
            parameter.zero_()
    assert {name: content_hash(value) for name, value in bank.state_dict().items()} == before
    bank.grow()
    assert len(bank) == 3
    assert {name: content_hash(value[:2]) for name, value in bank.state_dict().items()} == before
    assert not bank.one(2).branch(0, torch.randn(1, 2, 6)).any()
    assert not list(bank.parameters())


def test_means_and_copies_have_the_names_of_a_sets_parameters() -> None:
    bank, adapters = filled(3)
    for name, mean in bank.mean(2).items():
        torch.testing.assert_close(mean, (getattr(adapters[0], name) + getattr(adapters[1], name)) / 2)
    fresh = Adapter(2, 6, 3)
    bank.take(1, fresh)
    assert set(bank.mean(3)) == set(dict(fresh.named_parameters()))
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, getattr(adapters[1], name))
        assert parameter.requires_grad


def test_a_bank_is_rebuilt_by_growing_and_loading() -> None:
    bank, _ = filled(2)
    state: dict[str, Tensor] = copy.deepcopy(bank.state_dict())
    again = AdapterBank(2, 6, 3)
    again.grow()
    again.grow()
    again.load_state_dict(state)
    x = torch.randn(2, 3, 6)
    which = torch.tensor([1, 0])
    assert torch.equal(again.select(which).branch(0, x), bank.select(which).branch(0, x))


# --- other forms than float32


def stored_as(form: Store, n: int, depth: int = 2, width: int = 6, bottleneck: int = 3) -> AdapterBank:
    bank = AdapterBank(depth, width, bottleneck, form)
    for seed in range(n):
        bank.grow()
        bank.add(trained(depth, width, bottleneck, seed))
    return bank


@pytest.mark.parametrize(("form", "n_bytes"), [("float32", 24_345_600), ("float16", 12_172_800), ("int8", 6_394_368)])
def test_forms_weigh_what_their_formulas_say(form: Store, n_bytes: int) -> None:
    numbers, depth, t = 304_320, 12, 20  # ViT-B, r = 16: the spec's section 5
    formula = {"float32": 4 * t * numbers, "float16": 2 * t * numbers}
    formula["int8"] = 2 * numbers + (t - 1) * (numbers + 4 * 4 * depth)
    assert formula[form] == n_bytes
    bank = AdapterBank(depth, 768, 16, form)
    for _ in range(t):
        bank.grow()
    assert sum(value.nbytes for value in bank.state_dict().values()) == n_bytes


def test_float16_is_rounded_once() -> None:
    bank, raw = stored_as("float16", 2), trained(2, 6, 3, 1)
    for name, value in bank.tensors(1).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, getattr(raw, name).detach().half().float())
    again = stored_as("float16", 2)
    fresh = Adapter(2, 6, 3)
    bank.take(1, fresh)
    again.add(fresh)
    assert all(torch.equal(a, b) for a, b in zip(bank.buffers(), again.buffers(), strict=True))


def test_int8_keeps_differences_to_the_first_set_to_half_a_step_of_each_block() -> None:
    bank, raw = stored_as("int8", 3), [trained(2, 6, 3, seed) for seed in range(3)]
    first = {name: value.detach().half().float() for name, value in raw[0].named_parameters()}
    assert all(torch.equal(value, first[name]) for name, value in bank.tensors(0).items())
    for t in (1, 2):
        for name, value in bank.tensors(t).items():
            delta = getattr(raw[t], name).detach() - first[name]
            for block in (0, 1):
                step = float(delta[block].abs().max()) / 127
                error = (value - getattr(raw[t], name).detach())[block].abs().max()
                assert float(error) <= step * (0.5 + 1e-4)
                assert float(bank.get_buffer(f"{name}_scale")[t - 1, block]) == pytest.approx(step)
    assert float(bank.up_delta.abs().max()) == 127


def test_a_difference_of_nothing_is_kept_as_nothing() -> None:
    delta, scale = quantised(torch.zeros(2, 3, 4))
    assert not delta.any()
    assert not scale.any()
    delta, scale = quantised(torch.tensor([[1.0, -254.0], [0.0, 0.0]]))  # a step is 2: 1 is half of it, and even
    assert delta.tolist() == [[0, -127], [0, 0]]
    assert scale.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_of_other_forms_each_image_goes_through_its_own_set_as_read_back(form: Store) -> None:
    for n in (1, 3):
        bank = stored_as(form, n)
        x, which = torch.randn(5, 4, 6), torch.tensor([2, 0, 1, 0, 2]).clamp(max=n - 1)
        for block in (0, 1):
            routed = bank.select(which).branch(block, x)
            for i, t in enumerate(which.tolist()):
                fresh = Adapter(2, 6, 3).eval()
                bank.take(t, fresh)
                torch.testing.assert_close(routed[i : i + 1], fresh.branch(block, x[i : i + 1]))
                torch.testing.assert_close(bank.one(t).branch(block, x[i : i + 1]), fresh.branch(block, x[i : i + 1]))


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_of_other_forms_stored_bytes_stay_and_a_bank_is_rebuilt(form: Store) -> None:
    bank = stored_as(form, 2)
    before = {name: content_hash(value) for name, value in bank.state_dict().items()}
    mean = {name: value.clone() for name, value in bank.mean(2).items()}
    bank.grow()
    assert not any(value.any() for value in bank.tensors(2).values()) or form == "int8"
    bank.add(trained(2, 6, 3, 2))
    kept = {name: value[: len(value) - 1] for name, value in bank.state_dict().items()}
    for name in bank.names:
        if form == "int8":
            kept[name] = bank.get_buffer(name)  # the first set alone
    assert {name: content_hash(value) for name, value in kept.items()} == before
    assert all(torch.equal(value, mean[name]) for name, value in bank.mean(2).items())
    again = AdapterBank(2, 6, 3, form)
    for _ in range(3):
        again.grow()
    again.load_state_dict(copy.deepcopy(bank.state_dict()))
    for t in range(3):
        assert all(torch.equal(value, bank.tensors(t)[name]) for name, value in again.tensors(t).items())
