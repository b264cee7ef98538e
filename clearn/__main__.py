"""The command line as a module: what `torchrun ... -m clearn run CONFIG` and `python -m clearn` start."""

from __future__ import annotations

import sys

from clearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
