"""One file to one document, or one reason why not."""

import codecs
import json
import os
import pickle
from pathlib import Path

import pytest

from ragasync.documents import LOADERS, Document, LoadError, Source, load_source
from tests.support.requirements import only_where


@pytest.fixture
def load(tmp_path):
    """Write bytes under a name and load them."""

    def load_bytes(name: str, data: bytes, **options) -> Document:
        path = tmp_path / name
        path.write_bytes(data)
        return load_source(Source(name, path), **options)

    return load_bytes


def reason_of(call, *args, **options) -> str:
    """Return the reason for which loading fails."""
    with pytest.raises(LoadError) as caught:
        call(*args, **options)
    assert str(caught.value).startswith(f"{caught.value.reason}: ")
    return caught.value.reason


def said_of(document: Document) -> dict[str, object]:
    """Return the metadata without the date and the size of the file."""
    return {key: each for key, each in document.metadata.items() if key not in ("mtime", "size")}


# Text and its encodings


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.json", "Makefile", "a.TXT"])
def test_a_text_is_loaded_as_it_stands(load, tmp_path, name):
    """The id is the source's, `source` the full path, and UTF-8 needs no mark."""
    document = load(name, "héllo\n".encode())
    assert (document.id, document.text) == (name, "héllo\n")
    assert document.source == str(tmp_path / name)
    assert said_of(document) == {}


@pytest.mark.parametrize(
    ("encoded", "encoding"),
    [
        (codecs.BOM_UTF8 + "né".encode(), None),
        ("né".encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + "né".encode("utf-16-be"), "utf-16"),
        ("né".encode("utf-32"), "utf-32"),
        (codecs.BOM_UTF32_BE + "né".encode("utf-32-be"), "utf-32"),
        ("né".encode("cp1252"), "cp1252"),
    ],
)
def test_the_byte_order_mark_then_utf8_then_cp1252_decides(load, encoded, encoding):
    """Whatever is not UTF-8 is marked in the metadata, a guess above all."""
    document = load("a.txt", encoded)
    assert document.text == "né"
    assert document.metadata.get("encoding") == encoding


def test_line_ends_become_newlines(load):
    """Windows and old Macs make the same paragraphs."""
    assert load("a.txt", b"a\r\n\r\nb\rc\n").text == "a\n\nb\nc\n"


@pytest.mark.parametrize("name", ["a.bin", "a.txt", "a.py", "a.html"])
@pytest.mark.parametrize("data", [b"ab\0cd", codecs.BOM_UTF8 + b"\0"])
def test_nul_bytes_mean_binary(load, name, data):
    """An image under the name of a text is not a text."""
    assert reason_of(load, name, data) == "binary"


def test_bytes_that_nothing_decodes_are_an_error_with_their_position(load):
    """The UTF-8 error is the one that helps; 0x81 means nothing in cp1252."""
    with pytest.raises(LoadError, match=r"^encoding: .*0x81 in position 2.*cp1252 fails too") as e:
        load("a.txt", b"ok\x81")
    assert any("a.txt" in note for note in e.value.__notes__)


def test_a_broken_text_behind_a_byte_order_mark_is_an_error(load):
    """The mark is a promise, and no other encoding is tried."""
    assert reason_of(load, "a.txt", codecs.BOM_UTF16_LE + b"a") == "encoding"


@pytest.mark.parametrize("data", [b"", codecs.BOM_UTF8, b" \n\t\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.md", "LICENSE"])
def test_an_empty_file_is_a_failure(load, name, data):
    """Most often something went wrong where it was written."""
    assert reason_of(load, name, data) == "empty"


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.ipynb", "a.csv", "a.jsonl"])
def test_an_empty_file_is_called_so_whatever_its_format(load, name):
    """It is no broken PDF: there is nothing in it."""
    assert reason_of(load, name, b"") == "empty"


@pytest.mark.parametrize("name", ["__init__.py", "a.pyi", "py.typed"])
def test_an_empty_module_is_a_document_without_text(load, name):
    """Folders of code hold many of them, and they are no failures."""
    assert load(name, b"").text == ""


# Python


def test_python_is_decoded_by_its_cookie(load):
    """PEP 263."""
    document = load("a.py", "# coding: koi8-r\ns = 'Привет'\n".encode("koi8-r"))
    assert "Привет" in document.text
    assert said_of(document) == {"encoding": "koi8-r"}


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: uft-8\n",
        b"# coding: rot13\n",
        b"# coding: undefined\n",
        b"s = '\xe9'\n",
        b"# one\n# two\ns = '\xe9'\n",
        codecs.BOM_UTF8 + b"# coding: latin-1\n",
    ],
    ids=["unknown", "no text codec", "undefined", "not UTF-8", "below", "against its mark"],
)
def test_python_that_python_cannot_read_is_an_error(load, data):
    """Source is UTF-8 unless it says otherwise, so cp1252 would be a wrong guess."""
    assert reason_of(load, "a.py", data) == "encoding"


# Size and kind


def test_a_file_over_the_bound_is_not_read(load):
    """The message holds both numbers; a file at the bound is fine."""
    assert load("a.txt", b"x" * 10, max_bytes=10).text == "x" * 10
    with pytest.raises(LoadError, match=r"too large: 1,011 bytes.*max_bytes=1,010"):
        load("a.txt", b"x" * 1011, max_bytes=1010)


@only_where(Path("/proc/self/status").exists(), "needs /proc")
def test_a_file_that_claims_to_be_empty_is_bounded_too():
    """The size is counted, not believed."""
    assert reason_of(load_source, Path("/proc/self/status"), max_bytes=10) == "too large"


@only_where(hasattr(os, "mkfifo"), "needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    """Opening one would block a thread for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert reason_of(load_source, tmp_path / "pipe") == "not a file"


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.ipynb", "a.py"])
def test_the_date_and_the_size_of_a_file_are_metadata(load, tmp_path, name):
    """In seconds and bytes, as the file system has them."""
    data = notebook_of({"cell_type": "code", "source": "1"}) if name == "a.ipynb" else "né".encode()
    metadata = load(name, data).metadata
    assert metadata["mtime"] == (tmp_path / name).stat().st_mtime
    assert metadata["size"] == len(data)


def test_operating_system_errors_pass_as_they_are(tmp_path):
    """They say it best, and retry rules know them."""
    with pytest.raises(FileNotFoundError):
        load_source(tmp_path / "gone.txt")
    with pytest.raises(IsADirectoryError):
        load_source(tmp_path)


def test_documents_and_pairs_need_no_file():
    """A text that is already there passes through."""
    document = Document("a", "text")
    assert load_source(document) is document
    assert load_source(("a", "text")) == document


def test_another_loader_is_chosen_by_suffix(load):
    """A format of the user's own is one function and one entry."""
    document = load(
        "a.SHOUT", b"hey", loaders={**LOADERS, ".shout": lambda d: (f"{d!r}", {"n": 1})}
    )
    assert (document.text, said_of(document)) == ("b'hey'", {"n": 1})


def test_a_load_error_travels_to_another_process():
    """It keeps its reason and message."""
    twin = pickle.loads(pickle.dumps(LoadError("binary", "a NUL at 3")))
    assert (twin.reason, str(twin)) == ("binary", "binary: a NUL at 3")


# Notebooks


def notebook_of(*cells, **metadata) -> bytes:
    """Write a notebook's JSON."""
    return json.dumps({"cells": list(cells), "metadata": metadata, "nbformat": 4}).encode()


def test_a_notebook_gives_the_sources_of_its_cells(load):
    """Outputs and raw cells stay out, empty cells take no place, and each start is known."""
    document = load(
        "a.ipynb",
        notebook_of(
            {"cell_type": "markdown", "source": ["# Title\n", "text"]},
            {"cell_type": "code", "source": "", "outputs": []},
            {"cell_type": "raw", "source": "raw"},
            {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "1"}]},
            language_info={"name": "python"},
        ),
    )
    assert document.text == "# Title\ntext\n\nprint(1)"
    assert said_of(document) == {
        "cell_starts": (0, 14),
        "headings": ((0, 1),),
        "language": "python",
    }
    assert document.text[14:] == "print(1)"


def test_an_old_notebook_is_read_too(load):
    """Version 3 of the format has worksheets, and `input` for code."""
    cells = [{"cell_type": "code", "input": ["x = 1"]}, {"cell_type": "markdown", "source": "m"}]
    data = json.dumps({"worksheets": [{"cells": cells}], "metadata": {}}).encode()
    assert load("a.ipynb", data).text == "x = 1\n\nm"


PICTURE = "iVBORw0KGgo" + "AbCd+/09" * 5_000 + "=="


@pytest.mark.parametrize(
    ("kind", "source", "left"),
    [
        (
            "markdown",
            f"see ![a plot](data:image/png;base64,{PICTURE}) here",
            "see ![a plot](data:image/png) here",
        ),
        (
            "markdown",
            f'<img src="data:image/svg+xml;charset=utf-8,{"%3Csvg%20" * 90}" alt="b"> here',
            '<img src="data:image/svg+xml" alt="b"> here',
        ),
        ("code", f"logo = '{PICTURE}'\nshow(logo)", "logo = '…'\nshow(logo)"),
        (
            "markdown",
            "mail:\n" + ("iVBORw0KGgoAbCd+/09" * 4 + "\n") * 40 + "AbCd==\nend of the mail",
            "mail:\n…\nend of the mail",
        ),
        ("markdown", "small: data:,hello and data: more", "small: data:,hello and data: more"),
        ("code", "x = 'word ' * 3  # " + "word " * 400, None),
    ],
)
def test_pictures_in_the_cells_of_a_notebook_are_no_text(load, kind, source, left):
    """Neither those of Markdown nor those of code; what a person wrote stays."""
    output = {"output_type": "display_data", "data": {"image/png": PICTURE}}
    cell = {"cell_type": kind, "source": source, "outputs": [output]}
    text = load("a.ipynb", notebook_of(cell)).text
    assert text == (source if left is None else left)


def test_pictures_in_a_markdown_file_are_no_text(load):
    """Editors on the web export them so; the lines keep their numbers, and plain texts stay."""
    words = f"One ![][image1]\n\n[image1]: <data:image/png;base64,{PICTURE}>\n\nTwo"
    assert (
        load("a.md", words.encode()).text == "One ![][image1]\n\n[image1]: <data:image/png>\n\nTwo"
    )
    assert load("a.txt", words.encode()).text == words


def test_what_no_store_could_take_is_replaced_in_a_notebook(load):
    """JSON can spell a NUL and half a surrogate pair."""
    text = load("a.ipynb", notebook_of({"cell_type": "code", "source": "a\0b\ud800"})).text
    assert text == "ab?"


@pytest.mark.parametrize(
    "data",
    [
        b'{"cells": [',
        b"[]",
        b"{}",
        b'{"cells": [3]}',
        b'{"cells": [{"cell_type": "code"}]}',
        b'{"cells": [{"cell_type": "code", "source": 3}]}',
        b'{"cells": [], "metadata": 3}',
        b"\xff\xfe\xff",
        b"[" * 100_000,
    ],
)
def test_a_broken_notebook_is_an_error(load, data):
    """Whatever its JSON lacks, the reason is the same and the run goes on."""
    assert reason_of(load, "a.ipynb", data) == "notebook"
