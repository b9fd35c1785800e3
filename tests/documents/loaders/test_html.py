"""HTML to text."""

import pytest

from ragasync.documents import LoadError, load_html

PAGE = b"""<!doctype html><html><head><title> A &amp;
 B </title><style>p {color: red}</style></head><body><h1>Head</h1><p>One <b>bo</b>ld,
 two.<br>three<script>if (a<b) {}</script><template>no</template></p>
<ul><li>a<li>b</ul><table><tr><td>1<td>2<tr><td>3</table><pre>x
y</pre>caf&eacute;</body></html>"""


def test_a_page_reads_as_a_reader_sees_it():
    """Blocks are paragraphs, lists and rows lines, cells apart; scripts and tags are gone."""
    text, metadata = load_html(PAGE)
    assert text == "# Head\n\nOne bold, two.\nthree\n\na\nb\n\n1 2\n3\n\nx\ny\n\ncaf\xe9"
    assert metadata == {"title": "A & B", "headings": ((0, 1),)}


HEADED = b"""<h1></h1> <p>before<h2><div>First <i>one</i></div></h2><pre>
# no heading</pre><h3>Second<br>line</h3><h4><img></h4>after"""


def test_a_heading_is_marked_and_its_place_told():
    """What only looks like one in code is not told, and one without words is none."""
    text, metadata = load_html(HEADED)
    first, second = metadata["headings"]
    assert text[first[0] :].startswith("## First one\n\n")
    assert text[second[0] :].startswith("### Second\n")
    assert (first[1], second[1]) == (2, 3)
    assert text.endswith("line\n\nafter")
    assert "\n\n# no heading\n\n" in text


def test_preformatted_text_keeps_its_lines_and_spaces():
    """Code in a page stays code."""
    assert load_html(b"<p>a</p><pre>if x:\n    y</pre>")[0] == "a\n\nif x:\n    y"


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ("<meta charset='koi8-r'><p>\u041f\u0440\u0438".encode("koi8-r"), "koi8-r"),
        (b"<meta charset=iso-8859-1><p>caf\xe9 \x80", "cp1252"),
        (b"<meta charset=rot13><p>caf\xe9", "cp1252"),
        (b"<meta charset=utf-8><p>caf\xe9", "cp1252"),
    ],
)
def test_a_page_is_decoded_by_what_it_declares(page, encoding):
    """Unless it is UTF-8, or declares what does not fit or does not exist."""
    assert load_html(page)[1]["encoding"] == encoding


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<title>T<p>text", "text"),
        (b"a</div></p></script>b", "a\n\nb"),
        (b"1 < 2 & 3", "1 < 2 & 3"),
        (b"text <a href='x", "text"),
        (b"", ""),
        (b"<p>a<!-- no --><p>b", "a\n\nb"),
    ],
)
def test_malformed_pages_are_read_as_far_as_they_go(page, text):
    """Nothing is lost to a tag that was left open or never opened."""
    assert load_html(page)[0] == text


SWALLOWING = [
    (b"<p>a<script>x()</script\n\n<!-- c --><p>b<script>y()</script>", "a b"),
    (b"<p>a<script>x()</script data-a='1'><p>b<script>y()</script>", "a b"),
    (b"<style>p {}</style/><p>a", "a"),
    (b"<p>a<![if !IE]><p>b<![endif]--><p>c<![if gt IE 9]><p>d<![endif]>", "a b c d"),
    (b"<!--[if !IE]>--><p>a<![endif]--><p>b<!--[if IE]>no<![endif]--><p>c", "a b c"),
    (b"<p>a<!--><p>b--><p>c", "a b--> c"),
    (b"<p>a<!---><p>b", "a b"),
    (b"<p>a<!-- no --!><p>b<!-- no -- no --><p>c", "a b c"),
    (b"<?xml version='1.0'?><d><t><![CDATA[a <b>b</b>]]></t> <t><![CDATA[c]]></t></d>", "a b c"),
    (b"<p>a[b[0]]>1<p>c", "a[b[0]]>1 c"),
    (b"<p>" + b"word " * 300 + b"a\0b</p>", "word " * 300 + "ab"),
]


@pytest.mark.parametrize(("page", "words"), SWALLOWING)
def test_odd_marks_swallow_no_text(page, words):
    """A script's sloppy end tag, conditions for old browsers, comments, CDATA, a NUL byte."""
    assert " ".join(load_html(page)[0].split()) == words


RUBIES = [
    "<ruby>東京<rt>とうきょう</rt></ruby>タワー",
    "<ruby>東京<rp>(</rp><rt>とうきょう</rt><rp>)</rp></ruby>タワー",
    "<ruby>東<rt>とう</rt>京<rt>きょう</rt></ruby>タワー",
    "<RUBY class=x><rb>東</rb><rt>とう<rb>京</rb><rt>きょう</ruby>タワー",
    "<ruby>東<rt>とう</rt></ruby><ruby>京<rt>きょう</rt></ruby>タワー",
]


@pytest.mark.parametrize("page", RUBIES)
def test_a_word_with_a_reading_stays_whole(page):
    """Its reading follows, also where each character has one of its own."""
    assert load_html(f"<p>a {page}".encode())[0] == "a 東京(とうきょう)タワー"
    assert load_html(f"<p>{page}、<b>{page}</b>".encode())[0].count("東京(とうきょう)") == 2


def test_a_ruby_without_a_reading_or_an_end_is_a_text():
    """Nothing of it is lost."""
    assert load_html("<p><ruby>東京</ruby> <ruby>東京<rt></rt></ruby>".encode())[0] == "東京 東京"
    assert load_html("<p><ruby>東京<p>b".encode())[0] == "東京\n\nb"


def test_a_page_of_many_nul_bytes_is_binary():
    """A browser shows it all the same, but nobody wrote it as a text."""
    with pytest.raises(LoadError, match=r"^binary"):
        load_html(b"<p>" + b"wor\0d " * 300)


@pytest.mark.timeout(20)
def test_open_comments_take_no_square_time():
    """Each of them would look for its end through the whole page."""
    assert load_html(b"a" + b"<!-- b>" * 100_000)[0].startswith("a")
    assert load_html(b"a" + b"<![if b>" * 100_000)[0] == "a"
    assert load_html(b"a" + b"</script b" * 100_000)[0] == "a"
    assert load_html(b"a" + b"<![CDATA[ b" * 100_000)[0].startswith("a")
    assert load_html(b"a" + b"<ruby>b" * 100_000)[0].startswith("a")
    assert load_html(b"a" + b"<ruby><rt>" * 100_000 + b"</ruby>")[0] == "a"


def test_a_malformed_declaration_is_an_error():
    """Where Python's parser gives up, so does the loader, with a reason."""
    with pytest.raises(LoadError, match=r"^html: a malformed declaration"):
        load_html(b"<p>x<![foo[ x ]]>")


@pytest.mark.timeout(20)  # a minute where it is quadratic, half a second where it is not
def test_deep_nesting_and_cut_off_tags_take_no_square_time():
    """Half a megabyte of nested elements, and tags that Python 3.11's parser would choke on."""
    assert load_html(b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000)[0] == "deep"
    assert load_html(b"x" + b"<a " * 20_000)[0] == "x"


# What a browser does not show

UNSEEN = [
    (b"<p>a<p hidden>no<p>b", "a b"),
    (b"<p>a<div hidden><div>no</div>no<img>no</div><p>b", "a b"),
    (b"a <span style='color: red; DISPLAY :none'>no</span> b", "a b"),
    (b"a <span style='visibility:hidden'>no</span> b", "a b"),
    (b"a <span aria-hidden=true>no<br>no</span> b", "a b"),
    (b"<ul><li>a<li hidden>no<ul><li>no</ul>no<li>b</ul>", "a b"),
    (b"<ul><li>a<li hidden>no</ul>b", "a b"),
    (b"<table><tr><td>a<td hidden>no<td>b<tr hidden><td>no<tr><td>c</table>", "a b c"),
    (
        b"a<noscript><b>no</b></noscript> b<template><p>no<template>no</template>no</template>",
        "a b",
    ),
    (b"a <dialog>no</dialog><dialog open>b</dialog>", "a b"),
    (b"<select><option>a<option hidden>no<option>b</select>", "a b"),
    (b"<h2 hidden>no</h2>a<p hidden>no</b>no</p> b", "a b"),
    (b"<body style='display:none'>a <p hidden=until-found>b", "a b"),
    (b"a<p style='no-display:none;content:\"display:none\"'>b", "a b"),
    (b"<input hidden>a <img hidden>b", "a b"),
    (b"<div><span hidden>no</div>a", "a"),
    (b"<p>a <span hidden>no<p>b</p>", "a b"),
    (b"<p>a <span hidden>no<span>no</span><div>b</div>", "a b"),
    (b"<p>a<p>b<div><span hidden><p>no</p>no</span></div>", "a b"),
    (b"<div>a<video src=v </video></div> b", "a b"),
    (b"<div><section hidden>no<i>no</div>a", "a"),
    (b"<b>a <div hidden>no</b>no</div>b", "a b"),
    (b"a<p hidden>no</section>no</p> b", "a b"),
    (
        b"a<video src=v><p>no</p></video> b<audio>no</audio><canvas>no</canvas><iframe>no</iframe>",
        "a b",
    ),
]


@pytest.mark.parametrize(("page", "words"), UNSEEN)
def test_what_a_browser_does_not_show_is_left_out(page, words):
    """By an attribute or a style, also where end tags are left out; what follows is there."""
    text, metadata = load_html(page)
    assert " ".join(text.split()) == words
    assert "headings" not in metadata


def test_fields_of_a_form_do_not_glue_words_together():
    """Each stands apart from what is around it."""
    page = b"<form>One<textarea>two</textarea>three<button>four</button>five</form>"
    assert load_html(page)[0].split() == ["One", "two", "three", "four", "five"]


def test_empty_cells_of_a_table_keep_their_columns():
    """A tab more for each, in front, between and in cells that hold a picture."""
    page = (
        b"<p>T<table><tr><th>a<th>b<th>c<tr><td>1</td><td></td><td>3</td></tr>"
        b"<tr><td> <td><img><td><b>6</b><tr><td>7<td><td></table>"
    )
    lines = [line for line in load_html(page)[0].split("\n") if line]
    assert lines == ["T", "a b c", "1\t\t3", "\t\t6", "7"]


@pytest.mark.timeout(20)
def test_hidden_elements_take_no_square_time():
    """Many that are open, nested, or ended by what was never opened."""
    assert load_html(b"a" + b"<div hidden>" * 50_000 + b"no" + b"</p>" * 50_000)[0] == "a"
    assert load_html(b"<p hidden>" * 50_000 + b"no</p>b")[0] == "b"
