"""CSV rows and JSON lines: many documents of one file."""

import csv
import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragasync.documents.errors import LoadError
from ragasync.documents.loaders.csv_rows import CsvRows
from ragasync.documents.loaders.json_lines import JsonLines
from ragasync.documents.loaders.load import LOADERS, load_source


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
    assert first.id == f"{path}#2"
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
    assert (first.id, first.text) == (f"{path}#1", "a: x\nn: [1]")
    assert (second.id, second.text, second.metadata["line"]) == (f"{path}#3", "text", 3)


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
    loaders = {**LOADERS, ".csv": CsvRows(text_columns=["body"], id_column="id")}
    (document,) = load_source(path, loaders=pickle.loads(pickle.dumps(loaders)))
    assert (document.id, document.text) == (f"{path}#7", "text")


# Columns


def test_the_columns_that_make_no_text_are_metadata():
    """One column of text stands as it is."""
    data = b"id,body,city,year\nx,one,Oslo,2024\ny,two,Bergen,2025\n"
    records = CsvRows(text_columns=["body"], id_column="id")(data)
    assert facts(records) == [("x", "one"), ("y", "two")]
    assert metadata(records) == [
        {"id": "x", "city": "Oslo", "year": 2024},
        {"id": "y", "city": "Bergen", "year": 2025},
    ]


def test_metadata_can_be_chosen_beside_a_text_of_all_columns():
    """A column may be in both."""
    (record,) = CsvRows(metadata_columns=["year"])(b"name,year\nOslo,2024\n")
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
    records = CsvRows(text_columns=["text"])(data.encode())
    assert [record.metadata["n"] for record in records] == values
    assert {type(record.metadata["n"]) for record in records} == set(map(type, values))


def test_columns_without_a_name_of_their_own_get_one():
    """The index of a DataFrame is written so, and people write names twice."""
    (record,) = CsvRows()(b",x,x,x.2\n0,1,2,3\n")
    assert record.text == "column 1: 0\nx: 1\nx.2: 2\nx.2.2: 3"


def test_a_file_without_a_header_is_told_its_columns():
    """Its first row is row 1 then."""
    assert facts(CsvRows(columns=["a", "b"])(b"1,2\n")) == [("1", "a: 1\nb: 2")]


def test_fields_of_json_are_chosen_likewise():
    """Values of metadata keep their types."""
    load = JsonLines(text_fields=["body"], id_field="url")
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
    records = CsvRows()(file.getvalue().encode())
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
    load = CsvRows(text_columns=["a"], metadata_columns=["b", "c"], delimiter=delimiter)
    kept = [row for row in rows if row[0].strip()]
    records = load(file.getvalue().encode())
    assert [[r.text, r.metadata["b"], r.metadata["c"]] for r in records] == kept


def test_a_byte_order_mark_and_a_cell_of_any_length_are_no_trouble():
    """Spreadsheets write the mark; Python's csv stops at 131,072 characters unless told."""
    (record,) = CsvRows()("\ufeffa;b\nx;".encode() + b"y" * 200_000 + b"\n")
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
    assert refusal_of(CsvRows(), data).startswith(words)


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
    assert refusal_of(JsonLines(), data).startswith(words)


@pytest.mark.parametrize(
    ("load", "data", "words"),
    [
        (CsvRows(id_column="id"), b"id,t\n7,x\n8,y\n7,z\n", "rows 2 and 4 share the id '7'"),
        (CsvRows(id_column="id"), b"id,t\n,x\n", "no id in 'id' of row 2"),
        (CsvRows(text_columns=["u"]), b"id,t\n1,x\n", "no 'u' in row 2, which has id, t"),
        (JsonLines(id_field="id"), b'{"id": 1}\n{"id": 1}\n', "rows 1 and 2 share the id '1'"),
        (JsonLines(text_fields=["t"]), b'{"t": 1}\n{}\n', "no 't' in row 2"),
    ],
)
def test_ids_and_columns_that_are_not_there_are_named(load, data, words):
    """A second document of one id would replace the first without a word."""
    assert words in refusal_of(load, data)


def test_what_no_store_could_take_is_replaced():
    """JSON can spell a NUL, half a surrogate pair, and Python writes NaN."""
    load = JsonLines(text_fields=["t"])
    (record,) = load(b'{"t": "a\\u0000b\\ud800", "m": {"k": ["\\ud800"]}, "n": NaN}\n')
    assert record.text == "ab?"
    assert metadata([record]) == [{"m": {"k": ["?"]}, "n": None}]
