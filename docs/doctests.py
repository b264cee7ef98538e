"""Show doctests in docstrings as code, whose prompts Markdown would otherwise read as quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

BLOCK = re.compile(r"(?m)^( *)>>> (?:.*\n?)(?:\1\S.*\n?)*")  # up to an empty line


class Doctests(griffe.Extension):
    """Put a fence around every doctest."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of one module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Fence what starts with a prompt and goes on to the next empty line.

    >>> fenced("Add.\\n\\n>>> 1 + 1\\n2").splitlines()
    ['Add.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    return BLOCK.sub(lambda found: f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n", text).rstrip()
