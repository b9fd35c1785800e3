"""In which encoding a file is: what proves it, what it declares, and what is only a guess."""

import codecs
import subprocess
import sys
from contextlib import suppress
from functools import partial

import pytest

from ragasync.documents import (
    LOADERS,
    CSVLoader,
    JSONLinesLoader,
    LoadError,
    load_html,
    load_source,
    load_text,
)

BULGARIAN = (
    "Годишен отчет за продажбите през третото тримесечие.\nПриходите растат, а разходите не.\n"
)
JAPANESE = "第三四半期の売上報告書です。\n大阪の会議で使う資料をここに置きます。\n"
CHINESE = "第三季度的销售报告，上海的数据库已经更新。\n请在会议之前阅读这份文件。\n"
KOREAN = "3분기 매출 보고서입니다.\n서울 회의에서 사용할 자료를 여기에 둡니다.\n"
FRENCH = "Le café était fermé, mais la boulangerie d'à côté avait déjà ouvert très tôt.\n"

GUESSED = {"encoding", "encoding_confidence"}


# What proves an encoding


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["Plain words\nof English.\n", FRENCH])
def test_wide_encodings_are_known_by_the_places_of_their_nul_bytes(encoding, text):
    """Windows' tools write them without a byte order mark; nothing about it is a guess."""
    assert load_text(text.encode(encoding)) == (text, {"encoding": encoding})


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [BULGARIAN, JAPANESE, CHINESE, KOREAN])
def test_utf16_with_few_nul_bytes_is_read_and_marked(encoding, text):
    """Only spaces and line ends have NUL bytes there, which is a sign and no proof."""
    found, metadata = load_text(text.encode(encoding))
    assert found == text
    assert metadata["encoding"] == encoding
    assert set(metadata) == GUESSED


@pytest.mark.parametrize(
    "data",
    [
        b"ab\0c",
        b"abc\0def",
        b"A whole sentence of words, and one NUL\0" * 2,
        "Цяло изречение\0 по средата.".encode() + b"!",
        bytes(range(256)) * 4,
        b"\0" * 64,
        b"\x00\x01\x02\x03" * 30,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ],
)
def test_nul_bytes_without_a_pattern_mean_binary(data):
    """Two letters side by side pass for an ideograph, and a text with a NUL for Chinese."""
    with pytest.raises(LoadError, match="binary"):
        load_text(data)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (JAPANESE, "iso2022_jp"),
        (KOREAN, "iso2022_kr"),
        (CHINESE, "hz"),
    ],
)
def test_escape_sequences_are_followed(text, encoding):
    """Old mail is in them, which is ASCII to whoever does not look for escapes."""
    assert load_text(text.encode(encoding)) == (text, {"encoding": encoding})


@pytest.mark.parametrize(
    "data",
    [
        b"One ~{VPND~} is no text in HZ.",
        b"In TeX: see~{page}, and~{ab~} or ~{cd~} for ties.",
        b"HZ opens ~{ and closes ~} its escapes: ~{ and ~}.",
        b"\x1b[31mred\x1b[0m and \x1b[1mbold\x1b[0m\n",
        b"a stray \x1b$B at the end",
        b"\x1b$B\x1b$B$",
        b"\x1b$)C\x0e\x0e\x0f\x0f",
    ],
)
def test_what_only_looks_like_escapes_stays_ascii(data):
    """The whole file has to fit, with several escapes that lead to letters."""
    assert load_text(data) == (data.decode("ascii"), {})


def test_the_mark_of_gb18030_is_known():
    """It is rare, and it is a proof like the others."""
    data = ("\ufeff" + CHINESE).encode("gb18030")
    assert load_text(data) == (CHINESE, {"encoding": "gb18030"})


@pytest.mark.parametrize("text", [BULGARIAN, JAPANESE, CHINESE, KOREAN, FRENCH, "½", "🙂"])
def test_strict_utf8_needs_no_mark(text):
    """Other encodings do not pass for it."""
    assert load_text(text.encode()) == (text, {})


def test_utf8_goes_over_a_declaration_of_something_else():
    """Pages are converted, and their old declarations stay."""
    text = '<?xml version="1.0" encoding="windows-1251"?><a>né</a>'
    assert load_text(text.encode()) == (text, {})


# What a text declares


@pytest.mark.parametrize(
    ("head", "named", "encoding"),
    [
        ('<?xml version="1.0" encoding="{}"?>\n<a>', "ISO-8859-2", "iso8859-2"),
        ("<?xml version='1.0' encoding = '{}' standalone='yes'?><a>", "windows-1250", "cp1250"),
        ("<html><head><meta charset={}>", "windows-1250", "cp1250"),
        (
            '<meta content="text/html; charset={}" http-equiv="Content-Type"/>',
            "ISO-8859-2",
            "iso8859-2",
        ),
        ("# -*- coding: {} -*-\n", "iso-8859-2", "iso8859-2"),
        ("#!/usr/bin/python\n# vim: set fileencoding={} :\n", "cp1250", "cp1250"),
        ('@charset "{}";\n', "iso-8859-2", "iso8859-2"),
    ],
)
def test_a_declaration_is_believed_if_it_is_true_of_every_byte(head, named, encoding):
    """XML, HTML, Python and CSS, in any text; no guess is needed."""
    text = head.format(named) + "Zażółć gęślą jaźń, proszę."
    assert load_text(text.encode(encoding)) == (text, {"encoding": encoding})


@pytest.mark.parametrize(
    ("named", "written", "text"),
    [
        ("gb2312", "gb18030", "朱镕基的报告〇"),
        ("gbk", "gb18030", "㐀这份文件𠀀"),
        ("shift_jis", "cp932", "①番の資料～髙橋"),
        ("euc-kr", "cp949", "똠방각하의 보고서"),
        ("iso-8859-1", "cp1252", "“naïve” – 5 €"),
        ("us-ascii", "cp1252", "naïve"),
        ("iso-8859-9", "cp1254", "“Şişli” – güneş"),
        ("big5", "big5hkscs", "嘅報告㗎"),
    ],
)
def test_declared_encodings_are_read_by_their_supersets(named, written, text):
    """As browsers do, because files that name the smaller one are written in the larger."""
    page = f'<meta charset="{named}"><p>{text}</p>'
    assert load_html(page.encode(written)) == (text, {"encoding": written})


@pytest.mark.parametrize(
    "named",
    ["utf-8", "utf-16", "nonsense", "rot13", "zlib", "unicode_escape", "utf-7", "shift_jis"],
)
def test_a_false_declaration_is_not_believed(named):
    """The rest of the rules decides, and says that it guessed."""
    text = f'<meta charset="{named}">\n{FRENCH * 3}'
    found, metadata = load_text(text.encode("cp1252"))
    assert found == text
    assert set(metadata) == GUESSED


def test_a_declaration_that_makes_control_characters_is_not_believed():
    """Single-byte encodings take every byte, but no text has C1 controls."""
    text = f'<?xml version="1.0" encoding="iso-8859-2"?>\n{BULGARIAN * 2}'
    found, metadata = load_text(text.encode("cp866"))
    assert found == text
    assert set(metadata) == GUESSED


def test_a_declaration_is_looked_for_at_the_start_alone():
    """A page about encodings has examples."""
    text = "x" * 5_000 + f'\n<meta charset="koi8-r">\n{BULGARIAN * 3}'
    found, metadata = load_text(text.encode("cp1251"))
    assert found == text
    assert set(metadata) == GUESSED


def test_ascii_needs_no_mark_whatever_it_declares():
    """Its text is the same in all of them."""
    text = '<?xml version="1.0" encoding="windows-1251"?><a/>'
    assert load_text(text.encode()) == (text, {})


# UTF-8 with bad bytes


@pytest.mark.parametrize("bad", [b"\xff", b"\xe9", b"\xc3", b"\xe4\xb8", b"\xed\xa0\x80"])
@pytest.mark.parametrize("text", [BULGARIAN, JAPANESE, CHINESE, KOREAN, FRENCH * 5])
def test_a_stray_byte_does_not_make_mojibake_of_a_whole_text(text, bad):
    """It becomes U+FFFD, and how many there were is counted in bytes."""
    found, metadata = load_text(text.encode() + bad + b"\n" + text.encode())
    assert found.replace("\ufffd", "") == text + "\n" + text
    assert "\ufffd" in found
    assert metadata == {"replaced_bytes": len(bad)}


@pytest.mark.parametrize(
    "head",
    [b'<meta charset="utf-8">', b"<?xml version='1.0' encoding='UTF-8'?>", b"# coding: utf-8\n"],
)
def test_a_text_that_declares_utf8_needs_less_proof(head):
    """An English page has few letters beyond ASCII: a bad byte makes no mojibake of it."""
    words = "“quoted” words, a café".encode()
    text, metadata = load_text(head + words + b" cut\xe2\x80 off")
    assert text == head.decode() + "“quoted” words, a café cut\ufffd off"
    assert metadata == {"replaced_bytes": 2}
    # Latin-1 that only says so is read as what it is.
    assert load_text(head + "déjà vu à l'été".encode("cp1252"))[1]["encoding"] == "cp1252"


def test_a_stray_byte_behind_the_mark_of_utf8_is_counted_too():
    """The mark says UTF-8, and so does the rest."""
    data = codecs.BOM_UTF8 + CHINESE.encode() + b"\xff"
    assert load_text(data) == (CHINESE + "\ufffd", {"replaced_bytes": 1})


def test_replacement_characters_that_were_there_are_not_counted():
    """They were somebody else's losses."""
    text = CHINESE + "\ufffd\ufffd"
    assert load_text(text.encode() + b"\xff") == (text + "\ufffd", {"replaced_bytes": 1})


def test_some_bytes_that_happen_to_be_utf8_do_not_make_it_that():
    """Valid sequences must far outnumber the bad bytes."""
    text = "Â© Ã¼ " + FRENCH * 3
    found, metadata = load_text(text.encode("cp1252"))
    assert found == text
    assert metadata["encoding"] == "cp1252"


# Guesses


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (BULGARIAN, "cp1251"),
        (BULGARIAN, "koi8-r"),
        (BULGARIAN, "cp866"),
        (BULGARIAN, "iso8859-5"),
        ("Здравей, свят!", "cp1251"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        ("こんにちは", "euc_jp"),
        (CHINESE, "gb18030"),
        ("数据库", "gb18030"),
        ("第三季度銷售報告：台北的資料庫已經更新，請閱讀這份文件。", "big5hkscs"),
        (KOREAN, "cp949"),
        # Two syllables that EUC-KR spells out, in eight bytes each.
        ("파이썬은 배우기 쉽고, 강력한 언어입니다. 효율적인 자료 구조. 뷁 쓔쓩", "euc_kr"),
        (FRENCH, "cp1252"),
        ("né", "cp1252"),
        ("Price: £5", "cp1252"),
        ("Zażółć gęślą jaźń, proszę państwa o uwagę. ", "cp1250"),
        ("דוח מכירות לרבעון השלישי", "cp1255"),
        ("تقرير المبيعات للربع الثالث من السنة", "cp1256"),
        ("Η ταχεία αλεπού πηδά πάνω από το σκυλί", "cp1253"),
        ("รายงานการขายไตรมาสที่สาม", "cp874"),
    ],
)
def test_a_text_without_any_sign_is_guessed_and_marked(text, encoding):
    """Whatever is not certain says so, with its confidence."""
    found, metadata = load_text(text.encode(encoding))
    assert found == text
    assert set(metadata) == GUESSED
    assert metadata["encoding"].replace("_", "-") == encoding.replace("_", "-")
    assert 0 < metadata["encoding_confidence"] < 1


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Wójt gminy ogłosił przetarg na budowę dróg; żółte ściany, świeży chleb.", "iso8859-2"),
        (
            "Žádost o stavební povolení byla zamítnuta, protože chyběly důležité přílohy.",
            "iso8859-2",
        ),
        ("Žiadosť o stavebné povolenie zamietli, lebo chýbali dôležité prílohy ľudí.", "iso8859-2"),
        ("A főorvos szerint a műtét után erősödő fájdalmat üdítő jógával győzték le.", "cp1250"),
        ("A főorvos szerint a műtét után erősödő fájdalmat üdítő jógával győzték le.", "iso8859-2"),
        ("Başvuru reddedildi, çünkü gerekli belgelerin çoğu eksikti; görüşme yarın.", "cp1254"),
        ("Œuvre complète : l’été déjà passé, les élèves ont quitté le lycée.", "cp1252"),
        ("Prašymą statyti namą atmetė, nes trūko svarbių priedų; žmonės nustebo.", "cp1257"),
        ("Lūgums būvēt māju tika noraidīts, jo trūka svarīgu pielikumu; šķiet žēl.", "cp1257"),
        ("Þau sögðu að það væri hægt að fá leyfi á miðvikudaginn í næstu viku.", "cp1252"),
        ("Đorđe Čvorović je predao zahtjev za građevinsku dozvolu, žureći kući.", "cp1250"),
    ],
)
def test_languages_that_share_letters_are_told_apart(text, encoding):
    """By letters that no language has together, and by signs that stand in no word."""
    for times in (1, 30):
        found, metadata = load_text((text * times).encode(encoding))
        assert found == text * times
        assert set(metadata) == GUESSED


@pytest.mark.parametrize(
    "text",
    [
        "名前,都市\n太郎,東京\n",
        "氏名,住所,電話\n鈴木一郎,大阪市北区,06-1234-5678\n佐藤花子,京都市左京区,075-111-2222\n",
        "第三回議事録 東京支社 出席者 山田太郎",
    ],
)
def test_a_japanese_table_without_kana_is_not_read_as_korean(text):
    """Names and addresses are kanji alone, and such files are written by every spreadsheet."""
    assert load_text(text.encode("cp932"))[0] == text
    assert load_text((text * 50).encode("cp932"))[0] == text * 50


def test_a_guess_from_little_is_less_certain():
    """Three letters tell less than three pages."""
    confidences = [
        load_text((BULGARIAN * times).encode("cp1251"))[1]["encoding_confidence"]
        for times in (1, 30)
    ]
    few = load_text("Отчет".encode("cp1251"))[1]["encoding_confidence"]
    assert few < min(confidences)


def test_a_guess_looks_at_the_lines_that_tell_something():
    """The first megabyte is ASCII, and the end of the part must cut no character."""
    text = "plain words of English\n" * 50_000 + CHINESE * 10_000
    found, metadata = load_text(text.encode("gb18030"))
    assert found == text
    assert metadata["encoding"] == "gb18030"


def test_bytes_that_nothing_is_likely_to_explain_are_an_error_with_advice():
    """The byte is named, and the way to say what it is."""
    data = bytes(range(1, 256)) * 4
    with pytest.raises(
        LoadError, match=r"^encoding: .*0x80 in position 127.*encoding=\""
    ) as caught:
        load_text(data)
    assert caught.value.reason == "encoding"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 5_000_000,
        b" " * 5_000_000 + b"\xe9",
        b"<meta " * 500_000 + b"\xe9",
        b"<?xml " * 500_000 + b"\xe9",
        b"#\n" * 1_000_000 + b"\xe9",
        b"\x1b$B" * 1_000_000,
        b"~{" * 1_000_000,
        b"~{VP" * 1_000_000,
        CHINESE.encode() * 30_000 + b"\xff",
        "".join(map(chr, range(0x4E00, 0x9000))).encode() * 30 + b"\xff",
        "".join(map(chr, range(0x4E00, 0x9000))).encode("gb18030") * 30,
        ("\n" + "".join(map(chr, range(0x4E00, 0x9000))) * 30).encode("utf-16-le"),
    ],
    ids=[
        "high",
        "spaces",
        "meta",
        "xml",
        "hashes",
        "escapes",
        "open",
        "hz",
        "one bad",
        "many kinds",
        "gb18030",
        "utf-16",
    ],
)
def test_the_encoding_of_any_text_is_found_in_linear_time(data):
    """Whatever a file claims; quadratic time would exceed the timeout."""
    with suppress(LoadError):
        load_text(data)


def test_charset_normalizer_is_imported_only_for_a_guess():
    """Most runs never meet a file that needs it."""
    code = (
        "import sys; from ragasync.documents import load_text; load_text(b'a'); "
        "assert 'charset_normalizer' not in sys.modules; load_text('наука'.encode('cp1251')); "
        "assert 'charset_normalizer' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


# What the user says


@pytest.mark.parametrize("load", [load_text, load_html])
def test_an_encoding_that_is_given_is_the_only_one_tried(load):
    """Also over a byte order mark's or a declaration's claims; it is no guess."""
    assert load("né".encode("cp850"), encoding="cp850") == ("né", {"encoding": "cp850"})
    assert load("né".encode("utf-8-sig"), encoding="utf-8") == ("né", {})


def test_a_given_encoding_that_does_not_fit_names_the_byte_and_the_way_out():
    """It is an error, whatever else would fit."""
    with pytest.raises(
        LoadError, match=r"encoding='utf-8': .*0xe9 in position 1.*leave `encoding` out"
    ):
        load_text("né".encode("cp1252"), encoding="utf-8")


@pytest.mark.parametrize("name", ["nonsense", "rot13", "zlib", "", "a\0b", "näme"])
def test_a_given_encoding_that_is_none_is_an_error(name):
    """The name is shown."""
    with pytest.raises(LoadError, match="no text encoding that Python knows"):
        load_text(b"a", encoding=name)


@pytest.mark.parametrize(
    ("suffix", "loader", "text"),
    [
        (".csv", CSVLoader(encoding="koi8-r"), "a,b\nПривет,x\n"),
        (".jsonl", JSONLinesLoader(encoding="koi8-r"), '{"a": "Привет"}\n'),
    ],
)
def test_tables_are_read_in_the_encoding_that_is_given(tmp_path, suffix, loader, text):
    """Each of their documents says in which it was."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(text.encode("koi8-r"))
    (document,) = load_source(path, loaders={**LOADERS, suffix: loader})
    assert "Привет" in document.text
    assert document.metadata["encoding"] == "koi8-r"


def test_a_guess_is_marked_in_each_row_of_a_table(tmp_path):
    """A row is what is found, and it has to say that its letters may be wrong."""
    (tmp_path / "a.csv").write_bytes(
        "name,text\nanna,Привет на всички\nboris,Добър ден\n".encode("cp1251")
    )
    (tmp_path / "a.jsonl").write_bytes('{"a": "Добър ден"}\n{"a": "Привет"}\n'.encode("cp1251"))
    for name in ("a.csv", "a.jsonl"):
        documents = load_source(tmp_path / name)
        assert [document.metadata["encoding"] for document in documents] == ["cp1251"] * 2
        assert all("encoding_confidence" in document.metadata for document in documents)


def test_the_advice_of_the_error_works(tmp_path):
    """`partial(load_text, encoding=...)` as the loader of a suffix."""
    path = tmp_path / "a.txt"
    path.write_bytes("Über".encode("cp850"))
    loaders = {**LOADERS, ".txt": partial(load_text, encoding="cp850")}
    assert load_source(path, loaders=loaders).text == "Über"
