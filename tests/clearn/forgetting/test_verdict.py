"""Equality with retraining is shown, not assumed; doing nothing and destroying the model fail for all to see."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from clearn import forgetting
from clearn.forgetting import (
    Comparison,
    NoiseFloor,
    Outputs,
    PairedDifference,
    Trial,
    Verdict,
    accuracy,
    compare,
    judge,
    noise_floor,
    output_divergence,
    paired_difference,
    trial,
)

CLASSES, SEEDS, FORGOTTEN = 4, 20, 0


def test_paired_interval_is_student_s() -> None:
    unlearned, retrained = np.array([0.90, 0.95, 0.85, 0.99]), np.array([0.91, 0.92, 0.88, 0.95])
    found = paired_difference(unlearned, retrained)
    values = unlearned - retrained
    assert found.values == pytest.approx(values) and found.mean == pytest.approx(values.mean())
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    # two seeds by hand: t = 12.7062 with one degree of freedom
    two = paired_difference([1.0, 3.0], [0.0, 0.0])
    assert two.high - two.mean == pytest.approx(12.70620474, abs=1e-7)


def test_noise_floor_by_hand() -> None:
    assert noise_floor([0.0, 1.0, 3.0], level=0.5) == NoiseFloor(-1.75, 1.75)  # of -3 -2 -1 1 2 3
    values = np.random.default_rng(0).normal(size=9)
    pairs = [x - y for i, x in enumerate(values) for j, y in enumerate(values) if i != j]
    floor = noise_floor(values)
    assert (floor.low, floor.high) == pytest.approx(np.quantile(pairs, [0.025, 0.975]))
    assert noise_floor([0.5, 0.5, 0.5]) == NoiseFloor(0, 0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.1, 0.1, "indistinguishable"),
        (-0.2, 0.2, "indistinguishable"),  # ends included
        (-0.1, 0.21, "undecided"),  # 0 is inside, which proves nothing
        (0.1, 0.3, "undecided"),
        (0.21, 0.3, "different"),
        (-0.5, -0.21, "different"),
    ],
)
def test_equivalence_needs_the_whole_interval_inside(low: float, high: float, verdict: str) -> None:
    difference = PairedDifference(np.array([low, high]), low, high)
    assert Comparison(difference, NoiseFloor(-0.2, 0.2)).verdict == verdict


def test_few_seeds_are_undecided_rather_than_equal() -> None:
    draw = np.random.default_rng(1)
    few = [compare(draw.normal(size=3), draw.normal(size=3)).verdict for _ in range(200)]
    many = [compare(draw.normal(size=20), draw.normal(size=20)).verdict for _ in range(200)]
    assert few.count("indistinguishable") < 40  # 8 % expected
    assert many.count("indistinguishable") > 190


def test_a_rate_that_never_varies_is_equal_to_itself() -> None:
    assert compare([0.0] * 4, [0.0] * 4).verdict == "indistinguishable"
    assert compare([0.1] * 4, [0.0] * 4).verdict == "different"


def test_a_step_of_the_measure_can_be_allowed() -> None:
    """Retrained models that all score 0 leave no room for one sample of 100, unless its resolution is stated."""
    one_in_five = [0.01, 0.0, 0.0, 0.0, 0.0]
    assert compare(one_in_five, [0.0] * 5).verdict == "undecided"
    assert compare(one_in_five, [0.0] * 5, resolution=0.01).verdict == "indistinguishable"
    assert noise_floor([0.1, 0.5], resolution=0.01) == noise_floor([0.1, 0.5])
    with pytest.raises(ValueError, match="resolution=-1"):
        compare(one_in_five, one_in_five, resolution=-1)


def outputs(seed: int, strength: float = 3.0, forgot: bool = False) -> Outputs:
    """Logits of a model that is right with a margin; one that forgot answers at random on the forgotten class."""
    draw = np.random.default_rng(seed)
    labels = np.tile(np.arange(1, CLASSES), 40)
    kept = draw.normal(size=(len(labels), CLASSES)) + strength * np.eye(CLASSES)[labels]
    forget = draw.normal(size=(60, CLASSES)) * (2 if forgot else 1)
    forget[:, FORGOTTEN] += -2 if forgot else strength
    return Outputs(forget, kept)


LABELS = np.tile(np.arange(1, CLASSES), 40)
ORIGINALS = [outputs(seed) for seed in range(SEEDS)]
RETRAINED = [outputs(100 + seed, forgot=True) for seed in range(SEEDS)]


def verdict_on(unlearned: list[Outputs]) -> Verdict:
    trials = [trial(o, u, r, LABELS) for o, u, r in zip(ORIGINALS, unlearned, RETRAINED, strict=True)]
    gone = np.full(60, FORGOTTEN)

    def against_the_next(models: list[Outputs]) -> list[float]:
        """Divergence to another seed's retrained model, which the retrained ones have among themselves as well."""
        return [output_divergence(m.forget, RETRAINED[(i + 1) % SEEDS].forget).js for i, m in enumerate(models)]

    return judge(
        trials,
        {
            "forget accuracy": compare(*([accuracy(m.forget, gone).value for m in x] for x in (unlearned, RETRAINED))),
            "test accuracy": compare(*([accuracy(m.kept, LABELS).value for m in x] for x in (unlearned, RETRAINED))),
            "divergence": compare(against_the_next(unlearned), against_the_next(RETRAINED)),
        },
    )


def test_doing_nothing_fails_visibly() -> None:
    verdict = verdict_on(ORIGINALS)
    assert not verdict.passed
    assert verdict.headline == f"did nothing in {SEEDS} of {SEEDS} seeds"
    assert verdict.reasons[0].startswith("seed 0: did nothing, outputs on the forget set moved 0 nats where")
    assert any(reason.startswith("forget accuracy: different, off by ") for reason in verdict.reasons)


def test_doing_next_to_nothing_fails_visibly() -> None:
    nudged = [Outputs(np.asarray(m.forget) * 1.01, m.kept) for m in ORIGINALS]
    assert verdict_on(nudged).headline == f"did nothing in {SEEDS} of {SEEDS} seeds"


def test_destroying_the_model_fails_visibly() -> None:
    noise = [outputs(500 + seed, strength=0.0, forgot=True) for seed in range(SEEDS)]
    constant = [Outputs(np.zeros((60, CLASSES)), np.zeros((120, CLASSES)))] * SEEDS
    for ruined in (noise, constant):
        verdict = verdict_on(ruined)
        assert not verdict.passed
        assert verdict.headline == f"destroyed the model in {SEEDS} of {SEEDS} seeds"
        assert "guessing gives 0.250" in verdict.reasons[0]


def test_one_ruined_seed_among_good_ones_is_seen() -> None:
    """Bimodal methods look fine on average."""
    mixed = [outputs(300 + seed, forgot=True) for seed in range(SEEDS)]
    mixed[5] = outputs(505, strength=0.0, forgot=True)
    verdict = verdict_on(mixed)
    assert not verdict.passed and verdict.headline == f"destroyed the model in 1 of {SEEDS} seeds"
    mixed[6] = ORIGINALS[6]
    assert verdict_on(mixed).headline == f"destroyed the model in 1 of {SEEDS} seeds; did nothing in 1 of {SEEDS} seeds"


def test_retraining_with_other_seeds_passes() -> None:
    verdict = verdict_on([outputs(700 + seed, forgot=True) for seed in range(SEEDS)])
    assert verdict == Verdict(True, "indistinguishable from retraining", ())


def test_doing_nothing_fails_even_where_every_measure_agrees() -> None:
    """Easy forgotten samples: the untouched model is as accurate as the retrained one."""
    agree = compare([0.93, 0.94, 0.92, 0.95, 0.93], [0.93, 0.94, 0.92, 0.95, 0.93])
    assert agree.verdict == "indistinguishable"
    idle = [Trial(0.9, 0.9, guess=0.1, moved=0.0, needed=0.02)] * 5
    assert not judge(idle, {"forget accuracy": agree}).passed
    acted = [Trial(0.9, 0.9, guess=0.1, moved=0.02, needed=0.02)] * 5
    assert judge(acted, {"forget accuracy": agree}).passed


def test_other_failures_are_named() -> None:
    acted = [Trial(0.9, 0.9, guess=0.1, moved=0.5, needed=0.5)]
    different, unclear = compare([0.5, 0.5], [0.1, 0.1]), compare([0.1, 0.9], [0.5, 0.5])
    verdict = judge(acted, {"probe": different, "ToW": unclear, "UA": compare([1, 1], [1, 1])})
    assert verdict.headline == "differs from retraining in probe; not shown to equal retraining in ToW"
    assert len(verdict.reasons) == 2 and not verdict.passed


@pytest.mark.parametrize(
    ("unlearned", "condition"), [(0.49, "destroyed"), (0.51, "acted"), (0.1, "destroyed"), (0.95, "acted")]
)
def test_destroyed_is_half_of_what_retraining_knows(unlearned: float, condition: str) -> None:
    assert Trial(unlearned, 0.9, guess=0.1, moved=1, needed=1).condition == condition
    assert Trial(0.9, 0.9, guess=0.1, moved=0.01, needed=1).condition == "idle"
    assert Trial(0.9, 0.9, guess=0.1, moved=0, needed=0).condition == "idle"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 seed has no spread"):
        compare([0.5], [0.5])
    with pytest.raises(ValueError, match="one shape"):
        compare([0.5, 0.6], [0.5, 0.6, 0.7])
    with pytest.raises(ValueError, match="not finite"):
        noise_floor([0.5, np.nan])
    with pytest.raises(ValueError, match="level=1"):
        noise_floor([0.5, 0.6], level=1)
    with pytest.raises(ValueError, match="no better than guessing"):
        Trial(0.1, 0.1, guess=0.1, moved=0, needed=0)
    with pytest.raises(ValueError, match="at least one of each"):
        judge([], {})


def test_importing_loads_nothing_heavy_and_all_names_are_there() -> None:
    heavy = ("torch", "sklearn", "scipy.stats", "matplotlib", "lightning")
    code = f"import sys, clearn.forgetting\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert all(hasattr(forgetting, name) for name in forgetting.__all__)
