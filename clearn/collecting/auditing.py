"""What `clearn audit` prints: losses proven by attacks on the device's own code, beside the exact ones."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.status import Status
from rich.table import Table

from clearn import plugins
from clearn.binding import bind
from clearn.collecting.printing import print_whole
from clearn.errors import ConfigError
from clearn.frequency import FrequencyProtocol
from clearn.frequency.audit import Audit, audit
from clearn.mistakes import Mistake, raise_all


def show(
    name: str, options: Sequence[str], k: int, attributes: int, trials: int, rounds: int, console: Console
) -> bool:
    """Attack one protocol after 1, 2, 4, ... up to `rounds` reports; say whether every bound stays within the loss.

    Raises:
        ConfigError: no such protocol or option, or one that has no real device.
    """
    from omegaconf import OmegaConf

    cls = plugins.find("privacy", name)
    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)))
    assert isinstance(given, dict)
    errors: list[Mistake] = []
    bound = bind(cls, {str(key): value for key, value in given.items()}, "option", errors, skip=("domains",))
    raise_all(errors)
    protocol: FrequencyProtocol = cls((k,) * attributes, **bound)
    if any(mechanism.simulation_only for mechanism in protocol.mechanisms):
        raise ConfigError(f"{name} is for simulations only and has no device to attack: choose another protocol")
    horizons = sorted({2**i for i in range(rounds.bit_length())} | {rounds})
    found: list[Audit] = []
    with Status("", console=console) as status:
        for t in horizons:
            status.update(f"{name}: {trials:,} devices of either kind, {t} report{'s'[: t > 1]} each")
            found.append(audit(protocol, 0, k - 1, trials=trials, rounds=t))
    table = Table("\nreports", "attack\nright", "attack\nwrong", title=f"{name}, k = {k}", box=SIMPLE_HEAD)
    for column in ("proven\nloss", "exact\nloss", "proven /\nexact", "provable with\nso many", "\nholds"):
        table.add_column(column, justify="right")
    for one in found:
        share = f"{one.eps_lower / one.eps_exact:.3f}" if one.eps_exact else "–"
        cells = [f"{one.eps_lower:.4f}", f"{one.eps_exact:.4f}", share, f"{one.ceiling:.2f}"]
        table.add_row(str(one.rounds), f"{one.tpr:.6f}", f"{one.fpr:.6f}", *cells, "yes" if one.holds else "NO")
    print_whole(table, console)
    console.print(
        f"Lower bounds hold with {found[0].confidence:.0%} confidence each (Clopper-Pearson); devices draw from the "
        "operating system, so that another run gives other digits.",
        highlight=False,
    )
    return all(one.holds for one in found)
