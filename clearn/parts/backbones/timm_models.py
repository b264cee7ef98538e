"""Any timm model as a row of groups: stem, stage 1, ..., last stage with norm and pooling.

For residual nets the groups are those of MEMO (Zhou et al. 2023). For other nets the cut is ours: each item
of a model's `stages`, `layers` or `blocks` is a group, so for a vision transformer a group is one block, and
the last block goes with the final norm. Models are not trusted to be plain rows: a throw-away copy is cut and
must compute, bit for bit, what the whole model computes.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clearn.errors import ConfigError, DataError

Options = dict[str, Any]
"""Keyword arguments of timm.create_model; their types are timm's."""

CONTAINERS = {"stages", "layers", "blocks"}
STAGE = re.compile(r"(layer|stage|s)_?\d+")
HEAD = {
    "global_pool",
    "attn_pool",
    "pre_logits",
    "fc_norm",
    "head_drop",
    "head",
    "head_dist",
    "fc",
    "classifier",
}
"""timm's names for what holds stages, for a stage, and for what ends the row of modules."""


class Group(nn.Sequential):
    """One group of a timm model.

    Attributes:
        pretrained_hashes: state-dict key inside this group -> `content_hash` of the value the checkpoint gave
            it; empty for fresh weights. A plain attribute: not part of the state, copied along with the
            module.
    """

    pretrained_hashes: dict[str, str]

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.pretrained_hashes = {}


class Embedding(nn.Module):
    """A vision transformer up to its first block: images (b, c, h, w) -> tokens (b, n, d)."""

    model: Any  # timm's models share methods, but no type

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Run what is left of the model."""
        return self.model.forward_features(x)


class Pooling(nn.Module):
    """What a timm model does between last stage and classifier: maps or tokens -> features (b, width)."""

    model: Any  # timm's models share methods, but no type

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Run what is left of the model."""
        return self.model.forward_head(x, pre_logits=True)


def content_hash(tensor: Tensor) -> str:
    """SHA-256 (hex) of dtype, shape and raw contiguous bytes: first "float32[64, 3, 7, 7]", then the bytes.

    The same as `clearn.state.content_hash`, which parts do not import; a test holds the two together.
    """
    dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def create(arch: str, shape: tuple[int, int, int], **options: Any) -> nn.Module:
    """Build a timm model without classifier for images of `shape` (channels, height, width)."""
    cfg = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    if cfg is not None and cfg.fixed_input_size:
        options["img_size"] = shape[1:]
    return timm.create_model(arch, num_classes=0, in_chans=shape[0], **options)


def cut(model: nn.Module) -> list[Group]:
    """Take a timm model apart, and put its modules together as groups; the model itself is used up.

    Raises:
        ValueError: it has no row of stages.
    """
    children = dict(model.named_children())
    body = list(takewhile(lambda name: name not in HEAD, children))
    rows = [(name, module) for name in body for module in _row(name, children[name])]
    stages = [i for i, (name, _) in enumerate(rows) if name in CONTAINERS or STAGE.fullmatch(name)]
    if len(stages) < 2 or stages != list(range(stages[0], stages[-1] + 1)):
        raise ValueError(f"its modules are {', '.join(children)}")

    for name in body:
        setattr(model, name, nn.Identity())
    before, after = rows[: stages[0]], [module for _, module in rows[stages[-1] + 1 :]]
    stem = [module for _, module in before]
    if isinstance(model, VisionTransformer):
        stem = [_embedding(model, before)]
    middle = [Group(rows[i][1]) for i in stages[:-1]]
    return [Group(*stem), *middle, Group(rows[stages[-1]][1], *after, Pooling(_without_values(model)))]


def _row(name: str, module: nn.Module) -> Iterator[nn.Module]:
    """Yield the stages inside a container, or the module itself."""
    if name in CONTAINERS and isinstance(module, nn.Sequential | nn.ModuleList):
        yield from module
    else:
        yield module


def _embedding(model: nn.Module, before: list[tuple[str, nn.Module]]) -> Embedding:
    """Give a stripped transformer its first modules back; it owns class token and positions itself."""
    stem = copy.deepcopy(model)
    for name, _ in stem.named_children():
        setattr(stem, name, nn.Identity())
    for name, module in before:
        setattr(stem, name, module)
    return Embedding(stem)


def _without_values(model: nn.Module) -> nn.Module:
    """Drop the parameters and buffers that a model owns directly; its modules keep theirs."""
    own = [*model.named_parameters(recurse=False), *model.named_buffers(recurse=False)]
    for name, _ in own:
        setattr(model, name, None)
    return model


@contextmanager
def aside() -> Iterator[None]:
    """Build on the CPU from a fixed seed, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        yield


@lru_cache
def measure(arch: str, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Cut a throw-away model and prove that the groups compute what it computes.

    Returns:
        The number of groups, and the width of the features.

    Raises:
        ConfigError: no such model, images of a shape that it cannot take, or no cut.
    """
    check_name(arch)
    with aside(), torch.no_grad():
        x = torch.rand(1, *shape)
        try:
            model = create(arch, shape).eval()
            for value in model.parameters():  # so that no branch is silent, as zero-initialised ones are
                value.add_(torch.randn_like(value), alpha=0.01)
            wanted = model(x)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(
                f"timm/{arch} cannot take inputs of shape {shape} (channels, height, width): {error}; "
                "take another backbone or larger images"
            ) from error
        try:
            groups = cut(model)
            got = nn.Sequential(*groups)(x)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise _uncut(arch, str(error)) from error
    if wanted.ndim != 2 or not torch.equal(got, wanted):
        raise _uncut(arch, "its stages do not simply follow one another")
    return len(groups), wanted.shape[1]


def check_name(arch: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        ConfigError: with the nearest name.
    """
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=1, cutoff=0.0)[0]
        raise ConfigError(f"timm has no model '{arch}'; did you mean 'timm/{near}'? timm.list_models() has them all")


def _uncut(arch: str, why: str) -> ConfigError:
    return ConfigError(
        f"timm/{arch} cannot be cut into stem, stages and pooling: {why}; "
        "take a model whose stages follow one another, e.g. timm/resnet26 or timm/convnext_atto"
    )


def stages(
    arch: str, shape: tuple[int, int, int], pretrained: str | bool
) -> tuple[int, tuple[Callable[[], nn.Module], ...]]:
    """Plan a timm model: the width of its features, and builders of its groups.

    Fresh weights follow timm's own rule; every call draws a whole model and keeps one group.

    Raises:
        ConfigError: see `measure`.
        DataError: see `pretrained_stages`.
    """
    count, width = measure(arch, shape)
    if pretrained:
        return width, pretrained_stages(arch, shape, pretrained, {})
    return width, tuple(partial(_fresh, arch, shape, i) for i in range(count))


def _fresh(arch: str, shape: tuple[int, int, int], index: int) -> Group:
    return cut(create(arch, shape))[index]


def pretrained_stages(
    arch: str, shape: tuple[int, int, int], source: str | bool, options: Options
) -> tuple[Callable[[], nn.Module], ...]:
    """Builders of a pretrained model's groups: each call copies one, draws nothing, depends on no other call.

    Args:
        arch: timm's name.
        shape: (channels, height, width) of the images; timm adapts the first convolution and the positions.
        source: True for the weights timm names, or the path of a .safetensors file in timm's layout.
        options: further arguments of timm.create_model.

    Raises:
        DataError: the weights cannot be had, or are those of another network.
    """
    with aside():
        if isinstance(source, str):
            groups = cut(_from_file(arch, shape, source, options))
        else:
            groups = cut(_published(arch, shape, options))
    for group in groups:
        group.pretrained_hashes = {name: content_hash(value) for name, value in group.state_dict().items()}
    return tuple(partial(copy.deepcopy, group) for group in groups)


def _published(arch: str, shape: tuple[int, int, int], options: Options) -> nn.Module:
    try:
        return create(arch, shape, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the weights of timm/{arch} could not be had: {str(error).rstrip('.')}; "
            "give a local file instead, pretrained: FILE.safetensors"
        ) from error


def _from_file(arch: str, shape: tuple[int, int, int], source: str, options: Options) -> nn.Module:
    """Load through timm, which renames and leaves gaps: what differs on a second load was random."""
    path = Path(source).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        raise DataError(
            f"pretrained={source} is no .safetensors file that can be found (looked for {path.absolute()}); "
            "give true, or the path of weights in timm's layout"
        )
    overlay = {"file": str(path), "source": "", "custom_load": False}
    try:
        model, again = (
            create(arch, shape, pretrained=True, pretrained_cfg_overlay=overlay, **options) for _ in range(2)
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} does not hold the weights of timm/{arch}: {error}; give the file of that network"
        ) from error
    values, others = model.state_dict(), again.state_dict()
    drawn = [name for name, value in values.items() if not torch.equal(value, others[name])]
    if drawn:
        raise DataError(
            f"{path} has no values for {len(drawn)} of {len(values)} tensors of timm/{arch}, such as "
            f"{drawn[0]}; give the file of that network"
        )
    return model
