"""What attacks on every protocol's own device code prove, beside the exact loss: one report, and four of one value.

Longitudinal protocols get eps_inf = 2 eps, eps_1 = eps; one-shot oracles get eps. Lower bounds hold with 99 % each
(Clopper-Pearson); devices draw from the operating system, so another run gives other digits. Exit code 1 where a
bound exceeds the exact loss.

    python benchmarks/audits.py                    a million devices of either kind, about ten minutes on one core
    python benchmarks/audits.py --trials 100000
"""

from __future__ import annotations

import argparse
import sys

from clearn import plugins
from clearn.frequency import FrequencyProtocol
from clearn.frequency.audit import audit
from clearn.signatures import parameters

EPS, K, ROUNDS = (1.0, 2.0), 25, (1, 4)


def protocols(eps: float) -> dict[str, FrequencyProtocol]:
    """Every protocol of one attribute that has a real device, by its name."""
    found = {}
    for name in plugins.names("privacy"):
        cls: type[FrequencyProtocol] = plugins.find("privacy", name)
        options = parameters(cls)
        if cls.chooses or cls.for_several or "of" in options or (name == "hr" and eps > 1):
            continue
        budget = {"eps": eps} if cls.one_shot else {"eps_inf": 2 * eps, "eps_1": eps}
        protocol = cls((K,), **{key: value for key, value in budget.items() if key in options})  # type: ignore[call-arg]
        if not any(mechanism.simulation_only for mechanism in protocol.mechanisms):
            found[name] = protocol
    return found


def main() -> int:
    """Print a table of Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=1_000_000, help="devices of either kind (default: 1000000)")
    trials = parser.parse_args().trials
    sys.stdout.write("| protocol | eps | reports | proven | exact | proven / exact |\n|---|---:|---:|---:|---:|---:|\n")
    broken = 0
    for eps in EPS:
        for name, protocol in protocols(eps).items():
            for rounds in (1,) if protocol.one_shot else ROUNDS:
                found = audit(protocol, 0, K - 1, trials=trials, rounds=rounds)
                broken += not found.holds
                cells = f"{found.eps_lower:.4f} | {found.eps_exact:.4f} | {found.eps_lower / found.eps_exact:.3f}"
                sys.stdout.write(f"| {name} | {eps:g} | {rounds} | {cells} |\n")
                sys.stdout.flush()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
