"""Whatever is wrong with a collection's config or table is one message with the remedy, and nothing is written."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clearn import cli
from clearn.runner import run as run_experiment
from clearn.sweeping import commanding, launching

RUN = ("run", "small.yaml", "out=run")
SYNTHETIC = "stream={data: synthetic, n: 1000, k: 5, change: 0.5, rounds: 3, file: null}"
PEOPLE = "stream.file=people.csv"
WEEKS = "stream={file: weeks.csv, rounds: [w0, w1]}"


# --- budgets of privacy


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("{eps_inf: 0}", "protocol l_osue: eps_inf=0.0 must lie in [0.001, 30]"),
        ("{eps_inf: -1}", "eps_inf=-1.0 must lie in [0.001, 30]: give a privacy budget in that range"),
        ("{eps_inf: .inf}", "eps_inf=inf must lie in [0.001, 30]"),
        ("{eps_inf: .nan}", "protocol.eps_inf: got nan, must be a number"),
        ("{eps_inf: 31}", "eps_inf=31.0 must lie in [0.001, 30]"),
        ("{eps_inf: much}", "protocol.eps_inf: got 'much', must be a number"),
        ("{alpha: 0}", "alpha=0.0 must lie in (0, 1]: it is eps_1 / eps_inf"),
        ("{alpha: 1.5}", "alpha=1.5 must lie in (0, 1]"),
        ("{eps_1: 1}", "alpha=0.5 says the same as eps_1=1.0: give one of them"),
        ("{alpha: null, eps_1: 3}", "eps_1=3.0 must not exceed eps_inf=2.0: one report cannot lose more than all do"),
        ("{alpha: null, eps_1: -1}", "eps_1=-1.0 must lie in [0.001, 30]"),
        ("{alpha: 0.0001}", "eps_1=0.0002 must lie in [0.001, 30]"),
        ("{name: l_oue, alpha: 0.9}", "eps_1=1.8 is too near eps_inf=2 for l_oue: the largest feasible eps_1 is 1.66;"),
        ("{name: l_oue, alpha: 1}", "the largest feasible eps_1 is 1.66; lower it, or use l_osue, which has no such"),
        (
            "{name: l_soue, alpha: 0.9}",
            "eps_1=1.8 is too near eps_inf=2 for l_soue: the largest feasible eps_1 is 1.31;",
        ),
        ("{name: l_grr, eps_inf: 12, alpha: 0.9999999999}", "with 32 random bits, which would lose all privacy"),
        (
            "{name: l_osue, eps_inf: 12, alpha: 0.9999999999}",
            "rounds to 1 with 32 random bits, which would lose all privacy",
        ),
        ("{name: grr, eps: 0}", "protocol grr: eps=0.0 must lie in [0.001, 30]"),
        ("{name: hr, eps: 2}", "eps=2.0 must not exceed 1 for hr"),
        ("{name: auto, eps_inf: 0}", "protocol auto: eps_inf=0.0 must lie in"),
        ("{name: rappor, f: 0}", "f=0.0 must lie between 0 and 1"),
        ("{name: rappor, p_r: 0.9}", "p_r=0.9 and q_r=0.75 must satisfy 0 <= p_r < q_r <= 1"),
        ("{name: d_bit_flip_pm, buckets: 9}", "buckets=9 must lie in [2, 5]"),
        ("{name: d_bit_flip_pm, sampled: 0}", "sampled=0 must lie in [1, "),
        ("{name: loloha, g: 1}", "g=1 must"),
    ],
)
def test_a_privacy_budget_that_cannot_be(protocol: str, said: str, fails: Any) -> None:
    assert said in fails(*RUN, f"protocol={protocol}")


@pytest.mark.parametrize(("name", "eps_inf"), [("l_oue", 0.5), ("l_oue", 4.0), ("l_soue", 0.5), ("l_soue", 4.0)])
def test_the_largest_feasible_first_loss_that_is_named_works(name: str, eps_inf: float, works: Any, fails: Any) -> None:
    words = (*RUN, f"protocol.name={name}", f"protocol.eps_inf={eps_inf}", "protocol.alpha=null")
    found = re.search(r"the largest feasible eps_1 is ([\d.]+)", fails(*words, f"protocol.eps_1={eps_inf}"))
    assert found is not None
    works(*words, f"protocol.eps_1={found[1]}")
    fails(*words[:2], "out=over", *words[3:], f"protocol.eps_1={float(found[1]) * 1.002}")


# --- protocols and their options


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["protocol=losue"], "protocol 'losue' is unknown; did you mean 'l_osue'?"),
        (["protocol=nothing_like_it"], "protocol 'nothing_like_it' is unknown; it may be misspelt or not installed"),
        (["protocol.name=os.system"], "a config holds no import path"),
        (["protocol=7"], "protocol.name: got 7, must be a string"),
        (["protocol.epsinf=1"], "protocol.epsinf: got 1, but there is no such option; did you mean 'eps_inf'?"),
        (["protocol={name: grr, eps_inf: 1}"], "protocol.eps_inf: got 1, but there is no such option"),
        (["protocol={name: l_grr, rule: exactly}"], "protocol.rule: got 'exactly', must be one of 'exact', "),
        (["protocol={name: smp, of: l_osu}"], "protocol 'l_osu' is unknown; did you mean 'l_osue'?"),
        (["protocol={name: smp, of: smp}"], "of='smp' asks for several attributes itself"),
        (["protocol={name: smp, of: auto}"], "of='auto' asks for several attributes itself"),
        (["protocol={name: smp, of: grr, eps: 1}"], "protocol of grr.eps_inf: got 2.0, but there is no such option"),
        (["protocol={name: rs_fd}"], "fakes hide which of several answers is true, and the data have d=1"),
        (["protocol={name: auto, goal: median}"], "protocol.goal: got 'median', must be one of 'round', 'mean'"),
        ([PEOPLE], "this protocol answers one attribute, and the data have 2: write protocol: {name: smp, of: NAME}"),
        ([PEOPLE, "protocol={name: rs_fd, of: grr, fakes: zero}"], "fakes='zero' must be 'uniform' for of=grr"),
        ([PEOPLE, "protocol={name: rs_rfd, prior: [[1, 2]]}"], "prior has 1 attributes, and the data have 2"),
        ([PEOPLE, "protocol={name: rs_rfd, prior: [[0.5, 0.5], [1, 0, 0, 0, 0]]}"], "prior of attribute 0 has 2 num"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)  # fmt: skip
def test_a_protocol_or_option_that_is_none(words: list[str], said: str, fails: Any) -> None:
    assert said in fails(*RUN, *words)


def test_a_collection_without_a_protocol_name_is_told_so(fails: Any) -> None:
    Path("no.yaml").write_text("stream: {data: csv, file: value.csv}\nprotocol: {eps_inf: 1}\n")
    assert "no.yaml:2: protocol.name: got nothing, must name a protocol" in fails("run", "no.yaml", "out=run")


# --- sections and the simulation


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy=replay"], "sections strategy and protocol are two kinds of experiment: keep one of them"),
        (["trainer.threads=1"], "trainer: got a section, but a collection has none of that name; remove it"),
        (["unlearner=ssd"], "unlearner: got a section, but a collection has none of that name"),
        (["protcol=grr"], "protcol: got 'grr', but there is no such section; did you mean 'protocol'?"),
        (["stream.name=class_incremental"], "stream.name: got class_incremental, but protocols ask collections"),
        (["seed=many"], "seed: got 'many', must be an int"),
        (["runner.repeats=0"], "runner.repeats: repeats=0 must lie in [1, 100000]"),
        (["runner.repeats=-2"], "repeats=-2 must lie in [1, 100000]"),
        (["runner.repeats=2.5"], "runner.repeats: got 2.5, must be an int"),
        (["runner.engine=fast"], "runner.engine: got 'fast', must be one of 'auto', 'aggregate', 'per_user'"),
        (["runner.memo=paper"], "runner.memo: got 'paper', must be one of 'table', 'prf'"),
        (["runner.rebuild=maybe"], "runner.rebuild: got 'maybe', must be true or false"),
        (["runner.post=norm_su"], "runner.post: got 'norm_su', must be one of"),
        (["runner.threads=1"], "runner.threads: got 1, but there is no such option; the options are rebuild, engine"),
        (["runner.post=mle_grr"], "post='mle_grr' needs reports that are one symbol out of the values, none of"),
        (["runner.post=ibu", PEOPLE, "protocol={name: rs_fd}"], "post='ibu' needs reports that are one symbol"),
        (["budget=1kB"], "budget.bytes: got '1kB', but there is no such option; the options are client_bytes, bits"),
        (["budget.client_bytes=4M"], "client_bytes='4M' can be read in two ways: write 4MB for 4,000,000 bytes or"),
        (["budget.client_bytes=-1"], "client_bytes=-1 is negative"),
        (["budget.client_bytes=3x"], "client_bytes='3x' counts exemplars"),
        (["budget.bits_per_round=0"], "bits_per_round=0.0 must be a positive number of bits"),
        (["budget.bits_per_round=.inf"], "bits_per_round=inf must be a positive number of bits"),
        (["grid={protocol.alpha: []}"], "grid.protocol.alpha=[] must be a list with at least one value"),
        (["grid={protocol: [{name: smp, of: l_grr}, {name: smpp}]}"], "protocol 'smpp' is unknown"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else None,
)  # fmt: skip
def test_a_section_or_setting_that_is_none(words: list[str], said: str, fails: Any) -> None:
    assert said in fails(*RUN, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [SYNTHETIC, "protocol=loloha", "runner.engine=aggregate"],
            "engine=aggregate would be wrong here: values change, and with Hashed (attribute 0) the values of one user "
            "share what was drawn once, so that counts depend on each user's path; write engine: per_user",
        ),
        (
            [WEEKS, "protocol={name: d_bit_flip_pm, sampled: 2}", "runner.engine=aggregate"],
            "engine=aggregate would be wrong here: no law is known of the counts of Buckets",
        ),
        (
            ["stream={data: synthetic, n: 20000000, k: 5, file: null}", "runner.engine=per_user"],
            "engine=per_user needs the value of every user, and this collection is known by its counts alone: write "
            "engine: aggregate",
        ),
        (
            ["stream={data: synthetic, n: 20000000, k: 5, file: null}", "protocol={name: d_bit_flip_pm, sampled: 2}"],
            "no engine can simulate this: no law is known of the counts of Buckets",
        ),
        (
            ["runner.decode=linked", "runner.engine=aggregate"],
            "engine=aggregate would be wrong here: decode=linked counts",
        ),
        (["runner.decode=linked", WEEKS], "decode=linked takes a user's reports as answers about one unchanged value"),
    ],
    ids=["hashes that change", "buckets", "counts alone", "no engine", "linked counts", "linked changes"],
)
def test_an_engine_that_would_be_wrong_is_refused_with_the_reason(words: list[str], said: str, fails: Any) -> None:
    assert said in fails(*RUN, *words)


def test_an_attribute_that_less_than_one_user_would_answer_is_refused(fails: Any) -> None:
    said = fails(*RUN, PEOPLE, "stream.rows=1", "protocol={name: smp}")
    assert "attribute 'city' would be answered by 0.5 of 1 users: ask more users, or name fewer attributes" in said


def test_all_mistakes_are_told_at_once_with_their_lines(fails: Any) -> None:
    Path("wrong.yaml").write_text(
        "stream: {data: csv, file: value.csv, row: 3}\n"
        "protocol: {name: l_osue, epsinf: 2}\n"
        "budget: {client_bytes: 4M}\n"
        "runner: {repeats: 0}\n"
        "trainer: {threads: 1}\n"
    )
    said = fails("run", "wrong.yaml", "out=run")
    assert "5 mistakes in the config:" in said
    for line, key in enumerate(
        ["stream.row", "protocol.epsinf", "budget.client_bytes", "runner.repeats", "trainer"], 1
    ):
        assert f"wrong.yaml:{line}: {key}: " in said


# --- the table


@pytest.mark.parametrize(
    ("text", "stream", "said"),
    [
        ("v\n1\n1\n", {}, "attribute 'v' has k=1 value, '1', and 2 or more are needed"),
        ("v\n", {}, "bad.csv has a header and no rows: give a line for each user"),
        ("", {}, "bad.csv"),
        ("v\n1\n\n2\n", {}, "bad.csv line 3 has 0 cells, the header 1"),
        ("v,w\n1,2\n1\n", {}, "bad.csv line 3 has 1 cells, the header 2: mend that line"),
        (
            "v,w\n1,2\n,2\n",
            {},
            "bad.csv column 'v' has no value in row 2 below the header: drop that user, fill the gap",
        ),
        ("v\n1\nNaN\n2\n", {}, "bad.csv column 'v' has no value in row 2 below the header"),
        ("v,v\n1,2\n", {}, "bad.csv"),
        ("v\n0\n3\n", {"k": 3}, "column 'v' holds '3', with k=3 a cell is a number in [0, 2]: mend it, raise k"),
        ("v\n0\n-1\n", {"k": 3}, "column 'v' holds '-1', with k=3 a cell is a number in [0, 2]"),
        ("v\n0\n1.5\n", {"k": 3}, "column 'v' holds '1.5', with k=3"),
        ("v\n0\nx\n", {"k": 3}, "column 'v' holds 'x', with k=3"),
        ("v\n0\n1\n", {"k": [2, 2]}, "k=[2, 2] has 2 sizes, the table 1 columns: give one for each"),
        ("v\n0\n1\n", {"columns": ["w"]}, "column 'w' is not in bad.csv: its columns are v"),
        ("v\n0\n1\n", {"columns": []}, "columns=[] must name at least one attribute: leave it out to take all"),
        ("v\n0\n1\n", {"rounds": ["v", "w"]}, "column 'w' is not in bad.csv"),
        ("v\n0\n1\n", {"rounds": []}, "rounds=[] must be a number"),
        ("v\n0\n1\n", {"rounds": 0}, "rounds=0 must be 1 or more"),
        ("v\n0\n1\n", {"rows": 0}, "rows=0 must be 1 or more"),
        ("v\n0\n1\n", {"rows": 3}, "rows=3 must lie in [1, 2]: the table has no more users"),
        ("v\n0\n1\n", {"n": 5}, "n=5 is for data=synthetic, not data=csv: leave it out"),
    ],
)
def test_a_table_that_is_none(text: str, stream: dict[str, Any], said: str, fails: Any) -> None:
    Path("bad.csv").write_text(text)
    config = {"stream": {"data": "csv", "file": "bad.csv", **stream}, "protocol": {"name": "allomfree"}}
    Path("bad.yaml").write_text(yaml.safe_dump(config))
    assert said in fails("run", "bad.yaml", "out=run")


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ("{file: nowhere.csv}", "data=csv: file='nowhere.csv' was not found: looked for"),
        ("{file: .}", "data=csv: file='.' was not found"),
        ("{file: null}", "data=csv needs file: the path of your .csv or .csv.gz file"),
        ("{data: adlt}", "data='adlt' is not known: did you mean 'adult'?"),
        ("{data: adult, file: null}", "data=adult was not found: looked for adult.csv and adult.csv.gz in"),
        ("{data: adult}", "is for data=csv, not data=adult: leave it out"),
        ("{data: synthetic, file: null, k: 1}", "has k=1 value, and 2 or more are needed"),
        ("{data: synthetic, file: null, n: 0}", "n=0 must be 1 or more"),
        ("{data: synthetic, file: null, change: 1.5}", "change=1.5 must lie in [0, 1]: it is a probability"),
        ("{data: synthetic, file: null, law: cauchy}", "stream.law: got 'cauchy', must be one of"),
    ],
)
def test_data_that_cannot_be_had(stream: str, said: str, fails: Any) -> None:
    Path("broken.csv").write_bytes(b"v\n\xff\xfe\x00\n")
    assert said in fails(*RUN, f"stream={stream}")
    assert "broken.csv is not UTF-8 text (byte 2): save it as UTF-8" in fails(*RUN, "stream.file=broken.csv")


@pytest.mark.parametrize("command", ["run", "show"])
def test_showing_refuses_what_running_does(command: str, fails: Any) -> None:
    for word in ("protocol.eps_inf=0", "stream.file=nowhere.csv", "runner.engine=x", "protocol=lgrr", "budget=1"):
        fails(command, "small.yaml", word)


# --- anything at all


BASES: list[dict[str, Any]] = [
    {
        "name": "t",
        "stream": {"name": "collections", "data": "csv", "file": "people.csv", "rounds": 2, "columns": ["city", "job"]},
        "protocol": {"name": "smp", "of": "l_osue", "eps_inf": 2.0, "alpha": 0.5},
        "budget": {"client_bytes": "1kB", "bits_per_round": 500},
        "runner": {"repeats": 2, "engine": "auto", "memo": "table", "post": "norm_sub"},
        "seed": 0,
    },
    {
        "stream": {"data": "csv", "file": "weeks.csv", "rounds": ["w0", "w1"], "k": 5, "rows": 50},
        "protocol": {"name": "loloha", "eps_inf": 2.0, "eps_1": 1.0, "g": 3},
        "runner": {"repeats": 2, "engine": "per_user", "memo": "prf"},
    },
    {
        "stream": {"data": "synthetic", "n": 100, "k": [3, 4], "rounds": 2, "change": 0.1, "law": "zipf"},
        "protocol": {"name": "rs_fd", "of": "grr", "eps": 1.0},
        "runner": {"repeats": 1, "decode": "rounds"},
        "seed": 3,
    },
    {
        "stream": {"data": "synthetic", "n": 100, "k": 6},
        "protocol": {"name": "d_bit_flip_pm", "eps_inf": 2, "buckets": 5, "sampled": 2},
        "grid": {"protocol.sampled": [1, 2], "seed": [0]},
    },
    {
        "stream": {"data": "synthetic", "n": 100, "k": 6},
        "protocol": {"name": "auto", "eps_inf": 2, "alpha": 0.5, "goal": "mean"},
    },
]
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, -(10**30), 0.5, -0.1, 1e300, 1e-300, float("inf"), float("nan"),
    "", "x", "l_osue", "grr", "auto", "olh", "she", "null", "12", "1e-3", "10MiB", "5x", "prf", "per_user",
    "aggregate", "mle_grr", "linked", "${seed}", "${", "???", "a.b", "../..", "weeks.csv", "\u0000", "ä" * 50,
    "2001-01-01", [], [1], [2, 3, 5], ["a"], ["w0"], [[1]], {}, {"a": 1}, {"name": "grr"}, {"g": 3}, {1: 2},
]  # fmt: skip
ADDED = ["name", "of", "eps", "eps_1", "alpha", "rule", "options", "profile", "split", "g", "k", "rounds", "rows", "x"]


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    for key, value in tree.items() if isinstance(tree, dict) else ():
        found += places(value, (*at, key))
    return found


def mutated(rng: random.Random) -> dict[str, Any]:
    """A sound config with one or two changes: a value replaced, an option removed, renamed, added or moved."""
    config: dict[Any, Any] = yaml.safe_load(yaml.safe_dump(rng.choice(BASES)))
    for _ in range(rng.choice([1, 1, 2])):
        *path, last = rng.choice(places(config))
        around = config
        for key in path:
            around = around[key]
        match rng.choice(["replace", "replace", "replace", "remove", "rename", "add", "move"]):
            case "replace":
                alike = [value for value in VALUES if type(value) is type(around[last])]
                around[last] = rng.choice(alike if alike and rng.random() < 0.7 else VALUES)
            case "remove" if path:  # without its protocol it is no collection
                del around[last]
            case "rename":
                around[rng.choice([f"{last}s", str(last)[::-1], 7, "name"])] = around.pop(last)
            case "add":
                around[rng.choice(ADDED)] = rng.choice(VALUES)
            case _:
                config[rng.choice(["budget", "stream", "protocol", "runner", "extra"])] = around.pop(last)
    return config


def test_no_config_whatever_gives_a_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 mutations of sound configs, through the command line: done, or one message and exit code 2."""

    def executed(experiment: Any, path: Path, console: Any) -> str:
        """As it is, if that is soon done."""
        experiment.check()
        if experiment.steps * experiment.options.repeats * experiment.collection.n_users < 5000:
            run_experiment(experiment, path)
        return ""

    monkeypatch.setattr(launching, "execute", executed)
    monkeypatch.setattr(commanding, "summary", lambda *_: None)
    rng, codes = random.Random(0), []
    for number in range(150):
        config = mutated(rng)
        while "protocol" not in config:
            config = mutated(rng)
        Path("fuzzed.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        capsys.readouterr()
        try:
            code = cli.main(["run", "fuzzed.yaml", f"out=run-{number}"])
        except BaseException as error:
            raise AssertionError(f"mutation {number} raised {type(error).__name__}: {error}\n{config}") from error
        captured = capsys.readouterr()
        assert code in (0, 2) or (code == 1 and "runs failed" in captured.out), config
        assert "Traceback" not in captured.out + captured.err
        assert (captured.err != "") == (code == 2) or "runs failed" in captured.out, config
        codes.append(code)
    assert codes.count(2) > 75
    assert codes.count(0) > 15
