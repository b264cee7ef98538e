"""The house stays in order: imports run one way, methods know no siblings, light commands load nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "lightning", "torchvision", "timm", "matplotlib", "sklearn")


def modules(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no modules under {folder}"
    return found


def imported(path: Path, at_run_time: bool = False) -> Iterator[str]:
    """Names of imported modules; those under `if TYPE_CHECKING` are for readers and count only where asked for."""
    tree = ast.parse(path.read_text())
    hidden = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if at_run_time and node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", [*modules("strategies"), *modules("privacy"), *modules("unlearn")], ids=lambda p: p.stem
)
def test_a_method_imports_the_engine_and_no_sibling(path: Path) -> None:
    for name in imported(path):
        assert name.split(".")[0] not in ("strategies", "unlearn", "privacy"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules("clearn"), ids=lambda p: p.stem)
def test_the_engine_knows_no_method_by_name(path: Path) -> None:
    for name in imported(path):
        assert name.split(".")[0] not in ("strategies", "unlearn", "privacy"), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules("clearn/parts"), ids=lambda p: p.stem)
def test_parts_know_neither_runner_nor_config(path: Path) -> None:
    allowed = ("clearn.errors", "clearn.stream", "clearn.parts")
    for name in imported(path, at_run_time=True):
        if name.split(".")[0] == "clearn":
            assert name.startswith(allowed), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [ROOT / "clearn/metrics.py", *modules("clearn/report")], ids=lambda p: p.stem)
def test_metrics_and_reports_read_run_folders_only(path: Path) -> None:
    for name in imported(path, at_run_time=True):
        if name.split(".")[0] == "clearn" and name != "clearn":
            readers = ("clearn.errors", "clearn.folder", "clearn.forgetting", "clearn.metrics", "clearn.report")
            assert name.startswith(readers), f"{path.name} imports {name}"
        assert name.split(".")[0] != "torch"


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["report", "--help"]], ids=" ".join)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom clearn.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print(','.join(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.strip() == ""
    assert done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list"]], ids=" ".join)
def test_light_commands_answer_at_once(arguments: list[str]) -> None:
    """Half a second of processor time, imports and all; the best of three, since other work may share the core."""
    code = (
        "import time\nfrom clearn.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "import sys\nsys.stderr.write(str(time.process_time()))"
    )
    taken = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stderr)
        for _ in range(3)
    ]
    assert min(taken) < 0.5


def test_every_package_is_in_the_wheel() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("clearn", "strategies", "privacy", "unlearn")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == folders | {"clearn.configs"}


def test_the_readme_s_commands_parse_and_its_configs_exist() -> None:
    from clearn.cli import parser
    from clearn.config import find

    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("clearn ")]
    assert len(lines) >= 8
    for line in lines:
        args, rest = parser().parse_known_args(line.split()[1:])  # an override may follow an option
        assert all("=" in word for word in rest), line
        if args.command == "run":
            assert find(args.config).exists()


def test_readme_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    for link in links:
        assert (ROOT / link).exists(), f"README links to {link}"
