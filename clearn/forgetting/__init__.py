"""Measures of unlearning: pure functions of logits, labels, features and curves, as a run folder holds them.

Every measure says its unit, its direction and its ideal, which is nearly always the retrained model's value. No torch
is loaded by anything here, and scikit-learn only by the measures that fit something.
"""

from __future__ import annotations

from clearn.forgetting.accuracies import Outcome, Share, accuracy, average_gap, tug_of_war, tug_of_war_mia
from clearn.forgetting.arrays import confidences, entropies, logit_confidences, losses
from clearn.forgetting.comparison import (
    Comparison,
    NoiseFloor,
    PairedDifference,
    compare,
    noise_floor,
    paired_difference,
)
from clearn.forgetting.curves import (
    AnamnesisIndex,
    Relapse,
    RelearnTime,
    accuracy_gain,
    anamnesis_index,
    relapse,
    relearn_time,
)
from clearn.forgetting.divergence import (
    FeatureDistance,
    JsGap,
    OutputDivergence,
    activation_distance,
    feature_distance,
    js,
    js_gap,
    kl,
    klom,
    klom_95,
    layer_distances,
    output_divergence,
    zrf,
)
from clearn.forgetting.epsilon import ForgettingQuality, forgetting_quality
from clearn.forgetting.lira import ULira, u_lira
from clearn.forgetting.membership import (
    ConfidenceAttack,
    EntropyAttack,
    LossAttack,
    attack_entropies,
    confidence_attack,
    entropy_attack,
    loss_attack,
)
from clearn.forgetting.probing import Features, Probe, probe
from clearn.forgetting.thresholds import LOW_FPRS, Roc, roc
from clearn.forgetting.verdict import Outputs, Trial, Verdict, judge, trial

__all__ = [
    "LOW_FPRS",
    "AnamnesisIndex",
    "Comparison",
    "ConfidenceAttack",
    "EntropyAttack",
    "FeatureDistance",
    "Features",
    "ForgettingQuality",
    "JsGap",
    "LossAttack",
    "NoiseFloor",
    "Outcome",
    "OutputDivergence",
    "Outputs",
    "PairedDifference",
    "Probe",
    "Relapse",
    "RelearnTime",
    "Roc",
    "Share",
    "Trial",
    "ULira",
    "Verdict",
    "accuracy",
    "accuracy_gain",
    "activation_distance",
    "anamnesis_index",
    "attack_entropies",
    "average_gap",
    "compare",
    "confidence_attack",
    "confidences",
    "entropies",
    "entropy_attack",
    "feature_distance",
    "forgetting_quality",
    "js",
    "js_gap",
    "judge",
    "kl",
    "klom",
    "klom_95",
    "layer_distances",
    "logit_confidences",
    "loss_attack",
    "losses",
    "noise_floor",
    "output_divergence",
    "paired_difference",
    "probe",
    "relapse",
    "relearn_time",
    "roc",
    "trial",
    "tug_of_war",
    "tug_of_war_mia",
    "u_lira",
    "zrf",
]
