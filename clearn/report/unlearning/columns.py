"""The numbers of a request: what each is, which way is good, and how it is printed everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clearn.metrics import Spread
from clearn.report.columns import Kind, exact_text, number_text, spread_text
from clearn.report.unlearning.grouping import Gap, Pick, UnlearningGroup
from clearn.report.unlearning.runs import EventFigures, Request
from clearn.report.unlearning.verdicts import judged

NONE = "–"
AT_RETRAIN, AT_ZERO, UP, DOWN = " →R", " →0", " ↑", " ↓"
Found = Spread | Gap | str | None


@dataclass(frozen=True, eq=False)
class Measure:
    """A number, or words, of each group and request.

    Attributes:
        key: full name, as in the CSV.
        title: as printed.
        part: the table it belongs to: "accuracy", "attack", "distance", "verdict" or "cost".
        kind: how the number is printed.
        value: the number; words where it cannot be, and why.
        note: what it is, in a sentence.
        better: which way is good.
    """

    key: str
    title: str
    part: str
    kind: Kind
    value: Callable[[UnlearningGroup, Request], Found]
    note: str
    better: str = ""

    @property
    def head(self) -> str:
        """The title with unit and direction."""
        unit = {"percent": " %", "seconds": " s"}.get(self.kind, "")
        return self.title + (unit + self.better).replace(" ", "\N{NO-BREAK SPACE}")


@dataclass(frozen=True)
class Cell:
    """A printed number.

    Attributes:
        main: the number, or words.
        more: its deviation or interval.
        order: what it is sorted by; None for none.
        exact: all digits, for whoever points at it.
        wrong: whether it is a failure.
    """

    main: str
    more: str = ""
    order: float | None = None
    exact: str = ""
    wrong: bool = False

    @property
    def plain(self) -> str:
        """In one line."""
        return " ".join(filter(None, (self.main, self.more)))


def cell(measure: Measure, group: UnlearningGroup, request: Request) -> Cell:
    """Print a number of a group."""
    if measure.key == "verdict":
        verdict = judged(group, request)
        return Cell(verdict.words, verdict.more, exact=" ".join(verdict.reasons), wrong=verdict.failed)
    found = measure.value(group, request)
    match found:
        case Spread():
            main, std = spread_text(found, measure.kind)
            if measure.kind == "loss":
                main, std = digits(found.mean), digits(found.std, 2) if found.std else ""
            return Cell(main, f"± {std}" if std else "", found.mean, exact_text(found, measure.kind))
        case Gap():
            ends = [] if found.low is None or found.high is None else [found.low, found.high]
            interval = f"[{', '.join(signed(end, measure.kind) for end in ends)}]" if ends else ""
            return Cell(
                signed(found.mean, measure.kind), interval, found.mean, f"{found.mean:.6g}, n = {found.n} pairs"
            )
        case str():
            return Cell(found)
    return Cell(NONE)


def digits(value: float, n: int = 3) -> str:
    """Print a number with n significant digits, at most six decimals.

    >>> digits(0.41249), digits(1234.5), digits(0.0000004), digits(0.0123, 2)
    ('0.412', '1,234', '0', '0.012')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{n}g}" if abs(value) >= 1e-3 else f"{value:.6f}".rstrip("0").rstrip(".")


def signed(value: float, kind: Kind) -> str:
    """Print a difference with its sign.

    >>> signed(-0.0123, "percent"), signed(0.0, "percent"), signed(0.25, "loss")
    ('-1.2', '0.0', '+0.25')
    """
    text = digits(value) if kind == "loss" else number_text(value, kind)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def measures(groups: Sequence[UnlearningGroup], request: Request) -> list[Measure]:
    """Give the columns that any of the groups fills."""
    found = []
    for one in all_measures():
        cells = [cell(one, group, request).main for group in groups]
        if any(text != NONE for text in cells):
            found.append(one)
    return found


def all_measures() -> list[Measure]:
    """Give every column, part by part."""
    return [*_accuracies(), *_attacks(), *_distances(), _verdict(), *_costs()]


def _with_gap(
    key: str, title: str, part: str, kind: Kind, pick: Pick, note: str, better: str = AT_RETRAIN
) -> list[Measure]:
    """Give a measured number and, behind it, its gap to retraining."""
    value = Measure(key, title, part, kind, lambda group, request: group.number(request, pick), note, better)
    gap = replace(
        value,
        key=f"{key}.gap",
        title=f"{title} gap",
        value=lambda group, request: group.gap(request, pick) or _why_no_gap(group, request, pick),
        note=f"{title}, minus that of the retrained model of the same seed: mean and 95 % t-interval",
        better=AT_ZERO,
    )
    return [value, gap]


def _why_no_gap(group: UnlearningGroup, request: Request, pick: Pick) -> str | None:
    """Say in a gap's place that there is no retrained model; nothing where there is no number either."""
    if group.role == "reference" or group.number(request, pick) is None:
        return None
    if group.reference is None:
        return "no retrain"
    return None if group.pairs else "no such seed"


def _accuracies() -> list[Measure]:
    part: str = "accuracy"
    kind: Kind = "percent"
    before = "accuracy on the forgotten training samples as the request came"
    return [
        Measure("before", "before", part, kind, lambda group, one: group.number(one, lambda m: m.before), before),
        *_with_gap(
            "forget", "forget", part, kind, lambda one: one.forget, "accuracy on the forgotten training samples"
        ),
        *_with_gap("stays", "stays", part, kind, lambda one: one.stays, "accuracy on the training samples that stay"),
        *_with_gap(
            "kept", "test kept", part, kind, lambda one: one.kept, "accuracy on test samples of classes that stay"
        ),
        *_with_gap(
            "forgotten",
            "test forgotten",
            part,
            kind,
            lambda one: one.forgotten,
            "accuracy on test samples of the classes that this request forgets",
        ),
    ]


def _attacks() -> list[Measure]:
    mia = "share of the forgotten samples called member by their entropy, the SSD paper's attack"
    auc = "how well losses tell forgotten samples from unseen ones of the same labels, held out; 0.5 tells nothing"
    attacker = "balanced accuracy of the entropy attack on the samples it was fitted to; at 50 % its MIA is noise"
    return [
        *_with_gap("mia", "MIA", "attack", "percent", lambda one: one.mia_share, mia),
        Measure(
            "mia.attacker",
            "attacker",
            "attack",
            "percent",
            lambda group, one: group.number(one, lambda m: None if m.mia is None else m.mia.balanced_accuracy),
            attacker,
        ),
        *_with_gap("loss_auc", "loss AUC", "attack", "loss", lambda one: one.auc, auc),
    ]


def _distances() -> list[Measure]:
    def paired(
        key: str, title: str, better: str, value: Callable[[UnlearningGroup, Request], Found], note: str
    ) -> Measure:
        return Measure(key, title, "distance", "loss", value, note, better)

    share = "share of all scalars that the method changed, as it logs itself"
    return [
        paired(
            "tow",
            "ToW",
            UP,
            lambda group, one: group.compared(one, lambda pair: pair.tow),
            "tug of war: product of 1 - |gap| over forget, stays and test kept; 1 is retraining",
        ),
        paired(
            "js_forget",
            "JS forget",
            DOWN,
            lambda group, one: group.compared(one, lambda pair: pair.js_forget),
            "mean Jensen-Shannon divergence to the retrained model on the forgotten samples, nats, at most 0.693",
        ),
        paired(
            "js_test",
            "JS test",
            DOWN,
            lambda group, one: group.compared(one, lambda pair: pair.js_test),
            "the same on all test samples so far",
        ),
        Measure(
            "relapse",
            "relapse",
            "distance",
            "percent",
            lambda group, one: None if group.role == "reference" else group.relapse(one),
            "test accuracy on the forgotten classes above retraining's, at the worst of all later steps of the stream; "
            "0 or less is good",
            DOWN,
        ),
        Measure("changed", "changed", "distance", "percent", lambda group, one: group.figure(one, _changed), share),
    ]


def _changed(figures: EventFigures) -> float | None:
    return figures.logged.get("unlearn/selected")


def _verdict() -> Measure:
    note = "against retraining, over the seeds: did nothing, destroyed the model, apart, undecided, indistinguishable"
    return Measure("verdict", "verdict", "verdict", "count", lambda group, one: judged(group, one).words, note)


def _costs() -> list[Measure]:
    def cost(
        key: str,
        title: str,
        kind: Kind,
        value: Callable[[UnlearningGroup, Request], Found],
        note: str,
        better: str = "",
    ) -> Measure:
        return Measure(key, title, "cost", kind, value, note, better)

    return [
        cost(
            "seconds",
            "wall s",
            "loss",
            lambda group, one: group.figure(one, lambda f: f.own_seconds),
            "wall seconds of the method's own work at the request",
            DOWN,
        ),
        cost(
            "speed",
            "× faster",
            "loss",
            lambda group, one: group.speed(one),
            "seconds of retraining over the method's own, paired by seed",
            UP,
        ),
        cost(
            "cpu_seconds",
            "cpu s",
            "loss",
            lambda group, one: group.figure(one, lambda f: f.cpu_seconds),
            "processor seconds of the whole step, weighing and scoring included",
            DOWN,
        ),
        cost(
            "samples",
            "samples read",
            "count",
            lambda group, one: group.figure(one, lambda f: f.read),
            "training samples read, each time they were",
            DOWN,
        ),
        cost(
            "kept_bytes",
            "kept",
            "bytes",
            lambda group, one: group.spread(lambda run: float(run.kept(one))),
            "bytes that the unlearner had kept since training when the request came",
            DOWN,
        ),
        cost(
            "freed_bytes",
            "freed",
            "bytes",
            lambda group, one: group.spread(lambda run: float(run.freed(one))),
            "bytes that left the strategy's memory with the request",
        ),
        cost(
            "thrown_out",
            "thrown out",
            "count",
            lambda group, one: group.figure(one, lambda f: f.logged.get("forget/thrown_out")),
            "exemplars that left the memory",
        ),
    ]
