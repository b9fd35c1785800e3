"""CSV rows and JSON lines: many documents of one file."""

import contextlib
import csv
import io
import pickle
import tracemalloc
from functools import partial

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync import AsyncDocumentProcessor
from ragasync.documents import (
    LOADERS,
    CSVLoader,
    JSONLinesLoader,
    LoadError,
    MemoryStore,
    documents_dataframe,
    load_source,
)

# Internals: one loader, and its bounds, which these tests lower.
from ragasync.documents.loaders import tables


def facts(records) -> list[tuple[str, str]]:
    """Return the key and the text of each record."""
    return [(record.key, record.text) for record in records]


def metadata(records) -> list[dict]:
    """Return what else is known of each record, but for its place."""
    return [
        {name: value for name, value in record.metadata.items() if name not in ("row", "line")}
        for record in records
    ]


def refusal_of(load, data: bytes) -> str:
    """Return what the failure of a file says."""
    with pytest.raises(LoadError) as caught:
        load(data)
    return str(caught.value)


# One file, many documents


def test_each_row_is_a_document_that_leads_back_to_its_file(tmp_path):
    """The id tells the row, the source the file, the metadata the row and the line."""
    path = tmp_path / "towns.csv"
    path.write_bytes(b'name,about\nOslo,"by the\nsea"\nBergen,rain\n')
    first, second = load_source(path)
    assert first.id == f"{path}//#2"
    assert first.text == "name: Oslo\nabout: by the\nsea"
    assert first.source == second.source == str(path)
    assert dict(first.metadata) == {"row": 2, "line": 2}
    assert dict(second.metadata) == {"row": 3, "line": 4}


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_each_line_of_json_is_a_document(tmp_path, suffix):
    """Blank lines are passed over and counted."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b'{"a": "x", "n": [1]}\r\n\r\n"text"\n')
    first, second = load_source(path)
    assert (first.id, first.text) == (f"{path}//#1", "a: x\nn: [1]")
    assert (second.id, second.text, second.metadata["line"]) == (f"{path}//#3", "text", 3)


def test_tab_separated_values_need_no_guess(tmp_path):
    """The suffix says it, also where commas are more regular."""
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a,b\tc,d\n1,2\t3,4\n")
    assert load_source(path)[0].text == "a,b: 1,2\nc,d: 3,4"


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"a,b\n"), ("a.csv", b"a,b\n,\n"), ("a.csv", b"\n\n"), ("a.jsonl", b"\n{}\n")],
)
def test_a_table_without_a_row_that_says_anything_is_empty(tmp_path, name, data):
    """It is seen as a failure, like any other file without a text."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(LoadError) as caught:
        load_source(tmp_path / name)
    assert caught.value.reason == "empty"


def test_other_columns_are_chosen_by_suffix(tmp_path):
    """As a partial of the loader, which travels to other processes."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,body\n7,text\n")
    loaders = {**LOADERS, ".csv": CSVLoader(text_columns=["body"], id_column="id")}
    (document,) = load_source(path, loaders=pickle.loads(pickle.dumps(loaders)))
    assert (document.id, document.text) == (f"{path}//#7", "text")


# Columns


def test_the_columns_that_make_no_text_are_metadata():
    """One column of text stands as it is."""
    data = b"id,body,city,year\nx,one,Oslo,2024\ny,two,Bergen,2025\n"
    records = CSVLoader(text_columns=["body"], id_column="id")(data)
    assert facts(records) == [("x", "one"), ("y", "two")]
    assert metadata(records) == [
        {"id": "x", "city": "Oslo", "year": 2024},
        {"id": "y", "city": "Bergen", "year": 2025},
    ]


def test_metadata_can_be_chosen_beside_a_text_of_all_columns():
    """A column may be in both."""
    (record,) = CSVLoader(metadata_columns=["year"])(b"name,year\nOslo,2024\n")
    assert record.text == "name: Oslo\nyear: 2024"
    assert metadata([record]) == [{"year": 2024}]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", ""], [1, -2, None]),
        (["1", "2.50", "1e3"], [1.0, 2.5, 1000.0]),
        (["007", "8", ""], ["007", "8", ""]),
        (["1", "x", ""], ["1", "x", ""]),
        (["", "", ""], ["", "", ""]),
        (["1" * 19, "2", "3"], ["1" * 19, "2", "3"]),
    ],
)
def test_a_column_of_numbers_holds_numbers(cells, values):
    """Where every cell is one, or empty: what only looks like one somewhere stays a text."""
    data = "text,n\n" + "".join(f"t,{cell}\n" for cell in cells)
    records = CSVLoader(text_columns=["text"])(data.encode())
    assert [record.metadata["n"] for record in records] == values
    assert {type(record.metadata["n"]) for record in records} == set(map(type, values))


def test_columns_without_a_name_of_their_own_get_one():
    """The index of a DataFrame is written so, and people write names twice."""
    (record,) = CSVLoader()(b",x,x,x.2\n0,1,2,3\n")
    assert record.text == "column 1: 0\nx: 1\nx.2: 2\nx.2.2: 3"


def test_a_file_without_a_header_is_told_its_columns():
    """Its first row is row 1 then."""
    assert facts(CSVLoader(columns=["a", "b"])(b"1,2\n")) == [("1", "a: 1\nb: 2")]


def test_fields_of_json_are_chosen_likewise():
    """Values of metadata keep their types."""
    load = JSONLinesLoader(text_fields=["body"], id_field="url")
    (record,) = load(b'{"url": "u/1", "body": "text", "tags": ["a"], "n": 1.5, "no": null}\n')
    assert (record.key, record.text) == ("u/1", "text")
    assert metadata([record]) == [{"url": "u/1", "tags": ["a"], "n": 1.5, "no": None}]


# Dialects


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_makes_rows_as_long_as_the_header(delimiter):
    """Others may stand in cells, more of them even."""
    rows = [["a", "b", "c"], ["1,5", "x;y;z", "p|q"], ["2,5", 'say "so"', "t\tu"]]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    records = CSVLoader()(file.getvalue().encode())
    assert [record.text for record in records] == [
        "a: 1,5\nb: x;y;z\nc: p|q",
        'a: 2,5\nb: say "so"\nc: t\tu',
    ]


@given(
    st.sampled_from(",;\t|"),
    st.lists(st.lists(st.text("ab ,;\t|\"\n'é", min_size=1), min_size=3, max_size=3), min_size=1),
)
def test_what_python_writes_as_csv_is_read_as_it_was(delimiter, rows):
    """Whatever stands in the cells: quotes, delimiters, line ends."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["a", "b", "c"], *rows])
    load = CSVLoader(text_columns=["a"], metadata_columns=["b", "c"], delimiter=delimiter)
    kept = [row for row in rows if row[0].strip()]
    records = load(file.getvalue().encode())
    assert [[r.text, r.metadata["b"], r.metadata["c"]] for r in records] == kept


def test_a_byte_order_mark_and_a_cell_of_any_length_are_no_trouble():
    """Spreadsheets write the mark; Python's csv stops at 131,072 characters unless told."""
    (record,) = CSVLoader()("\ufeffa;b\nx;".encode() + b"y" * 200_000 + b"\n")
    assert record.text == "a: x\nb: " + "y" * 200_000


# What is wrong with a file names its place


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'a,b\n1,"2\n3"\n4\n', "csv: row 3, on line 4, has 1 cells, and there are 2 columns"),
        (b"a,b\n1,2\n3,4,5\n", "csv: row 3, on line 3, has 3 cells"),
        (b'a,b\n1,2\n"3,4\n5,6\n', "csv: row 3, from line 3 on: unexpected end"),
        (b'a,b\n"1"x,2\n', "csv: row 2, from line 2 on: "),
        (b"a,b\n1,2\0\n", "binary: "),
    ],
)
def test_a_row_that_does_not_fit_is_named(data, words):
    """A row, and the line that an editor shows."""
    assert refusal_of(CSVLoader(), data).startswith(words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1}\n\n{"a": }\n', "json lines: line 3 is not JSON"),
        (b'{\n "a": 1\n}\n', "json lines: line 1 is not JSON"),
        (b"[" * 100_000, "json lines: line 1 is not JSON"),
        (b'{"a": "\0"}', "binary: "),
    ],
)
def test_a_line_that_is_not_json_is_named(data, words):
    """Also where the file is one object over many lines, under the wrong suffix."""
    assert refusal_of(JSONLinesLoader(), data).startswith(words)


@pytest.mark.parametrize(
    ("load", "data", "words"),
    [
        (CSVLoader(id_column="id"), b"id,t\n7,x\n8,y\n7,z\n", "rows 2 and 4 share the id '7'"),
        (CSVLoader(id_column="id"), b"id,t\n,x\n", "no id in 'id' of row 2"),
        (CSVLoader(text_columns=["u"]), b"id,t\n1,x\n", "no 'u' in row 2, which has id, t"),
        (
            JSONLinesLoader(id_field="id"),
            b'{"id": 1}\n{"id": 1}\n',
            "rows 1 and 2 share the id '1'",
        ),
        (JSONLinesLoader(text_fields=["t"]), b'{"t": 1}\n{}\n', "no 't' in row 2"),
    ],
)
def test_ids_and_columns_that_are_not_there_are_named(load, data, words):
    """A second document of one id would replace the first without a word."""
    assert words in refusal_of(load, data)


def test_what_no_store_could_take_is_replaced():
    """JSON can spell a NUL, half a surrogate pair, and Python writes NaN."""
    load = JSONLinesLoader(text_fields=["t"])
    (record,) = load(b'{"t": "a\\u0000b\\ud800", "m": {"k": ["\\ud800"]}, "n": NaN}\n')
    assert record.text == "ab?"
    assert metadata([record]) == [{"m": {"k": ["?"]}, "n": None}]


# Headers


@pytest.mark.timeout(20)  # minutes where it is quadratic
@pytest.mark.parametrize("names", [["a"] * 60_000, [""] * 60_000, ["a", "a.2", "a.3"] * 20_000])
def test_a_header_of_repeated_names_takes_linear_time(names):
    """Each column gets a name of its own."""
    data = ",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n"
    (record,) = CSVLoader(delimiter=",")(data.encode())
    assert len({line.partition(":")[0] for line in record.text.split("\n")}) == len(names)


def test_a_header_beyond_all_bounds_is_refused():
    """Nobody's table has so many columns."""
    data = b"a," * 300_000 + b"a\n"
    assert "300,001 columns, and 200,000 are the most" in refusal_of(CSVLoader(), data)


@pytest.mark.parametrize(
    "above",
    [
        '# written by a program, with "quotes\n# on Monday\n\n',
        "Sales report\n",
        "Sales report 2024\n\n",
        "Report\n\n",
        "Sales report,,\n,,\n",
        "\n\nSales report\n\n",
        "# note\nSales report\n",
        "sep=,\n",
        "\ufeff# note\n",
        "# a\n" * 200,
    ],
)
def test_comments_and_titles_above_the_header_give_no_documents(above):
    """They are counted as rows, as a spreadsheet does."""
    first = above.count("\n") + 2
    records = list(CSVLoader()(f"{above}town,about,people\nOslo,rain,7\nBergen,sun,8\n".encode()))
    assert facts(records) == [
        (str(first), "town: Oslo\nabout: rain\npeople: 7"),
        (str(first + 1), "town: Bergen\nabout: sun\npeople: 8"),
    ]
    assert [record.metadata["line"] for record in records] == [first, first + 1]


def test_a_title_above_two_columns_of_words_is_one():
    """Where it is a line of several words."""
    assert facts(CSVLoader()(b"Towns of Norway\ntown,about\nOslo,rain\nBergen,sun\n"))[0] == (
        "3",
        "town: Oslo\nabout: rain",
    )


@pytest.mark.parametrize(
    "header",
    ["name,city", "name,,", "name", "name;city", "Name,Home city"],
)
@pytest.mark.parametrize(
    "below",
    ["Ann,Rome,x,y\nBob,Oslo,z,w\nCid,Bern,q,r\n", "Ann,Rome,1\nBob,Oslo,2\n", "Ann,Rome\n" * 3],
)
def test_a_header_that_names_too_few_columns_is_no_title(header, below):
    """Or the first record would become the header, without a word."""
    with contextlib.suppress(LoadError):
        assert "Ann" in facts(CSVLoader()(f"{header}\n{below}".encode()))[0][1].replace("Ann:", "")


def test_blank_lines_above_the_header_are_no_rows_of_it():
    """The header stands on the first line that has anything."""
    records = list(CSVLoader()(b"\n\na,b\n1,2\n3,4\n"))
    assert facts(records) == [("4", "a: 1\nb: 2"), ("5", "a: 3\nb: 4")]
    assert [record.metadata["line"] for record in records] == [4, 5]
    (record,) = CSVLoader(text_columns=["a"])(b"\n\na,b\n1,2\n")
    assert record.metadata["b"] == 2


def test_a_header_may_begin_with_the_mark_of_a_comment():
    """As in the formats of biology; and a column may have a name like a title."""
    data = b"## version 4\n#chrom\tpos\n1\t100\n2\t200\n"
    assert facts(CSVLoader()(data)) == [("3", "#chrom: 1\npos: 100"), ("4", "#chrom: 2\npos: 200")]
    assert facts(CSVLoader()(b"body\nhello\nworld\n")) == [("2", "hello"), ("3", "world")]
    assert facts(CSVLoader()(b",x,\n0,1,2\n")) == [("2", "column 1: 0\nx: 1\ncolumn 3: 2")]


def test_a_column_of_texts_with_commas_is_not_taken_for_a_table_with_a_title():
    """Its first row is no title, so that the commas are an error."""
    assert "there are 1 columns" in refusal_of(
        CSVLoader(), b"body\nhello, you\nand, me\nso, be it\n"
    )


def test_a_comment_below_the_header_is_none_of_the_rows():
    """Where it does not fit; a cell may begin with its mark."""
    assert facts(CSVLoader()(b"a,b\n1,2\n# half\n#3,4\n")) == [
        ("2", "a: 1\nb: 2"),
        ("4", "a: #3\nb: 4"),
    ]


@pytest.mark.parametrize("data", ["a,b\n1,2,\n3,4,\n", "a,b,\n1,2,\n3,4,\n", "a,b,\n1,2\n3,4\n"])
def test_a_delimiter_too_many_at_the_end_is_no_cell(data):
    """Programs write it in the header, in the rows or in both."""
    texts = [record.text for record in CSVLoader()(data.encode())]
    assert texts == ["a: 1\nb: 2", "a: 3\nb: 4"]


# Bad rows

BAD = [
    ("a,b,c\n1,2,3\nTotal,2\n4,5,6\n", "row 3, on line 3, has 2 cells"),
    ("a,b,c\n1,2,3\n1,2,3,4\n4,5,6\n", "row 3, on line 3, has 4 cells"),
    ('a,b,c\n1,2,3\n"x"y,2,3\n4,5,6\n', "row 3, from line 3 on: "),
    ('a,b,c\n1,2,3\n"x,2,3\n4,5,6\n', "row 3, from line 3 on: unexpected end"),
    ('a,b,c\n1,2,3\n"x,2,3\n4,5,6\n7,"8\n', "row 3, from line 3 on: "),
    ('a,b,c\n1,2,3\n"x\n",2\n4,5,6\n', "row 3, on line 3, has 2 cells"),
    ("a,b,c\n1,2,3\n4,5,6\n7,", "row 4, on line 4, has 2 cells"),
    ('a,b,c\n1,2,3\n4,5,6\n7,8,"cut', "row 4, from line 4 on: unexpected end"),
]


@pytest.mark.parametrize(("data", "said"), BAD)
def test_a_bad_row_fails_the_file_or_is_left_out(data, said):
    """As it is told; the error says which row it is and what to do."""
    said_by_error = refusal_of(CSVLoader(), data.encode())
    assert said in said_by_error
    assert 'on_bad_rows="skip"' in said_by_error
    assert "load_text" in said_by_error
    records = list(CSVLoader(on_bad_rows="skip")(data.encode()))
    assert [record.text for record in records] == ["a: 1\nb: 2\nc: 3", "a: 4\nb: 5\nc: 6"]
    assert all(record.metadata["bad_rows"] >= 1 for record in records)


def test_bad_rows_do_not_move_the_numbers_of_the_others():
    """Nor do quoted line ends: a row is named as an editor and a spreadsheet show it."""
    data = b'a,b\n1,"x\ny"\nTotal\n3,"z\n\nz"\n4,5,6\n5,6\n'
    records = list(CSVLoader(on_bad_rows="skip")(data))
    assert [(r.metadata["row"], r.metadata["line"], r.metadata["bad_rows"]) for r in records] == [
        (2, 2, 2),
        (4, 5, 2),
        (6, 9, 2),
    ]


def test_rows_without_an_id_or_with_one_that_was_there_are_bad_rows():
    """The first of two is kept; numbers stay numbers."""
    load = CSVLoader(text_columns=["t"], id_column="id", on_bad_rows="skip")
    records = list(load(b"id,t,n\n1,x,5\n,y,6\n1,z,7\n2,w,8\nTotal,26\n"))
    assert facts(records) == [("1", "x"), ("2", "w")]
    assert [record.metadata["n"] for record in records] == [5, 8]
    assert {record.metadata["bad_rows"] for record in records} == {3}


@pytest.mark.parametrize(
    ("load", "data"),
    [
        (CSVLoader(on_bad_rows="skip"), b"a,b\n1\n2\n3\n"),
        (CSVLoader(on_bad_rows="skip", text_columns=["c"]), b"a,b\n1,2\n"),
        (JSONLinesLoader(on_bad_rows="skip"), b"{\n]\n"),
    ],
)
def test_a_file_of_bad_rows_alone_is_refused(load, data):
    """To skip it all in silence would lose a file."""
    assert "rows can be read: " in refusal_of(load, data)


@pytest.mark.parametrize("load", [CSVLoader, JSONLinesLoader])
def test_what_becomes_of_bad_rows_is_one_of_two(load):
    """Anything else is a mistake, before a long run begins."""
    with pytest.raises(ValueError, match='on_bad_rows must be "fail" or "skip", got'):
        load(on_bad_rows="ignore")


BAD_LINES = [
    (b'{"a": 1}\n{"a": 2}\n{"a": "cut', "line 3 is not JSON: "),
    (b'{"a": 1}\n{"a": }\n{"a": 2}\n', "line 2 is not JSON: "),
    (b'{"a": 1}\n{"a": ' + b"[" * 900 + b"]" * 900 + b'}\n{"a": 2}\n', "line 2 is not JSON: "),
    (b'{"a": 1}\n{"a": ' + b"[" * 90_000 + b'\n{"a": 2}\n', "line 2 is not JSON: "),
    (b'{"a": 1}\n{"a": 2}\n{"a' + b"\0" * 4096, "binary: "),
    (b'{"a": 1}\n{"a": 2}\n' + b"\0" * 4096, "binary: "),
]


@pytest.mark.parametrize(("data", "said"), BAD_LINES)
def test_a_bad_line_fails_the_file_or_is_left_out(data, said):
    """Such as the last one, where the power went off while it was written."""
    assert said in refusal_of(JSONLinesLoader(), data)
    records = list(JSONLinesLoader(on_bad_rows="skip")(data))
    assert [record.text for record in records] == ["1", "2"]
    assert {record.metadata["bad_rows"] for record in records} <= {1, 2}


def test_what_is_nested_deep_fails_as_a_file_and_not_as_recursion():
    """At any depth that Python's stack may or may not take; brackets in texts are not nested."""
    for depth in (300, 900, 980, 5_000):
        for opens, closes in (("[", "]"), ('{"k":', "}")):
            data = f'{{"a": {opens * depth}1{closes * depth}}}\n'
            assert "nested deeper" in refusal_of(JSONLinesLoader(), data.encode())
    (record,) = JSONLinesLoader()(b'{"a": "' + b"[{" * 5_000 + b'"}\n')
    assert len(record.text) == 10_000


def test_numbers_of_any_length_are_read():
    """Python refuses to convert over 4,300 digits, and writes numbers that are none."""
    data = b'{"a": %s, "b": NaN, "c": %s}\n' % (b"7" * 5_000, b"8" * 30)
    (record,) = JSONLinesLoader(text_fields=["a"])(data)
    assert record.text == "7" * 5_000
    assert metadata([record]) == [{"b": None, "c": int("8" * 30)}]


def test_a_few_nul_bytes_make_their_rows_bad_where_these_are_skipped():
    """And only a file that has nothing else is binary."""
    data = b"a,b\n" + b"1,2\n" * 200 + b"3,\0004\n5,6\n" + b"\0" * 5_000
    assert refusal_of(CSVLoader(), data).startswith("binary: ")
    records = list(CSVLoader(on_bad_rows="skip")(data))
    assert (len(records), records[-1].text) == (201, "a: 5\nb: 6")
    assert refusal_of(CSVLoader(on_bad_rows="skip"), b"\0a\0,\0b\n" * 99).startswith("binary: ")


def test_the_encoding_that_is_given_holds_for_a_file_with_bad_rows_too():
    """And each record says in which it was read, and how many rows are left out."""
    text = "имя,город\n" + "Иван,Москва\n" * 20 + "Ан\0на,Омск\n"
    data = text.encode("koi8-r") + b"\0" * 50
    *_, last = CSVLoader(encoding="koi8-r", on_bad_rows="skip")(data)
    assert last.text == "имя: Иван\nгород: Москва"
    assert last.metadata == {"encoding": "koi8-r", "row": 21, "line": 21, "bad_rows": 2}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("line", ['x",y,"\n', '1,"\n', '"""\n', "1,2\n"])
def test_open_quotes_take_no_square_time(line):
    """Where each of many lines could be the start of a row up to the end."""
    data = ('a,b,c\n1,2,3\n"x,y\n' + line * 60_000).encode()
    with contextlib.suppress(LoadError):
        list(CSVLoader(on_bad_rows="skip")(data))


def test_a_cell_that_swallows_a_file_is_a_row_with_an_open_quote(monkeypatch):
    """No text is so long, and the rows in it are not lost."""
    monkeypatch.setattr(tables, "MAX_CELL", 200_000)
    limit = csv.field_size_limit(131_072)
    try:
        data = b'a,b\n"x,2\n' + b"1,2\n" * 60_000 + b'"y",2\n'
        assert "field larger than" in refusal_of(CSVLoader(), data)
        assert sum(1 for _ in CSVLoader(on_bad_rows="skip")(data)) == 60_001
    finally:
        csv.field_size_limit(limit)


def test_how_many_rows_were_left_out_is_told_where_users_look(tmp_path):
    """In the table of documents, also when the store has them already, and in the metadata."""
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\nTotal\n3,4\n5\n")
    (tmp_path / "b.csv").write_bytes(b"a,b\n1,2\n")
    loaders = {**LOADERS, ".csv": CSVLoader(on_bad_rows="skip")}
    load = partial(load_source, loaders=loaders)
    with MemoryStore() as store:
        processor = AsyncDocumentProcessor(load=load, store=store)
        for _ in range(2):
            frame = documents_dataframe(processor.process_sync(tmp_path))
            assert frame["bad_rows"].tolist() == [2, pd.NA]
        hits = store.search("1", where={"bad_rows": 2})
        assert {hit.document_id.rpartition("/")[2] for hit in hits} <= {"#2", "#4"}
        assert hits


def test_rows_are_not_held_in_memory():
    """Only the text is, however many rows it has."""
    data = b"id,name,about\n" + b"123,Oslo,rain and more rain\n" * 20_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in CSVLoader()(data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 4 * len(data)


@pytest.mark.parametrize("loader", ["csv", "json"])
def test_a_field_named_line_does_not_hide_where_its_row_is(loader):
    """Nor does one named row; each is there under another name."""
    if loader == "csv":
        records = CSVLoader(text_columns=["t"])(b"line,row,t\n900,77,one\n901,78,two\n")
    else:
        rows = b'{"line": 900, "row": 77, "t": "one"}\n{"line": 901, "row": 78, "t": "two"}\n'
        records = JSONLinesLoader(text_fields=["t"])(rows)
    first = 2 if loader == "csv" else 1
    assert [dict(record.metadata) for record in records] == [
        {"row": first, "line": first, "field_line": 900, "field_row": 77},
        {"row": first + 1, "line": first + 1, "field_line": 901, "field_row": 78},
    ]


def test_rows_that_begin_with_a_hash_are_data_where_they_fit_named_columns():
    """There is no header, above which comments would stand; what does not fit is one."""
    rows = CSVLoader(columns=["id", "t"])
    assert facts(rows(b"#1,alpha\n#2,beta\nx,gamma\n")) == [
        ("1", "id: #1\nt: alpha"),
        ("2", "id: #2\nt: beta"),
        ("3", "id: x\nt: gamma"),
    ]
    assert facts(rows(b"# made by hand\n1,alpha\n")) == [("2", "id: 1\nt: alpha")]


def test_a_header_that_begins_with_a_hash_may_have_rows_like_it():
    """The first of the lines that fit is the header, and no row is lost."""
    records = CSVLoader()(b"#tag,count\n#python,3\nrust,5\ngo,7\n")
    assert facts(records) == [
        ("2", "#tag: #python\ncount: 3"),
        ("3", "#tag: rust\ncount: 5"),
        ("4", "#tag: go\ncount: 7"),
    ]


def test_a_ragged_row_that_begins_with_a_hash_is_bad_unless_it_reads_as_a_comment():
    """It is counted, as any other."""
    with pytest.raises(LoadError, match="row 3, on line 3, has 3 cells"):
        list(CSVLoader()(b"id,title\n1,ok\n#2,Fix, the bug\n3,ok\n"))
    data = b"id,title\n1,ok\n# see a, b, c\n## and, so, on\n#\n3,ok\n"
    assert [key for key, _ in facts(CSVLoader()(data))] == ["2", "6"]


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_texts_with_a_delimiter_each_are_one_column_where_the_header_has_none(delimiter):
    """They are valid CSV, and neither the header nor a row is lost."""
    data = "\n".join(["Your comment", *(f"{a}{delimiter}{b}" for a, b in ["Gb", "Bs", "Mo"]), ""])
    assert [text for _, text in facts(CSVLoader()(data.encode()))] == [
        f"{a}{delimiter}{b}" for a, b in ["Gb", "Bs", "Mo"]
    ]
