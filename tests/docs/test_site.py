"""The site's generated pages say what the code says, and the site builds without a warning and fetches nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from clearn import plugins
from clearn.config import shipped

ROOT = Path(__file__).parents[2]
needs_docs = "the documentation's packages are missing: pip install 'clearn[docs]'"


@pytest.fixture(scope="module")
def writing() -> ModuleType:
    pytest.importorskip("markdown", reason=needs_docs)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        import writing as module

        yield module


@pytest.fixture(scope="module")
def pages(writing: ModuleType) -> dict[str, str]:
    return writing.pages()


def test_every_method_has_a_page_and_every_overview_names_it(pages: dict[str, str]) -> None:
    for kind in plugins.KINDS:
        names = plugins.names(kind)
        assert len(names) >= 18
        for name, summary in names.items():
            page = pages[f"methods/{kind}/{name}.md"]
            assert page.startswith(f"# `{name}`\n")
            assert f"clearn show {name}" in page
            assert f"[`{name}`]({name}.md)" in pages[f"methods/{kind}/index.md"]
            assert summary.split()[0].rstrip(":,.") in page


def test_every_strategy_says_what_it_keeps(pages: dict[str, str]) -> None:
    silent = [
        name for name in plugins.names("strategies") if "## What it keeps" not in pages[f"methods/strategies/{name}.md"]
    ]
    assert silent == []


def test_a_page_has_every_option_that_show_prints(pages: dict[str, str]) -> None:
    from clearn.config import describe

    for kind, known in plugins.KINDS.items():
        for name in plugins.names(kind):
            for option in describe(plugins.find(kind, name), skip=known.given):
                assert f"| `{option.name}` |" in pages[f"methods/{kind}/{name}.md"]


def test_bytes_are_weighed_and_not_typed(pages: dict[str, str]) -> None:
    # one ResNet32 is 1,863,352 bytes with buffers, MEMO 452,200 + 10 x 1,411,152; heads 4 C (d + 1), 4 C (b d + 1)
    assert "| 10 | 1,854,016 | 9,336 | 26,000 | 1,889,352 |" in pages["methods/strategies/replay.md"]
    assert "| 10 | 14,507,584 | 56,136 | 256,400 | 14,820,120 |" in pages["methods/strategies/memo.md"]
    assert "Each exemplar costs 3,073 bytes more" in pages["methods/strategies/memo.md"]
    assert "exemplar" not in pages["methods/strategies/lwf.md"].split("### On CIFAR-100")[1].split("## Options")[0]


def test_every_measured_row_stands_on_its_method_s_page(pages: dict[str, str]) -> None:
    lines = (ROOT / "docs/results/fashion_mnist.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| memo,")]
    assert len(rows) >= 6
    for row in rows:
        assert row in pages["methods/strategies/memo.md"].splitlines()
    der = [line for line in lines if line.startswith(r"| der\_expand,")]
    assert set(der) <= set(pages["methods/strategies/der_expand.md"].splitlines())


def test_links_to_results_tell_equal_headings_apart(pages: dict[str, str]) -> None:
    links = re.findall(r"unlearning_digits\.md#([\w-]+)", pages["methods/unlearn/ssd.md"])
    assert len(links) == len(set(links)) >= 8


def test_every_config_and_every_command_is_listed(pages: dict[str, str]) -> None:
    for name in shipped():
        assert f"| `{name}` |" in pages["configs.md"]
    for command in ("run", "sweep", "report", "show", "check", "reproduce"):
        assert f"## clearn {command}\n" in pages["commands.md"]


def test_tables_are_filled_in(writing: ModuleType) -> None:
    reproduce = writing.filled("<!-- generated: reproduce -->")
    assert "| `class_incremental/published/memo_cifar100_b0_inc10` | classifier 72.4 |" in reproduce
    budgets = writing.filled("<!-- generated: budgets -->")
    assert "| 16.12 | 16906880 |" in budgets
    assert "| 1273.55 | 1335409408 |" in budgets
    with pytest.raises(KeyError):
        writing.filled("<!-- generated: nothing -->")


def test_text_is_not_read_as_markup(writing: ModuleType) -> None:
    from typesetting import paragraphs, prose, table

    assert prose("phi_s * [a] <b> | `x_y`") == r"phi\_s \* \[a\] &lt;b> &#124; `x_y`"
    assert paragraphs(["two\nlines", "    a  b\n    c  d"]) == [
        "two lines",
        "",
        "```text",
        "    a  b",
        "    c  d",
        "```",
        "",
    ]
    assert table(("name", "n"), [["a", "1"], ["b", "–"]])[1] == "| --- | ---: |"


def test_doctests_are_shown_as_code(writing: ModuleType) -> None:
    pytest.importorskip("griffe", reason=needs_docs)
    from doctests import fenced

    assert fenced("Add.\n\n>>> 1 + 1\n2\n\nMore.") == "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore."
    assert fenced("No prompt.") == "No prompt."


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason=needs_docs)
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290)
    assert built.returncode == 0, built.stderr[-3000:]
    assert not re.search(r"^WARNING", built.stderr, re.MULTILINE)
    found = sorted(site.rglob("*.html"))
    assert len(found) > 100
    for page in found:
        fetched = re.findall(
            r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\"\s>]+)|<link\b[^>]*\bhref=\"?([^\"\s>]+)",
            page.read_text(),
        )
        outside = [one for pair in fetched for one in pair if re.match(r"(https?:)?//", one)]
        assert outside == [], page
    assert "@import" not in "".join(path.read_text() for path in site.rglob("*.css"))
    shutil.rmtree(site)
