"""
Loaders: the bytes of a file to text and metadata, one module per format.

    load.py            load_source, LOADERS: reads a file, and chooses a loader by its suffix
    no_loader.py       formats without a loader, and advice about them
    decode.py          load_text: bytes to text
    encodings.py       the encoding that bytes prove or a text declares
    encoding_guess.py  a guess at the encoding otherwise
    front_matter.py    the front matter of a Markdown file
    headings.py        the headings of a Markdown text
    html.py            load_html, with Python's own parser
    html_fast.py       the same with selectolax, from the extra `ingest`
    embedded_data.py   base64 and `data:` URIs, which are removed from texts
    csv_rows.py        CSVLoader: one document per row
    json_lines.py      JSONLinesLoader: one document per line
    records.py         which fields of a record are text, id and metadata
    notebook.py        Jupyter notebooks: their cells without outputs
    pdf.py             PDFLoader, with PDFium, from the extra `ingest`
    pdf_fonts.py       stand-ins for East Asian fonts
    docx.py            Word documents: the parts of the file
    docx_xml.py        their XML, parsed within bounds
    docx_text.py       their text as a reader sees it
    docx_lists.py      their styles and numbered lists
    docx_math.py       their formulas
    docx_parts.py      their SmartArt, charts and inserted files

`load` reads the bytes and passes them to a loader. A loader returns the text and metadata, or one
Record per row; a file that it cannot read raises a LoadError. The text becomes a Document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Loaded: TypeAlias = tuple[str, dict[str, object]]
"""The text of a file and what else was learnt of it."""


@dataclass(frozen=True, slots=True)
class Record:
    """
    One of the documents that a file holds: a row of a table, a line of JSON.

    Args:
        key: What tells it from the others in its file; its document's id is `file//#key`.
        text: Its text.
        metadata: What else is known of it.
    """

    key: str
    text: str
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)


Loader: TypeAlias = Callable[[bytes], Loaded | Iterable[Record]]
"""
What turns the bytes of one format into a text, or into records where a file holds many.

It raises LoadError where it cannot.
"""


def passing(suffix: str, loader: str) -> str:
    """Return the code that gives a processor another loader for a suffix, for errors to advise."""
    loaders = f'loaders={{**LOADERS, "{suffix}": {loader}}}'
    return f"AsyncDocumentProcessor(partial(load_source, {loaders}))"


def join_parts(parts: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Join pages or cells by blank lines, and return with the text where each of them starts."""
    starts, position = [], 0
    for part in parts:
        starts.append(position)
        position += len(part) + 2
    return "\n\n".join(parts), tuple(starts)
