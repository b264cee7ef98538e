"""Randomness by name: a generator from (seed, step, purpose), so that nothing random is ever carried.

A resumed run needs no history, and a new draw for one purpose moves no draw of another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, step: int, purpose: str) -> int:
    """Derive a 63-bit seed; the same three words give the same number on every machine."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A torch generator on the CPU for one purpose of one step."""
    import torch

    return torch.Generator().manual_seed(derive(seed, step, purpose))


def numpy_generator(seed: int, step: int, purpose: str) -> np.random.Generator:
    """A numpy generator for one purpose of one step."""
    return np.random.Generator(np.random.PCG64(derive(seed, step, purpose)))


@contextmanager
def scope(seed: int, step: int, purpose: str) -> Iterator[None]:
    """Seed the global generators that building a network or dropout draws from, and put them back afterwards.

    Layers initialise themselves from torch's global generator; inside this scope what they draw depends on the three
    words alone.
    """
    import torch

    number = derive(seed, step, purpose)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
