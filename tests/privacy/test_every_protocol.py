"""What holds for every protocol there is: documented options, defaults that work, exact promises, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clearn import plugins
from clearn.frequency import FrequencyProtocol, Tally
from clearn.signatures import REQUIRED, describe, parameters

NAMES = list(plugins.names("privacy"))
SEVERAL = ("smp", "spl", "rs_fd", "rs_rfd", "allomfree", "auto")


def made(name: str) -> FrequencyProtocol:
    return plugins.find("privacy", name)((3, 5) if name in SEVERAL else (5,))


def test_all_protocols_are_there() -> None:
    assert set(NAMES) == {
        "grr", "sue", "oue", "blh", "olh", "ss", "the", "she", "hr",
        "l_grr", "l_sue", "l_osue", "l_oue", "l_soue", "loloha", "ololoha", "bi_loloha", "d_bit_flip_pm", "rappor",
        "smp", "spl", "rs_fd", "rs_rfd", "allomfree", "auto",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_options_are_documented_and_none_is_required(name: str) -> None:
    cls = plugins.find("privacy", name)
    rows = describe(cls, ("domains",))
    assert rows
    for row in rows:
        assert row.about, f"{name}.{row.name} is not described"
    assert all(option.default is not REQUIRED for option in parameters(cls, ("domains",)).values())


@pytest.mark.parametrize("name", NAMES)
def test_defaults_promise_no_less_than_is_lost(name: str) -> None:
    protocol = made(name)
    assert protocol.one_shot == all(mechanism.permanent is None for mechanism in protocol.mechanisms)
    if protocol.asks != "hidden":  # what fakes really lose is more than they promise, and printed
        assert protocol.loss(1) <= protocol.budgets.eps_1 * (1 + 1e-6)
    if not protocol.one_shot:
        assert protocol.loss_for_ever() <= protocol.budgets.eps_inf * (1 + 1e-6)
    assert protocol.loss(1) < protocol.loss(2) or not protocol.one_shot
    assert all(mechanism.rounded(64).own == pytest.approx(mechanism.own) for mechanism in protocol.nominal)
    assert protocol.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_answering_gives_nan(name: str) -> None:
    protocol = made(name)
    for j, mechanism in enumerate(protocol.mechanisms):
        nobody = Tally(0, np.zeros(mechanism.slots, np.int64), np.zeros(mechanism.slots, np.int64))
        assert np.isnan(protocol.estimate(j, nobody)).all()
        assert np.isnan(protocol.variance(j, 0)).all()


def test_none_of_them_loads_torch_or_what_is_slow_to_load() -> None:
    code = (
        "import sys\nfrom clearn import plugins\n"
        f"several = {SEVERAL!r}\n"
        "for name in plugins.names('privacy'):\n"
        "    plugins.find('privacy', name)((3, 5) if name in several else (5,))\n"
        "heavy = ('torch', 'scipy.stats', 'scipy.optimize', 'matplotlib', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
