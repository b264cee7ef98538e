"""Columns of attacks that ask whether a sample was learned."""

from __future__ import annotations

from clearn.report.unlearning.columns.kinds import AT_HALF, DOWN, Measure, with_gap
from clearn.report.unlearning.remains import FEWEST, FEWEST_TPR, u_lira, u_lira_tpr


def columns() -> list[Measure]:
    """Give the columns of membership attacks."""
    mia = "share of the forgotten samples called member by their entropy, the SSD paper's attack"
    auc = "how well losses tell forgotten samples from unseen ones of the same labels, held out; 0.5 tells nothing"
    attacker = "balanced accuracy of the entropy attack on the samples it was fitted to; at 50 % its MIA is noise"
    return [
        *with_gap("mia", "MIA", "attack", "percent", lambda one: one.mia_share, mia),
        Measure(
            "mia.attacker",
            "attacker",
            "attack",
            "percent",
            lambda group, one: group.number(one, lambda m: None if m.mia is None else m.mia.balanced_accuracy),
            attacker,
        ),
        *with_gap("loss_auc", "loss AUC", "attack", "loss", lambda one: one.auc, auc),
        Measure(
            "u_lira",
            "U-LiRA",
            "attack",
            "loss",
            u_lira,
            f"how often an attacker made for each forgotten sample tells the unlearned models from the retrained ones, "
            f"which never saw it, by phi = ln p - ln (1 - p); 0.5 ideal, 1 tells always. This is the efficacy game: it "
            f"says nothing of unlearned against unseen samples. The attacked model and one of the other kind are held "
            f"out; both Gaussians rest on n - 1 models each. From {FEWEST} seeds of the same samples on. So few models "
            "hide much: what two Gaussians four deviations apart would give an attacker who knew them is 0.98, found "
            "are 0.85 with 3 models, 0.95 with 5, 0.97 with 10; a number near 0.5 from 3 models clears nobody. Where "
            "nothing can be told it still strays from 0.5 by a standard deviation of up to 0.11 (n = 3 or 5) or 0.09 "
            "(n = 10) if a model's samples go up and down together; the ± over seeds is smaller than that over "
            "repetitions, as all seeds share their fits",
            AT_HALF,
        ),
        Measure(
            "u_lira.tpr",
            "U-LiRA TPR",
            "attack",
            "percent",
            u_lira_tpr,
            "share of unlearned models' samples that U-LiRA finds at 1 % false positives, over all samples and "
            f"held-out models; 1 % ideal. From {FEWEST_TPR} seeds on: with fewer it is 0 whatever was left",
            DOWN,
        ),
    ]
