"""What is in a Word document: all that Word shows, once, in order, and nothing that was deleted."""

import io
import zipfile

import pytest

from ragasync.documents import AsyncDocumentProcessor, LoadError, SqliteStore

# Internals: one loader, and its bounds, which these tests lower.
from ragasync.documents.loaders.docx import load_docx
from tests.support.docx_files import (
    cell,
    drawn,
    field,
    item,
    level,
    numbering,
    p,
    r,
    row,
    table,
    text_box,
    with_parts,
    word_of,
    zip_of,
)
from tests.support.work import counted_work


def text_of(body: str, **parts) -> str:
    """Return the text of a document with this body."""
    return load_docx(word_of(body, **parts))[0]


def error_of(data: bytes) -> LoadError:
    """Return the error of a document, which has to come after little work."""
    with counted_work() as work, pytest.raises(LoadError) as caught:
        load_docx(data)
    assert work.calls < 1_000_000
    return caught.value


# Inside of paragraphs

WRAPPED = {
    "inserted": '<w:ins w:id="1">{}</w:ins>',
    "moved here": '<w:moveTo w:id="1">{}</w:moveTo>',
    "content control": "<w:sdt><w:sdtPr/><w:sdtContent>{}</w:sdtContent></w:sdt>",
    "simple field": '<w:fldSimple w:instr=" AUTHOR ">{}</w:fldSimple>',
    "smart tag": '<w:smartTag w:element="City"><w:smartTagPr/>{}</w:smartTag>',
    "custom XML": '<w:customXml w:element="x"><w:customXmlPr/>{}</w:customXml>',
    "link": '<w:hyperlink w:anchor="a">{}</w:hyperlink>',
    "right to left": "<w:bdo>{}</w:bdo>",
    "all at once": "<w:sdt><w:sdtContent><w:ins><w:hyperlink><w:smartTag>{}</w:smartTag>"
    "</w:hyperlink></w:ins></w:sdtContent></w:sdt>",
}


@pytest.mark.parametrize("wrapper", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_runs_are_read_in_their_place(wrapper):
    """The words of a sentence stay together, whatever is around some of them."""
    body = p("A bucket ", wrapper.format(r("refills") + r(" slowly")), " again.")
    assert text_of(body) == "A bucket refills slowly again."


@pytest.mark.parametrize("wrapper", ["w:ins", "w:moveTo", "w:customXml"])
def test_wrapped_paragraphs_are_read_in_their_place(wrapper):
    """Also where whole paragraphs and tables are inside."""
    inside = f"<{wrapper}>{p('two')}{table(['a', 'b'])}</{wrapper}>"
    assert text_of(p("one") + inside + p("three")) == "one\n\ntwo\n\na\tb\n\nthree"


def test_deleted_text_and_text_moved_away_are_left_out():
    """The text is that with all changes accepted."""
    deleted = f"<w:del>{r('old', 'delText')}</w:del>"
    moved = f"<w:moveFrom>{r('gone')}</w:moveFrom>"
    both = f"<w:ins><w:del>{r('never', 'delText')}</w:del></w:ins>"
    assert text_of(p("new", deleted, moved, both)) == "new"
    assert text_of(p("kept") + f"<w:moveFrom>{p('gone')}</w:moveFrom>") == "kept"


def test_a_paragraph_whose_end_was_deleted_goes_on_in_the_next():
    """That is what accepting the change does."""
    mark = "<w:rPr><w:del w:id='1'/></w:rPr>"
    assert text_of(p("A bucket ", properties=mark) + p("refills.")) == "A bucket refills."
    assert text_of(p("the end", properties=mark) + table(["a"])) == "the end\n\na"


def test_a_row_or_a_cell_that_was_deleted_is_left_out():
    """A row's deletion stands in its properties."""
    rows = row("a", "b") + row("x", "y", properties="<w:del w:id='1'/>")
    rows += row("c", cell("z", "<w:cellDel w:id='1'/>"), "d")
    assert text_of(f"<w:tbl>{rows}</w:tbl>") == "a\tb\nc\td"


def test_a_field_gives_its_result_and_not_its_instruction():
    """Also one inside of another's instruction, and one that spans paragraphs."""
    link = field(r(" HYPERLINK x ", "instrText"), r("the guide"))
    assert text_of(p("See ", link, ".")) == "See the guide."
    condition = r(" IF ", "instrText") + field(r(" REF a ", "instrText"), r("hidden")) + r("> 3")
    assert text_of(p(field(condition, r("many")))) == "many"
    begin, _, rest = field(r(" TOC ", "instrText"), r("One")).partition("</w:r>")
    end = '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    body = p(f"{begin}</w:r>{rest}".removesuffix(end)) + p("Two", end) + p("Three")
    assert text_of(body) == "One\n\nTwo\n\nThree"


def test_a_field_without_an_end_hides_nothing():
    """A broken field must not swallow the rest of a document."""
    begin = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    assert text_of(p(begin, r(" PAGE ", "instrText"), "one") + p("two")) == "one\n\ntwo"


def test_boxes_and_choices_of_a_form_give_their_value():
    """Word draws them: no run holds their text."""

    def form(data: str) -> str:
        return (
            f'<w:r><w:fldChar w:fldCharType="begin"><w:ffData>{data}</w:ffData></w:fldChar></w:r>'
            '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
        )

    entries = "".join(f'<w:listEntry w:val="{each}"/>' for each in ("red", "green"))
    body = p(form("<w:checkBox><w:default w:val='1'/></w:checkBox>"), " yes ")
    body += p(form("<w:checkBox><w:checked w:val='0'/></w:checkBox>"), " no")
    body += p("is ", form(f"<w:ddList><w:result w:val='1'/>{entries}</w:ddList>"))
    assert text_of(body) == "☒ yes \n\n☐ no\n\nis green"


def test_characters_that_are_elements_are_written_as_text():
    """A soft hyphen is none: it would hide the word from a search."""
    marks = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "softHyphen": ""}
    for mark, text in marks.items():
        assert text_of(p("re", f"<w:r><w:{mark}/></w:r>", "fill")) == f"re{text}fill"
    assert text_of(p("a", '<w:r><w:br w:type="page"/></w:r>')) == "a"


@pytest.mark.parametrize(
    ("font", "code", "text"),
    [
        ("Symbol", "F061", "α"),
        ("Symbol", "F0B3", "≥"),
        ("Wingdings", "F0E0", "→"),
        ("Wingdings", "F0FC", "✓"),
        ("Arial", "2713", "✓"),
        ("Arial", "nothing", ""),
        ("Arial", "D800", ""),
        ("Arial", "FFFFFFFFFF", ""),
    ],
)
def test_a_symbol_is_the_character_that_its_font_draws(font, code, text):
    """Word keeps a font and a code in it; a code that is none gives nothing."""
    symbol = f'<w:r><w:sym w:font="{font}" w:char="{code}"/></w:r>'
    assert text_of(p("a", symbol, "b")) == f"a{text}b"


def test_a_ruby_gives_the_word_and_its_reading_in_parentheses():
    """Both can be searched for."""
    ruby = "<w:r><w:ruby><w:rubyPr/><w:rt>{}</w:rt><w:rubyBase>{}</w:rubyBase></w:ruby></w:r>"
    body = p(ruby.format(r("とうきょう"), r("東京")), "の塔")
    assert text_of(body) == "東京(とうきょう)の塔"


def test_readings_over_single_characters_leave_their_word_whole():
    """Word writes one over each character, and 東(とう)京(きょう) would not be found."""
    ruby = "<w:r><w:ruby><w:rubyPr/><w:rt>{}</w:rt><w:rubyBase>{}</w:rubyBase></w:ruby></w:r>"
    tokyo = ruby.format(r("とう"), r("東")) + ruby.format(r("きょう"), r("京"))
    tower = ruby.format(r("とう"), r("塔"))
    assert text_of(p(tokyo, "の", tower)) == "東京(とうきょう)の塔(とう)"


def test_line_ends_of_the_file_are_spaces():
    """A writer that indents its XML adds no lines to the text."""
    assert text_of(p("one\n    two")) == "one two"


# Formulas


def m(name: str, *inside: str) -> str:
    """Write an element of a formula."""
    return f"<m:{name}>{''.join(inside)}</m:{name}>"


def mt(text: str) -> str:
    """Write a run of a formula."""
    return m("r", m("t", text))


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (mt("E=") + m("sSup", m("e", mt("mc")), m("sup", mt("2"))), "E=mc^2"),
        (m("f", m("num", mt("a+b")), m("den", mt("2"))), "(a+b)/2"),
        (m("sSubSup", m("e", mt("x")), m("sub", mt("i")), m("sup", mt("n-1"))), "x_i^(n-1)"),
        (m("rad", m("deg"), m("e", mt("x+1"))), "√(x+1)"),
        (
            m(
                "nary",
                m("naryPr", '<m:chr m:val="∑"/>'),
                m("sub", mt("i=1")),
                m("sup", mt("n")),
                m("e", mt("i")),
            ),
            "∑_(i=1)^n i",
        ),
        (m("d", m("dPr", '<m:begChr m:val="["/><m:endChr m:val="]"/>'), m("e", mt("x"))), "[x]"),
        (m("func", m("fName", mt("sin")), m("e", mt("x"))), "sin x"),
        (m("m", *[m("mr", m("e", mt(a)), m("e", mt(b))) for a, b in ("12", "34")]), "1, 2; 3, 4"),
        (f"<w:del>{mt('old')}</w:del><w:ins>{mt('new')}</w:ins>", "new"),
    ],
)
def test_a_formula_is_text_on_one_line(formula, text):
    """In its place in the sentence, and also where it stands alone."""
    assert text_of(p("So ", m("oMath", formula), ".")) == f"So {text}."
    assert text_of(m("oMathPara", m("oMath", formula))) == text


# Text boxes


def test_a_text_box_is_read_once_after_its_paragraph():
    """The second form of it is for readers that do not know the first."""
    body = p("before", text_box(p("in the box") + p("and more")), " and after") + p("next")
    assert text_of(body) == "before and after\n\nin the box\n\nand more\n\nnext"


def test_a_text_box_of_old_word_files_is_read():
    """VML, without an alternative."""
    box = "<w:r><w:pict><v:shape><v:textbox><w:txbxContent>{}</w:txbxContent></v:textbox></v:shape>"
    assert text_of(p(box.format(p("old")) + "</w:pict></w:r>")) == "old"


def test_the_fallback_is_read_where_the_choice_holds_no_text():
    """A form that we do not know must not hide one that we do."""
    assert text_of(p("a", text_box("", p("only here")))) == "a\n\nonly here"


def test_a_text_box_inside_of_a_text_box_is_read_once():
    """Each form holds both forms of the inner one."""
    text = text_of(p(text_box(p("outer", text_box(p("inner"))))))
    assert text == "outer\n\ninner"


# Other parts that are shown

DRAWING = "<w:r><w:drawing>{}</w:drawing></w:r>"


def series(name: str, *values: str) -> str:
    """Write one series of a chart over two years."""

    def points(*texts: str) -> str:
        return "".join(f"<c:pt><c:v>{text}</c:v></c:pt>" for text in texts)

    return (
        f"<c:ser><c:tx>{points(name)}</c:tx><c:cat>{points('2023', '2024')}</c:cat>"
        f"<c:val>{points(*values)}</c:val></c:ser>"
    )


def test_a_chart_is_a_table_after_its_paragraph():
    """Its title, its series and its numbers are what a reader sees."""
    title = "<c:title><a:p><a:r><a:t>Sales</a:t></a:r></a:p></c:title>"
    chart = title + series("Sofia", "4.4000000000000004", "5") + series("Osaka", "6", "7.5")
    data = with_parts(
        word_of(p("See:", DRAWING.format('<c:chart r:id="r1"/>')) + p("End")),
        r1=("chart", "charts/chart1.xml", drawn("c:chartSpace", chart)),
    )
    assert load_docx(data)[0] == ("See:\n\nSales\nSofia\tOsaka\n2023\t4.4\t6\n2024\t5\t7.5\n\nEnd")


def test_smart_art_gives_its_texts():
    """They stand in a part of their own, each in a box."""
    points = "".join(
        f"<dgm:pt><dgm:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></dgm:t></dgm:pt>"
        for text in ("Head", "", "Sofia office")
    )
    data = with_parts(
        word_of(p("Chart:", DRAWING.format('<dgm:relIds r:dm="r1"/>'))),
        r1=("diagramData", "diagrams/data1.xml", drawn("dgm:dataModel", points)),
    )
    assert load_docx(data)[0] == "Chart:\n\nHead\nSofia office"


MAIL = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Inserted</p>"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.html", b"<p>Inserted</p>"), ("a.txt", b"Inserted"), ("a.mht", MAIL)],
)
def test_an_inserted_file_is_read_in_its_place(name, content):
    """Some programs write a whole document so, and Word shows it as its own."""
    data = with_parts(
        word_of(p("one") + '<w:altChunk r:id="r1"/>' + p("two")), r1=("aFChunk", name, content)
    )
    assert load_docx(data) == ("one\n\nInserted\n\ntwo", {})


def test_an_inserted_document_is_read_in_its_place():
    """So some programs merge documents; one inside of that is named, and not followed further."""

    def with_inserted(words: str, inner: bytes) -> bytes:
        body = p(words) + '<w:altChunk r:id="r1"/>' + p("end")
        return with_parts(word_of(body), r1=("aFChunk", f"{words}.docx", inner))

    once = with_inserted("one", word_of(p("two") + table(["a", "b"])))
    assert load_docx(once) == ("one\n\ntwo\n\na\tb\n\nend", {})
    text, metadata = load_docx(with_inserted("zero", once))
    assert text == "zero\n\none\n\nend\n\nend"
    assert metadata == {"unread_parts": ("/word/one.docx",)}


def test_a_broken_chart_costs_nothing_but_itself():
    """It is named, and the text around it is there."""
    data = with_parts(
        word_of(p("See:", DRAWING.format('<c:chart r:id="r1"/>')) + p("End")),
        r1=("chart", "charts/chart1.xml", "<c:chartSpace"),
    )
    assert load_docx(data) == ("See:\n\nEnd", {"unread_parts": ("/word/charts/chart1.xml",)})


def test_an_inserted_file_that_cannot_be_read_is_named():
    """The rest of the document is there."""
    data = with_parts(
        word_of(p("one") + '<w:altChunk r:id="r1"/>'), r1=("aFChunk", "a.rtf", b"{\\rtf1 x}")
    )
    assert load_docx(data) == ("one", {"unread_parts": ("/word/a.rtf",)})


def test_a_part_that_is_shown_again_and_again_is_read_once():
    """A few kilobytes would unfold to gigabytes."""
    data = with_parts(
        word_of(p("one") + '<w:altChunk r:id="r1"/>' * 10_000),
        r1=("aFChunk", "a.txt", b"long " * 1_000_000),
    )
    assert len(load_docx(data)[0]) < 6_000_000
    names = {f"r{n}": ("aFChunk", name, "x") for n, name in enumerate(("A.txt", "a.TXT"), 2)}
    shown = "".join(f'<w:altChunk r:id="{key}"/>' for key in ("r1", *names))
    assert load_docx(with_parts(word_of(shown), r1=("aFChunk", "a.txt", "x"), **names))[0] == "x"
    large = with_parts(
        word_of(p("one") + '<w:altChunk r:id="r1"/>'), r1=("aFChunk", "a.html", b"<p>" * 4_000_000)
    )
    assert load_docx(large) == ("one", {"unread_parts": ("/word/a.html",)})


# Tables


def test_a_nested_table_is_read_row_by_row_in_its_place():
    """Its rows have lines of their own, so that no cell of it joins a cell around it."""
    inner = p("intro") + table(["a", "b"], ["c", "d"]) + p("")
    assert text_of(table(["x", cell(inner), "y"], ["1", "2", "3"])) == (
        "x\nintro\na\tb\nc\td\ny\n1\t2\t3"
    )
    assert text_of(table([cell(table([cell(table(["deep", "er"]))]))])) == "deep\ter"


def test_merged_cells_are_there_once():
    """Across columns and down rows; those below keep their place in the line."""
    wide = cell("wide", '<w:gridSpan w:val="2"/>')
    top = cell("top", '<w:vMerge w:val="restart"/>')
    below = cell("", "<w:vMerge/>")
    assert text_of(table([wide, "c"], [top, "1", "2"], [below, "3", "4"])) == (
        "wide\tc\ntop\t1\t2\n\t3\t4"
    )
    repeated = cell("top", '<w:vMerge w:val="continue"/>')
    assert text_of(table([top, "1"], [repeated, "2"])) == "top\t1\n\t2"
    left = cell("left", '<w:hMerge w:val="restart"/>')
    assert text_of(table([left, cell("left", "<w:hMerge/>"), "c"])) == "left\tc"


def test_a_cell_that_continues_nothing_keeps_its_text():
    """No cell is above it, or only one that does not go on."""
    lost = cell("lost", "<w:vMerge/>")
    assert text_of(table([lost, "1"])) == "lost\t1"
    top = cell("top", '<w:vMerge w:val="restart"/>')
    assert text_of(table([top, "1"], ["plain", "2"], [lost, "3"])) == "top\t1\nplain\t2\nlost\t3"


def test_rows_and_cells_inside_of_content_controls_are_read():
    """Word repeats rows in this way."""

    def control(inside: str) -> str:
        return f"<w:sdt><w:sdtPr/><w:sdtContent>{inside}</w:sdtContent></w:sdt>"

    rows = row("a", "b") + control(row("c", control(cell("d")))) + control(control(row("e", "f")))
    assert text_of(f"<w:tbl>{rows}</w:tbl>") == "a\tb\nc\td\ne\tf"


# Notes, headers and footers

NOTES = "".join(
    f'<w:footnote w:id="{key}"{kind}>{p("<w:r><w:footnoteRef/></w:r>", text)}</w:footnote>'
    for key, kind, text in (
        ("-1", ' w:type="separator"', "a line"),
        ("2", "", " The second."),
        ("7", "", " The first."),
        ("9", "", " Of nobody."),
    )
)


def refer(to: str, kind: str = "footnote") -> str:
    """Write a reference to a note."""
    return f'<w:r><w:{kind}Reference w:id="{to}"/></w:r>'


def test_a_footnote_follows_the_paragraph_that_refers_to_it():
    """Once, numbered in the order of reference; one that nothing refers to is left out."""
    body = p("One", refer("7"), " and", refer("2"), ".") + p("Again", refer("7"), refer("404"))
    assert text_of(body, footnotes=NOTES) == (
        "One[^1] and[^2].\n\n[^1]: The first.\n\n[^2]: The second.\n\nAgain[^1]"
    )


def test_a_note_in_a_table_follows_the_table():
    """A row stays one line."""
    body = table([cell(p("a", refer("2"))), "b"], ["c", "d"]) + p("next")
    assert text_of(body, footnotes=NOTES) == "a[^1]\tb\nc\td\n\n[^1]: The second.\n\nnext"


def test_endnotes_are_numbered_by_themselves():
    """Both kinds may have the same ids."""
    endnotes = f'<w:endnote w:id="7">{p("At the end.")}</w:endnote>'
    text = text_of(p("x", refer("7"), refer("7", "endnote")), footnotes=NOTES, endnotes=endnotes)
    assert text == "x[^1][^e1]\n\n[^1]: The first.\n\n[^e1]: At the end."


def test_notes_that_refer_to_each_other_come_once():
    """A circle and a long chain both end."""
    notes = "".join(
        f'<w:footnote w:id="{n}">{p(f"note {n}", refer(str((n + 1) % 3000)))}</w:footnote>'
        for n in range(3000)
    )
    text = text_of(p("x", refer("0")), footnotes=notes)
    assert text.startswith("x[^1]\n\n[^1]: note 0[^2]\n\n[^2]: note 1[^3]\n\n")
    assert text.endswith("[^3000]: note 2999[^1]")


def test_headers_and_footers_come_once_and_are_named():
    """After the body; sections repeat them, and a page's number alone says nothing."""
    section = (
        "".join(f'<w:headerReference w:type="default" r:id="header{n}"/>' for n in (1, 2))
        + '<w:footerReference w:type="default" r:id="footer1"/><w:footerReference r:id="footer2"/>'
    )
    body = p("Body", properties=f"<w:sectPr>{section}</w:sectPr>")
    body += p("More") + f"<w:sectPr>{section}</w:sectPr>"
    number = p(field(r(" PAGE ", "instrText"), r("17")))
    parts = {"header1": p("ACME Ltd"), "header2": p("ACME Ltd"), "header3": p("unused")}
    text, metadata = load_docx(word_of(body, **parts, footer1=p("Secret"), footer2=number))
    assert text == "Body\n\nMore\n\nACME Ltd\n\nSecret"
    assert metadata == {"headers": ("ACME Ltd",), "footers": ("Secret",)}


async def test_a_document_with_headers_can_be_stored_and_found(tmp_path):
    """What the metadata hold is what a store can take."""
    section = '<w:sectPr><w:headerReference r:id="header1"/></w:sectPr>'
    (tmp_path / "a.docx").write_bytes(word_of(p("Body") + section, header1=p("Quarterly")))
    with SqliteStore(tmp_path / "store.db") as store:
        result = await AsyncDocumentProcessor(store=store).process([tmp_path / "a.docx"])
        result.raise_for_errors()
        assert "Quarterly" in store.search("Quarterly")[0].text


# Lists and headings


def test_list_numbers_are_those_that_word_shows():
    """Levels restart below a higher one, and a pattern may hold the numbers above."""
    lists = numbering(
        level("decimal", "%1."), level("lowerLetter", "%2)"), level("lowerRoman", "%1.%2.%3")
    )
    before = [item("one"), item("two"), item("a", 1), item("b", 1), item("deep", 2), item("c", 1)]
    after = [item("three"), p("between"), item("a again", 1), item(""), item("five")]
    body = "".join(before + after)
    assert text_of(body, numbering=lists).split("\n\n") == [
        "1. one", "2. two", "a) a", "b) b", "2.b.i deep", "c) c",
        "3. three", "between", "a) a again", "5. five",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("format_", "start", "label"),
    [
        ("decimal", 7, "7."),
        ("decimalZero", 7, "07."),
        ("lowerLetter", 27, "aa."),
        ("upperLetter", 3, "C."),
        ("lowerRoman", 14, "xiv."),
        ("upperRoman", 1999, "MCMXCIX."),
        ("ordinal", 11, "11th."),
        ("ordinal", 22, "22nd."),
        ("russianLower", 3, "в."),
        ("chineseCounting", 12, "十二."),
        ("decimalFullWidth", 10, "１０."),
        ("aiueoFullWidth", 2, "イ."),
        ("decimalEnclosedCircle", 3, "③."),
    ],
)
def test_numbers_have_the_format_of_their_list(format_, start, label):
    """Those of the scripts of our users too."""
    lists = numbering(level(format_, "%1.", start))
    assert text_of(item("x"), numbering=lists) == f"{label} x"


def test_a_bullet_is_a_dash_and_a_number_that_is_not_known_is_left_out():
    """A wrong number would be worse than none."""
    assert text_of(item("x"), numbering=numbering(level("bullet", "\uf0b7"))) == "- x"
    assert text_of(item("x"), numbering=numbering(level("hebrew1", "%1."))) == "x"
    assert text_of(item("x"), numbering=numbering(level("none", ""))) == "x"
    assert text_of(item("x", of=9), numbering=numbering(level("decimal", "%1."))) == "x"
    assert text_of(item("x", of=0)) == "x"
    assert text_of(item("x", at=77), numbering=numbering(level("decimal", "%1."))) == "x"


def test_lists_continue_and_restart_as_they_say():
    """Two lists of one pattern count on, unless the second has a start of its own."""
    start = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride>'
    lists = "".join(
        f'<w:num w:numId="{n}"><w:abstractNumId w:val="0"/>{start if n == 3 else ""}</w:num>'
        for n in (1, 2, 3)
    )
    body = item("a") + item("b", of=2) + item("c", of=3) + item("d", of=3)
    parts = {"numbering": numbering(level("decimal", "%1."), lists=lists)}
    assert text_of(body, **parts).split("\n\n") == ["1. a", "2. b", "5. c", "6. d"]


def test_a_level_may_go_on_below_a_new_number():
    """`lvlRestart` 0 is never, and `isLgl` shows all numbers as decimal."""
    lists = numbering(
        level("upperRoman", "%1."),
        level("decimal", "%1.%2", more='<w:lvlRestart w:val="0"/><w:isLgl/>'),
    )
    body = item("a") + item("b", 1) + item("c") + item("d", 1)
    assert text_of(body, numbering=lists).split("\n\n") == ["I. a", "1.1 b", "II. c", "2.2 d"]


STYLES = """
<w:style w:type="paragraph" w:default="1" w:styleId="n"><w:name w:val="Normal"/></w:style>
<w:style w:type="paragraph" w:styleId="berschrift2"><w:name w:val="heading 2"/><w:pPr>
<w:numPr><w:numId w:val="1"/></w:numPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="own"><w:name w:val="Clause"/>
<w:basedOn w:val="berschrift2"/></w:style>
<w:style w:type="paragraph" w:styleId="toc"><w:name w:val="TOC Heading"/>
<w:basedOn w:val="berschrift2"/><w:pPr><w:numPr><w:numId w:val="0"/></w:numPr>
<w:outlineLvl w:val="9"/></w:pPr></w:style>
<w:style w:type="paragraph" w:styleId="loop"><w:name w:val="Loop"/>
<w:basedOn w:val="loop"/></w:style>
"""


def styled(text: str, style: str) -> str:
    """Write a paragraph of a style."""
    return p(text, properties=f'<w:pStyle w:val="{style}"/>')


def test_headings_and_their_numbers_come_from_styles():
    """By Word's own name for the style, whatever its id, and from the style it is based on."""
    lists = numbering(
        level("decimal", "%1."), level("decimal", "%1.%2", more='<w:pStyle w:val="berschrift2"/>')
    )
    body = styled("Two<w:br/>lines".replace("<w:br/>", "\n"), "berschrift2")
    body += styled("Clause", "own") + styled("Contents", "toc") + styled("text", "loop")
    text, metadata = load_docx(word_of(body, styles=STYLES, numbering=lists))
    assert text == "## 1.1 Two lines\n\n## 1.2 Clause\n\nContents\n\ntext"
    assert metadata == {"headings": ((0, 2), (18, 2))}


def test_a_list_may_name_its_pattern_by_a_style():
    """`numStyleLink` leads to a style, that to a list, and that to the pattern."""
    styles = '<w:style w:type="numbering" w:styleId="s"><w:name w:val="s"/><w:pPr><w:numPr>'
    styles += '<w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
    lists = numbering(level("decimal", "(%1)")) + (
        '<w:abstractNum w:abstractNumId="5"><w:numStyleLink w:val="s"/></w:abstractNum>'
        '<w:num w:numId="2"><w:abstractNumId w:val="5"/></w:num>'
    )
    assert text_of(item("x", of=2), styles=styles, numbering=lists) == "(1) x"


# Other writers


EVERYTHING = (
    p("A ", f"<w:ins>{r('new')}</w:ins>", f"<w:del>{r('old', 'delText')}</w:del>", refer("7"))
    + styled("Title", "berschrift2")
    + item("item")
    + table([cell("wide", '<w:gridSpan w:val="2"/>')], ["a", "b"])
    + p(m("oMath", m("sSup", m("e", mt("x")), m("sup", mt("2")))), text_box(p("box")))
)


def test_a_strict_file_gives_the_same_text():
    """Its elements, relationships and attributes have other namespaces."""
    parts = {
        "styles": STYLES.replace('<w:numPr><w:numId w:val="1"/></w:numPr>', ""),
        "footnotes": NOTES,
        "numbering": numbering(level("decimal", "%1.")),
    }
    loaded = load_docx(word_of(EVERYTHING, strict=True, **parts))
    assert loaded == load_docx(word_of(EVERYTHING, **parts))
    assert loaded[0] == (
        "A new[^1]\n\n[^1]: The first.\n\n## Title\n\n1. item\n\nwide\na\tb\n\nx^2\n\nbox"
    )


def test_what_python_docx_writes_is_read_as_python_docx_reads_it():
    """Paragraphs, headings, cells with several paragraphs, sections."""
    import docx

    written, file = docx.Document(), io.BytesIO()
    written.add_heading("Guide", 0)
    written.add_paragraph("One ").add_run("two\tthree\nfour").bold = True
    cells = written.add_table(2, 2).cell
    cells(0, 0).text, cells(0, 1).text, cells(1, 1).text = "a", "b\nc", "d"
    cells(1, 0).merge(cells(0, 0))
    written.add_heading("End", 2)
    written.sections[0].header.paragraphs[0].text = "ACME"
    written.save(file)
    text, metadata = load_docx(file.getvalue())
    paragraphs = [each.text for each in docx.Document(file).paragraphs]
    assert [paragraph in text for paragraph in paragraphs] == [True] * len(paragraphs)
    assert text == "# Guide\n\nOne two\tthree\nfour\n\na\tb\nc\n\td\n\n## End\n\nACME"
    assert metadata == {"headings": ((0, 1), (39, 2)), "headers": ("ACME",)}


def test_names_of_parts_in_other_letters_and_with_backslashes_are_found():
    """Some writers on Windows make such archives."""
    with zipfile.ZipFile(io.BytesIO(word_of(p("text")))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    odd = {name.replace("word/document.xml", "Word\\Document.xml"): files[name] for name in files}
    assert load_docx(zip_of(odd))[0] == "text"


def test_a_part_that_is_named_and_missing_costs_nothing_but_itself():
    """A relation to a picture or a style sheet that is gone hides no text."""
    with zipfile.ZipFile(io.BytesIO(word_of(p("text"), styles=STYLES))) as archive:
        files = {n: archive.read(n) for n in archive.namelist() if "styles" not in n}
    assert load_docx(zip_of(files))[0] == "text"


# What a file claims


def nested(tag: str, times: int, inside: str) -> str:
    """Write an element inside of itself, so many times."""
    return f"<{tag}>" * times + inside + f"</{tag}>" * times


DEEP = {
    "content controls": nested("w:sdtContent", 10_000, p("x")),
    "runs": p(nested("w:ins", 10_000, r("x"))),
    "tables": nested("w:tbl><w:tr><w:tc", 10_000, p("x")).replace(
        "</w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>"
    ),
    "text boxes": nested("w:p><w:r><w:txbxContent", 10_000, p("x")).replace(
        "</w:p><w:r><w:txbxContent>", "</w:txbxContent></w:r></w:p>"
    ),
    "formulas": p(m("oMath", nested("m:e", 10_000, mt("x")))),
    "other namespaces": p(nested("wps:x", 10_000, r("x"))),
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deeply_is_refused(body):
    """Within a second, and without a RecursionError, which would depend on the caller."""
    error = error_of(word_of(body))
    assert error.reason == "docx"
    assert "nested more than 150" in error.message


def test_what_is_nested_as_deeply_as_people_do_is_read():
    """Thirty tables inside of each other."""
    body = p("core")
    for n in range(30):
        body = table([cell(body + p(str(n)))])
    assert text_of(body).splitlines() == ["core", *map(str, range(30))]


@pytest.mark.parametrize("span", ["2000000000", "99999999999999999999", "16385", "many"])
@pytest.mark.parametrize("place", ["gridSpan", "gridBefore"])
def test_a_cell_that_claims_too_many_columns_is_refused(span, place):
    """python-docx makes a list of them all."""
    claim = f'<w:{place} w:val="{span}"/>'
    first = cell("a", claim) if place == "gridSpan" else cell("a")
    rows = row(first, "b", properties=claim if place == "gridBefore" else "")
    error = error_of(word_of(f"<w:tbl>{rows}</w:tbl>"))
    assert error.reason == "docx"
    assert "16,384" in error.message
    assert span in error.message.replace(",", "") or span == "many"


def test_a_deep_vertical_merge_is_read_in_linear_time():
    """python-docx looks for its top from each of its rows."""

    def work_of(count: int) -> int:
        rows = [[cell("top", '<w:vMerge w:val="restart"/>'), "0"]]
        rows += [[cell("", "<w:vMerge/>"), str(n)] for n in range(1, count)]
        data = word_of(table(*rows))
        with counted_work() as work:
            text = load_docx(data)[0]
        assert text.count("top") == 1
        assert text.endswith(f"\n\t{count - 1}")
        return work.calls

    assert work_of(4000) < 2.1 * work_of(2000)


HUGE = {
    "cells in a row": "<w:tbl><w:tr>" + "<w:tc/>" * 100_000 + "</w:tr></w:tbl>",
    "cells in rows": "<w:tbl>" + ("<w:tr>" + "<w:tc/>" * 50 + "</w:tr>") * 8000 + "</w:tbl>",
    "paragraphs": "<w:p/>" * 600_000,
    "tags": "<w:p><w:r>" + "<w:t/>" * 4_000_000 + "</w:r></w:p>",
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_more_than_a_document_has_is_refused(body):
    """An archive of some kilobytes can hold millions of cells."""
    data = word_of(body)
    assert len(data) < 100_000
    assert error_of(data).reason in {"too large", "docx"}


def test_more_parts_than_a_document_has_are_refused():
    """A table of contents of a million rows takes seconds to read."""
    error = error_of(word_of(p("x")) + b"PK\x01\x02" * 20_001)
    assert (error.reason, "20,000" in error.message) == ("too large", True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused(encoding):
    """Its entities unfold to any size, or name other files."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE x [<!ENTITY e0 "x">{entities}]>'
    with zipfile.ZipFile(io.BytesIO(word_of(p("&amp;")))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    xml = files["word/document.xml"].decode().partition("?>")[2].replace("&amp;", "&e11;")
    files["word/document.xml"] = (bomb + xml).encode(encoding)
    error = error_of(zip_of(files))
    assert error.reason == "docx"
    assert "document type" in error.message


def test_patterns_and_numbers_of_lists_are_bounded():
    """A megabyte of a pattern before each of a thousand paragraphs would be a gigabyte."""
    body = "".join(item("x") for _ in range(1000))
    for format_, pattern, start in (
        ("decimal", "y" * 1_000_000, 1),
        ("upperRoman", "%1.", 2_000_000_000),
        ("lowerLetter", "%1.", 2_000_000_000),
    ):
        lists = numbering(level(format_, pattern, start))
        assert text_of(body, numbering=lists) == "\n\n".join(["x"] * 1000)


def test_open_fields_take_linear_time():
    """Whether text is hidden is counted, and not looked up in all open fields."""
    begin = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    end = begin.replace("begin", "end")

    def work_of(count: int) -> int:
        data = word_of(p(begin * count + r("x") * count + end * count, "shown"))
        with counted_work() as work:
            assert load_docx(data)[0] == "shown"
        return work.calls

    assert work_of(8000) < 2.1 * work_of(4000)


def test_a_workbook_under_the_name_of_a_document_is_named():
    """The error says what was expected, what came, and what to do."""
    with zipfile.ZipFile(io.BytesIO(word_of(p("x")))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["word/document.xml"] = b"<workbook/>"
    error = error_of(zip_of(files))
    assert error.reason == "docx"
    assert "expected a Word document" in error.message
    assert "<workbook>" in error.message
    files["word/document.xml"] = b"<w:document"
    assert "not well-formed" in error_of(zip_of(files)).message


def test_a_part_that_is_locked_in_the_archive_is_named():
    """An archive may have a password of its own."""
    data = bytearray(word_of(p("x")))
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(sign)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(sign, at + 4)
    assert error_of(bytes(data)).reason == "encrypted"
