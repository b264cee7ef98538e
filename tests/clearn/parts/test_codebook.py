"""Vector quantisation held against hand-computed numbers; a memory of codes, its bytes, and what is taken out of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clearn.errors import ConfigError, DataError, StateError
from clearn.parts.codebook import (
    Codebook,
    CodeMemory,
    Keep,
    Quantiser,
    bits,
    nearest,
    packed,
    perplexity,
    spread,
    unpacked,
)
from clearn.state import decode, encode, freeze, thaw

torch.set_num_threads(1)

E = [[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]
X = [[0.2, 0.1], [0.9, 1.2]]
VERSION = bytes(range(32))


def three(**options: Any) -> Quantiser:
    made = Quantiser(3, 2, Codebook(**options))
    made.codebook.data = torch.tensor([E])
    return made


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_quantisation_by_hand() -> None:
    """Specs mbc, section 13."""
    made, x = three(reset=False), torch.tensor(X, requires_grad=True)
    found = made(x)
    assert found.codes.tolist() == [[0], [1]]
    assert found.vectors.tolist() == E[:2]
    assert float((x - found.vectors).detach().square().mean()) == pytest.approx(0.025)
    assert float(found.loss.detach()) == pytest.approx(0.03125)
    assert float(perplexity(torch.bincount(found.codes.flatten(), minlength=3))) == pytest.approx(2)
    (found.vectors.sum() + found.loss).backward()
    torch.testing.assert_close(x.grad, 1 + 0.125 * (torch.tensor(X) - torch.tensor(E[:2])))
    gradient = made.codebook.grad
    assert gradient is not None
    torch.testing.assert_close(gradient[0, 0], torch.tensor([-0.1, -0.05]))
    assert gradient[0, 2].tolist() == [0, 0]


def test_a_dead_code_becomes_a_vector_of_the_batch_by_hand() -> None:
    made = three()
    made(torch.tensor(X))
    assert made.codebook[0, :2].tolist() == E[:2]
    assert made.codebook[0, 2].tolist() in torch.tensor(X).tolist()
    torch.testing.assert_close(made.usage[0], torch.tensor([0.01, 0.01, 0.02 / 3]))


def test_nothing_is_reset_in_evaluation_or_when_all_codes_are_used() -> None:
    made = three().eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.tensor(X))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    made.train()
    made(torch.tensor([*X, [5.0, 5.0]]))
    assert made.codebook[0].tolist() == E
    assert not made.fresh


def test_the_first_step_fills_a_large_codebook_with_the_batch() -> None:
    torch.manual_seed(0)
    made, x = Quantiser(512, 8, Codebook()), numbers(8, 24, 8)
    before = made.codebook.detach().clone()
    used = made.encode(x).unique().numel()
    made(x)
    changed = (made.codebook != before).any(-1)
    assert int(changed.sum()) == min(512 - used, 192) == 192
    rows = {tuple(row) for row in made.codebook[changed].tolist()}
    assert len(rows) == 192  # distinct vectors of the batch
    assert rows == {tuple(row) for row in x.flatten(0, 1).tolist()}


def test_a_code_dies_after_as_many_steps_as_the_formula_says() -> None:
    """ln(u / 1e-4) / 0.01005 steps without use: 459 from u = 0.01 (specs mbc, section 5)."""
    made = three()
    with torch.no_grad():
        made.usage[0] = torch.tensor([1.0, 1.0, 0.01])
        steps = 0
        while made.codebook[0, 2, 0] == 5:
            made.usage[0, :2] = 1
            made(torch.tensor(X))
            steps += 1
    assert steps == 459


def test_a_reset_code_stands_still_until_the_optimiser_s_next_step() -> None:
    torch.manual_seed(0)
    made, x = three(), torch.tensor(X)
    optimizer = torch.optim.Adam([made.codebook], 0.1)
    made.usage.fill_(1)
    made(torch.tensor([*X, [4.0, 4.0]])).loss.backward()  # all three get moments
    optimizer.step()
    optimizer.zero_grad()
    made.settle(optimizer)
    made.usage[0, 2] = 0
    made(x).loss.backward()
    born = made.codebook[0, 2].clone()
    optimizer.step()
    assert not torch.equal(made.codebook[0, 2], born)  # what the published code does
    made.settle(optimizer)
    assert torch.equal(made.codebook[0, 2], born)
    state = optimizer.state[made.codebook]
    assert not state["exp_avg"][0, 2].any()
    assert not state["exp_avg_sq"][0, 2].any()
    assert state["exp_avg"][0, :2].all()


def test_distances_are_float32_whatever_the_precision_around() -> None:
    """In bfloat16 a fifth of the codes of clustered vectors would change (specs mbc, trap 6)."""
    centre = numbers(1, 64) * 10
    x, rows = centre + 0.05 * numbers(500, 64, seed=1), centre + 0.05 * numbers(32, 64, seed=2)
    exact = (x.double()[:, None] - rows.double()).norm(dim=-1).argmin(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest(x, rows)
    assert torch.equal(found, nearest(x, rows))
    assert float((found == exact).double().mean()) > 0.99


def test_moving_averages_by_hand() -> None:
    made = three(update="ema", reset=False)
    assert not made.codebook.requires_grad
    assert float(made(torch.tensor(X)).loss) == pytest.approx(0.25 * 0.025)  # the codes' own part is gone
    torch.testing.assert_close(made.codebook[0], torch.tensor([*X, [5.0, 5.0]]))  # first use: no weight before
    made(torch.tensor([[1.2, 1.1]]))
    # usage 0.0099 of what it was, 0.01 of the new one
    torch.testing.assert_close(made.codebook[0, 1], (0.99 * torch.tensor(X[1]) + torch.tensor([1.2, 1.1])) / 1.99)
    torch.testing.assert_close(made.codebook[0, 0], torch.tensor(X[0]))  # unused: it stays


def test_groups_are_quantised_each_by_their_own_codebook() -> None:
    torch.manual_seed(0)
    made, x = Quantiser(5, 6, Codebook(groups=3)).eval(), numbers(4, 2, 6)
    found = made(x)
    assert found.codes.shape == (4, 2, 3)
    for i in range(3):
        part = slice(2 * i, 2 * i + 2)
        assert torch.equal(found.codes[..., i], nearest(x[..., part], made.codebook[i]))
        torch.testing.assert_close(found.vectors[..., part], made.codebook[i][found.codes[..., i]])
    assert made.codebook.numel() == 5 * 6
    with pytest.raises(ConfigError, match="groups=4 must divide the language model's width, which is 6: write 3"):
        Quantiser(5, 6, Codebook(groups=4))


def test_far_apart_vectors_are_drawn_first() -> None:
    x = torch.cat([numbers(50, 2) * 0.01 + centre for centre in (0.0, 10.0, 20.0)])
    for seed in range(5):
        found = spread(x, 3, torch.Generator().manual_seed(seed))
        assert sorted(found[:, 0].round(decimals=-1).tolist()) == [0, 10, 20]
    assert len(spread(torch.ones(4, 2), 3, torch.Generator())) == 1  # no two different ones
    made = Quantiser(4, 2, Codebook())
    before = made.codebook[0, 3].clone()
    made.seed(torch.tensor(E), torch.Generator().manual_seed(0))
    assert sorted(made.codebook[0, :3].tolist()) == E
    assert torch.equal(made.codebook[0, 3], before)


@pytest.mark.parametrize("codes", [2, 3, 256, 257, 512, 65536])
def test_packing_is_exact(codes: int) -> None:
    width, m = bits(codes), 5
    drawn = torch.randint(codes, (7, m), generator=torch.Generator().manual_seed(0))
    drawn[0] = codes - 1
    rows = packed(drawn, width)
    assert rows.dtype == torch.uint8
    assert rows.shape == (7, -(-m * width // 8))
    assert torch.equal(unpacked(rows, width, m), drawn)


K, T = 12, 3
KEEPS = [Keep(), Keep(index=False), Keep(codes=True), Keep(codes=True, packed=True)]


def drawn(n: int, g: int = 1, seed: int = 0) -> Tensor:
    return torch.randint(K, (n, T, g), generator=torch.Generator().manual_seed(seed))


def memory(keep: Keep, ids: list[int] | None = None, g: int = 1) -> CodeMemory:
    made = CodeMemory(K, T, g, keep)
    if ids:
        made.stamp(VERSION)
        made.add(ids, drawn(50, g)[ids])
    return made


def weight(made: CodeMemory) -> int:
    return sum(value.numel() * value.element_size() for value in made.state().values())


def same(a: CodeMemory, b: CodeMemory) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("keep", "g", "row"),
    [
        (Keep(index=False), 1, 0),
        (Keep(), 1, 8),
        (Keep(codes=True), 1, 8 + 2 * T),
        (Keep(codes=True, packed=True), 1, 8 + 2),  # 3 codes of 4 bits
        (Keep(codes=True), 4, 8 + 4 * T),
        (Keep(codes=True, packed=True), 4, 8 + 6),
    ],
)
def test_a_memory_s_bytes_are_as_the_header_says(keep: Keep, g: int, row: int) -> None:
    fixed = 32 + (8 if keep.index else 0) + (4 * K if g == 1 else 0)
    assert weight(memory(keep, g=g)) == fixed
    assert weight(memory(keep, [1, 2, 3, 4, 5], g)) == fixed + 5 * row


def test_codes_take_two_bytes_each_in_a_large_codebook() -> None:
    made = CodeMemory(512, 24, 1, Keep(codes=True))
    made.add([1, 2], torch.full((2, 24, 1), 511))
    assert made.state()["rows"].nbytes == 2 * 24 * 2
    assert made.state()["counts"].nbytes == 4 * 512
    assert CodeMemory(512, 24, 1, Keep(codes=True, packed=True)).bank.row_bytes == 8 + 27  # 24 x 9 bits


@pytest.mark.parametrize("keep", KEEPS, ids=str)
@pytest.mark.parametrize("g", [1, 2])
def test_taking_a_document_out_is_as_if_it_had_never_come(keep: Keep, g: int) -> None:
    if g > 1 and not keep.codes:
        with pytest.raises(ConfigError, match=r"groups=2 needs keep\.codes: true"):
            memory(keep, g=g)
        return
    made = memory(keep, [1, 2, 3, 4], g)
    gone = [2, 4]
    made.remove(gone, None if keep.codes else drawn(50, g)[gone])
    assert same(made, memory(keep, [1, 3], g))
    assert len(made) == 2
    made.remove([1, 3], None if keep.codes else drawn(50, g)[[1, 3]])
    assert same(made, memory(keep, g=g))  # the version too


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_counts_are_those_of_all_codes(keep: Keep) -> None:
    made = memory(keep, [1, 2, 3])
    made.add([4], drawn(50)[[4]])
    expected = torch.bincount(drawn(50)[[1, 2, 3, 4]].flatten(), minlength=K)
    assert torch.equal(made.counts.long(), expected)
    assert made.counts.dtype == torch.int32
    if keep.codes:
        assert torch.equal(made.codes(), drawn(50)[[1, 2, 3, 4]])


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_a_document_that_comes_twice_counts_once(keep: Keep) -> None:
    made = memory(keep, [1, 1, 2])
    assert same(made, memory(keep, [1, 2]))
    made.add([2, 1], drawn(50)[[2, 1]])
    assert same(made, memory(keep, [1, 2])) is keep.index  # without an index an earlier task is not remembered


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_what_was_never_read_cannot_be_forgotten(keep: Keep) -> None:
    made, never = memory(keep, [1, 2]), torch.full((1, T, 1), K - 1)
    before = {name: value.clone() for name, value in made.state().items()}
    error, said = (DataError, "1 of 1 documents to be forgotten") if keep.index else (StateError, "less than 0 times")
    with pytest.raises(error, match=said):
        made.remove([9], None if keep.codes else never)
    assert all(torch.equal(value, before[name]) for name, value in made.state().items())


def test_a_negative_count_is_refused() -> None:
    made = memory(Keep(), [1])
    other = (drawn(50)[[1]] + 1) % K
    with pytest.raises(StateError, match="would be counted less than 0 times"):
        made.remove([1], other)
    assert same(made, memory(Keep(), [1]))


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_a_memory_comes_back_from_its_bytes(keep: Keep) -> None:
    for ids in ([], [1, 2, 3]):
        made, again = memory(keep, ids), memory(keep)
        written = encode(freeze({f"memory/{name}": value for name, value in made.state().items()}))
        again.load({name.removeprefix("memory/"): torch.as_tensor(v) for name, v in thaw(decode(written)).items()})
        assert same(made, again)
        assert len(made) == len(again) == len(ids)
    again.add([7], drawn(50)[[7]])
    assert same(again, memory(keep, [1, 2, 3, 7]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("counts", torch.zeros(K, dtype=torch.int64), "must be int32"),
        ("counts", torch.full((K,), -1, dtype=torch.int32), "of 0 or more"),
        ("counts", None, "counts are None"),
        ("ids", torch.zeros(2, 2), "ids is torch.float32"),
        ("more", torch.zeros(1), "unknown entry 'more'"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(name: str, value: Tensor | None, said: str) -> None:
    made = memory(Keep(), [1, 2])
    state = made.state() | ({} if value is None else {name: value})
    if value is None:
        del state[name]
    with pytest.raises(StateError, match=said):
        made.load(state)
    assert same(made, memory(Keep(), [1, 2]))


@pytest.mark.parametrize("keep", KEEPS, ids=str)
def test_codes_of_another_codebook_are_refused(keep: Keep) -> None:
    made = memory(keep, [1, 2])
    made.check(VERSION)
    for ask in (made.check, made.stamp):
        with pytest.raises(
            StateError, match="the codes of 2 documents were made by parameters of SHA-256 000102030405"
        ):
            ask(bytes(32))
    made.clear()
    made.check(bytes(32))
    assert same(made, memory(keep))


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(ConfigError, match=r"groups=0 must be 1 or more; codebook.lr=0 must be above 0.*decay=1 must"):
        Codebook(groups=0, lr=0, decay=1)
    with pytest.raises(ConfigError, match=r"keep.index=False must be true where keep.codes is"):
        Keep(codes=True, index=False)
    with pytest.raises(ConfigError, match=r"keep.packed=True must be false"):
        Keep(packed=True)
    with pytest.raises(ConfigError, match=r"codes=1 must be in \[2, 65536\]"):
        Quantiser(1, 4, Codebook())
