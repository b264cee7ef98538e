"""Coarser labels: classes merged into groups; which class a training sample had stays known as a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from clearn.errors import ConfigError
from clearn.parts.columns import Column
from clearn.streams.datasets.record import DataSet, nearest, relabel

Groups = list[list[int | str]] | dict[str, list[int | str]] | str

CLASS = "class"  # the column's name
SUPERCLASSES = "superclasses"

# The 20 coarse labels of www.cs.toronto.edu/~kriz/cifar.html, in the order of `coarse_label_names`. torchvision drops
# the `coarse_labels` of the files that it reads, and checks their MD5, so that the two cannot part.
PUBLISHED: dict[str, dict[str, str]] = {
    "cifar100": {
        "aquatic_mammals": "beaver dolphin otter seal whale",
        "fish": "aquarium_fish flatfish ray shark trout",
        "flowers": "orchid poppy rose sunflower tulip",
        "food_containers": "bottle bowl can cup plate",
        "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
        "household_electrical_devices": "clock keyboard lamp telephone television",
        "household_furniture": "bed chair couch table wardrobe",
        "insects": "bee beetle butterfly caterpillar cockroach",
        "large_carnivores": "bear leopard lion tiger wolf",
        "large_man-made_outdoor_things": "bridge castle house road skyscraper",
        "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
        "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
        "medium_mammals": "fox porcupine possum raccoon skunk",
        "non-insect_invertebrates": "crab lobster snail spider worm",
        "people": "baby boy girl man woman",
        "reptiles": "crocodile dinosaur lizard snake turtle",
        "small_mammals": "hamster mouse rabbit shrew squirrel",
        "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "vehicles_1": "bicycle bus motorcycle pickup_truck train",
        "vehicles_2": "lawn_mower rocket streetcar tank tractor",
    }
}


def merged(data: DataSet, merge: Groups) -> DataSet:
    """Give every sample the number of its class's group for a label, and keep the class as the column "class".

    Args:
        data: as read; a set may be merged once.
        merge: groups of classes as the set calls them, each class in exactly one: a list (a group is called by its
            classes, "0+1+8"), a mapping from names, or "superclasses", which CIFAR-100 has 20 of.

    Raises:
        ConfigError: not every class is in exactly one group, or the set has a column "class" already.
    """
    if CLASS in data.columns:
        raise ConfigError(f"merge keeps the classes as column {CLASS!r}, which data={data.name} has already: rename it")
    groups = _groups(merge, data)
    _check(groups, data)
    group = {name: i for i, names in enumerate(groups.values()) for name in names}
    to = torch.tensor([group[name] for name in data.classes])  # (C,) from class to group
    return replace(
        data,
        train=relabel(data.train, to[data.train.labels]),
        test=relabel(data.test, to[data.test.labels]),
        classes=tuple(groups),
        columns={**data.columns, CLASS: Column(data.classes, data.train.labels)},
        merged=tuple(tuple(name for name in data.classes if name in names) for names in groups.values()),
    )


def _groups(merge: Groups, data: DataSet) -> dict[str, list[str]]:
    """Names of the classes in each group."""
    given: Mapping[str, Sequence[int | str]]
    if isinstance(merge, str):
        if merge != SUPERCLASSES or data.name not in PUBLISHED:
            raise ConfigError(
                f"merge={merge!r} with data={data.name}: {SUPERCLASSES!r} is the only word, and data="
                f"{' or '.join(PUBLISHED)} the only set that has them; write groups of classes: [[...], [...]]"
            )
        return {name: names.split() for name, names in PUBLISHED[data.name].items()}
    if isinstance(merge, Mapping):
        given = merge
    else:
        given = {"+".join(map(str, group)): group for group in merge}
        if len(given) < len(merge):
            raise ConfigError(f"merge={merge} has two equal groups: name each class once")
    return {name: [str(one) for one in group] for name, group in given.items()}


def _check(groups: Mapping[str, Sequence[str]], data: DataSet) -> None:
    """Refuse groups that are no partition of the classes."""
    named = [name for group in groups.values() for name in group]
    empty = [name for name, group in groups.items() if not group]
    if len(groups) < 2 or empty:
        raise ConfigError(
            f"merge makes {len(groups)} groups, {len(empty)} of them empty; two or more with a class each are right"
        )
    if strange := [name for name in named if name not in data.classes]:
        raise ConfigError(
            f"merge: data={data.name} has no class {strange[0]!r}{nearest(strange[0], data.classes)} "
            f"({len(strange)} such)"
        )
    if twice := [name for name in data.classes if named.count(name) > 1]:
        raise ConfigError(f"merge: class {twice[0]!r} is named more than once ({len(twice)} such); once is right")
    if missing := [name for name in data.classes if name not in named]:
        raise ConfigError(
            f"merge: class {missing[0]!r} is in no group ({len(missing)} such); each must be in one: add it"
        )
