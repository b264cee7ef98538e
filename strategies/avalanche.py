"""Avalanche: any strategy of the library of that name (Lomonaco et al. 2021; Carta et al. 2023), on our streams.

`method: EWC` with `options: {ewc_lambda: 0.4}` runs avalanche.training.EWC on the network, the recipe, the stream and
the augmentation that our own methods have. So do Naive, Replay, LwF, SI, MAS, GEM, AGEM, GDumb, iCaRL, DER (dark
experience replay), GSS-greedy, LFL, Cumulative and whatever else trains a classifier there.

Carried: the network, and all that can be reached from the strategy object, weighed by inspection: tensors, arrays and
numbers as they are (`clearn.avalanche.weighing`), and a sample for each reference to a sample, with its label. Beside
the network that is 51 bytes in Naive, K (e + 5) more in Replay for K samples of e bytes, 8 P b in EWC for P parameters
and b tasks; docs/avalanche.md has the others. Objects cannot be made from those bytes, so such a run is not rebuilt
after a task, its rows say so, and it can only be started anew, never resumed.

Where this differs from Avalanche's own runs: each task has a fresh optimiser, with our learning-rate schedule, as all
our methods do; the head grows with the classes unless `classes` says how many there will be (DER and iCaRL have to
know); inputs are normalised inside the network, so that buffers hold bytes and not floats; nothing is evaluated or
logged by Avalanche. Batches are augmented once they are put together, replayed samples included; what DER, GEM and AGEM
draw from their memories by themselves is not augmented, and GSS-greedy stores what it saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from clearn.context import Context
from clearn.errors import ConfigError, StateError
from clearn.recipe import FIRST_TASK, Recipe
from clearn.state import State
from clearn.strategy import Strategy
from clearn.stream import Inputs, Task, TaskInfo


class Avalanche(Strategy):
    """A strategy of the library Avalanche.

    Args:
        inputs: what one input of the stream looks like.
        method: class name of the strategy in avalanche.training; case, hyphens and underscores don't matter.
        options: of its constructor; `mem_size: null` keeps as many samples as the byte budget leaves room for.
        backbone: name of a backbone.
        pretrained: start from published weights: true for timm's, or a safetensors file.
        classes: how many classes the stream brings in all, which fixes the head; null lets it grow.
        first: training of the first task.
        later: training of each later task.
    """

    rebuilds: ClassVar[bool] = False
    alone = "it is trained by Avalanche's own loop, which knows one process"
    categories: ClassVar[dict[str, str]] = {
        "model/net.train_classifier": "head",
        "model/net.eval_classifier": "prototypes",
    }

    def __init__(
        self,
        inputs: Inputs,
        method: str = "Naive",
        options: Mapping[str, Any] = {},
        backbone: str = "resnet32",
        pretrained: str | bool = False,
        classes: int | None = None,
        first: Recipe = FIRST_TASK,
        later: Recipe = Recipe(epochs=70, milestones=(30, 50), weight_decay=2e-4),
    ) -> None:
        super().__init__(inputs)
        from clearn.avalanche import methods, nets, training, weighing

        if classes is not None and classes < 1:
            raise ConfigError(
                f"classes={classes} must be 1 or more: how many the stream brings, or null to let it grow"
            )
        cls = methods.find(method)
        arguments, self._filled = methods.bound(cls, options, inputs)
        net = nets.network(inputs, backbone, pretrained, classes)
        self.guest = methods.made(cls, arguments, net, later)
        self._memory_policy = methods.resizable(self.guest, self._filled, inputs)
        self._phase = training.hook(self.guest)
        self.net = self.guest.model
        self.fixed, self.first, self.later = classes, first, later
        self.memory: weighing.Holdings = weighing.Holdings(self.guest, inputs)

    def grow(self, info: TaskInfo) -> None:
        """Add a row to the head for each new class, unless the head was made for all."""
        super().grow(info)
        if self.fixed is None:
            self.net.grow(len(self.classes))
        elif len(self.classes) > self.fixed:
            raise ConfigError(
                f"strategy.classes={self.fixed}, but task {info.index + 1} brings class {max(self.classes) + 1}: write "
                "how many classes the stream brings in all"
            )

    def learn(self, task: Task, ctx: Context) -> None:
        """Have the strategy train on the task, and weigh what it keeps."""
        from clearn.avalanche import data, methods, training

        self.grow(task.info)
        self.to(ctx.device)
        recipe = self.later if task.info.index else self.first
        experience = data.experience(task.train, self.seen, self.fixed)
        self._make_room(ctx)
        with ctx.elsewhere(recipe.epochs, len(task.train)) as (augment, tick):
            phase = training.Phase(recipe, augment, ctx, tick, type(self.guest).__name__ in methods.FLOATS)
            training.train(self.guest, self._phase, experience, recipe, phase, ctx.device)
        self.net = self.guest.model  # some strategies put another in its place
        self._make_room(ctx)

    def category(self, name: str) -> str:
        """The ledger category of a state entry; of what the walk found, its name says it."""
        owner, _, rest = name.partition("/")
        return rest.partition("/")[0] if owner == "memory" else super().category(name)

    def predict(self, inputs: Tensor) -> Tensor:
        """(b, C) scores of the classes seen: logits, or minus distances to class means in iCaRL."""
        scores: Tensor = self.net(inputs)[:, : len(self.classes)]
        return scores

    def load(self, state: State, seen: Sequence[TaskInfo]) -> None:
        """Refuse: the strategy's objects cannot be made from their tensors.

        Raises:
            StateError: always.
        """
        raise StateError(
            f"a run of Avalanche's {type(self.guest).__name__} cannot be taken up from what it wrote after task "
            f"{len(seen)}: its objects were weighed by inspection, and are not rebuilt from tensors; start the run anew"
        )

    def _make_room(self, ctx: Context) -> None:
        """With `mem_size: null`, let the memory hold as many samples as the budget leaves, by measured bytes."""
        if self._memory_policy is None:
            return
        room = ctx.room(self, self.model_state())
        if room is None:
            raise ConfigError(
                f"strategy.options.{self._filled}=null fills the byte budget, but budget.bytes is null: give either one"
            )
        self._memory_policy.fit(room, lambda: self.memory.nominal_bytes if ctx.paper else self.memory.nbytes)
        ctx.log("avalanche/memory_size", self._memory_policy.size)
