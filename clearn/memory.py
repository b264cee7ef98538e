"""Peak memory of one task's training, apart from the byte budget: on the host from the kernel, on a GPU from torch."""

from __future__ import annotations

import ctypes
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")


class Peak:
    """High-water marks from construction on; Linux for the host figure, CUDA for the device's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        _give_back_freed()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; getrusage's maximum never goes down
            self._resident = _kilobytes("VmRSS")
        except OSError:
            self._resident = None
        self._allocated = 0
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
            self._allocated = torch.cuda.memory_allocated(device)

    def host(self) -> int | None:
        """Bytes of resident memory above the start; None where the kernel does not say."""
        if self._resident is None:
            return None
        highest = _kilobytes("VmHWM")
        return None if highest is None else max(0, highest - self._resident) * 1024

    def device(self) -> int | None:
        """Bytes allocated on the GPU above the start; None without one."""
        if self._device.type != "cuda":
            return None
        import torch

        return torch.cuda.max_memory_allocated(self._device) - self._allocated


def _give_back_freed() -> None:
    """Have glibc return what earlier tasks freed, or using it again would not raise the high-water mark."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def _kilobytes(field: str) -> int | None:
    found = re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text())
    return int(found.group(1)) if found else None


@cache
def keep_freed_memory() -> None:
    """Have glibc keep freed blocks for the next step rather than hand them back to the kernel.

    Activations of a few MB are mapped and unmapped at every step otherwise: 14 of 94 ms a step (ResNet14, batch 32, one
    thread) were page faults, and 40 % of an evaluation (ResNet8, batch 250). Does nothing on other platforms.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            m_trim_threshold, m_mmap_threshold = -1, -3  # names and values from glibc's malloc.h
            libc.mallopt(m_mmap_threshold, 1 << 30)
            libc.mallopt(m_trim_threshold, 1 << 30)
