"""The words of a text in any script, for the index and for what is searched for."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

# Internals: conditions and words of a search, without a store.
from ragasync.documents.search_text import indexed_text, query_words, stem, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Retry_after 3 times", ["retry", "after", "3", "times"]),
        ("数据库", ["数据", "据库", "库"]),
        ("用SQLite存", ["用", "sqlite", "存"]),
        ("東京。大阪、", ["東京", "京", "大阪", "阪"]),
        ("ﾃﾞｰﾀ", ["デー", "ータ", "タ"]),
        ("서울에", ["서울", "울에", "에"]),
        ("ที่นี่", ["ที่นี่", "นี่"]),
        ("भाषा हिन्दी", ["भाषा", "हिन्दी"]),
        ("cafe\u0301 ﬁne ＡＢＣ", ["cafe", "fine", "abc"]),
        ("и\u0306од", ["йод"]),
        ("data\u00adbase", ["database"]),
        ("नमस्\u200dते", ["नमस्ते"]),
        ("❤\ufe0fyes", ["yes"]),
        ("Ёлка, КОТОРАЯ стоит!", ["ёлк", "которая", "стоит"]),
    ],
)
def test_the_words_of_a_text(text, words):
    """Spaces part words where there are any; elsewhere two neighbours are one."""
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("سَيَّارَةٌ", "سيارة"),
        ("ســيــارة", "سيارة"),
        ("إِسْلَام أَحْمَد آمَنَ", "اسلام احمد امن"),
        ("ٱلرَّحْمَٰنِ", "الرحمن"),
        ("کتابی", "كتابي"),
        ("בְּרֵאשִׁ֖ית בָּרָ֣א", "בראשית ברא"),
        ("ﬡבא שׁוב", "אבא שוב"),
        ("ܫܠܳܡܳܐ", "ܫܠܡܐ"),
        ("Việt Nam, Đà Nẵng", "viet nam da nang"),
        ("Ærø, Łódź, Straße, İzmir", "aero lodz strasse izmir"),
        ("ΟΔΌΣ Αθήνα", "οδοσ αθηνα"),
        ("за\u0301мок", "замок"),
        ("всѐ ѝ", "все и"),
        ("अ\u0951ग्निम्", "अग्निम्"),
    ],
)
def test_what_people_leave_out_when_they_type_is_no_part_of_a_word(text, plain):
    """Points, vowel signs, tatweel, cantillation and accents, composed or not."""
    assert words_of(text) == words_of(plain)
    assert words_of(unicodedata.normalize("NFD", text)) == words_of(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("कि", "की"),
        ("कम", "काम"),
        ("मा", "माँ"),
        ("ไก", "ไก่"),
        ("ເກາ", "ເກົ່າ"),
        ("ক", "কি"),
        ("க", "கி"),
        ("ދަ", "ދި"),
        ("мой", "мои"),
        ("все", "всё"),
        ("їх", "іх"),
        ("ガス", "カス"),
    ],
)
def test_marks_that_make_another_word_stay(one, other):
    """Vowel and tone signs of Indic scripts, Thai, Lao and Thaana, voiced kana, й, ё and ї."""
    assert words_of(one) != words_of(other)


def test_single_characters_are_given_where_they_are_asked_for():
    """For an index that cannot look for the beginnings of words."""
    assert words_of("数据库 x", singles=True) == ["数据", "据库", "数", "据", "库", "x"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("what is a bucket", ["bucket"]),
        ("to be or not", ["to", "be", "or", "not"]),
        ("bucket and BUCKET", ["bucket"]),
        ("数据库", ["数据", "据库"]),
        ("猫", ["猫"]),
        ("猫がいます", ["猫が"]),
        ("что это за вода", ["вод"]),
        ("къде е водата", ["вод"]),
        ("がいます", ["がい", "いま", "ます"]),
        ("", []),
        ('"*()^:-+{} ___', []),
    ],
)
def test_function_words_are_not_searched_for_unless_there_are_no_others(text, words):
    """Particles and endings of Japanese are such too; no last character is asked for alone."""
    assert query_words(text) == words


def test_of_a_very_long_text_few_words_are_searched_for():
    """The first that differ."""
    words = [f"word{n}" for n in range(100_000)]
    assert query_words(" ".join(words)) == words[:64]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("книга книгата книгите книгу книгой", "книг"),
        ("столове столовете стола", "стол"),
        ("соседи соседей соседями", "сосед"),
        ("апартамент апартаменти апартаментите", "апартамент"),
        ("материал материалы материалов материала", "матер"),
        ("перезапускает перезапуск перезапускать", "перезапуск"),
        ("вода воды водой водата", "вод"),
        ("дом", "дом"),
        ("buckets", "buckets"),
        ("数据", "数据"),
    ],
)
def test_the_stem_of_a_word_is_that_of_its_forms(words, expected):
    """Of Cyrillic words; the indexes know the stems of English ones."""
    assert {stem(word) for word in words.split()} == {expected}


@pytest.mark.parametrize("letter", ["а", "字", "ก", "é", "\u093f", "й\u0306"])
def test_a_word_of_many_letters_takes_no_longer_than_a_text(letter):
    """Whatever its script: no file can hold up a run."""
    text = letter * 200_000
    assert query_words(text)
    assert indexed_text(text) or text


@pytest.mark.parametrize("text", ["a bucket", "Gasse … x\u00a0y", "भाषा", "oui ❤"])
def test_the_index_takes_a_text_as_it_is_where_that_has_the_same_words(text):
    """No text is kept twice without need."""
    assert indexed_text(text) is None


@pytest.mark.parametrize("text", ["数据库", "Größe", "cafe\u0301", "data\u00adbase", "ﬁne", "ไทย"])
def test_the_index_takes_the_words_of_a_text_that_has_others(text):
    """In their order."""
    assert indexed_text(text) == " ".join(words_of(text))


def test_the_index_takes_the_stems_of_cyrillic_words():
    """English ones it finds itself."""
    assert indexed_text("Buckets и столовете") == "buckets и стол"


@given(st.text(st.characters()))
def test_any_text_has_the_words_of_its_normal_forms(text):
    """Composed or not, its words are the same, and each of them is found in the text."""
    words = words_of(text)
    assert words_of(unicodedata.normalize("NFD", text)) == words
    assert set(query_words(text)) <= set(words)
