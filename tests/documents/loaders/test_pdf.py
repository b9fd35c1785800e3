"""What a PDF says beyond plain lines: hyphens, forms, pages without text, passwords."""

import pickle

import pytest

from ragasync.documents import LOADERS, EmptyPage, LoadError, PDFLoader, load_source

# Internals: one loader, and its bounds, which these tests lower.
from ragasync.documents.loaders import pdf as pdf_module
from ragasync.documents.loaders.pdf import join_vertical, load_pdf
from tests.documents.loaders.test_packed import pdf_of
from tests.support.work import counted_work


def lines_of(*lines: str) -> bytes:
    """Write a PDF of one page with these lines."""
    stream = " Tj 0 -14 Td ".join(f"({line})" for line in lines)
    return with_length(pdf_of("@@").replace(b"(@@)", stream.encode()))


def with_length(data: bytes) -> bytes:
    """Leave the wrong offsets and lengths to PDFium, which repairs them."""
    return data.replace(b"startxref", b"startxxxx")


def form_of(*fields: str, words: str = "Form") -> bytes:
    """Write a PDF with a form; each field is the inside of its dictionary."""
    data = pdf_of(words).replace(b"/Catalog", b"/Catalog /AcroForm << /Fields [@] >>")
    written, names = b"", []
    for number, inside in enumerate(fields, 50):
        names.append(f"{number} 0 R")
        written += (
            f"{number} 0 obj\n<< /Type /Annot /Subtype /Widget /Rect [20 20 90 40] /F 4 {inside} >>"
            "\nendobj\n"
        ).encode()
    joined = " ".join(names).encode()
    data = data.replace(b"[@]", b"[" + joined + b"]").replace(
        b"/Type /Page /", b"/Type /Page /Annots [" + joined + b"] /"
    )
    return with_length(data.replace(b"xref\n", written + b"xref\n", 1))


def test_words_hyphenated_at_the_end_of_a_line_are_joined():
    """A hyphen before a capital or a digit belongs to the name."""
    text = load_pdf(
        lines_of("The buc-", "ket re-", "fills. Jean-", "Paul has a COVID-", "19 test")
    )[0]
    assert text.replace("\n", " ") == "The bucket refills. Jean-Paul has a COVID-19 test"
    assert not set("\x02\ufffe\xad") & set(text)


def test_the_values_of_a_form_follow_the_text_of_their_page():
    """By the name that a reader sees, else by that of the field; empty ones are left out."""
    data = form_of(
        "/FT /Tx /T (name) /V (Ada Lovelace)",
        "/FT /Tx /T (f17) /TU (Street) /V <FEFF0421043E044404380439>",
        "/FT /Tx /T (empty)",
        "/FT /Ch /T (colour) /Opt [(red) (green)] /V (green)",
        "/FT /Btn /T (agreed) /V /Yes /AS /Yes /AP << /N << /Yes 3 0 R /Off 3 0 R >> >>",
        "/FT /Btn /T (declined) /V /Off /AS /Off /AP << /N << /Yes 3 0 R /Off 3 0 R >> >>",
        "/FT /Tx /Ff 8192 /T (secret) /V (hunter2)",
    )
    assert load_pdf(data)[0].splitlines() == [
        "Form",
        "name: Ada Lovelace",
        "Street: Софий",
        "colour: green",
        "agreed: Yes",
    ]


def test_a_page_of_a_form_alone_is_not_empty():
    """Its values are its text."""
    text, metadata = load_pdf(form_of("/FT /Tx /T (name) /V (Ada)", words=""))
    assert (text, "pages_without_text" in metadata) == ("name: Ada", False)


def test_long_values_that_fields_share_are_bounded():
    """A thousand fields may point to one megabyte."""
    value = "x" * 1_000_000
    fields = [f"/FT /Tx /T (f{n}) /V 50 0 R" for n in range(1000)]
    data = form_of("/Kids []", *fields).replace(b"/V 50 0 R", b"/V 90000 0 R")
    data = data.replace(b"xref\n", f"90000 0 obj\n({value})\nendobj\nxref\n".encode(), 1)
    load_pdf(form_of("/FT /Tx /T (name) /V (Ada)"))  # imports count as work
    message = r"^too large: its form holds more than 10,000,000 bytes"
    with counted_work() as work, pytest.raises(LoadError, match=message):
        load_pdf(data)
    assert work.calls < 3_000


def east_asian(encoding: str, collection: str, *codes: bytes) -> bytes:
    """Write a PDF whose font is not in the file, and whose characters are shown one by one."""
    font = (
        f"<< /Type /Font /Subtype /Type0 /BaseFont /Nowhere /Encoding /{encoding} "
        "/DescendantFonts [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Nowhere /CIDSystemInfo "
        f"<< /Registry (Adobe) /Ordering ({collection}) /Supplement 2 >> >>] >>"
    )
    stream = " 14 0 Td ".join(f"<{code.hex()}> Tj" for code in codes)
    data = pdf_of("@@").replace(b"(@@) Tj", stream.encode())
    helvetica = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    return with_length(data.replace(helvetica, font.encode()))


@pytest.mark.parametrize(
    ("encoding", "collection", "codec", "words"),
    [
        ("GBK-EUC-H", "GB1", "gbk", "数据库连接超时"),
        ("90ms-RKSJ-H", "Japan1", "cp932", "東京タワー"),
        ("KSCms-UHC-H", "Korea1", "cp949", "서울특별시"),
        ("ETen-B5-H", "CNS1", "big5", "臺北市政府"),
    ],
)
def test_east_asian_text_needs_no_installed_font(encoding, collection, codec, words):
    """Many scanners write such files, and a server has none of the fonts that they name."""
    data = east_asian(encoding, collection, *(word.encode(codec) for word in words))
    assert load_pdf(data)[0].replace(" ", "") == words


def test_vertical_writing_is_joined():
    """A search for a word finds nothing where each character has a line of its own."""
    words = "第二条の規定、東京"
    data = east_asian("90ms-RKSJ-H", "Japan1", *(word.encode("cp932") for word in words))
    assert load_pdf(data.replace(b" 14 0 Td ", b" 0 -14 Td "))[0].replace("\n", "") == words
    assert join_vertical("一\n二\n三\n四\n五、\n六") == "一二三四五、六"
    assert join_vertical("王伟\n李娜\n张敏\n刘洋\n陈静") == "王伟\n李娜\n张敏\n刘洋\n陈静"


def placed(*cells: tuple[str, int, int], box: str = "0 0 300 200") -> bytes:
    """Write a PDF of one page with each text at its place."""
    stream = "/F1 12 Tf " + " ".join(f"1 0 0 1 {x} {y} Tm ({text}) Tj" for text, x, y in cells)
    data = pdf_of("@@").replace(b"/F1 12 Tf 20 100 Td (@@) Tj", stream.encode())
    return with_length(data.replace(b"/MediaBox [0 0 300 200]", f"/MediaBox [{box}]".encode()))


@pytest.mark.parametrize(
    "rows",
    [
        [["Ada", "400.01", "3"], ["Bob", "600.01", "5"], ["Cy", "700.01", "7"]],
        [["A", "B", "C"], ["1", "2", "3"], ["4", "5", "6"]],
        [["x", "22", "y"], ["1", "88", "9"]],
    ],
)
def test_cells_of_one_character_are_not_added_to_their_neighbours(rows):
    """400.01 and 3 are no 400.013."""
    cells = [
        (text, 20 + 80 * column, 150 - 20 * row)
        for row, line in enumerate(rows)
        for column, text in enumerate(line)
    ]
    text = load_pdf(placed(*cells))[0]
    assert [line.split() for line in text.splitlines()] == rows


def test_letters_that_are_placed_one_by_one_make_words():
    """Some programs write each letter by itself, and so do those that read scans."""
    word = [(letter, 20 + 8 * at, 100) for at, letter in enumerate("BUCKET")]
    below = [(letter, 20 + 8 * at, 80) for at, letter in enumerate("TOKEN")]
    assert load_pdf(placed(*word, *below))[0].split() == ["BUCKET", "TOKEN"]


def test_printers_marks_beside_the_page_are_left_out():
    """Also where a page has cells that have to be kept apart."""
    marks = [("4TH PASS", 20, -30), ("31", 320, 90)]
    table = [("400.01", 20, 100), ("3", 120, 100), ("600.01", 20, 80), ("5", 120, 80)]
    assert load_pdf(placed(*marks, *table))[0].split() == ["400.01", "3", "600.01", "5"]


def test_a_page_whose_box_is_wrong_is_read_all_the_same():
    """Where all of the text is beside the page, it is no printer's mark."""
    assert load_pdf(placed(("Minutes", 20, 100), box="400 400 700 600"))[0] == "Minutes"


def annotated(*annotations: str) -> bytes:
    """Write a PDF of one page with these annotations, each the inside of its dictionary."""
    written = " ".join(
        f"<< /Type /Annot /Rect [20 20 90 40] {annotation} >>" for annotation in annotations
    )
    data = pdf_of("Page").replace(b"/Type /Page /", f"/Type /Page /Annots [{written}] /".encode())
    return with_length(data)


def test_what_was_typed_on_a_page_is_read():
    """So people fill in a form that has no fields; links and hidden notes say nothing."""
    data = annotated(
        "/Subtype /FreeText /F 4 /Contents (Ada Lovelace)",
        "/Subtype /FreeText /F 4 /Contents <FEFF04210430043C04380442>",
        "/Subtype /FreeText /F 2 /Contents (hidden)",
        "/Subtype /Link /F 4 /Contents (a link)",
        "/Subtype /FreeText /F 4",
    )
    assert load_pdf(data)[0] == "Page\nAda Lovelace\nСамит"


def test_a_broken_page_costs_nothing_but_itself():
    """The others are read, and its number is named."""
    pages = pdf_of("one", "two", "three")
    data = with_length(pages.replace(b"6 0 obj\n<< /Type /Page /", b"6 0 obj\n<< /Type /Font /"))
    text, metadata = load_pdf(data)
    assert text.split() == ["one", "three"]
    assert metadata["unreadable_pages"] == (2,)
    assert "pages_without_text" not in metadata


def test_broken_pages_alone_are_an_error():
    """Not that of scans: there is nothing to read for OCR either."""
    data = with_length(pdf_of("one", "two").replace(b"<< /Type /Page /", b"<< /Type /Font /"))
    with pytest.raises(LoadError, match=r"^pdf: 2 of its 2 pages are broken"):
        load_pdf(data)


def test_the_broken_pages_of_a_file_are_bounded():
    """A few bytes may claim any number of pages that are not there."""
    data = with_length(pdf_of("one").replace(b"/Count 1", b"/Count 5000"))
    with pytest.raises(LoadError, match=r"^pdf: more than 1,000 of its pages are broken"):
        load_pdf(data)


def test_pages_without_text_are_named():
    """A scan among pages of text would else be lost without a word."""
    text, metadata = load_pdf(pdf_of("one", "", "three", " "))
    assert text == "one\n\n\n\nthree\n\n"
    assert metadata["pages_without_text"] == (2, 4)
    assert len(metadata["page_starts"]) == 4
    assert "pages_without_text" not in load_pdf(pdf_of("one"))[1]


def test_pages_without_text_are_given_to_the_hook_as_images():
    """What it reads takes their place; None is a page that stays empty."""
    pages: list[EmptyPage] = []

    def read(page: EmptyPage) -> str | None:
        pages.append(page)
        return "read by OCR" if page.number == 2 else None

    text, metadata = PDFLoader(on_empty_page=read)(pdf_of("one", "", "three", ""))
    assert text == "one\n\nread by OCR\n\nthree\n\n"
    assert metadata["pages_without_text"] == (4,)
    assert [page.number for page in pages] == [2, 4]
    assert pages[0].image.shape == (556, 834, 3)
    assert pages[0].image.min() == 255
    assert repr(pages[0]) == "EmptyPage(number=2)"


def test_the_hook_may_load_a_pdf_itself():
    """PDFium is not held while it runs."""
    loader = PDFLoader(on_empty_page=lambda page: load_pdf(pdf_of("inner"))[0])
    assert loader(pdf_of("", "two"))[0] == "inner\n\ntwo"


def test_a_hook_that_returns_something_else_is_an_error():
    """The message says what was expected and what came."""
    with pytest.raises(TypeError, match=r"on_empty_page must return a str or None, got 17"):
        PDFLoader(on_empty_page=lambda page: 17)(pdf_of(""))


def test_the_image_of_a_page_that_claims_to_be_huge_is_bounded():
    """A page may claim any size."""
    sizes = []
    loader = PDFLoader(on_empty_page=lambda page: sizes.append(page.image.size) or "text")
    loader(pdf_of("").replace(b"[0 0 300 200]", b"[0 0 14400 14400]"))
    assert 30_000_000 < sizes[0] < 61_000_000


def test_scans_alone_are_an_error_that_names_the_hook():
    """There is nothing to store."""
    with pytest.raises(LoadError, match=r"^no text: 2 pages.*PDFLoader\(on_empty_page"):
        load_pdf(pdf_of("", ""))


def test_the_text_of_all_pages_is_bounded(monkeypatch):
    """Pages may share one long content."""
    monkeypatch.setattr(pdf_module, "_MAX_TEXT", 30)
    with pytest.raises(LoadError, match=r"^too large: more than 30 characters by page 2"):
        load_pdf(pdf_of("x" * 20, "y" * 20, "z"))


def locked_pdf(password: str) -> bytes:
    """Encrypt a PDF by RC4 with 40 bits (ISO 32000-1, 7.6.3, revision 2)."""
    from hashlib import md5

    pad = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    padded = (password.encode() + pad)[:32]
    owner = _rc4(md5(padded).digest()[:5], padded)
    key = md5(padded + owner + (-4).to_bytes(4, "little", signed=True) + b"A").digest()[:5]
    user = _rc4(key, pad)
    lock = (
        f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{user.hex()}> /P -4 >> "
        "/ID [<41> <41>] /Root"
    )
    data = pdf_of("locked words")
    begin = data.index(b"stream\n") + 7
    end = data.index(b"\nendstream")
    content = _rc4(md5(key + b"\5\0\0\0\0").digest()[:10], data[begin:end])
    return (data[:begin] + content + data[end:]).replace(b"/Root", lock.encode())


def _rc4(key: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt."""
    state, j, done = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        done.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(done)


def test_a_password_opens_a_locked_file(tmp_path):
    """It is given to the loader, and never shown."""
    loader = PDFLoader(password="sesame")
    (tmp_path / "a.pdf").write_bytes(locked_pdf("sesame"))
    assert (
        load_source(tmp_path / "a.pdf", loaders={**LOADERS, ".pdf": loader}).text == "locked words"
    )
    assert loader(pdf_of("open"))[0] == "open"
    assert "sesame" not in repr(loader)
    assert pickle.loads(pickle.dumps(loader)) == loader


@pytest.mark.parametrize(
    ("password", "advice"), [(None, r"PDFLoader\(password=\.\.\.\)"), ("wrong", "wrong password")]
)
def test_a_locked_file_says_how_to_open_it(password, advice):
    """Without a password and with another one."""
    with pytest.raises(LoadError, match=f"^encrypted: .*{advice}") as caught:
        PDFLoader(password=password)(locked_pdf("sesame"))
    assert "sesame" not in str(caught.value)
