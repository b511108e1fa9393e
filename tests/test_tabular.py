"""Tables from the file to the answer: types, missing values, categories, scaling, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet.data.columns import Table
from xpnet.data.csvfile import cell_text
from xpnet.data.spelling import Spelling
from xpnet.data.table_sources import from_columns, read_table
from xpnet.errors import ConfigError, DataError, FileFormatError
from xpnet.runs.folder import RunFolder
from xpnet.tabular import TabularPreprocessing
from xpnet.tabular.targets import in_target_units, in_training_units

FAST = ["--hidden", "8", "--epochs", "3", "--batch-size", "16", "--quiet"]
DAYS = np.datetime_as_string(np.datetime64("2020-01-01") + np.arange(90)).tolist()


pytestmark = pytest.mark.usefixtures("elsewhere")


def passengers(n: int = 300, seed: int = 0) -> list[dict[str, str]]:
    """People on a ship: who is saved depends on sex and class, with gaps as in real records."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        sex, deck = rng.choice(["male", "female"]), int(rng.integers(1, 4))
        saved = rng.random() < (0.9 if sex == "female" else 0.25) - 0.1 * (deck - 2)
        rows.append({
            "id": str(i + 1), "name": f"Person {i}, {sex}", "class": str(deck), "sex": str(sex),
            "age": "" if i % 5 == 0 else f"{rng.integers(1, 80)}", "port": str(rng.choice(["S", "C", "NA"])),
            "crew": "false", "boarded": f"1912-04-{rng.integers(10, 15)}", "saved": "yes" if saved else "no",
        })  # fmt: skip
    return rows


def write(name: str, rows: list[dict[str, str]], separator: str = ",") -> str:
    import csv

    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return name


# --- reading ------------------------------------------------------------------------------------
def text(content: str, name: str = "t.csv") -> Table:
    Path(name).write_text(content, encoding="utf-8")
    return read_table(name)


def test_types_of_columns() -> None:
    table = text(
        "n,b,d,t,gap,none\n1e3,true,2024-05-31,x,,\n-2,FALSE,2024-06-01T12:00:00Z,NA,7,NA\nnan,,,y,?,null\n"
    )
    assert {c.name: c.kind for c in table.columns.values()} == {
        "n": "number", "b": "boolean", "d": "date", "t": "text", "gap": "number", "none": "number",
    }  # fmt: skip
    np.testing.assert_array_equal(table["n"].values, [1000, -2, np.nan])
    np.testing.assert_array_equal(table["b"].values, [1, 0, np.nan])
    np.testing.assert_array_equal(table["d"].values, [19874, 19875.5, np.nan])
    np.testing.assert_array_equal(table["t"].values, [0, -1, 1])
    assert table["t"].texts == ("x", "y") and table["none"].n_missing == 3
    assert [table["d"].shown(i) for i in range(3)] == ["2024-05-31", "2024-06-01T12:00:00", ""]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_quotes_and_packed_files(separator: str) -> None:
    content = f'\ufeffa{separator}"b"\n1{separator}"x{separator}\n""y"""\n\n2{separator}z\n'
    table = text(content)
    assert table.names == ("a", "b") and table["b"].texts == (f'x{separator}\n"y"', "z")
    assert [table.place(i) for i in range(2)] == ["line 2", "line 5"]
    Path("t.csv.gz").write_bytes(gzip.compress(content.encode()))
    assert read_table("t.csv.gz")["b"].texts == table["b"].texts


def test_numbers_that_turn_out_to_be_codes_keep_their_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpnet.data.csvfile._ROWS", 2)  # the text comes two pieces after the numbers
    table = text("a,b\n007,1\n1.0,2\n010,3\n2,4\nx,5\n")
    assert table["a"].texts == ("007", "1.0", "010", "2", "x") and table["b"].kind == "number"
    assert read_table("t.csv", text={"b"})["b"].texts == ("1", "2", "3", "4", "5")
    assert text("a\nNA\n\nNA\nx\n1\n")["a"].texts == ("x", "1")  # only gaps in the first piece


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3\n", "line 3 has 1 values, expected 2"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("1,2\n3,4\n", "expected a header line"),
        ("a,b\n", "a header line and nothing below, expected at least one row"),
        (
            "a,b\n1,2\n# 3\n",
            "line 3 has 1 values, expected 2 as in the header; if it is a comment, delete it",
        ),
        (
            "Sales\na,b\n",
            "line 2 has 2 values, expected 1 as in the header; if that is a title, delete what is above",
        ),
        ("# 1\n# 2\n1,2\n3,4\n", "line 3 holds only numbers"),
        ("sep=;\n\na;b\n", "line 2 is empty"),
        ("# x\na,b\n1\n", "line 3 has 1 values, expected 2"),
        ("\n1,2\n", "the first line is empty"),
        ('a,b\n"1,2\n', "not a CSV file"),
    ],
)
def test_bad_csv(content: str, words: str) -> None:
    with pytest.raises(DataError, match=re.escape(words)):
        text(content)


@pytest.mark.parametrize(
    ("above", "header", "names"),
    [
        ("sep=;\r\n", "a;b;c|d", ("a", "b", "c|d")),
        ("SEP=^\n", "a^b,c^d", ("a", "b,c", "d")),
        ("sep=\t\n", "a\tb;c;d;e\tf", ("a", "b;c;d;e", "f")),
        ("# from the archive\n", "a,b,c", ("a", "b", "c")),
        ("# from the archive, 2024\n#\n\n# x\n", "a;b;c", ("a", "b", "c")),
        ("# one\n# two\n", "#a,b,c", ("#a", "b", "c")),
        ("", "# a,b,c", ("# a", "b", "c")),
    ],
)
def test_what_stands_above_the_column_names(above: str, header: str, names: tuple[str, ...]) -> None:
    separator = next(s for s in header if s in ",;^\t")
    table = text(above + header + "\n" + separator.join("123") + "\n\n" + separator.join("xyz") + "\n")
    assert table.names == names
    lines = above.count("\n")
    assert [table.place(i) for i in (0, 1)] == [f"line {lines + 2}", f"line {lines + 4}"]
    assert cell_text(table, 1, names[1]) == "y"
    comments = lines if "#" in above else 0
    said = [f"left out {comments} line{'s' if comments > 1 else ''} of comments above the column names"]
    named = [
        f"the line that begins with {names[0]!r} is taken for column names; delete it if it is a comment"
    ]
    assert list(table.notes) == (said if comments else []) + (named if names[0].startswith("#") else [])


def test_one_column_may_have_any_name() -> None:
    assert text("#a\n1\n2\n").names == ("#a",)


EUROPEAN = "size;price;share;day;town;rent\n"


def european(n: int = 60) -> str:
    """Write a table as programs in much of Europe do."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(n):
        size, price = 40 + 3.5 * i, 1000 + 137 * i
        rent = f"{20.5 * size:,.2f}".translate(str.maketrans(",.", ".,"))
        day, town = f"{i % 28 + 1}.{i % 12 + 1}.2024", rng.choice(["Bern", "Graz"])
        rows.append(
            f"{str(size).replace('.', ',')};{f'{price:,}'.replace(',', '.')};{i} %;{day};{town};{rent}"
        )
    Path("eu.csv").write_text(EUROPEAN + "\n".join(rows) + "\n", encoding="utf-8")
    return "eu.csv"


def test_a_text_of_two_bytes_per_letter_and_one_without_separators() -> None:
    text = "a,y\n1,x\n2,z\n"
    Path("wide.csv").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"wide.csv: line 1 holds a zero character.*save it as UTF-8"):
        read_table("wide.csv")
    Path("late.csv").write_bytes(text.encode() + b"3,\0\n")
    with pytest.raises(DataError, match=r"late.csv: line 4 holds a zero character"):
        read_table("late.csv")
    Path("blanks.csv").write_text("a y\n1 x\n2 z\n")
    done = xp("train", "blanks.csv", *FAST, "--out", "run", code=1)
    assert "there is only 'a y'; between columns stands a comma, semicolon, tab or bar" in done.stderr


def test_decimal_commas_thousands_percent_and_dates_are_read() -> None:
    table = read_table(european())
    assert {c.name: c.kind for c in table.columns.values()} == {
        "size": "number", "price": "number", "share": "number", "day": "date", "town": "text", "rent": "number",
    }  # fmt: skip
    assert (
        table["size"].values[1] == 43.5
        and table["price"].values[1] == 1137.0
        and table["share"].values[1] == 1.0
    )
    assert table["rent"].values[-1] == pytest.approx(20.5 * (40 + 3.5 * 59))
    assert table["day"].shown(0) == "2024-01-01" and table.decimal == ","
    done = xp("train", "eu.csv", *FAST[:-1], "--out", "run")
    assert (
        "note: eu.csv: numbers have a decimal comma" in done.stderr and "regression of 'rent'" in done.stdout
    )
    # a new table that could be read either way is read as the one of training was
    Path("new.csv").write_text("size;price;share;day;town\n100;1.234;5%;1.2.2024;Bern\n")
    model = xpnet.load("run/model.safetensors")
    prepare = TabularPreprocessing.from_metadata(model.tabular or {})
    assert prepare.table("new.csv")["price"].values.tolist() == [1234.0]
    assert len(xp("predict", "run", "new.csv", "--json").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["$1,234.50", "-$3.00"], [1234.5, -3.0]),
        (['"1,234"', '"12,345,678"'], [1234.0, 12345678.0]),
        (["12%", "7 %"], [12.0, 7.0]),
        (["1 234", "99"], [1234.0, 99.0]),
        (["€ 5", "1\u00a0000 €"], [5.0, 1000.0]),
        (["1'000.5", "2"], [1000.5, 2.0]),
        (["\u22121.5", "2"], [-1.5, 2.0]),
        (["\u22121.234,5e\u22121", "\u2212€ 2", "0,5"], [-123.45, -2.0, 0.5]),
    ],
)
def test_spellings_of_numbers(cells: list[str], values: list[float]) -> None:
    separator = "," if '"' in cells[0] else ";"
    Path("t.csv").write_text(
        f"a{separator}b\n" + "".join(f"{c}{separator}x\n" for c in cells), encoding="utf-8"
    )
    assert read_table("t.csv")["a"].values.tolist() == values


def test_settings_of_the_command_reach_the_preprocessing() -> None:
    write("people.csv", passengers())
    xp("train", "people.csv", "--target", "age", "--categorical", "class", "--ignore", "name", "--impute", "mean",
       "--no-missing-indicator", "--max-categories", "9", "--no-standardize", "--decimal", ".", "--missing-values",
       "-,x", "--drop-missing-target", *FAST, "--out", "run")  # fmt: skip
    learnt = xpnet.load("run/model.safetensors").tabular or {}
    assert learnt["rules"] == {
        "categorical": ["class"], "max_categories": 9, "impute": "mean", "missing_indicator": False,
        "standardize": False, "decimal": ".", "missing_values": ["-", "x"],
    }  # fmt: skip
    assert learnt["ignore"] == ["name"] and learnt["target"]["name"] == "age"


def test_numbers_in_another_spelling_than_was_said_stay_text() -> None:
    Path("t.csv").write_text("a;b\n3,14;1.5\n2;2.5\n")
    table = read_table("t.csv", spelling=Spelling(decimal="."))
    assert table["a"].kind == "text" and [table["a"].shown(i) for i in range(2)] == ["3,14", "2"]
    assert table["b"].values.tolist() == [1.5, 2.5]
    assert "'3,14' looks like a number with a decimal comma: leave out --decimal" in table.advice("a")


def test_points_between_thousands_do_not_make_other_points_thousands() -> None:
    Path("t.csv").write_text("a;b\n1.234.567;1.234\n7;2.345\n")
    table = read_table("t.csv")
    assert table["b"].values.tolist() == [1.234, 2.345] and table.decimal == "."


@pytest.mark.parametrize("cell", ["007", "079 123 456 7", "1.2.3", "10-12", "3,14,15", "A1", "1 23"])
def test_codes_are_no_numbers(cell: str) -> None:
    Path("t.csv").write_text(f"a;b\n{cell};1\nx{cell};2\n")
    assert read_table("t.csv")["a"].kind == "text"


def test_what_may_be_read_in_two_ways_is_asked_about() -> None:
    rows = "".join(f"{1000 + i:,};{i}.5\n" for i in range(60))
    Path("t.csv").write_text("a;b\n" + rows)
    words = "'1,000' may be a number with a decimal comma or with separated thousands: say --decimal , or --decimal ."
    assert words in xp("train", "t.csv", code=1).stderr
    assert words in xp("train", "t.csv", "--target", "a", code=1).stderr
    xp("train", "t.csv", "--target", "a", "--decimal", ".", *FAST, "--out", "run", "--quiet")
    target = TabularPreprocessing.from_metadata(xpnet.load("run/model.safetensors").tabular or {}).target_
    assert target is not None and 1000 < target.mean < 1100
    assert "decimal" in (xpnet.load("run/model.safetensors").tabular or {})["rules"]
    Path("d.csv").write_text("a,b\n" + "".join(f"{i % 12 + 1}/{i % 28 + 1}/2024,{i}.5\n" for i in range(60)))
    assert (
        "'1/1/2024' looks like a date: write dates as 2024-12-31 or 31.12.2024"
        in xp("train", "d.csv", code=1).stderr
    )
    Path("w.csv").write_text("a,b\n" + "".join(f"{i},name{i}\n" for i in range(60)))
    assert "cannot be regressed on either" in xp("train", "w.csv", code=1).stderr


def test_a_first_line_that_looks_like_data_is_noted() -> None:
    Path("t.csv").write_text("".join(f"{i}.5,{i * i}.25,{'ab'[i % 2]}\n" for i in range(60)))
    assert "the first line is taken for column names, but looks like data: '0.5', '0.25', 'a'" in (
        xp("train", "t.csv", *FAST[:-1]).stderr
    )
    Path("e.csv").write_text("5,1;3,5\n1,0;2,0\n")
    assert "is the first line data?" in xp("train", "e.csv", code=1).stderr
    Path("d.csv").write_text("0.2,0.2,a\n1,2,b\n")
    assert "is the first line data?" in xp("train", "d.csv", code=1).stderr


def test_what_counts_as_missing_is_a_setting() -> None:
    kinds = ["None", "Brick", "Stone"]
    rows = "".join(f"{i if i % 7 else '-'},{kinds[i % 3] if i % 10 else ''}\n" for i in range(120))
    Path("t.csv").write_text("x,y\n" + rows)
    refused = xp("train", "t.csv", code=1).stderr
    assert "line 2 has no value in the target column 'y' (48 rows have none); fill it" in refused
    own = ("--missing-values", "-,NA")
    assert "(12 rows have none)" in xp("train", "t.csv", *own, code=1).stderr
    done = xp("train", "t.csv", *FAST[:-1], *own, "--drop-missing-target", "--out", "run")
    assert "note: t.csv: left out 12 of 120 rows, which have no value in 'y'" in done.stderr
    assert (
        "3 classes: Brick, None, Stone" in done.stdout and "97 training, 0 validation, 11 test" in done.stdout
    )
    result = json.loads(Path("run/result.json").read_text())
    assert json.loads(xp("evaluate", "run", "--json").stdout)["loss"] == result["test_loss"]
    xp("evaluate", "run", "--data", "t.csv")
    Path("new.csv").write_text("x\n-\n5\n")
    assert len(xp("predict", "run", "new.csv").stdout.splitlines()) == 2
    Path("q.csv").write_text("x,y\n" + "".join(f"{i},{kinds[i % 3]}\n" for i in range(60)))
    assert "line 2 has no value in the target column 'y': 'None' stands for a missing value" in (
        xp("train", "q.csv", code=1).stderr
    )


def test_frames_tables_and_parquet_agree_with_csv() -> None:
    pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    rows = passengers(40)
    name = write("p.csv", rows)
    expected = read_table(name)
    frame = pd.read_csv(name, keep_default_na=False, na_values=["", "NA"])
    frame["boarded"] = pd.to_datetime(frame["boarded"])
    frame.to_parquet("p.parquet")
    several = pa.concat_tables([pa.Table.from_pandas(frame[:7]), pa.Table.from_pandas(frame[7:])])
    frames: list[Any] = [
        read_table("p.parquet"), from_columns(frame), from_columns(pl.from_pandas(frame)), from_columns(several),
        from_columns(frame.convert_dtypes()), from_columns(frame.astype({"sex": "category"})),
    ]  # fmt: skip
    for table in frames:
        assert [c for c in table.names if not c.startswith("__")] == list(expected.names)
        for column in expected.columns.values():
            assert table[column.name].kind == column.kind, column.name
            np.testing.assert_array_equal(table[column.name].values, column.values)
            assert table[column.name].texts == column.texts
    assert (frames[0].place(0), frames[1].place(0)) == ("row 1", "row 0")


def odd(n: int = 120) -> dict[str, list[str]]:
    """Columns of texts that are something else."""
    day = np.datetime_as_string(np.datetime64("2020-01-01") + np.arange(n)).tolist()
    return {
        "signup": day, "amount": [f"{i}.5" for i in range(n)], "share": [f"{i % 9} %" for i in range(n)],
        "vip": ["True", "False", "false"] * (n // 3), "gap": [("?", "7", "")[i % 3] for i in range(n)],
        "town": ["Bern", "?"] * (n // 2), "survived": ["yes", "no"] * (n // 2),
    }  # fmt: skip


def test_texts_mean_the_same_whichever_way_they_come() -> None:
    pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    frame = pd.DataFrame(odd())
    frame.to_csv("t.csv", index=False)
    frame.to_parquet("t.parquet")
    expected = read_table("t.csv")
    kinds = {"signup": "date", "amount": "number", "share": "number", "vip": "boolean", "gap": "number"}
    for table in (
        expected, read_table("t.parquet"), from_columns(frame), from_columns(odd()),
        from_columns(pl.from_pandas(frame)), from_columns(pa.Table.from_pandas(frame)),
        from_columns(pd.read_csv("t.csv", dtype=str)),
    ):  # fmt: skip
        assert {name: table[name].kind for name in kinds} == kinds
        assert (table["town"].kind, table["survived"].kind) == ("text", "text")
        for name in kinds:
            np.testing.assert_array_equal(table[name].values, expected[name].values)
    # so it does not matter what a model was fitted on, and what it is given
    for table in (frame, "t.parquet"):
        prepare = TabularPreprocessing("survived", ignore=["town"]).fit(table)
        assert prepare.columns == list(kinds) and not [c for c in prepare.left_out_ if c.reason != "ignored"]
        np.testing.assert_array_equal(prepare.transform("t.csv"), prepare.transform(pd.read_csv("t.csv")))
    only = frame[["amount"]].assign(y=[0, 1] * 60)
    only.to_parquet("s.parquet")
    xp("train", "s.parquet", "--target", "y", *FAST)
    frame.assign(amount=[f"1,{i:03}" for i in range(120)]).to_parquet("w.parquet")
    assert "decimal comma or with separated thousands" in xp("train", "w.parquet", code=1).stderr


def test_a_declared_type_counts_and_large_whole_numbers_stay_apart() -> None:
    pd = pytest.importorskip("pandas")
    n = 60
    big = 2**60 + np.arange(n) % 5
    frame = pd.DataFrame({
        "kind": pd.Categorical(np.arange(n) % 3), "code": pd.Categorical(["1", "2", "x"] * 20), "big": big,
        "y": np.arange(n) % 2,
    })  # fmt: skip
    frame.to_parquet("t.parquet")
    frame.to_csv("t.csv", index=False)
    expected = [
        "kind=0",
        "kind=1",
        "kind=2",
        "code=1",
        "code=2",
        "code=x",
        *(f"big={2**60 + k}" for k in range(5)),
    ]
    for table in (frame, "t.parquet", frame.astype({"big": "Int64"})):
        prepare = TabularPreprocessing("y", categorical=["big"]).fit(table)
        assert prepare.feature_names_ == expected
        np.testing.assert_array_equal(prepare.transform(table), prepare.transform("t.csv"))
    codes = TabularPreprocessing().fit({"c": pd.Categorical(["1"] * 30 + ["l"])})
    assert codes.feature_names_ == ["c=1", "c=l"]


def test_classes_that_are_texts_keep_their_spelling() -> None:
    prepare = TabularPreprocessing("y").fit({"x": np.arange(40.0), "y": ["007", "x"] * 20})
    assert prepare.encode_target({"y": ["007", "007"]}).tolist() == [0, 0]


def test_parquet_of_other_types() -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": [[1, 2], [3]], "y": [1, 2]}), "l.parquet")
    with pytest.raises(DataError, match=r"column 'x' holds list<.*--ignore 'x'"):
        read_table("l.parquet")
    assert read_table("l.parquet", skip={"x"})["y"].values.tolist() == [1, 2]
    content = Path("l.parquet").read_bytes()
    Path("l.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged or unreadable Parquet"):
        read_table("l.parquet")


# --- features -----------------------------------------------------------------------------------
def test_features_of_numbers() -> None:
    x = np.array([1.0, 3.0, np.nan, 100.0, 2.0])
    prepare = TabularPreprocessing(standardize=False).fit({"x": x, "c": [7] * 5})
    np.testing.assert_array_equal(
        prepare.transform({"x": [4, None]}, dtype=np.float64), [[4, 0], [2.5, 1]]
    )  # the median, and where it stands in
    assert [(left.name, left.reason) for left in prepare.left_out_] == [("c", "it is always 7")]
    mean = TabularPreprocessing(standardize=False, impute="mean", missing_indicator=False).fit({"x": x})
    np.testing.assert_array_equal(mean.transform({"x": [None]}, dtype=np.float64), [[26.5]])
    z = TabularPreprocessing().fit({"x": np.arange(100.0)}).transform({"x": np.arange(100.0)})
    assert abs(z.mean()) < 1e-6 and z.std() == pytest.approx(1, abs=1e-6)


def test_one_gross_outlier_does_not_set_the_scale() -> None:
    values = [*range(99), 1e30]
    z = TabularPreprocessing().fit({"x": values}).transform({"x": values})
    assert np.isfinite(z).all() and z[:99].std() > 0.5 and z[99, 0] < 100


def test_statistics_are_those_of_the_training_rows() -> None:
    table = {"x": [0.0, 2.0, 1e6], "t": ["a", "b", "c"], "g": ["p", "q", None]}
    prepare = TabularPreprocessing().fit(table, rows=np.array([0, 1]))
    np.testing.assert_allclose(prepare.transform(table)[:2, 0], [-1, 1])
    # what only other rows hold has no feature, and is no error
    assert prepare.feature_names_ == ["x", "t=a", "t=b", "g=p", "g=q"]
    assert prepare.transform(table)[2, 1:].tolist() == [0, 0, 0, 0]


def test_many_categories_share_a_feature() -> None:
    towns = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"] * 2 + ["e"]
    prepare = TabularPreprocessing(max_categories=3).fit({"town": towns})
    assert prepare.feature_names_ == ["town=a", "town=b", "town other"]
    found = prepare.transform({"town": ["a", "e", "new"]})
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    (note,) = prepare.notes({"town": ["a", "e", "new"]})
    assert "2 of 3 values have no category of their own, taken for one of the rare ones" in note


def test_left_out_columns_say_why() -> None:
    n = 120
    table = {
        "id": list(range(n)), "name": [f"n{i}" for i in range(n)], "same": ["x"] * n, "empty": [None] * n,
        "v": np.arange(n) % 7, "gone": ["y"] * n,
    }  # fmt: skip
    prepare = TabularPreprocessing(ignore=["gone"]).fit(table)
    assert prepare.columns == ["v"]
    assert {left.name: left.reason for left in prepare.left_out_} == {
        "id": "it numbers the rows", "name": "120 different texts in 120 rows, too many to learn from",
        "same": "it is always 'x'", "empty": "it has no values", "gone": "ignored",
    }  # fmt: skip
    with pytest.raises(DataError, match="no column to learn from"):
        TabularPreprocessing().fit({"same": ["x"] * 3})


def test_values_that_only_a_new_table_lacks_are_said_column_by_column() -> None:
    Path("t.csv").write_text("n,b,y\n" + "".join(f"{i}.5,{i % 3 > 0},{i % 2}\n" for i in range(60)))
    xp("train", "t.csv", *FAST, "--out", "run")
    Path("new.csv").write_text("n,b\n,True\n2,\n,False\n")
    said = xp("predict", "run", "new.csv").stderr
    assert "note: new.csv: n: 2 of 3 values are missing (none were in training), filled with " in said
    assert "note: new.csv: b: 1 of 3 values are missing (none were in training), filled with true" in said


def test_numbers_as_categories() -> None:
    prepare = TabularPreprocessing(categorical=["zip"]).fit({"zip": [10, 20, 10]})
    assert prepare.feature_names_ == ["zip=10", "zip=20"]
    for same in ({"zip": [20.0]}, {"zip": ["20"]}, {"zip": ["20.0"]}):  # as other programs write it
        assert prepare.transform(same).tolist() == [[0, 1]]


def test_the_record_gives_back_the_same_features() -> None:
    rows = passengers()
    table = read_table(write("p.csv", rows))
    prepare = TabularPreprocessing("saved", categorical=["class"]).fit(table)
    again = TabularPreprocessing.from_metadata(json.loads(json.dumps(prepare.to_metadata())))
    np.testing.assert_array_equal(again.transform(table), prepare.transform(table))
    np.testing.assert_array_equal(again.encode_target(table), prepare.encode_target(table))
    assert again.describe() == prepare.describe() and again.to_metadata() == prepare.to_metadata()
    kept = json.dumps(prepare.to_metadata())
    assert "Person" not in kept  # no values of the table but categories
    for damaged in ({}, {"version": 99}, {**prepare.to_metadata(), "columns": [{"recipe": "tea"}]}):
        with pytest.raises(FileFormatError):
            TabularPreprocessing.from_metadata(damaged)


# --- the target ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"] * 5, "classification"), ([True, False] * 5, "classification"), ([0, 1] * 2, "classification"),
        ([1, 2, 3] * 5, "classification"), ([1, 2, 3] * 4, "regression"), ([0.5, 1.0] * 9, "regression"),
        (list(range(21)) * 9, "regression"), (list(range(20)) * 9, "classification"),
    ],
)  # fmt: skip
def test_the_target_decides_the_task(values: list[Any], task: str) -> None:
    table = {"x": np.arange(len(values)) % 7, "y": values}
    assert TabularPreprocessing("y").fit_target(table).task == task
    if not isinstance(values[0], (str, float)):
        for forced in ("classification", "regression"):
            assert TabularPreprocessing("y", task=forced).fit_target(table).task == forced


def test_classes_are_sorted_by_value_and_found_again_in_any_spelling() -> None:
    prepare = TabularPreprocessing("y").fit({"x": np.arange(30) % 4, "y": [10, 9, 2] * 10})
    assert prepare.target_ is not None and prepare.target_.classes == ("2", "9", "10")
    for same in ([2, 10], [2.0, 10.0], ["2", "10"], ["2.0", "10.0"]):
        assert prepare.encode_target({"y": same}).tolist() == [0, 2]
    with pytest.raises(DataError, match="row 1, column 'y' holds '3', which is none of the 3 known classes"):
        prepare.encode_target({"y": [2, 3]})


def test_scaling_of_the_target_is_undone_in_predictions() -> None:
    model = xpnet.MLP([3, 5, 1], dtype="float64")
    model.task, model.loss = "regression", "squared_error"
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.random.default_rng(1).normal(1e6, 1e3, 40)
    prepare = TabularPreprocessing("y").fit({"x": x[:, 0], "y": y})
    model.tabular = prepare.to_metadata()
    t = prepare.target_
    assert t is not None and t.scaled
    own = in_target_units(model)
    np.testing.assert_allclose(own.predict(x), model.predict(x) * t.scale + t.mean, rtol=1e-12)
    np.testing.assert_array_equal(in_training_units(own).predict(x), model.predict(x))
    np.testing.assert_allclose(prepare.encode_target({"y": y}).std(), 1.0)
    np.testing.assert_array_equal(prepare.encode_target({"y": y}, scaled=False)[:, 0], y)


def test_the_cell_that_is_no_date_or_no_boolean_is_named() -> None:
    prepare = TabularPreprocessing().fit({"d": DAYS, "b": ["true", "false"] * 45})
    with pytest.raises(
        DataError, match=r"row 3, column 'd' holds '3/4/2021', expected a date such as 2024-05-31; "
    ):
        prepare.transform({"d": [*DAYS[:3], "3/4/2021", DAYS[4]], "b": [True] * 5})
    with pytest.raises(DataError, match="row 1, column 'b' holds 'maybe', expected true or false; correct"):
        prepare.transform({"d": DAYS[:2], "b": ["True", "maybe"]})


@pytest.mark.parametrize("name", ["id", "PassengerId", "row_id", "customer ID", "userID", "unnamed 3"])
def test_numbers_of_rows_are_left_out(name: str) -> None:
    prepare = TabularPreprocessing().fit(
        {name: np.arange(1, 31), "day": np.arange(30), "grid": np.arange(30)}
    )
    assert prepare.columns == ["day", "grid"]
    assert TabularPreprocessing().fit({name: np.arange(30) // 2 * 2}).columns == [name]


# --- bad input ----------------------------------------------------------------------------------
TRAINED = {"x": np.arange(40.0), "t": ["a", "b"] * 20, "b": [True, False] * 20, "y": ["u", "v"] * 20}


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"t": ["a"], "b": [True]}, "no column named 'x'; the columns are t, b"),
        ({"X": [1], "t": ["a"], "b": [True]}, "no column named 'x' (did you mean 'X'?)"),
        ({"x": ["1", "many"], "t": ["a"] * 2, "b": [True] * 2}, "row 1, column 'x' holds 'many', expected a number"),
        ({"x": [1, np.inf], "t": ["a"] * 2, "b": [True] * 2}, "row 1, column 'x' holds 'inf', expected a finite"),
        ({"x": [1e300], "t": ["a"], "b": [True]}, "too large: training saw 0 to 39"),
        ({"x": [1], "t": ["c"], "b": [True]}, "row 0, column 't' holds 'c': a category that training never saw"),
        ({"x": [1], "t": [None], "b": [True]}, "column 't' holds '': no value, which training never saw missing"),
        ({"x": [1], "t": ["a"], "b": [2]}, "column 'b' holds '2', expected true or false"),
        ({"x": [np.datetime64("2024-01-01")], "t": ["a"], "b": [True]}, "holds '2024-01-01', expected a number"),
        ({"x": [1, 2], "t": ["a"], "b": [True]}, "columns have different lengths: x 2, t 1, b 1"),
        ({"x": [[1], [2, 3]], "t": ["a"], "b": [True]}, "x"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(new: dict[str, Any], words: str) -> None:
    prepare = TabularPreprocessing("y").fit(TRAINED)
    if isinstance(new.get("x", [0])[0], list):
        new = {**new, "x": np.array([[1], [2]])}
        words = "column 'x' has shape (2, 1), expected one value per row"
    with pytest.raises(DataError, match=re.escape(words)):
        prepare.transform(new)


def test_unknown_categories_can_be_let_through() -> None:
    prepare = TabularPreprocessing("y").fit(TRAINED)
    found = prepare.transform({"x": [0], "t": ["c"], "b": [True]}, unknown="missing")
    assert (
        found[0, prepare.feature_names_.index("t=a")] == 0
        and found[0, prepare.feature_names_.index("t=b")] == 0
    )


@pytest.mark.parametrize(
    ("texts", "options", "features", "new", "none", "note"),
    [
        (["a", "b"] * 3, {}, ["t=a", "t=b"], [0, 0], [0, 0], "left without a category"),
        (["a", "b", None] * 2, {}, ["t=a", "t=b", "t missing"], [0, 0, 1], [0, 0, 1], "taken for missing"),
        (["a", "a", "b", "c"] * 2, {"max_categories": 2}, ["t=a", "t other"], [0, 1], [0, 0], "one of the rare ones"),
        (["a", "a", "b", "c", None] * 2, {"max_categories": 2}, ["t=a", "t other", "t missing"], [0, 1, 0], [0, 0, 1],
         "one of the rare ones"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_new_category_and_of_none(
    texts: list[Any], options: Any, features: Any, new: Any, none: Any, note: str
) -> None:
    prepare = TabularPreprocessing(**options).fit({"t": texts})
    assert prepare.feature_names_ == features
    table = {"t": ["new", None]}
    assert prepare.transform(table, unknown="missing").tolist() == [new, none]
    assert note in prepare.notes(table, unknown="missing")[0]
    if "t other" not in features:
        with pytest.raises(DataError, match="training never saw"):
            prepare.transform(table)


@pytest.mark.parametrize(
    ("options", "table", "words"),
    [
        ({"target": "z"}, TRAINED, "no target column named 'z'"),
        ({"target": "y", "ignore": ["q"]}, TRAINED, "unknown ignored column"),
        ({"target": "y", "categorical": ["X"]}, TRAINED, "unknown categorical column"),
        ({"target": "y"}, {"x": [1, 2], "y": ["a", None]}, "row 1 has no value in the target column 'y'"),
        ({"target": "y"}, {"x": [1, 2], "y": ["a", "a"]}, "holds only 'a'; training needs two classes"),
        ({"target": "y"}, {"x": [1, 2, 3], "y": ["a", "b", "c"]}, "3 different values in 3 rows"),
        ({"target": "y", "task": "classification"}, {"x": [1, 2], "y": [0.5, 1.0]}, "'0.5', which is no class label"),
        ({"target": "y", "task": "regression"}, {"x": [1, 2], "y": ["1", "two"]}, "row 1, column 'y' holds 'two'"),
        ({"target": "y"}, {"x": [1], "y": [np.datetime64("2024-01-01")]}, "a date, which cannot be predicted"),
        ({"target": "y"}, {"x": [], "y": []}, "no rows"),
        ({}, {"x": ["1"] * 30 + ["l"]}, "row 30, column 'x' holds 'l', but 30 other rows hold numbers"),
        ({}, {"x": [*DAYS, "0000-00-00"]}, "row 90, column 'x' holds '0000-00-00', but 90 other rows hold dates"),
        ({}, {"x": [*DAYS, "unknown"]}, "row 90, column 'x' holds 'unknown', but 90 other rows hold dates"),
        ({}, {"x": ["True", "False"] * 9 + ["maybe"]}, "row 18, column 'x' holds 'maybe', but 18 other rows hold true"),
        ({}, {"x": [*DAYS[:9], "3/4/2021"] * 2 + ["12/31/2020"] * 8}, "'3/4/2021' looks like a date"),
        ({"target": "y"}, {"x": [1.0] * 31, "y": ["1.5"] * 30 + ["l"]}, "'l', but 30 other rows hold numbers (1 holds"),
        ({}, {1: [2]}, "column 1 is called 1, expected a text"),
        ({}, np.zeros((2, 2)), "data is a ndarray, expected a data frame"),
        ({}, {"x": [1j]}, "column 'x' holds complex128"),
        ({}, {"x": [object()]}, "row 0, column 'x' holds a object"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_learnt_from(options: dict[str, Any], table: Any, words: str) -> None:
    with pytest.raises((DataError, ConfigError), match=re.escape(words)):
        TabularPreprocessing(**options).fit(table)


# --- the command --------------------------------------------------------------------------------
def test_classification_from_file_to_answers() -> None:
    rows = passengers(400)
    write("people.csv", rows)
    shown = xp("train", "people.csv", "--target", "saved", "--categorical", "class", "--epochs", "20", "--hidden",
               "16", "--valid-fraction", "0.1", "--out", "run").stdout  # fmt: skip
    assert re.search(r"^age +number +feature +80 +2 ", shown, re.M)
    assert re.search(r"^class +category +feature +- +3 +1, 2, 3$", shown, re.M)
    assert re.search(r"^port +category .*missing: a category$", shown, re.M)
    assert re.search(r"^boarded +date .*1912-04-10 to 1912-04-14", shown, re.M)
    for name in ("id", "name", "crew"):
        assert re.search(rf"^{name} .*left out", shown, re.M), name
    assert "task: classification of 'saved', it holds texts" in shown
    assert "324 training, 36 validation, 40 test examples" in shown
    result = json.loads(Path("run/result.json").read_text())
    assert result["test_accuracy"] > 0.65 and "test_rmse" not in result
    scores = json.loads(xp("evaluate", "run", "--json").stdout)
    assert scores["loss"] == result["test_loss"] and scores["classes"] == ["no", "yes"]

    # another order of columns, some that are new, the target absent
    new = [
        {k: row[k] for k in ("port", "boarded", "age", "sex", "class")} | {"shoe": "42"}
        for row in passengers(5, 1)
    ]
    write("new.csv", new, ";")
    done = xp("predict", "run", "new.csv", "--json")
    assert "note: new.csv: ignored columns that training did not have: shoe" in done.stderr
    answers = [json.loads(line)["predictions"][0] for line in done.stdout.splitlines()]
    model = xpnet.load("run/model.safetensors")
    assert model.tabular is not None
    p = model.predict_proba(TabularPreprocessing.from_metadata(model.tabular).transform("new.csv"))
    assert [a["class"] for a in answers] == [["no", "yes"][k] for k in p.argmax(axis=1)]
    np.testing.assert_allclose([a["probability"] for a in answers], p.max(axis=1), rtol=1e-6)

    info = json.loads(xp("info", "run/model.safetensors", "--json").stdout)
    assert [c["column"] for c in info["columns"]][:3] == ["class", "sex", "age"]
    assert "1912-04-10" in xp("info", "run").stdout
    assert b"Person" not in Path("run/model.safetensors").read_bytes()


def houses(n: int = 200) -> str:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        size, town = float(rng.uniform(30, 200)), str(rng.choice(["Bern", "Graz"]))
        price = 1e6 + 5e3 * size + (1e5 if town == "Bern" else 0.0)
        rows.append({"size": "" if i % 9 == 0 else f"{size:.1f}", "town": town, "price": f"{price:.2f}"})
    return write("houses.csv", rows)


def test_regression_answers_in_its_own_units() -> None:
    houses()
    xp("train", "houses.csv", "--hidden", "16", "--epochs", "60", "--lr", "0.02", "--out", "run", "--quiet")
    result = json.loads(Path("run/result.json").read_text())
    config = RunFolder("run").config()
    assert (config.task, config.target) == ("regression", "price")
    assert result["test_r2"] > 0.8 and result["test_loss"] < 0.2 and 1e3 < result["test_mae"] < 3e5
    scores = json.loads(xp("evaluate", "run", "--json").stdout)
    assert {k: scores[k] for k in ("loss", "rmse", "mae", "r2")} == {
        k: result[f"test_{k}"] for k in ("loss", "rmse", "mae", "r2")
    }
    assert "R²        0." in xp("evaluate", "run").stdout
    Path("new.csv").write_text("town,size\nBern,100\nGraz,100\n")
    prices = [
        json.loads(line)["values"][0]
        for line in xp("predict", "run", "new.csv", "--json").stdout.splitlines()
    ]
    np.testing.assert_allclose(prices, [1.6e6, 1.5e6], rtol=0.05)
    assert prices[0] > prices[1]
    xp("plot", "run")
    assert Path("run/plots/regression.png").is_file()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_resumed_run_equals_an_uninterrupted_one(kind: str) -> None:
    if kind == "regression":
        arguments = ["train", houses(), *FAST]
    else:
        arguments = ["train", write("people.csv", passengers(120)), *FAST]
    arguments += ["--schedule", "constant"]  # others follow the new length
    xp(*arguments, "--out", "whole", "--epochs", "4")
    xp(*arguments, "--out", "parts", "--epochs", "2")
    xp("train", "--resume", "parts", "--epochs", "4", "--quiet")
    whole, parts = (json.loads(Path(f, "result.json").read_text()) for f in ("whole", "parts"))
    same = [k for k in whole if k != "seconds"]
    assert {k: whole[k] for k in same} == {k: parts[k] for k in same}
    # a run on a changed file is refused
    with open(arguments[1], "a") as file:
        file.write(Path(arguments[1]).read_text().splitlines()[-1] + "\n")
    assert "cannot continue" in xp("train", "--resume", "parts", "--epochs", "5", code=1).stderr


def test_a_run_goes_on_with_the_columns_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"row_id": str(i), "x": str(i * i % 7), "y": "ab"[i % 2]} for i in range(60)]
    write("t.csv", rows)
    with monkeypatch.context() as patch:  # as an xpnet that took row_id for a feature
        patch.setattr("xpnet.tabular.recipes._ID", re.compile("(?!)"))
        xp("train", "t.csv", *FAST, "--out", "run")
    xp("train", "--resume", "run", "--epochs", "4", "--quiet")
    xp("evaluate", "run")
    assert xpnet.load("run/model.safetensors").sizes[0] == 2
    xp("train", "t.csv", *FAST, "--out", "new")
    assert xpnet.load("new/model.safetensors").sizes[0] == 1


@pytest.mark.parametrize(("setting", "value"), [("task", "regression"), ("target", "size")])
def test_a_run_is_not_asked_for_what_it_never_learnt(setting: str, value: str) -> None:
    Path("d.csv").write_text("size,class\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    xp("train", "d.csv", *FAST, "--out", "run")
    config = Path("run/config.toml")
    config.write_text(re.sub(f"(?m)^{setting} = .*$", f'{setting} = "{value}"', config.read_text()))
    before = config.read_bytes()
    for command in (("train", "--resume", "run", "--epochs", 9), ("evaluate", "run")):
        assert f"{setting} is {value!r}, but the run was started with" in xp(*command, code=2).stderr
    assert config.read_bytes() == before


def test_a_target_that_never_varies_is_said() -> None:
    Path("d.csv").write_text("size,price\n" + "".join(f"{i % 7},5.5\n" for i in range(60)))
    said = xp("train", "d.csv", *FAST[:-1], "--out", "run").stderr
    assert "note: the target 'price' is 5.5 in every row: there is nothing to learn\n" in said


def test_settings_of_tables() -> None:
    houses()
    xp("train", "houses.csv", *FAST, "--out", "plain", "--no-standardize", "--no-scale-target",
       "--no-missing-indicator", "--ignore", "town", "--test-fraction", "0")  # fmt: skip
    model = xpnet.load("plain/model.safetensors")
    assert model.sizes[0] == 1 and model.tabular is not None and model.tabular["target"]["scale"] == 1.0
    assert json.loads(Path("plain/result.json").read_text())["test_loss"] is None
    note = xp(
        "train", "houses.csv", "--output-activation", "softplus", "--epochs", "1", "--out", "limited"
    ).stderr
    assert "note: the target is learnt as it is, not scaled: output_activation 'softplus' decides" in note
    # the last column is the target, and a table of one's own for each part
    for part in ("valid", "test"):
        Path(f"{part}.csv").write_text("town,price,size\nBern,1500000,80\nGraz,1300000,60\n")
    xp("train", "houses.csv", *FAST, "--valid", "valid.csv", "--test", "test.csv", "--out", "own")
    assert "houses (test, 2 examples)" in xp("evaluate", "own").stdout


def test_a_share_of_arrays_can_be_held_out_too() -> None:
    y = np.arange(60) % 3
    np.savez("d.npz", x=np.eye(60), y=y)
    xp("train", "d.npz", *FAST, "--test-fraction", "0.2", "--out", "run")
    assert "d (test, 12 examples)" in xp("evaluate", "run").stdout


REFUSED = [
    ("train people.csv --target survived", 1, "no target column named 'survived'"),
    ("train people.csv --ignore nam", 2, "unknown ignored column of people.csv: 'nam'; did you mean 'name'?"),
    ("train people.csv --categorical Class", 2, "unknown categorical column"),
    ("train people.csv --ignore saved --target saved", 2, "column 'saved' is the target"),
    ("train people.csv --task regression", 1, "line 2, column 'saved' holds"),
    ("train people.csv --target name --task classification", 1, "too many to be classes"),
    ("train people.csv --data digits", 2, "the data are named twice"),
    ("train people.csv --labels y.npy", 2, "a table has them in its --target column"),
    ("train people.csv --valid v.npz", 2, "name a CSV or Parquet file"),
    ("train people.csv --test new.csv --test-fraction 0.1", 2, "exclude each other"),
    ("train people.csv --test-fraction 0.0001", 2, "leaves the test part empty"),
    ("train people.csv --max-categories 1", 2, "max_categories must be at least 2"),
    ("train people.csv --impute mode", 2, "'mode' is not one of"),
    ("train digits --ignore a", 2, "ignore is a setting for tables"),
    ("train nothing.parquet", 1, "nothing.parquet: no such file"),
    ("train bad.parquet", 1, "not a Parquet file"),
    ("train ragged.csv", 1, "line 3 has 1 values, expected 2"),
    ("train infinite.csv", 1, "line 3, column 'a' holds 'inf', expected a finite number"),
    ("train mistake.csv", 1, "line 12, column 'a' holds 'l0', but 10 other rows hold numbers"),
    ("train no-target.csv", 1, "line 3 has no value in the target column 'y'"),
    ("evaluate run --data new.csv", 1, "no target column named 'saved'"),
    ("evaluate run --data people.csv --target age", 2, "predicts column 'saved', not 'age'"),
    ("evaluate run --data d.npz", 1, "this model takes tables (.csv, .tsv, .parquet) with the columns"),
    ("predict run d.npz", 1, "this model takes tables"),
    ("predict run other.csv", 1, "no column named 'sex'"),
    ("predict run unknown.csv", 1, "line 2, column 'sex' holds 'cat': a category that training never saw"),
    ("predict run unparsable.csv", 1, "line 2, column 'age' holds 'old', expected a number"),
    ("report run --out page.pdf", 2, "expected a name ending in .html"),
    ("report run/model.safetensors", 2, "a report needs the run folder"),
    ("report run --data other.csv", 1, "no target column"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        write("people.csv", passengers(100))
        row = passengers(1)[0]
        features = {k: row[k] for k in ("class", "sex", "age", "port", "boarded")}
        write("new.csv", [features])
        write("unknown.csv", [features | {"sex": "cat"}])
        write("unparsable.csv", [features | {"age": "old"}])
        write("other.csv", [{"class": "1"}])
        Path("bad.parquet").write_text("nothing of the kind")
        Path("ragged.csv").write_text("a,y\n1,2\n3\n")
        Path("infinite.csv").write_text("a,y\n1,2\ninf,3\n" + 30 * "2,2\n")
        Path("mistake.csv").write_text("a,y\n" + "1.5,2\n" * 10 + "l0,3\n")
        Path("no-target.csv").write_text("a,y\n1,2\n3,\n")
        np.savez("d.npz", x=np.eye(4), y=np.arange(4) % 2)
        xp("train", "people.csv", *FAST, "--out", "run")
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize(("command", "code", "words"), REFUSED, ids=[c for c, _, _ in REFUSED])
def test_refused(command: str, code: int, words: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    before = sorted(str(p) for p in trained.rglob("*"))
    done = xp(*command.split(), code=code)
    assert words in done.stderr and "Traceback" not in done.output
    assert sorted(str(p) for p in trained.rglob("*")) == before, "something was written"


def test_california_housing(data_dir: Path) -> None:
    """A real table: 20640 rows, 207 gaps, one column of texts."""
    path = data_dir / "california" / "housing.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}: California housing as CSV")
    xp("train", path, "--target", "median_house_value", "--hidden", "64,64", "--epochs", "15", "--lr", "3e-3",
       "--schedule", "cosine", "--out", "run", "--quiet")  # fmt: skip
    result = json.loads(Path("run/result.json").read_text())
    assert result["test_rmse"] < 58_000 and result["test_r2"] > 0.74
    lines = path.read_text().splitlines()
    Path("new.csv").write_text("\n".join(lines[:4]))
    found = [
        json.loads(a)["values"][0] for a in xp("predict", "run", "new.csv", "--json").stdout.splitlines()
    ]
    assert all(1e5 < value < 8e5 for value in found)
