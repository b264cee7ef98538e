"""The figures' sections of the unlearning part: heading, legend, drawing, caption, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from clearn.report.blocks import details, figure, legend, stroke, swatch
from clearn.report.columns import cell
from clearn.report.unlearning.grouping import Pick, UnlearningGroup
from clearn.report.unlearning.measures import Measured
from clearn.report.unlearning.runs import Request
from clearn.report.unlearning.verdicts import judged


def bars(groups: Sequence[UnlearningGroup], index: Mapping[str, int], request: Request, name: str) -> str:
    """Draw accuracy on what stays and on what goes, beside retraining's interval."""
    stays = _bars(groups, index, request, f"{name}s", "on training samples that stay", lambda one: one.stays)
    forget = _bars(groups, index, request, f"{name}f", "on the forgotten samples", lambda one: one.forget)
    if not stays and not forget:
        return ""
    caption = "Mean over runs, lines of one standard deviation; pale: controls."
    reference = next((group for group in groups if group.role == "reference"), None)
    if reference is None:
        caption += " No retrain run is among these, so nothing says where a bar should end."
    else:
        caption += " Dashed: the mean of retraining, where a bar should end."
        several = " Shaded: the 95 % t-interval of that mean, cut at 0 and 100 %."
        caption += several if reference.n > 1 else ""
    return figure("Accuracy beside retraining", stays + forget, caption)


def _bars(
    groups: Sequence[UnlearningGroup], index: Mapping[str, int], request: Request, name: str, about: str, pick: Pick
) -> str:
    from clearn.report.unlearning.figures import Bar, accuracy_bars

    found = []
    for group in groups:
        one = group.number(request, pick)
        if one is not None:
            found.append(Bar(group.label, index[group.label], one, group.role == "control"))
    if not found:
        return ""
    reference = next((group for group in groups if group.role == "reference"), None)
    retrained = None if reference is None else reference.number(request, pick)
    interval = None if reference is None else _interval(reference, request, pick)
    return accuracy_bars(found, None if retrained is None else retrained.mean, interval, name, f"accuracy {about}")


def _interval(group: UnlearningGroup, request: Request, pick: Pick) -> tuple[float, float] | None:
    """Give the 95 % t-interval of a mean, inside [0, 1]; None for fewer than two runs."""
    values = [value for value in map(pick, group.measured(request)) if value is not None]
    if len(values) < 2:
        return None
    from clearn.forgetting import paired_difference

    found = paired_difference(values, [0.0] * len(values))
    return max(found.low, 0.0), min(found.high, 1.0)


def attack(groups: Sequence[UnlearningGroup], index: Mapping[str, int], request: Request, name: str) -> str:
    """Draw the loss attack's ROC, both axes logarithmic."""
    from clearn.report.unlearning.figures import attack_curves, mean_tpr

    curves, rows, unseen = [], [], []
    for group in groups:
        found = [one.attack for one in group.measured(request) if one.attack is not None]
        if not found:
            continue
        curves.append((index[group.label], mean_tpr([one.roc for one in found])))
        unseen += [run.unseen(request) for run in group.finished]
        auc = group.number(request, lambda one: None if one.attack is None else one.attack.roc.auc)
        low, high = (group.number(request, partial(Measured.tpr_at, fpr=rate)) for rate in (0.001, 0.01))
        rows.append([group.label, cell(auc, "percent"), cell(low, "percent"), cell(high, "percent")])
    if not curves:
        return ""
    named = [(swatch(index[group.label]), group.label) for group in groups if index[group.label] in dict(curves)]
    named.append((stroke("dashed"), "guessing"))
    few = min(unseen)
    caption = (
        "How well the loss tells forgotten training samples (positive) from test samples of the same labels, at every "
        "threshold, mean over runs. Good is where retraining is: above its line something is still remembered. Dotted: "
        "where attacks are read, 0.1 % and 1 %. A rate of 0 is drawn at 0.1 %."
    )
    if few < 1000:
        caption += f" With {few} unseen samples the smallest false positive rate above 0 is {100 / few:.2g} %."
    heads = ["unlearner", "area, %", "TPR at 0.1 % FPR, %", "TPR at 1 % FPR, %"]
    numbers = details("Areas and low false positive rates", heads, rows).replace("<details>", "<details open>")
    return figure("Attack by loss", legend(named) + attack_curves(curves, name), caption, numbers)


def events(groups: Sequence[UnlearningGroup], index: Mapping[str, int], name: str) -> str:
    """Draw test accuracy on remaining and forgotten classes over tasks and requests."""
    from clearn.report.unlearning.figures import event_curves

    curves = [(group, *group.curves()) for group in groups]
    if not any(any(remaining) or any(forgotten) for _, remaining, forgotten in curves):
        return ""
    requests, n = groups[0].requests, max(len(remaining) for _, remaining, _ in curves)
    names = event_names(requests, n)
    drawn = [(index[group.label], remaining, forgotten) for group, remaining, forgotten in curves]
    svg = event_curves(drawn, names, [one.step for one in requests if one.step <= n], name)
    named = [(swatch(index[group.label]), group.label) for group in groups]
    rows = [
        [f"{group.label}, {what}", *(cell(point, "percent") for point in curve)]
        for group, remaining, forgotten in curves
        for what, curve in (("remaining", remaining), ("forgotten", forgotten))
        if any(curve)
    ]
    gone = requests[-1].gone if requests else ()
    caption = "Test accuracy by the headline read-out; mean over runs, band of one standard deviation."
    if gone:
        named += [(stroke("solid"), "classes that remain"), (stroke("dotted"), "classes forgotten at some request")]
        caption += (
            f" Forgotten at some request: {', '.join(map(str, gone))}; a dotted line that rises again is a relapse."
        )
    numbers = details("Accuracy after each event, %", ["unlearner", *names], rows)
    wide = svg.replace("<svg ", '<svg class="wide" ', 1)
    return figure("Remaining and forgotten classes over the stream", legend(named) + wide, caption, numbers)


def event_names(requests: Sequence[Request], n: int) -> list[str]:
    """Name n steps: tasks by number, requests as R1, R2, …"""
    at = {one.step: f"R{one.number}" for one in requests}
    names, task = [], 0
    for step in range(1, n + 1):
        task += step not in at
        names.append(at.get(step, str(task)))
    return names


def layers(groups: Sequence[UnlearningGroup], request: Request) -> str:
    """Tabulate how many scalars of each parameter a method says it changed."""
    logged = {group.label: group.finished[0].figures[request.step - 1].logged for group in groups if group.n}
    prefix = "unlearn/selected/"
    told = {
        label: {name.removeprefix(prefix): value for name, value in one.items() if name.startswith(prefix)}
        for label, one in logged.items()
    }
    told = {label: one for label, one in told.items() if one}
    names = list(dict.fromkeys(name for one in told.values() for name in one))
    rows = [[name, *(f"{one.get(name, 0):,.0f}" for one in told.values())] for name in names]
    if not rows:
        return ""
    return details("Scalars changed by parameter, in the first run", ["parameter", *told], rows)


def reasons(groups: Sequence[UnlearningGroup], request: Request) -> str:
    """Tabulate what speaks against each group."""
    rows = [[group.label, why] for group in groups for why in judged(group, request).reasons]
    return details("Why: what speaks against each", ["unlearner", "reason"], rows) if rows else ""
