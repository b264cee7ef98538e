"""Every shipped config on a pretrained network binds, says its command, and takes more images a class by one key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clearn.config import load, shipped
from clearn.learning.experiment import prepare

ROOT = Path(__file__).parents[2]
SINGLE = r"pretrained/(?!compare)\w+_fashion_mnist"  # test_pretrained_published.py looks after the others
NAMES = [name for name in shipped() if re.fullmatch(SINGLE, name)]


def test_the_baselines_are_shipped() -> None:
    methods = ("simplecil", "shared_lda", "ranpac", "aper_adapter")
    assert {f"pretrained/{method}_fashion_mnist" for method in methods} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_binds_and_opens_with_its_command(name: str) -> None:
    assert (ROOT / "configs" / f"{name}.yaml").read_text().splitlines()[0] == f"# clearn run {name}"
    plain = prepare(load(name)).config
    assert plain["stream"]["increment"] == 2
    assert plain["stream"]["per_class_train"] == 60
    assert plain["strategy"]["vit"]["image_size"] == 56
    changed = prepare(load(name, ["stream.per_class_train=200", "strategy.vit.weights=mine.safetensors"])).config
    assert changed["stream"]["per_class_train"] == 200
    assert changed["strategy"]["vit"] == plain["strategy"]["vit"] | {"weights": "mine.safetensors"}
