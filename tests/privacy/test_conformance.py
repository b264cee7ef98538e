"""Every shipped protocol keeps every promise of the conformance suite; the folder says which protocols there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clearn import plugins
from clearn.collecting import checks
from clearn.signatures import parameters

NAMES = tuple(plugins.names("privacy"))
OPTIONS = [
    ("hr", ("eps=0.9",)),
    ("l_grr", ("rule=published", "eps_inf=2", "alpha=0.6")),
    ("d_bit_flip_pm", ("sampled=2", "buckets=3")),
    ("allomfree", ("profile=paper", "eps_inf=2")),
    ("rs_fd", ("of=oue", "fakes=zero")),
]
MORE = [
    ("l_osue", ("eps_inf=13", "alpha=0.9")),  # words of 64 random bits
    ("allomfree", ("shares=neyman",)),
    ("smp", ("of=loloha", "split=equal")),
    ("spl", ("of=oue", "eps=2")),
    ("rs_rfd", ("of=sue", "prior=[[0.5, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]]")),
]
SUBJECTS = [
    *(pytest.param(name, (), id=name) for name in NAMES),
    *(pytest.param(name, options, id=" ".join((name, *options))) for name, options in OPTIONS),
    *(pytest.param(name, options, id=" ".join((name, *options)), marks=pytest.mark.slow) for name, options in MORE),
]


def test_no_protocol_and_no_check_is_missing() -> None:
    oracles = {"grr", "sue", "oue", "blh", "olh", "ss", "the", "she", "hr"}
    longitudinal = {"l_grr", "l_sue", "l_osue", "l_oue", "l_soue", "loloha", "ololoha", "bi_loloha", "d_bit_flip_pm"}
    several = {"smp", "spl", "rs_fd", "rs_rfd", "allomfree", "auto"}
    assert oracles | longitudinal | several | {"rappor"} <= set(NAMES)
    assert len(checks.ALL) >= 9
    assert all(check.__doc__ for check in checks.ALL)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "options"), SUBJECTS)
def test_conforms(name: str, options: tuple[str, ...], check: Callable[[checks.Subject], None]) -> None:
    check(checks.subject(name, options))


@pytest.mark.parametrize("name", NAMES)
def test_what_solves_several_attributes_is_held_to_it_with_several(name: str) -> None:
    """A protocol for one attribute is checked with one, by what it refuses, and never by chance."""
    of = checks.subject(name)
    takes = of.cls.for_several or "of" in parameters(of.cls)
    assert of.domains == (checks.SIZES if takes else checks.SIZES[-1:])


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_protocol_is_described(name: str) -> None:
    from clearn.config import describe

    listed = describe(plugins.find("privacy", name), skip=plugins.KINDS["privacy"].given)
    assert listed, "a protocol has a budget at least"
    assert all(option[-1] for option in listed)
    assert plugins.names("privacy")[name]
