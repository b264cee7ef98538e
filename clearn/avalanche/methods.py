"""Avalanche's strategies by name: found in `avalanche.training`, their options bound to their constructors."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from clearn.avalanche import library
from clearn.binding import bind
from clearn.errors import ConfigError
from clearn.mistakes import Mistake, listing, nearest, raise_all
from clearn.parts.nets import SingleNet
from clearn.recipe import Recipe
from clearn.stream import Inputs

GIVEN = (  # constructor arguments that the bridge gives
    *("model", "feature_extractor", "classifier", "optimizer", "criterion", "train_mb_size", "train_epochs"),
    *("eval_mb_size", "device", "plugins", "evaluator", "eval_every", "peval_mode"),
)
SHORT = {"si": "synapticintelligence"}  # as papers call them
NO_LEARNERS = (  # train something other than a classifier, or once only
    *("AETraining", "ExpertGateStrategy", "GenerativeReplay", "JointTraining", "PackNet", "PNNStrategy", "SCR"),
    *("StreamingLDA", "VAETraining"),
)
ALL_CLASSES = ("DER", "ICaRL")  # keep outputs of the whole head, which may not grow
FLOATS = ("GSS_greedy",)  # keep inputs as float32, so they take float batches
SIZES = ("mem_size", "memory_size", "patterns_per_exp")  # options that may be null: as many as the budget leaves


def names() -> dict[str, type]:
    """Strategies that run on a network of ours, by class name."""
    library()
    import avalanche.training
    from avalanche.training.templates import SupervisedTemplate

    there = {name: cls for name, cls in sorted(vars(avalanche.training).items()) if inspect.isclass(cls)}
    learners = {name: cls for name, cls in there.items() if issubclass(cls, SupervisedTemplate)}
    takes = {name: inspect.signature(cls).parameters.keys() for name, cls in learners.items()}
    return {
        name: cls
        for name, cls in learners.items()
        if name not in NO_LEARNERS and takes[name] & {"model", "feature_extractor"}
    }


def find(method: str) -> type:
    """Find a strategy; case, hyphens and underscores don't matter.

    Raises:
        ConfigError: there is none of that name.
    """
    known = names()
    plain = _plain(method)
    by_plain = {_plain(name): cls for name, cls in known.items()}
    cls = by_plain.get(SHORT.get(plain, plain))
    if cls is None:
        hint = nearest(method, known) or listing(known, "strategies", most=40)
        raise ConfigError(
            f"strategy.method={method!r} is no strategy of avalanche.training that runs on a network of ours; {hint}"
        )
    return cls


def bound(cls: type, options: Mapping[str, Any], inputs: Inputs) -> tuple[dict[str, Any], str | None]:
    """Bind a config's options to a strategy's constructor.

    Args:
        cls: the strategy.
        options: as in a config's `strategy.options`.
        inputs: what one input of the stream looks like.

    Returns:
        Arguments, and the name of the size that the budget has to give, if one was null.

    Raises:
        ConfigError: every unknown, missing or ill-typed option.
    """
    parameters, errors = inspect.signature(cls).parameters, list[Mistake]()
    filled = [name for name in SIZES if name in parameters and name in options and options[name] is None]
    given = {name: value for name, value in options.items() if name not in filled}
    for name, value in (("input_size", list(inputs.shape)), ("buffer_transform", None)):
        if name in parameters and name not in given:
            given[name] = value  # follow from the stream; inputs are normalised inside the network
    arguments = bind(cls, given, "strategy.options", errors, skip=(*GIVEN, *filled))
    raise_all(errors)
    return {**arguments, **dict.fromkeys(filled, 1)}, (filled[0] if filled else None)


def made(cls: type, arguments: Mapping[str, Any], net: SingleNet, recipe: Recipe) -> Any:
    """Make a strategy on a fresh network of ours; its optimiser is given when it trains.

    Args:
        cls: the strategy.
        arguments: as `bound` gives them.
        net: as `clearn.avalanche.nets.network` makes it.
        recipe: of later tasks; its batch size is also that of stored samples, where options don't say.

    Raises:
        ConfigError: the constructor does not take these options, or needs to know how many classes there will be.
    """
    from avalanche.training.plugins import EvaluationPlugin

    if net.head is None and cls.__name__ in ALL_CLASSES:
        raise ConfigError(
            f"strategy.method={cls.__name__} keeps outputs of the whole head, which must not grow then: write "
            "strategy.classes, how many the stream will bring in all"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified", category=UserWarning)
        ours = {
            "model": net,
            "feature_extractor": nn.Sequential(net.normalise, net.backbone),
            "classifier": net.head,
            "optimizer": None,
            "criterion": nn.CrossEntropyLoss(),
            "train_mb_size": recipe.batch_size,
            "train_epochs": recipe.epochs,
            "eval_mb_size": 256,
            "device": "cpu",
            "plugins": [],
            "evaluator": EvaluationPlugin(),  # measures and prints nothing
            "eval_every": -1,
        }
        parameters = inspect.signature(cls).parameters
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        if "model" not in parameters:
            del ours["model"]
        else:
            del ours["classifier"]
        taken = {name: one for name, one in ours.items() if name in parameters or (open_ended and name == "evaluator")}
        try:
            return cls(**taken, **arguments)
        except (AssertionError, TypeError, ValueError, NotImplementedError) as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise ConfigError(
                f"strategy.options: {cls.__name__} of Avalanche does not take {shown or 'no options'}: "
                f"{str(error) or type(error).__name__}; look at its constructor's documentation"
            ) from error


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


class Resizable:
    """A replay memory whose size can be changed: Avalanche's storage policies.

    Args:
        policy: the storage policy.
        guest: the strategy it belongs to.
        item_bytes: of a sample as stored, with its label: the first guess, until one was measured.
    """

    def __init__(self, policy: Any, guest: Any, item_bytes: int) -> None:
        self.policy, self.guest, self.item_bytes = policy, guest, float(item_bytes)

    @property
    def size(self) -> int:
        """Samples that may be held."""
        return int(self.policy.max_size)

    def fit(self, room: int, weigh: Callable[[], int]) -> None:
        """Take the largest size that keeps all that is held within some bytes; before training, the likely one.

        Args:
            room: bytes for all that is carried beside the network.
            weigh: bytes of that now.
        """
        held = len(self.policy.buffer)
        if held:
            self.item_bytes = max(weigh() / held, 1.0)
        self._resize(max(int(room / self.item_bytes), 0))
        while weigh() > room and self.size:
            over = weigh() - room
            self._resize(max(min(len(self.policy.buffer), self.size) - max(int(over / self.item_bytes), 1), 0))

    def _resize(self, size: int) -> None:
        groups = getattr(self.policy, "buffer_groups", None)
        if groups == {}:
            self.policy.max_size = size  # nothing is stored yet
        else:
            self.policy.resize(self.guest, size)


def resizable(guest: Any, filled: str | None, inputs: Inputs) -> Resizable | None:
    """Find the memory that the budget is to fill; None where options give its size.

    Raises:
        ConfigError: the strategy's memory cannot be resized.
    """
    if filled is None:
        return None
    item = math.prod(inputs.shape) * (1 if inputs.dtype == "uint8" else 4) + 1
    for owner in (guest, *guest.plugins):
        policy = getattr(owner, "storage_policy", None)
        if policy is not None and hasattr(policy, "resize") and hasattr(policy, "max_size"):
            return Resizable(policy, guest, item)
    raise ConfigError(
        f"strategy.options.{filled}=null fills the byte budget, but the memory of {type(guest).__name__} cannot be "
        f"resized: give a number; a sample takes {item:,} bytes as stored, with its label"
    )
