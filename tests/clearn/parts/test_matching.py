"""Matching questions with memories: the numbers of the spec, ties, forced positives, and gradients."""

from __future__ import annotations

import pytest
import torch

from clearn.parts.matching import Matcher, best, cosines, directions, log_shares, match_loss

torch.set_num_threads(1)

KEYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def test_the_numbers_of_the_spec() -> None:
    s = cosines(torch.tensor([[1.0, 0.0]]), KEYS)
    torch.testing.assert_close(s, torch.tensor([[1.0, 0.0, 0.6]]))
    torch.testing.assert_close(log_shares(s, 0.2).exp(), torch.tensor([[0.8756, 0.0059, 0.1185]]), atol=5e-5, rtol=0)
    top = best(s, 2)
    assert top.tolist() == [[0, 2]]
    torch.testing.assert_close(
        log_shares(s.gather(1, top), 0.2).exp(), torch.tensor([[0.8808, 0.1192]]), atol=5e-5, rtol=0
    )
    positive = torch.tensor([[True, False, False]])
    assert float(match_loss(s, 0.2, positive)) == pytest.approx(0.13285, abs=5e-6)


def test_rows_of_the_same_document_are_all_right() -> None:
    s, tau = torch.tensor([[1.0, 0.0, 0.6]]), 0.2
    p = log_shares(s, tau).exp()[0]
    both = torch.tensor([[True, False, True]])
    assert float(match_loss(s, tau, both)) == pytest.approx(-float((p[0] + p[2]).log()), abs=1e-6)
    assert float(match_loss(s, tau, torch.ones(1, 3, dtype=torch.bool))) == pytest.approx(0.0, abs=1e-6)
    assert float(match_loss(s[:, :1], tau, both[:, :1])) == 0.0  # a batch of one has nothing to match


def test_gradient_of_the_match_loss_is_share_less_target() -> None:
    s = torch.tensor([[1.0, 0.0, 0.6], [0.2, 0.1, -0.3]], requires_grad=True)
    positives = torch.tensor([[True, False, True], [False, True, False]])
    match_loss(s, 0.2, positives).backward()
    p = log_shares(s.detach(), 0.2).exp()
    target = p * positives / (p * positives).sum(1, keepdim=True)
    torch.testing.assert_close(s.grad, (p - target) / 0.2 / 2)


def test_of_equal_ones_the_older_is_picked() -> None:
    s = torch.zeros(1, 1000)
    s[0, 500:] = 0.25
    assert best(s, 4).tolist() == [[500, 501, 502, 503]]
    assert best(torch.zeros(2, 3), 10).tolist() == [[0, 1, 2]] * 2
    assert best(torch.zeros(2, 0), 4).shape == (2, 0)


def test_the_right_one_takes_the_worst_place_where_it_is_missing() -> None:
    s = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.8, 0.1, 0.2], [0.9, 0.8, 0.1, 0.2]])
    forced = torch.tensor([[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert best(s, 2, forced).tolist() == [[0, 3], [0, 1], [0, 1]]
    assert best(s, 1, forced).tolist() == [[3], [0], [0]]


def test_bfloat16_would_tie_where_float32_does_not() -> None:
    keys = directions(torch.tensor([[[1.0, 0.0]], [[1.0, 1e-3]], [[1.0, 2e-3]]]), torch.eye(2))
    query = directions(torch.tensor([[[1.0, 2e-3]]]), torch.eye(2))
    assert len(set((query.bfloat16() @ keys.bfloat16().T)[0].tolist())) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = cosines(query, keys)
        again = directions(torch.tensor([[[1.0, 1e-3]]]), torch.eye(2))
    assert s.dtype == again.dtype == torch.float32
    assert best(s, 3).tolist() == [[2, 1, 0]]
    assert torch.equal(again[0], keys[1])


def test_keys_are_unit_means_of_mapped_rows_and_a_copy() -> None:
    torch.manual_seed(0)
    matcher, memories = Matcher(4), torch.randn(5, 3, 4) * 100
    before = memories.clone()
    torch.testing.assert_close(matcher.keys(memories), torch.nn.functional.normalize(memories.mean(1), dim=1))
    with torch.no_grad():
        matcher.key.copy_(torch.randn(4, 4))
    naive = torch.stack([(matcher.key @ row.T).mean(1) for row in memories]).detach()  # W M^T, then the mean over rows
    torch.testing.assert_close(
        matcher.keys(memories), naive / naive.norm(dim=1, keepdim=True), atol=1e-5, rtol=1e-5, check_stride=False
    )
    assert torch.equal(memories, before)
    assert not torch.allclose(matcher.queries(memories), matcher.keys(memories))
    assert torch.isfinite(matcher.keys(torch.zeros(1, 3, 4))).all()


@pytest.mark.parametrize(("log_tau", "tau"), [(None, 0.05), (3.0, 1.0), (-30.0, 0.01)])
def test_tau_stays_within_bounds_and_can_come_back(log_tau: float | None, tau: float) -> None:
    matcher = Matcher(2)
    if log_tau is not None:
        with torch.no_grad():
            matcher.log_tau.fill_(log_tau)
    assert matcher.tau.item() == pytest.approx(tau)
    matcher.confine()
    assert matcher.tau.item() == pytest.approx(tau)
    matcher.tau.backward()
    assert matcher.log_tau.grad is not None
    assert matcher.log_tau.grad.item() == pytest.approx(tau)  # not the zero of a value beyond the bounds


def test_gradient_reaches_both_maps_tau_and_the_memories() -> None:
    torch.manual_seed(0)
    matcher = Matcher(4)
    questions, documents = torch.randn(3, 2, 4, requires_grad=True), torch.randn(3, 2, 4, requires_grad=True)
    s = cosines(matcher.queries(questions), matcher.keys(documents))
    match_loss(s, matcher.tau, torch.eye(3, dtype=torch.bool)).backward()
    for value in (*matcher.parameters(), questions, documents):
        assert value.grad is not None
        assert float(value.grad.abs().max()) > 0


@pytest.mark.parametrize("values", [3, 40, 10**6])
def test_the_best_are_those_of_a_stable_sort(values: int) -> None:
    rng = torch.Generator().manual_seed(values)
    scores = torch.randint(values, (20, 50), generator=rng).float()
    for k in (1, 4, 49, 50, 99):
        assert torch.equal(best(scores, k), scores.sort(dim=1, descending=True, stable=True).indices[:, :k])
