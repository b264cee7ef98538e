"""Importances of what goes and of a reference: measured in one pass, by stand-ins, or carried."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clearn import checks
from clearn.errors import ConfigError, StateError
from clearn.parts.exemplars import Memory
from clearn.parts.importance import CROSS_ENTROPY, exact
from clearn.parts.samples import TensorSamples, concat
from clearn.parts.weighing import Scales, Weighing
from strategies.memo import Memo
from strategies.replay import Replay

torch.set_num_threads(1)

STREAM = checks.toy_stream(2)
TRAIN = concat([STREAM.task(0).train, STREAM.task(1).train])
GOES = TRAIN.labels == 1


def how(**options: Any) -> Weighing:
    given = {"kind": "exact", "remaining": False, "store": False, "precision": "float32", "batch_size": 10} | options
    return Weighing(CROSS_ENTROPY, **given)


def replay(n_tasks: int = 2) -> Replay:
    torch.manual_seed(0)
    made = Replay(STREAM.inputs, backbone="convnet2", memory=Memory(total=4))
    for info in STREAM.infos[:n_tasks]:
        made.grow(info)
    return made.eval()


def parts() -> tuple[TensorSamples, TensorSamples]:
    gone, kept = (TRAIN.take(rows.nonzero().flatten()) for rows in (GOES, ~GOES))
    assert isinstance(gone, TensorSamples)
    assert isinstance(kept, TensorSamples)
    return gone, kept


def naive(net: Replay, samples: TensorSamples) -> dict[str, torch.Tensor]:
    """One backward pass a sample."""
    total = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for i in range(len(samples)):
        loss = net.losses(samples.inputs[i : i + 1], samples.labels[i : i + 1]).sum()
        for (name, _), g in zip(net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
            total[name] += g.square() / len(samples)
    return total


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], rtol: float = 1e-4) -> None:
    """Compare tensor by tensor, on the scale of each."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) <= rtol * float(value.norm()) + 1e-9, name


def test_one_pass_gives_what_single_passes_give() -> None:
    net, (gone, kept) = replay(), parts()
    found = Scales(how()).weigh(net, gone, kept, stand_in=False)
    close(found.forget, naive(net, gone))
    close(found.reference, naive(net, concat([kept, gone])))  # type: ignore[arg-type]
    assert found.samples == len(TRAIN)
    rest = Scales(how(remaining=True)).weigh(net, gone, kept, stand_in=False)
    close(rest.reference, naive(net, kept))


@pytest.mark.parametrize("kind", ["exact", "class_mean"])
def test_4_the_bound_holds_and_order_and_batches_do_not_matter(kind: str) -> None:
    net, (gone, kept) = replay(), parts()
    found = Scales(how(kind=kind)).weigh(net, gone, kept, stand_in=False)
    n_over_m = len(TRAIN) / len(gone)
    largest = max(float((found.forget[n] / found.reference[n]).nan_to_num().max()) for n in found.forget)
    assert 1 < largest <= n_over_m * (1 + 1e-5)
    shuffled = kept.take(torch.randperm(len(kept), generator=torch.Generator().manual_seed(1)))
    other = Scales(how(kind=kind, batch_size=7)).weigh(net, gone, shuffled, stand_in=False)
    close(other.forget, found.forget)
    close(other.reference, found.reference)


def test_batches_are_squared_in_the_order_of_the_released_code() -> None:
    """Mean gradients of batches of the kept, then the forgotten samples; their mean over batches, short or not."""
    net, (gone, kept) = replay(), parts()
    found = Scales(how(kind="batch", batch_size=10)).weigh(net, gone, kept, stand_in=False)
    for samples, got in ((gone, found.forget), (concat([kept, gone]), found.reference)):
        batches = list(samples.batches(10))
        wanted = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
        for inputs, labels in batches:
            grads = torch.autograd.grad(net.losses(inputs, labels).mean(), list(net.parameters()))
            for name, g in zip(wanted, grads, strict=True):
                wanted[name] += g.square() / len(batches)
        close(got, wanted)


def test_6_two_shards_give_what_one_pass_gives() -> None:
    net, (gone, kept) = replay(), parts()
    scales = Scales(how(store=True))
    for samples in (kept, gone):
        scales.watch(net, samples)
    stored = scales.weigh(net, gone, None, stand_in=False)
    direct = Scales(how()).weigh(net, gone, kept, stand_in=False)
    close(stored.reference, direct.reference)
    close(stored.forget, direct.forget)
    assert stored.samples == len(gone)


def test_exemplars_weigh_by_their_class() -> None:
    """Every sample of class 0, but 2 of class 2 and 3 stand for 12 each: as if each of these came six times."""
    net, (gone, kept) = replay(), parts()
    rows = torch.cat([(kept.labels == c).nonzero().flatten()[: (12 if c == 0 else 2)] for c in (0, 2, 3)])
    stand_ins = kept.take(rows)
    scales = Scales(how())
    scales.watch(net, STREAM.task(0).train)
    scales.watch(net, STREAM.task(1).train)
    found = scales.weigh(net, gone, stand_ins, stand_in=True)
    repeated = stand_ins.take(torch.cat([torch.arange(12), torch.arange(12, 16).repeat(6)]))
    close(found.reference, naive(net, concat([repeated, gone])))  # type: ignore[arg-type]
    uncounted = Scales(how()).weigh(net, gone, stand_ins, stand_in=True)
    close(uncounted.reference, naive(net, concat([stand_ins, gone])))  # type: ignore[arg-type]


def test_what_is_stored_grows_with_the_network_and_survives_its_state() -> None:
    net = replay(1)
    scales = Scales(how(store=True))
    scales.watch(net, STREAM.task(0).train)
    early = {name: value.clone() for name, value in scales.state().items()}
    assert early["unlearner/importance/net.head.weight"].shape == (2, 64)
    net.grow(STREAM.infos[1])
    again = Scales(how(store=True))
    again.load(early)
    again.watch(net, STREAM.task(1).train)
    late = again.state()
    sweep = how().sweep(net)
    new = exact(net, STREAM.task(1).train.batches(8), sweep).mean()["net.head.weight"]
    stored = late["unlearner/importance/net.head.weight"]
    assert stored.shape == (4, 64)
    torch.testing.assert_close(stored[2:], new[2:] / 2)
    torch.testing.assert_close(stored[:2], (early["unlearner/importance/net.head.weight"] + new[:2]) / 2)
    assert float(late["unlearner/weight"]) == 48
    assert late["unlearner/counts"].tolist() == [12] * 4


def test_what_goes_is_taken_out_of_what_is_stored() -> None:
    net, (gone, kept) = replay(), parts()
    scales, rest = Scales(how(store=True)), Scales(how(store=True))
    scales.watch(net, TRAIN)
    rest.watch(net, kept)
    scales.forget(gone, scales.weigh(net, gone, None, stand_in=False).forget)
    state, wanted = scales.state(), rest.state()
    assert state["unlearner/counts"].tolist() == [12, 0, 12, 12]
    assert float(state["unlearner/weight"]) == len(kept)
    prefix = "unlearner/importance/"
    close(
        {n: v for n, v in state.items() if n.startswith(prefix)},
        {n: v for n, v in wanted.items() if n.startswith(prefix)},
        rtol=1e-3,
    )
    assert all(bool((value >= 0).all()) for value in state.values())


def test_bfloat16_takes_half_the_bytes() -> None:
    net = replay()
    single, half = Scales(how(store=True)), Scales(how(store=True, precision="bfloat16"))
    for scales in (single, half):
        scales.watch(net, TRAIN)
    n_scalars = sum(p.numel() for p in net.parameters())
    for scales, width in ((single, 4), (half, 2)):
        stored = [v for n, v in scales.state().items() if n.startswith("unlearner/importance/")]
        assert sum(v.nbytes for v in stored) == width * n_scalars
    for name, value in half.state().items():
        torch.testing.assert_close(value.double(), single.state()[name].double(), rtol=2**-8, atol=0)


def test_frozen_blocks_are_weighed_too() -> None:
    torch.manual_seed(0)
    net = Memo(STREAM.inputs, backbone="convnet2", memory=Memory(total=4)).eval()
    for info in STREAM.infos:
        net.grow(info)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen
    found = Scales(how()).weigh(net, *parts(), stand_in=False)
    assert set(found.forget) == {name for name, _ in net.named_parameters()}
    assert all(bool(found.forget[name].any()) for name in frozen)
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == frozen


def test_5_weighing_leaves_every_bit_as_it_was() -> None:
    net = replay().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for kind in ("exact", "batch", "class_mean"):
        Scales(how(kind=kind)).weigh(net, *parts(), stand_in=False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_what_cannot_be_is_said() -> None:
    net, (gone, _) = replay(), parts()
    with pytest.raises(StateError, match="no importances are stored"):
        Scales(how(store=True)).weigh(net, gone, None, stand_in=False)
    with pytest.raises(ConfigError, match="cannot be 'remaining'"):
        how(store=True, remaining=True)
    with pytest.raises(ConfigError, match="batch_size=0"):
        how(batch_size=0)
    scales = Scales(how(store=True))
    scales.watch(net, gone)
    with pytest.raises(StateError, match="store: false does not keep"):
        Scales(how()).load(scales.state())
