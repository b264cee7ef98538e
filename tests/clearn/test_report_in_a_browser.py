"""The HTML report in a real browser: Chromium without a window, driven over its DevTools protocol on two pipes.

Clicks and keys are the browser's own input events, and what is hidden is judged by the boxes that it laid out.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

import clearn
from clearn import report
from clearn.report.look import INKS

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",  # as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1400,1000",
    "--remote-debugging-pipe",
]
# Chromium reads commands from descriptor 3 and writes to 4; pytest may hold these, so a small process makes way.
STARTER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
METHODS = {"replay": 0.7, "icarl": 0.8, "bic": 0.9}
BUDGETS = (9_000, 10_000, 2_000_000)  # "8.8 KiB", "9.8 KiB" and "1.91 MiB": as text they sort otherwise
SECONDS = 60.0  # how long an answer may take on a busy machine


class Browser:
    """A page of a Chromium that nothing else uses, and everything that it said."""

    def __init__(self, profile: Path) -> None:
        (from_us, to_it), (from_it, to_us) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (from_us, to_us)]  # away from 3 and 4
        assert CHROMIUM is not None
        starter = [sys.executable, "-c", STARTER, *map(str, theirs)]
        self.process = subprocess.Popen(
            [*starter, CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(profile)},
        )
        for end in (from_us, to_us, *theirs):
            os.close(end)
        self._to, self._from = os.fdopen(to_it, "wb", buffering=0), os.fdopen(from_it, "rb", buffering=0)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        self._number = 0
        self._session: str | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _listen(self) -> None:
        held = b""
        while piece := self._from.read(2**16):
            *whole, held = (held + piece).split(b"\0")
            for text in whole:
                message = json.loads(text)
                if "id" in message:
                    self._answers.put(message)
                else:
                    self.events.append(message)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        answer = self._answers.get(timeout=SECONDS)
        assert answer["id"] == self._number
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def run(self, code: str) -> Any:
        """Evaluate JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, path: Path) -> None:
        """Load a page and forget what was said before."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        until = time.monotonic() + SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < until, "the page does not load"
            time.sleep(0.02)

    def click(self, node: str) -> None:
        """Scroll to what a JavaScript expression gives, and press the mouse in its middle."""
        x, y = self.run(
            f"(n => {{ n.scrollIntoView({{block: 'center', inline: 'center'}}); const b = n.getBoundingClientRect(); "
            f"return [b.x + b.width / 2, b.y + b.height / 2]; }})({node})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key of the keyboard."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def said(self) -> list[str]:
        """Everything that a page must not say: errors, warnings, and requests for anything but itself."""
        self.run("new Promise(done => setTimeout(done, 100))")
        found = []
        for event in self.events:
            params = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    found.append(f"exception: {params['exceptionDetails'].get('text')}")
                case "Runtime.consoleAPICalled" | "Log.entryAdded":
                    found.append(f"console: {params.get('entry', params)}")
                case "Network.requestWillBeSent" if params["type"] != "Document":
                    found.append(f"request: {params['request']['url']}")
        documents = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return found + [f"request: {e['params']['request']['url']}" for e in documents[1:]]

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self.process.wait(SECONDS)
        self._listener.join(SECONDS)
        self._to.close()
        self._from.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def write(folder: Path, method: str, budget: int, seed: int) -> None:
    """Write a run folder of three tasks with two classes each; more bytes and a better method forget less."""
    folder.mkdir(parents=True)
    best = METHODS[method] + 0.04 * BUDGETS.index(budget) + 0.01 * seed
    sections = {
        "name": folder.name,
        "stream": {"name": "class_incremental", "data": "digits", "order_seed": 0},
        "strategy": {"name": method},
        "budget": {"bytes": budget, "policy": "every", "count": "full"},
        "runner": {"rebuild": True},
        "seed": seed,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    (folder / "environment.json").write_text(json.dumps({"clearn": "0.1.0", "command": ["clearn", "run"]}))
    (folder / "status.json").write_text(json.dumps({"state": "done", "step": 3, "steps": 3, "message": None}))
    scores, ledger = [], []
    for step in (1, 2, 3):
        for task in range(1, step + 1):
            right = [round(50 * best * 0.9 ** (step - task)), 40]
            scores.append(
                {
                    "step": step,
                    "task": task,
                    "probe": f"task {task}",
                    "readout": "classifier",
                    "headline": True,
                    "correct": sum(right),
                    "total": 100,
                    "classes": {str(2 * task - 2): [right[0], 50], str(2 * task - 1): [right[1], 50]},
                    "top5": None,
                }
            )
        sizes = {"params": budget // 2, "exemplars": budget - budget // 2 - 40 * step}
        ledger += [
            {"kind": "bytes", "step": step, "owner": "model", "category": name, "bytes": size}
            for name, size in sizes.items()
        ]
        total = sum(sizes.values())
        ledger.append(
            {
                "kind": "figures",
                "step": step,
                "total": total,
                "shared": 0,
                "budget": budget,
                "slack": budget - total,
                "exemplars": 10,
                "peak_host": 2**20 * (9 + seed),
                "seconds": {"train": 3.0 + seed, "evaluate": 0.5},
                "optimizer_steps": 100,
                "samples": 500,
            }
        )
    for name, rows in (("scores", scores), ("ledger", ledger)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of budget curves, and of a real collection beside them."""
    folder = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        for budget in BUDGETS:
            for seed in (0, 1):
                write(folder / f"{method}-{budget}-{seed}", method, budget, seed)
    for name in ("l_osue", "l_grr"):
        values = np.arange(200) % 4
        clearn.collect(values, name, out=folder / name, rounds=2, progress=False, eps_inf=2.0)
    runs = report.load([folder])
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.html(report.groups(runs), runs, "Methods at equal bytes"))
    return path


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.open(page)
    return browser


MAIN = "document.querySelector('table.main')"
SHOWN = "const shown = n => n.getClientRects().length > 0 && getComputedStyle(n).visibility === 'visible';"


def column(browser: Browser, title: str) -> Callable[[], list[str]]:
    """Give what reads a column of the first comparison from the page, top to bottom."""
    at = browser.run(f"[...{MAIN}.tHead.rows[1].cells].findIndex(c => c.innerText.replace(/\\s+/g, ' ') === {title!r})")
    assert at >= 0, title
    return lambda: browser.run(f"[...{MAIN}.tBodies[0].rows].map(r => r.cells[{at}].dataset.value)")


def head(title: str) -> str:
    return f"[...{MAIN}.querySelectorAll('th button')].find(b => b.innerText.replace(/\\s+/g, ' ') === {title!r})"


def test_it_opens_without_a_request_or_an_error(opened: Browser) -> None:
    assert opened.run("document.title") == "Methods at equal bytes"
    assert opened.run("document.querySelector('h1').getBoundingClientRect().height") > 20
    assert opened.said() == []


def test_a_page_that_does_either_is_found_out(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('oh'); setTimeout(() => { throw Error('no'); })</script>"
    )
    browser.open(page)
    said = browser.said()
    for what in ("request: http://127.0.0.1:9/x.png", "console: ", "exception: "):
        assert any(one.startswith(what) for one in said), said


def test_all_figures_are_drawn(opened: Browser) -> None:
    boxes = opened.run(
        "[...document.querySelectorAll('svg')].map(s => { const b = s.getBoundingClientRect(); "
        "const inner = [...s.querySelectorAll('path, use')].filter(p => p.getBoundingClientRect().width > 1); "
        "return [s.getAttribute('aria-label'), b.width, b.height, inner.length]; })"
    )
    names = [name for name, *_ in boxes]
    for start in (
        "Accuracy on all",
        "Forgetting",
        "Average incremental",
        "Last accuracy",
        "Carried bytes",
        "Wall time",
    ):
        assert any(name.startswith(start) for name in names), start
    assert all(width > 150 and height > 80 and inner > 3 for _, width, height, inner in boxes), boxes
    heats = opened.run(
        "[...document.querySelectorAll('table.heat td[style]')].map(c => getComputedStyle(c).backgroundColor)"
    )
    assert len(heats) == 9 * 6
    assert len(set(heats)) > 3, "the cells of a task matrix are shaded by what they hold"


def test_a_click_sorts_by_number_and_another_turns_it_round(opened: Browser) -> None:
    read = column(opened, "carried")
    before = [float(value) for value in read()]
    assert before != sorted(before)
    opened.click(head("carried"))
    assert [float(value) for value in read()] == sorted(before, reverse=True)
    assert opened.run(f"{head('carried')}.closest('th').getAttribute('aria-sort')") == "descending"
    opened.click(head("carried"))
    assert [float(value) for value in read()] == sorted(before)
    opened.click(head("method"))
    names = column(opened, "method")()
    assert names == sorted(names, key=lambda name: (name.split()[0], int(name.split("=")[1])))
    assert opened.run(f"{MAIN}.querySelectorAll('[aria-sort]').length") == 1
    assert opened.said() == []


def test_the_keyboard_sorts_too(opened: Browser) -> None:
    read = column(opened, "forgetting % ↓")
    before = [float(value) for value in read()]
    opened.run(f"{head('last acc. % ↑')}.focus()")
    opened.press("Tab", 9)
    assert opened.run("document.activeElement.innerText.replace(/\\s+/g, ' ')") == "forgetting % ↓"
    opened.press("Enter", 13, "\r")
    assert [float(value) for value in read()] == sorted(before, reverse=True)


def test_tables_behind_figures_sort_by_units(opened: Browser) -> None:
    table = "[...document.querySelectorAll('.tall table')][0]"
    at = opened.run(f"[...{table}.tHead.rows[0].cells].findIndex(c => c.innerText === 'carried')")
    cells = f"[...{table}.tBodies[0].rows].map(r => r.cells[{at}].innerText)"
    opened.click(f"{table}.tHead.rows[0].cells[{at}].querySelector('button')")
    found = opened.run(cells)
    assert len(found) == 18
    assert [text.split()[1] for text in found] == ["MiB"] * 6 + ["KiB"] * 12
    assert [text.split()[0] for text in found[6:]] == ["9.6"] * 6 + ["8.7"] * 6


def visible(browser: Browser) -> list[str]:
    return browser.run(
        f"(() => {{ {SHOWN} return [...{MAIN}.tBodies[0].rows].filter(shown).map(r => r.cells[0].dataset.value); }})()"
    )


def headings(browser: Browser) -> set[str]:
    return set(
        browser.run(f"(() => {{ {SHOWN} return [...document.querySelectorAll('.many h4')].filter(shown)"
                    ".map(h => h.dataset.label); })()")
    )  # fmt: skip


def drawn(browser: Browser) -> set[str]:
    """Labels of the series to be seen in the first drawing."""
    code = "[...document.querySelector('svg').querySelectorAll('[data-label]')].filter(shown).map(g => g.dataset.label)"
    return set(browser.run(f"(() => {{ {SHOWN} return {code}; }})()"))


def test_words_filter_rows_figures_and_series(opened: Browser) -> None:
    everything = visible(opened)
    assert len(everything) == 9
    opened.click("document.querySelector('.tools input')")
    opened.call("Input.insertText", text="ICARL 9000")
    assert visible(opened) == ["icarl bytes=9000"]
    assert {label for label in headings(opened) if "bytes" in label} == {"icarl bytes=9000"}
    assert drawn(opened) == {"icarl bytes=9000"}
    assert opened.run("document.querySelector('.tools output').innerText").startswith("1 of ")
    opened.run("document.querySelector('.tools input').select()")
    opened.press("Delete", 46)
    assert visible(opened) == everything
    assert drawn(opened) == set(everything)
    opened.call("Input.insertText", text="no such thing")
    assert visible(opened) == []
    assert opened.said() == []


def test_a_button_hides_a_method_everywhere_and_brings_it_back(opened: Browser) -> None:
    everything = visible(opened)
    button = "[...document.querySelectorAll('.tools button')].find(b => b.value === 'bic')"
    opened.click(button)
    kept = [label for label in everything if not label.startswith("bic")]
    assert visible(opened) == kept
    assert len(kept) == 6
    assert drawn(opened) == set(kept)
    assert opened.run(f"{button}.getAttribute('aria-pressed')") == "false"
    entries = "[...document.querySelectorAll('.legend li')].filter(shown).map(l => l.innerText)"
    shown = opened.run(f"(() => {{ {SHOWN} return {entries}; }})()")
    assert not any(text.startswith("bic") for text in shown)
    assert any("exemplars" in text for text in shown), "legends of categories stay"
    opened.click(button)
    assert visible(opened) == everything


def test_the_areas_of_both_accuracies_are_there(opened: Browser) -> None:
    heads = opened.run("[...document.querySelectorAll('.plainly th button')].map(b => b.innerText)")
    for measure in ("AUC-A", "AUC-L"):
        for unit in ("%", "MiB", "log %"):
            assert f"{measure} {unit}" in heads


def test_a_figure_is_saved_as_it_is_seen(opened: Browser) -> None:
    opened.run("window.kept = []; URL.createObjectURL = blob => { kept.push(blob); return 'data:,'; }")
    opened.run("HTMLAnchorElement.prototype.click = function () { kept.push(this.download); }")
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    opened.click("[...document.querySelectorAll('.tools button')].find(b => b.value === 'bic')")
    buttons = opened.run("document.querySelectorAll('figure svg').length === document.querySelectorAll('.save').length")
    assert buttons, "every figure can be saved"
    opened.click("document.querySelector('.save')")
    opened.call("Emulation.setEmulatedMedia", features=[])
    text, name = opened.run("Promise.all(kept.map(one => one.text ? one.text() : one))")
    assert name == "accuracy-as-tasks-are-learned.svg"
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert INKS["ink"][0] in text, "paper is white"
    said = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert said[-4:] == ["■", "icarl", "▲", "replay"], "the legend of what is left"
    assert {node.get("data-label") for node in root.iter()} - {None} == drawn(opened), "and its series"
    assert "bic" not in text
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    marks = [node for node in root if node.tag.endswith("text")]
    assert all(left <= float(node.attrib["x"]) < left + width for node in marks)
    assert all(top < float(node.attrib["y"]) < top + height for node in marks)
    assert opened.said() == []


def test_light_and_dark_are_both_drawn(opened: Browser) -> None:
    colours = []
    for scheme in ("light", "dark"):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        got = opened.run(
            "['page', 'ink'].map(name => getComputedStyle(document.documentElement).getPropertyValue('--' + name))"
        )
        colours.append([sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in got])
        picture = base64.b64decode(opened.call("Page.captureScreenshot", format="png")["data"])
        assert len(picture) > 20_000
    opened.call("Emulation.setEmulatedMedia", features=[])
    (light_page, light_ink), (dark_page, dark_ink) = colours
    assert light_page - light_ink > 500
    assert dark_ink - dark_page > 500


def test_a_narrow_window_does_not_scroll_sideways(opened: Browser) -> None:
    opened.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    wide = opened.run("document.documentElement.scrollWidth")
    opened.call("Emulation.clearDeviceMetricsOverride")
    assert wide <= 390
