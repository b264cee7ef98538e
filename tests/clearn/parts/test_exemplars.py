from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

from clearn.errors import BudgetExceeded, ConfigError, StateError
from clearn.parts.codecs import VariableCodec
from clearn.parts.exemplars import (
    Exemplars,
    Memory,
    class_means,
    herd,
    nearest_mean_scores,
    normalise,
    split_quota,
)
from clearn.parts.quotas import fill_bytes
from clearn.parts.samples import Samples, TensorSamples
from clearn.stream import Inputs

torch.set_num_threads(1)

GREY = Inputs((1, 8, 8), "uint8")
VECTOR = Inputs((2,), "float32")


# Herding


def naive_herd(features: Tensor, keep: int) -> list[int]:
    """Rebuffi et al. 2017, Alg. 4, as it is written."""
    mean, order = features.mean(0), list[int]()
    for i in range(1, keep + 1):
        gaps = ((features[order].sum(0) + features) / i - mean).norm(dim=1)
        gaps[order] = torch.inf
        order.append(int(gaps.argmin()))
    return order


def test_herd_by_hand() -> None:  # mean is 2: nearest 2 itself, then (2+1)/2, then (3+5)/3
    assert herd(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), 4).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize(("n", "d", "keep"), [(1, 3, 1), (7, 1, 7), (60, 5, 60), (200, 64, 150), (90, 300, 90)])
@pytest.mark.parametrize("normal", [False, True])
def test_herd_picks_what_the_naive_loop_picks(n: int, d: int, keep: int, normal: bool) -> None:
    features = torch.rand(n, d, generator=torch.Generator().manual_seed(n + d), dtype=torch.float64)
    features = normalise(features) if normal and d > 1 else features
    assert herd(features, keep).tolist() == naive_herd(features, keep)


def test_herd_gives_ties_to_the_lowest_row() -> None:
    assert herd(torch.full((9, 3), 0.1), 9).tolist() == list(range(9))
    thrice = normalise(torch.rand(13, 63, generator=torch.Generator().manual_seed(0))).repeat(3, 1)
    order = herd(thrice, 39).tolist()  # rounding alone would order two of these pairs the other way
    assert sorted(order) == list(range(39))
    assert all(order.index(i) < order.index(i + 13) for i in range(26))


def test_a_smaller_herd_is_a_prefix_of_a_larger_one() -> None:
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
    whole = herd(features, 30)
    assert sorted(whole.tolist()) == list(range(30))
    assert all(torch.equal(herd(features, k), whole[:k]) for k in range(1, 30))


def test_herd_says_what_is_wrong() -> None:
    for keep in (0, 5):
        with pytest.raises(ValueError, match=rf"keep={keep} must lie in \[1, 4\]: this class has 4"):
            herd(torch.zeros(4, 2), keep)
    with pytest.raises(ValueError, match="diverged"):
        herd(torch.tensor([[0.0], [torch.nan]]), 1)


def test_normalise_keeps_zero_rows() -> None:
    rows = normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


# Nearest mean


def test_class_means_by_hand() -> None:  # unit rows (1, 0) and (0, 1) have the mean direction (1, 1)
    features = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.0, -3.0]])
    means = class_means(features, torch.tensor([0, 0, 2]), 3)
    assert torch.allclose(means, torch.tensor([[math.sqrt(0.5)] * 2, [0.0, 0.0], [0.0, -1.0]]))


def test_nearest_mean_is_the_squared_distance_and_absent_classes_never_win() -> None:
    rng = torch.Generator().manual_seed(0)
    features, labels = torch.randn(20, 6, generator=rng), torch.arange(20) % 3 * 2  # classes 0, 2, 4 of 5
    means, present = class_means(features, labels, 5), torch.bincount(labels, minlength=5) > 0
    queries = torch.randn(8, 6, generator=rng)
    scores = nearest_mean_scores(queries, means, present)
    expected = -torch.cdist(normalise(queries), means[present]).square()
    assert torch.allclose(scores[:, present], expected, atol=1e-5)
    assert bool((scores[:, ~present] == -torch.inf).all())
    assert set(scores.argmax(1).tolist()) <= {0, 2, 4}
    nobody = nearest_mean_scores(queries, torch.zeros(5, 6), torch.zeros(5, dtype=torch.bool))
    assert not bool(nobody.isnan().any())


# Quotas


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 60), st.lists(st.integers(0, 12), max_size=8))
def test_split_quota_is_fair_full_and_monotone(total: int, available: list[int]) -> None:
    quotas = split_quota(total, available)
    assert all(0 <= q <= n for q, n in zip(quotas, available, strict=True))
    assert sum(quotas) == min(total, sum(available))
    assert all(a <= b for a, b in zip(quotas, split_quota(total + 1, available), strict=True))
    open_ones = [q for q, n in zip(quotas, available, strict=True) if q < n]
    assert not open_ones or max(quotas) <= min(open_ones) + 1
    floor = split_quota(total, available, "floor")
    assert floor == [min(n, total // len(available)) for n in available]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 60), st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(0, 12))
def test_another_group_never_raises_the_quota_of_the_old(total: int, available: list[int], new: int) -> None:
    before = split_quota(total, available)
    after = split_quota(total, [*before, new])
    assert all(a <= b for a, b in zip(after[:-1], before, strict=True))


def test_published_quotas() -> None:
    expected = [200, 100, 66, 50, 40, 33, 28, 25, 22, 20]
    for b, quota in enumerate(expected, start=1):
        assert split_quota(2000, [500] * 10 * b, "floor") == [quota] * 10 * b
        spread = split_quota(2000, [500] * 10 * b)
        assert sum(spread) == 2000 and spread[0] - spread[-1] == (1 if 2000 % (10 * b) else 0)
    assert sum(split_quota(3312, [500] * 100, "floor")) == 3300
    assert split_quota(7431, [500] * 10) == [500] * 10  # more slots than samples


def test_fewer_slots_than_groups() -> None:
    assert split_quota(3, [5] * 5) == [1, 1, 1, 0, 0]
    assert split_quota(3, [5] * 5, "floor") == [0] * 5
    assert split_quota(0, [5, 5]) == [0, 0]
    assert split_quota(9, []) == []
    with pytest.raises(ValueError, match="total=-1"):
        split_quota(-1, [1])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 400), st.lists(st.lists(st.integers(1, 30), max_size=8), max_size=5), st.integers(0, 6))
def test_fill_bytes_takes_prefixes_until_no_next_item_fits(room: int, sizes: list[list[int]], overhead: int) -> None:
    queues = [[bytes(size) for size in group] for group in sizes]
    taken = fill_bytes(queues, room, overhead, len(queues))
    left = room - sum(len(blob) + overhead for group in taken for blob in group)
    assert left >= 0
    for group, queue in zip(taken, queues, strict=True):
        assert group == queue[: len(group)]
        if len(group) < len(queue):
            assert len(queue[len(group)]) + overhead > left
            used = sum(len(blob) + overhead for blob in group)
            assert used + len(queue[len(group)]) + overhead > room // len(queues)  # at least its own share
    unspread = fill_bytes(queues, room, overhead, len(queues), spread=False)
    assert all(a == b[: len(a)] for a, b in zip(unspread, taken, strict=True))
    assert all(sum(len(b) + overhead for b in group) <= room // len(queues) for group in unspread)


# The options


def test_all_mistakes_of_the_options_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Memory(total=-1, per_class=True, codec="jpg", selection="best", remainder="most")  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    for word in (
        "total=-1",
        "per_class=True",
        "remove the other",
        "'jpeg'",
        "'herding' or 'random'",
        "'spread'",
    ):
        assert any(word in line for line in lines), word


def test_a_memory_without_number_and_budget_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"memory.total, memory.per_class or budget.bytes"):
        Exemplars(Memory(), GREY).quota(None, 10)


# The store


def digits(classes: Sequence[int], per_class: int = 20, skip: int = 0) -> TensorSamples:
    """Real 8 x 8 digits, 0..240, `per_class` of each class in mixed order."""
    images, targets = load_digits(return_X_y=True)
    images, targets = torch.tensor(images * 15, dtype=torch.uint8).view(-1, 1, 8, 8), torch.tensor(targets)
    rows = sorted(i for c in classes for i in (targets == c).nonzero().flatten().tolist()[skip : skip + per_class])
    return TensorSamples(images[rows], targets[rows].long())


def pixels(samples: Samples) -> Tensor:
    """Features: the pixels themselves."""
    return samples.fetch(torch.arange(len(samples))).flatten(1).float()


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def update(memory: Exemplars, new: Samples, n_classes: int, room: int | None = None, paper: bool = False) -> None:
    memory.update(new, pixels, n_classes, room, rng(), paper)


def rebuilt(memory: Exemplars) -> Exemplars:
    other = Exemplars(memory.options, memory.inputs)
    other.load({name: tensor.clone() for name, tensor in memory.state().items()})
    return other


def of_class(memory: Exemplars, label: int) -> Tensor:
    samples = memory.samples()
    return samples.inputs[samples.labels == label]


CODECS = ["raw", "paper", "kbit:4", "zlib", "png", "jpeg:75"]


@pytest.mark.parametrize("name", CODECS)
def test_empty_memory(name: str) -> None:
    memory = Exemplars(Memory(total=5, codec=name), GREY)
    assert memory.state() == {} and memory.groups() == [] and len(memory) == memory.nbytes == 0
    samples = memory.samples()
    assert samples.inputs.shape == (0, 1, 8, 8) and samples.inputs.dtype == torch.uint8
    assert len(samples) == 0
    memory.load({})
    update(memory, digits([]), 0)
    assert memory.state() == {}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("selection", ["herding", "random"])
def test_cuts_are_prefixes_and_the_state_is_all_there_is(name: str, selection: str) -> None:
    memory = Exemplars(Memory(total=23, codec=name, selection=selection), GREY)  # type: ignore[arg-type]
    update(memory, digits([0, 1]), 2)
    assert memory.groups() == [(0, 12), (1, 11)]
    first = {label: of_class(memory, label) for label in (0, 1)}
    again = rebuilt(memory)
    for store in (memory, again):
        update(store, digits([2, 3, 4]), 5)
        assert store.groups() == [(0, 5), (1, 5), (2, 5), (3, 4), (4, 4)]
        for label in (0, 1):
            assert torch.equal(of_class(store, label), first[label][:5])
    assert memory.state().keys() == again.state().keys()
    assert all(torch.equal(tensor, again.state()[key]) for key, tensor in memory.state().items())
    assert memory.nbytes == sum(tensor.nbytes for tensor in memory.state().values())


def test_herded_exemplars_are_the_naive_picks_on_normalised_features() -> None:
    new = digits([3, 7], per_class=30)
    memory = Exemplars(Memory(total=20), GREY)
    update(memory, new, 8)
    for label in (3, 7):
        images = new.inputs[new.labels == label]
        order = naive_herd(normalise(images.flatten(1).double()), 10)
        assert torch.equal(of_class(memory, label), images[order])


def test_random_draws_do_not_depend_on_the_quota() -> None:
    few, many = (Exemplars(Memory(total=total, selection="random"), GREY) for total in (4, 40))
    for memory in (few, many):
        update(memory, digits([0, 1]), 2)
    for label in (0, 1):
        assert torch.equal(of_class(few, label), of_class(many, label)[:2])
    assert not torch.equal(of_class(many, 0), digits([0]).inputs)  # not merely the first ones


def test_state_of_fixed_items_is_images_and_labels() -> None:
    memory = Exemplars(Memory(per_class=3), GREY)
    update(memory, digits([0, 1]), 2)
    state = memory.state()
    assert {key: (t.dtype, tuple(t.shape)) for key, t in state.items()} == {
        "images": (torch.uint8, (6, 1, 8, 8)),
        "labels": (torch.uint8, (6,)),
    }
    assert memory.nbytes == 6 * 65 == 6 * memory.item_cost(2)
    assert (memory.item_bytes, memory.paper_bytes) == (64, 192)


def test_vectors_are_kept_as_they_are() -> None:
    memory = Exemplars(Memory(total=2), VECTOR)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    memory.update(TensorSamples(values, torch.zeros(3, dtype=torch.int64)), lambda s: values, 1, None, rng())
    assert torch.equal(memory.samples().inputs[0], values[2])
    assert memory.nbytes == 2 * 9 == 2 * memory.item_cost(1)


def test_quota_of_zero_and_more_slots_than_samples() -> None:
    def never(samples: Samples) -> Tensor:
        raise AssertionError("nothing is kept, so nothing need be computed")

    for options in (Memory(total=0), Memory(per_class=0), Memory(total=3, remainder="floor")):
        memory = Exemplars(options, GREY)
        memory.update(digits([0, 1, 2, 3, 4]), never, 5, None, rng())
        assert memory.state() == {}
    memory = Exemplars(Memory(total=3), GREY)
    update(memory, digits([0, 1, 2, 3, 4]), 5)
    assert memory.groups() == [(0, 1), (1, 1), (2, 1)]
    memory = Exemplars(Memory(total=1000), GREY)
    update(memory, digits([0, 1]), 2)
    assert memory.groups() == [(0, 20), (1, 20)]


def test_floor_counts_every_class_seen() -> None:  # floor(15 / 20) = 0 although only 10 classes arrive
    memory = Exemplars(Memory(total=15, remainder="floor"), GREY)
    update(memory, digits(range(10)), 20)
    assert len(memory) == 0
    update(memory, digits(range(10)), 10)
    assert len(memory) == 10


def test_small_classes_leave_their_slots_to_others() -> None:
    small, large = digits([0], per_class=3), digits([1])
    new = TensorSamples(torch.cat([small.inputs, large.inputs]), torch.cat([small.labels, large.labels]))
    memory = Exemplars(Memory(total=20), GREY)
    update(memory, new, 2)
    assert memory.groups() == [(0, 3), (1, 17)]
    memory = Exemplars(Memory(per_class=10), GREY)
    update(memory, new, 2)
    assert memory.groups() == [(0, 3), (1, 10)]  # never more than asked for a class


@pytest.mark.parametrize(("room", "paper", "count"), [(65 * 9 + 64, False, 9), (192 * 9 + 191, True, 9)])
def test_room_decides_how_many(room: int, paper: bool, count: int) -> None:
    memory = Exemplars(Memory(), GREY)
    assert memory.quota(room, 2, paper) == count
    update(memory, digits([0, 1]), 2, room, paper)
    assert len(memory) == count
    update(memory, digits([2]), 3, room - 1000 if paper else 0, paper)
    assert len(memory) == (4 if paper else 0)


def test_published_every_task_quota() -> None:  # budgets.md C6, paper counting: MEMO with ResNet32 in 24,684,160 B
    memory = Exemplars(Memory(), Inputs((3, 32, 32), "uint8"))
    quotas = [memory.quota(24_684_160 - 4 * (112_016 + b * 351_488), 10 * b, paper=True) for b in range(1, 11)]
    assert quotas == [7431, 6974, 6516, 6058, 5601, 5143, 4685, 4228, 3770, 3312]


def test_too_many_for_the_room_changes_nothing_and_says_both_numbers() -> None:
    for name in ("raw", "png"):
        memory = Exemplars(Memory(total=10, codec=name), GREY)
        update(memory, digits([0, 1]), 2, room=10_000)
        before = memory.state()
        with pytest.raises(BudgetExceeded, match=r"memory.total=10 keeps 10 exemplars of \d+ bytes.* 500 bytes"):
            update(memory, digits([2]), 3, room=500)
        assert memory.groups() == [(0, 5), (1, 5)]
        assert all(torch.equal(tensor, before[key]) for key, tensor in memory.state().items())
        with pytest.raises(BudgetExceeded, match="-1 bytes"):
            update(memory, digits([2]), 3, room=-1)
    few = Exemplars(Memory(per_class=500), GREY)  # 1000 asked for, 40 at hand: these fit
    update(few, digits([0, 1]), 2, room=40 * 65)
    assert len(few) == 40
    with pytest.raises(BudgetExceeded, match=r"memory.per_class=500 keeps 60 exemplars of 11520 bytes"):
        update(few, digits([2]), 3, room=11519, paper=True)


@pytest.mark.parametrize("name", ["png", "zlib", "jpeg:50"])
@pytest.mark.parametrize("room", [0, 60, 1000, 2345, 100_000])
def test_items_that_differ_in_size_fill_the_room(name: str, room: int) -> None:
    memory = Exemplars(Memory(codec=name), GREY)
    tasks = {2: digits([0, 1]), 5: digits([2, 3, 4]), 6: digits([5])}
    assert memory.quota(room, 2) is None and memory.item_bytes is None
    encode = memory.codec
    assert isinstance(encode, VariableCodec)
    best: dict[int, list[bytes]] = {}  # all samples of each class seen, encoded, in herding order
    for n_classes, new in tasks.items():
        for label in new.labels.unique().tolist():
            images = new.inputs[new.labels == label]
            best[label] = encode.encode(images[herd(normalise(images.flatten(1).float()), len(images))])
        before = dict(memory.groups())
        memory = rebuilt(memory)
        update(memory, new, n_classes, room)
        after, left = dict(memory.groups()), room - memory.nbytes
        assert left >= 0
        for label, blobs in best.items():
            kept = after.get(label, 0)
            assert torch.equal(of_class(memory, label), encode.decode(blobs[:kept]))
            reachable = before.get(label, 0) if label not in new.labels else len(blobs)
            assert kept == reachable or len(blobs[kept]) + 5 > left
    if room == 100_000:
        assert len(memory) == 120
    assert memory.nbytes == sum(len(b) + 5 for label, n in memory.groups() for b in best[label][:n])


def test_state_of_items_that_differ_in_size() -> None:
    memory = Exemplars(Memory(codec="png"), GREY)
    update(memory, digits([0]), 1, room=2000)
    state = memory.state()
    assert {key: t.dtype for key, t in state.items()} == {
        "payload": torch.uint8,
        "lengths": torch.int32,
        "labels": torch.uint8,
    }
    assert int(state["lengths"].sum()) == len(state["payload"])
    with pytest.raises(ValueError, match="differ in size"):
        memory.item_cost(1)


def test_number_of_items_that_differ_in_size_can_be_given() -> None:
    memory = Exemplars(Memory(total=7, codec="png"), GREY)
    update(memory, digits([0, 1]), 2)
    assert memory.groups() == [(0, 4), (1, 3)]
    by_paper = Exemplars(Memory(codec="png"), GREY)
    update(by_paper, digits([0, 1]), 2, room=7 * 192, paper=True)
    assert by_paper.groups() == [(0, 4), (1, 3)]


@pytest.mark.parametrize("name", ["raw", "zlib"])
def test_labels_grow_with_the_classes_seen(name: str) -> None:
    memory = Exemplars(Memory(codec=name), VECTOR)

    def learn(labels: list[int], n_classes: int) -> None:
        rows = torch.tensor([[label, 1.0] for label in labels])
        new = TensorSamples(rows, torch.tensor(labels))
        memory.update(new, pixels, n_classes, 10_000, rng())
        memory.load(rebuilt(memory).state())

    learn([0, 255], 256)
    assert memory.state()["labels"].dtype == torch.uint8
    learn([256, 257], 258)
    assert memory.state()["labels"].dtype == torch.int16
    learn([32767, 32768], 32769)
    state = memory.state()
    assert state["labels"].dtype == torch.int32
    assert memory.samples().labels.tolist() == [0, 255, 256, 257, 32767, 32768]
    assert memory.samples().inputs[:, 0].tolist() == memory.samples().labels.tolist()
    if name == "raw":
        assert [memory.item_cost(n) for n in (256, 257, 32768, 32769)] == [9, 10, 10, 12]


def test_wider_labels_are_paid_for() -> None:
    memory = Exemplars(Memory(), GREY)
    update(memory, digits(range(10)), 300, room=66 * 7 + 65)
    assert len(memory) == 7 and memory.nbytes == 66 * 7


def test_each_domain_adds_its_own_groups() -> None:
    memory = Exemplars(Memory(total=18), GREY)
    for domain in range(3):
        update(memory, digits([0, 1], skip=20 * domain), 2)
    assert memory.groups() == [(0, 3), (1, 3)] * 3
    memory = Exemplars(Memory(per_class=9), GREY)
    for domain in range(2):
        update(memory, digits([0, 1], skip=20 * domain), 2)
    assert memory.groups() == [(0, 5), (1, 5), (0, 4), (1, 4)]


def test_a_class_that_comes_back_at_once_keeps_its_groups_apart() -> None:
    memory = Exemplars(Memory(total=16), GREY)
    update(memory, digits([0, 1]), 2)
    update(memory, digits([1, 2], skip=20), 3)
    assert memory.groups() == [(0, 4), (1, 4), (2, 4), (1, 4)]


def test_a_state_of_something_else_is_refused_and_changes_nothing() -> None:
    memory = Exemplars(Memory(total=4), GREY)
    update(memory, digits([0]), 1)
    good = memory.state()
    packed = Exemplars(Memory(total=4, codec="png"), GREY)
    update(packed, digits([0]), 1)
    blobs = packed.state()
    for wrong, message in (
        ({"images": good["images"]}, "codec 'raw' keeps"),
        (blobs, "memory.codec it was written with"),
        ({**good, "labels": good["labels"].long()}, "int64"),
        ({**good, "labels": good["labels"][:3]}, "3 items"),
        ({**good, "images": good["images"].float()}, "float32"),
    ):
        with pytest.raises(StateError, match=message):
            memory.load(wrong)
    for wrong, message in (
        ({**blobs, "payload": blobs["payload"][:-1]}, "add up to"),
        ({**blobs, "lengths": blobs["lengths"].long()}, "int64"),
        ({**blobs, "labels": blobs["labels"][:2]}, r"int32 \(2,\)"),
    ):
        with pytest.raises(StateError, match=message):
            packed.load(wrong)
    assert all(torch.equal(tensor, good[key]) for key, tensor in memory.state().items())
    assert all(torch.equal(tensor, blobs[key]) for key, tensor in packed.state().items())


def test_samples_that_do_not_belong_are_refused() -> None:
    memory = Exemplars(Memory(total=4), GREY)
    with pytest.raises(ValueError, match="labels run from 0 to 3"):
        update(memory, digits([0, 3]), 3)
    with pytest.raises(ValueError, match="make it for the inputs"):
        update(memory, TensorSamples(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)), 1)
    with pytest.raises(ValueError, match="one row per sample"):
        memory.update(digits([0]), lambda s: torch.zeros(1, 3), 1, None, rng())
