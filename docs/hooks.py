"""What mkdocs asks for while it builds the site: pages that are written from the code, so that they cannot go stale.

`mkdocs.yml` names this file, and mkdocs lets it import its neighbours. Nothing is trained, drawn or downloaded. A
hand-written page says by a line `<!-- generated: NAME -->` where a generated table stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import writing

GUIDES = "Guides"  # takes the pages that mkdocs.yml does not name
RESULTS = "Results"


def on_config(config: Any) -> Any:
    """Put the generated pages, and hand-written ones that nobody named, into the navigation."""
    here = Path(config.docs_dir)
    named = set(_files(config.nav))
    rest = [path.name for path in sorted(here.glob("*.md")) if path.name not in named]
    for entry in config.nav:
        for section, pages in entry.items():
            if section == GUIDES:
                pages += rest
            elif section == RESULTS:
                pages += [f"results/{path.name}" for path in sorted((here / "results").glob("*.md"))]
            elif section in writing.LISTED:
                pages += [{name: path} for name, path in writing.listed(section)]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in writing.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in generated tables."""
    return writing.filled(markdown)


def _files(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    inside = nav.values() if isinstance(nav, dict) else nav
    return [name for part in inside for name in _files(part)]
