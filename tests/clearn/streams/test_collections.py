from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearn.errors import ConfigError, DataError
from clearn.stream import Attribute, Collection
from clearn.streams import COLLECTIONS, collections
from clearn.streams.collections import build, synthetic
from clearn.streams.places import root_folder
from clearn.streams.tables import SOURCES
from clearn.streams.values import Changing, Counted, Static

ADULT = "workclass,sex,age\nState-gov,Male,10\nPrivate, Female ,9\nPrivate,Male,9\nSelf-emp,Male,100\n"
MARGINALS = (
    "attribute,code,label,count\nGender,0,F,2\nGender,1,M,3\nGender,2,NR,0\n"
    'Region,0,"Paris, centre",4\nRegion,1,region_01,1\n'
)
VISITS = "d1,d2,d3\n0,10,2\n2,2,2\n9,0,10\n"


@pytest.fixture(autouse=True)
def no_data_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARN_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    return path


def values(collection: Collection, index: int = 0) -> Any:
    found = collection[index].values
    assert found is not None
    return found


# Where tables are looked for


def test_the_root_is_the_option_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert root_folder("~/here") == Path.home() / "here"
    assert root_folder(None) == tmp_path
    monkeypatch.delenv("CLEARN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert root_folder(None) == tmp_path / "cache" / "clearn"


def test_a_plain_and_a_gzipped_table_agree_in_all_but_the_place(tmp_path: Path) -> None:
    put(tmp_path / "plain", "adult.csv", ADULT)
    put(tmp_path / "packed" / "ldp", "adult.csv.gz", ADULT)
    plain, packed = (build(data="adult", root=tmp_path / folder) for folder in ("plain", "packed"))
    assert plain.about == packed.about
    assert plain.about["checksums"] == {"adult.csv": hashlib.sha256(ADULT.encode()).hexdigest()}
    assert (values(plain) == values(packed)).all()
    json.dumps(plain.about)


@pytest.mark.parametrize("data", SOURCES)
def test_a_missing_table_is_named_with_its_places_and_how_to_get_it(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        build(data=data, root=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(error.value)
    for words in (SOURCES[data][0], f"{SOURCES[data][0]}.gz", "nowhere/ldp", "CLEARN_DATA", "put it there"):
        assert words in str(error.value)


def test_every_listed_collection_is_built_and_no_other(tmp_path: Path) -> None:
    assert set(COLLECTIONS) == {*SOURCES, "synthetic", "csv"}
    texts = {"adult": ADULT, "nursery": ADULT, "ms_fimu": MARGINALS, "visits": VISITS, "pwgtp": VISITS, "csv": ADULT}
    for data, text in texts.items():
        put(tmp_path, SOURCES.get(data, ("own.csv",))[0], text)
    for data in COLLECTIONS:
        found = build(data=data, file=Path("own.csv") if data == "csv" else None)
        assert found.about["data"] == data
        assert len(found.domains) == len(found.attributes) == len(found[-1].counts)


# Static tables


def test_cells_are_coded_in_sorted_order_and_numbers_as_numbers(tmp_path: Path) -> None:
    put(tmp_path, "adult.csv", ADULT)
    found = build(data="adult", rounds=2)
    assert found.attributes == (
        Attribute("workclass", 3, ("Private", "Self-emp", "State-gov")),
        Attribute("sex", 2, ("Female", "Male")),
        Attribute("age", 3, ("9", "10", "100")),
    )
    assert values(found).tolist() == [[2, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 2]]
    assert values(found).dtype == np.uint8
    assert [counts.tolist() for counts in found[1].counts] == [[2, 1, 1], [1, 3], [2, 1, 1]]
    assert found[0].counts[0].dtype == np.int64
    assert (found.n_users, len(found), found.static, found.rows) == (4, 2, True, True)
    assert found.about["attributes"] == {"workclass": 3, "sex": 2, "age": 3}
    assert [round.index for round in found] == [0, 1]
    with pytest.raises(IndexError, match="round 2 of a collection of 2"):
        found[2]


def test_columns_and_first_rows_keep_the_domain_of_the_whole_table(tmp_path: Path) -> None:
    put(tmp_path, "adult.csv", ADULT)
    found = build(data="adult", columns=["age", "workclass"], rows=2)
    assert [a.name for a in found.attributes] == ["age", "workclass"]
    assert found.domains == (3, 3)
    assert values(found).tolist() == [[1, 2], [0, 0]]


def test_marginals_are_dealt_to_persons_each_attribute_exact_and_another_seed_otherwise(tmp_path: Path) -> None:
    put(tmp_path, "ms_fimu_marginals.csv", MARGINALS)
    found = build(data="ms_fimu")
    assert found.domains == (3, 2)
    assert found.attributes[1].labels == ("Paris, centre", "region_01")
    assert [counts.tolist() for counts in found[0].counts] == [[2, 3, 0], [4, 1]]
    assert found.about["joint"] is False
    assert (values(found) == values(build(data="ms_fimu"))).all()
    assert any((values(found) != values(build(data="ms_fimu", order_seed=seed))).any() for seed in (1, 2, 3))
    only = build(data="ms_fimu", columns=["Region"])
    assert (values(only)[:, 0] == values(found)[:, 1]).all()  # a column less moves no draw of another


# Tables that change


def test_columns_of_a_changing_table_are_coded_together(tmp_path: Path) -> None:
    put(tmp_path, "ms_fimu_visits.csv.gz", VISITS)
    found = build(data="visits")
    assert found.attributes == (Attribute("visit", 4, ("0", "2", "9", "10")),)
    assert [values(found, t)[:, 0].tolist() for t in range(3)] == [[0, 1, 2], [3, 1, 0], [1, 1, 3]]
    assert found[1].counts[0].tolist() == [1, 1, 0, 1]
    assert (len(found), found.static, found.rows) == (3, False, True)
    two = build(data="visits", rounds=2, rows=2)
    assert (len(two), two.n_users, two.domains) == (2, 2, (4,))
    with pytest.raises(ConfigError, match=r"rounds=4 must lie in \[1, 3\]"):
        build(data="visits", rounds=4)


def test_rounds_of_an_own_table_are_named_columns(tmp_path: Path) -> None:
    path = put(tmp_path / "far", "own.csv", "id,monday,tuesday\na,yes,no\nb,no,no\n")
    found = build(data="csv", file=path, rounds=["tuesday", "monday"])
    assert [values(found, t)[:, 0].tolist() for t in (0, 1)] == [[0, 0], [1, 0]]
    assert found.attributes[0].labels == ("no", "yes")
    assert not found.static


def test_cells_may_be_codes_of_a_known_domain(tmp_path: Path) -> None:
    put(tmp_path, "own.csv", "a,b\n0,3\n2,1\n")
    found = build(data="csv", file=Path("own.csv"), k=[3, 5])
    assert found.domains == (3, 5)
    assert values(found).tolist() == [[0, 3], [2, 1]]
    with pytest.raises(DataError, match=r"column 'b' holds '3', with k=3 .* \[0, 2\]"):
        build(data="csv", file=Path("own.csv"), k=3)
    with pytest.raises(ConfigError, match="has 3 sizes, the table 2 columns"):
        build(data="csv", file=Path("own.csv"), k=[3, 5, 5])


# Synthetic populations


def test_a_billion_users_are_known_by_their_counts() -> None:
    found = build(n=10**9, k=1000, rounds=100, law="zipf")
    assert isinstance(found, Counted)
    assert (found.rows, found.static, found[3].values) == (False, True, None)
    counts = found[0].counts[0]
    assert counts.sum() == 10**9
    p = 1 / np.arange(1, 1001) / (1 / np.arange(1, 1001)).sum()
    assert (np.abs(counts - 1e9 * p) <= 4 * np.sqrt(1e9 * p * (1 - p))).all()
    assert (counts == build(n=10**9, k=1000, law="zipf")[0].counts[0]).all()
    assert (counts != build(n=10**9, k=1000, law="zipf", order_seed=1)[0].counts[0]).any()


def test_few_static_users_have_values_with_the_very_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = synthetic(5000, [7, 300], law="normal")
    monkeypatch.setattr(collections, "MOST_ROWS", 5000)
    counted = synthetic(5000, [7, 300], law="normal")
    assert (rows.rows, counted.rows) == (True, False)
    for j in (0, 1):
        assert (rows[0].counts[j] == counted[0].counts[j]).all()
        assert (np.bincount(values(rows)[:, j], minlength=rows.domains[j]) == counted[0].counts[j]).all()
    middle = rows[0].counts[1]
    assert middle[100:200].sum() > 3 * middle[:100].sum()  # 0.68 of the mass against 0.16


def test_synthetic_values_change_with_the_given_probability_and_keep_their_law() -> None:
    n, k, rounds, change = 4000, 10, 12, 0.25
    found = synthetic(n, [k], rounds, change, "zipf")
    table = np.stack([values(found, t)[:, 0] for t in range(rounds)], axis=1)
    p = 1 / np.arange(1, k + 1) / (1 / np.arange(1, k + 1)).sum()
    moved, expected = (table[:, 1:] != table[:, :-1]).mean(), change * (1 - (p**2).sum())
    assert moved == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / (n * (rounds - 1))))
    for t in (0, rounds - 1):
        assert found[t].counts[0] / n == pytest.approx(p, abs=4 * np.sqrt(0.25 / n))
    assert not found.static
    assert (table[:, 0] == values(synthetic(n, [k], 2, change, "zipf"))[:, 0]).all()


def test_more_changing_values_than_fit_are_refused_before_they_are_drawn() -> None:
    with pytest.raises(ConfigError, match=r"n=1000000000, rounds=100: .* GiB, over 4"):
        build(n=10**9, k=1000, rounds=100, change=0.1)


# Values of a user's own


def test_changing_values_know_whether_they_change() -> None:
    assert Changing([[0, 0], [1, 1]], [2]).static
    assert not Changing([[0, 0], [1, 0]], [2]).static
    both = Changing([[[0, 4], [1, 4]]], [Attribute("a", 2), Attribute("b", 300)])
    assert values(both, 1).tolist() == [[1, 4]]
    assert values(both).dtype == np.uint16
    assert both.domains == (2, 300)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Static([[0], [1]], []), ConfigError, "list of attributes is empty"),
        (lambda: Static([[0], [0]], [1]), ConfigError, "frequency 1 without any report, so leave"),
        (lambda: Static([[0], [1]], [2], rounds=0), ConfigError, "rounds=0 must be 1 or more"),
        (lambda: Static([0, 1], [2]), DataError, r"shape \(2,\), \(n, d\) with d=1"),
        (lambda: Static([[0, 1]], [2]), DataError, r"shape \(1, 2\)"),
        (lambda: Static(np.empty((0, 1)), [2]), DataError, "one user or more"),
        (lambda: Static([[0], [2]], [2]), DataError, r"run from 0 to 2, and must lie in \[0, 1\]"),
        (lambda: Static([[0], [-1]], [2]), DataError, "run from -1"),
        (lambda: Static([[0.0], [float("nan")]], [2]), DataError, "hold NaN"),
        (lambda: Static([[0.5]], [2]), DataError, "not whole numbers"),
        (lambda: Static([["a"]], [2]), DataError, "not whole numbers"),
        (lambda: Changing([[0, 1]], [2, 2]), DataError, r"\(n, rounds, d\) with d=2"),
        (lambda: Changing(np.empty((3, 0)), [2]), DataError, "shape"),
        (lambda: Counted([[1, 2], [1, 1]], [2, 2]), DataError, r"sum to \[3, 2\] users"),
        (lambda: Counted([[0, 0]], [2]), DataError, "one or more"),
        (lambda: Counted([[1, 2, 3]], [2]), DataError, "a count for each value"),
        (lambda: Counted([[1, -2]], [2]), DataError, "0 or more"),
        (lambda: Counted([[1.5, 2]], [2]), DataError, "whole numbers"),
    ],
)
def test_values_that_cannot_be_are_refused(make: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


def test_whole_numbers_in_floats_are_values() -> None:
    assert values(Static(np.array([[0.0], [1.0]]), [2])).tolist() == [[0], [1]]


# Bad tables and options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: a header line"),
        ("a,b\n", "header and no rows"),
        ("a,b\n1,2\n3\n", "line 3 has 1 cells, the header 2"),
        ("a,b\n1,2\n\n3,4\n", "line 3 has 0 cells.*remove it if it is empty"),
        ("a,b\n1,2\n3,  \n", "column 'b' has no value in row 2 below the header"),
        ("a,b\n1,NaN\n3,4\n", "column 'b' has no value in row 1"),
        ("a,a\n1,2\n3,4\n", r"columns called \['a'\] twice"),
        ("a,\n1,2\n3,4\n", "without a name"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_line(text: str, said: str, tmp_path: Path) -> None:
    put(tmp_path, "own.csv", text)
    with pytest.raises(DataError, match=said):
        build(data="csv", file=Path("own.csv"))


def test_an_attribute_of_one_single_value_is_named_with_it(tmp_path: Path) -> None:
    put(tmp_path, "own.csv", "sex,planet\nF,Earth\nM,Earth\n")
    with pytest.raises(ConfigError, match=r"'planet' has k=1 value, 'Earth', .* leave that attribute out"):
        build(data="csv", file=Path("own.csv"))
    assert build(data="csv", file=Path("own.csv"), columns=["sex"]).domains == (2,)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(ADULT.encode())[:-20])
    with pytest.raises(DataError, match=r"own\.csv\.gz cannot be unpacked"):
        build(data="csv", file=Path("own.csv.gz"))
    (tmp_path / "own.csv").write_bytes("a\nk\xe4se\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        build(data="csv", file=Path("own.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attribute,label,count\n", "attribute,code,label,count are needed"),
        (MARGINALS.replace("Gender,1", "Gender,2"), "line 3 holds Gender,2,M,3; code 1"),
        (MARGINALS.replace("NR,0", "NR,-1"), "whole count"),
        (MARGINALS.replace("region_01,1", "region_01,2"), "'Gender': 5, 'Region': 6.* one number"),
    ],
)
def test_marginals_that_do_not_fit_together_are_refused(text: str, said: str, tmp_path: Path) -> None:
    put(tmp_path, "ms_fimu_marginals.csv", text)
    with pytest.raises(DataError, match=said):
        build(data="ms_fimu")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": "adlut"}, "did you mean 'adult'"),
        ({"data": "adult", "columns": ["sexx"]}, "column 'sexx' is not in .*did you mean 'sex'"),
        ({"data": "adult", "columns": []}, "must name at least one"),
        ({"data": "adult", "columns": ["sex", "sex"]}, "each once"),
        ({"data": "adult", "rows": 5}, r"rows=5 must lie in \[1, 4\]"),
        ({"data": "adult", "rows": 0}, "rows=0 must be 1 or more"),
        ({"data": "adult", "rounds": 0}, "rounds=0 must be 1 or more"),
        ({"data": "adult", "rounds": ["sex"]}, "must be a number: a list names the columns of data=csv"),
        ({"data": "adult", "n": 5}, "n=5 is for data=synthetic, not data=adult"),
        ({"data": "adult", "k": 5}, "k=5 is for data=synthetic, csv"),
        ({"data": "visits", "columns": ["d1"]}, "columns=.* is for data=adult"),
        ({"data": "csv"}, "needs file"),
        ({"data": "csv", "file": Path("a"), "columns": ["b"], "rounds": ["c"]}, "takes the place of columns"),
        ({"data": "csv", "file": Path("a"), "rounds": ["c"], "k": [2]}, "k=.* must be a number of values"),
        ({"k": []}, "list of one number an attribute"),
        ({"k": 1}, "frequency 1"),
        ({"n": 0}, "n=0 must be 1 or more"),
        ({"change": 1.5}, r"must lie in \[0, 1\]"),
        ({"change": float("nan")}, r"must lie in \[0, 1\]"),
        ({"file": Path("a.csv")}, "file=.* is for data=csv"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    put(tmp_path, "adult.csv", ADULT)
    with pytest.raises(ConfigError, match=said):
        build(**options)


def test_all_mistakes_come_together() -> None:
    with pytest.raises(ConfigError) as error:
        build(n=0, change=2, rows=3)
    assert [line.partition("=")[0] for line in str(error.value).splitlines()] == ["rows", "n", "change"]


def test_an_own_file_that_is_missing_is_shown_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for .*gone\.csv"):
        build(data="csv", file=Path("gone.csv"), root=tmp_path / "other")


def test_collections_load_without_torch(tmp_path: Path) -> None:
    put(tmp_path, "adult.csv", ADULT)
    code = (
        "import sys; from clearn.streams.collections import build; build(data='adult'); "
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})
