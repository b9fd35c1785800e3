"""The words of a text, as searches and the hashing embedder see them, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from unicodedata import category

_PLAIN = re.compile(r"[^\W_]+")

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

# More words of a query cost time and find nothing.
_MOST_WORDS = 64

# Han, kana, bopomofo, Hangul, Thai, Lao, Burmese, Khmer, Tai Le, Tai Lue and Tai Tham. Hangul has
# spaces, but its particles are attached to the words.
_UNSPACED = (
    "\u1000-\u103f\u1050-\u109f\u1100-\u11ff\u1780-\u17d3\u1950-\u19c9\u1a20-\u1a7f"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf"
    "\u3005-\u3007\u3021-\u3029\u3041-\u309f\u30a1-\u30fa\u30fc-\u318e\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7ff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}]+")

# Characters within a word that are not drawn: soft hyphens, joiners, variation selectors.
_INVISIBLE = (
    0xAD,
    0x200C,
    0x200D,
    0x2060,
    0xFEFF,
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
)

# What is left out when people type: accents, Hebrew points and cantillation, Arabic and Syriac
# vowel signs and the line that stretches a word, Vedic tones. Vowel signs of Indic scripts, Thai
# and Thaana are letters to those who type them.
_DECORATION = re.compile(
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u0711\u0730-\u074a\u07fa\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff"
    "\u0951-\u0954\u1cd0-\u1cd2\u1cd4-\u1ce0\u1ce2-\u1ce8\u1ced\u1cf4\u1cf7-\u1cf9]"
)

# Latin, Greek and Arabic letters, of which those that have decoration are typed without it.
_DECORATED = (*range(0xC0, 0x250), *range(0x370, 0x400), *range(0x622, 0x6D4))
_DECORATED += tuple(range(0x1E00, 0x2000))

# Letters that no normal form takes apart, and Cyrillic ones with a stress. \u0439, \u0457 and
# \u0451 are letters of their own: with \u0435 for \u0451, less was found in Russian, measured in
# benchmarks/retrieval.py.
_SAME_LETTERS = {
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h",
    "ŧ": "t", "ŋ": "n", "ı": "i", "ς": "σ", "ѐ": "е", "ѝ": "и",
    "ٱ": "ا", "ى": "ي", "ی": "ي", "ک": "ك",
}  # fmt: skip

# Function words of English, and of Russian, Bulgarian and Ukrainian together.
_FUNCTION_WORDS = """
    a about all also an and any are as at be been both but by can do does each for from has have
    how i if in into is it its may more most no not of on only or other our over same so some
    such than that the their them then there these they this those to was we were what when
    where which who why will with would you your
    а але без е будет була були бути бъде бы был было быть в вам вас весь ви во вот все всё вы від
    где го да де делать для до его ему если есть ето ещё же з за и из или им их й к как какая
    какие како какой какую кем ко кога когда кое което които който коли которая которые который
    която кто куда къде ли либо лишь ме между мене меня мне може может можна можно мой му мы між
    на над надо нам нас не него нее ней нет ни ним них но ну нужно о об он она они оно от перед по
    под после при про с са само све се себе себя си сколько след со су съм сюда та так также такой
    там твой те тебя тем тех ти то това тогда того тоже той только том тому ту тут ты тя у уже це
    че чего чем через чи что чтобы ще що эта эти этих это этого этой этом этому этот я як яка який
    які
"""
_FUNCTION_WORD = frozenset(_FUNCTION_WORDS.split())

# Pairs of hiragana are endings and particles; pairs with these Chinese characters are too.
_PARTICLES = re.compile(r"[\u3041-\u309f]{1,2}|.?[的了吗呢吧么].?")

# Endings of nouns, adjectives and verbs of Russian and Bulgarian, and the fewest letters of a stem.
_ENDINGS = """
    овете евете
    ами ями ата ята ото ето ите ого его ому ему ыми ими ает яет ует ают яют уют
    ать ять ить еть уть ала яла ила али яли или
    ой ей ий ый ая яя ое ее ые ие ую юю ою ею ом ем ам ям ах ях ых их ым им ов ев ия ию ии
    ът ят ал ял ил
    а я о е и і ї ы у ю ь й
"""
_CYRILLIC = re.compile(r"[\u0400-\u052f]+")
_ENDING = re.compile(f"(?:{'|'.join(_ENDINGS.split())})$")
_STEM = 3
_LONGEST_ENDING = 5
_MOST_ENDINGS = 4


def words_of(text: str, *, singles: bool = False) -> list[str]:
    """
    Return the lower-cased words of a text, in order.

    The text is normalised by NFKC first, so that composed and decomposed letters, ligatures and
    full-width forms are one. Accents, Hebrew points, Arabic vowel signs and other marks that people
    leave out when they type are removed. A run of a script without spaces between words gives its
    overlapping pairs of characters, and its last character: any two characters of it are a word.
    Other marks belong to the letter in front of them, and Indic vowels to their word. Cyrillic
    words are without their endings; English ones as they are, because the indexes know their stems.

    Args:
        text: Any text.
        singles: Give each character of such a run as well, not only the last.
    """
    if _is_plain(text):
        return _PLAIN.findall(text.lower())
    words = []
    for run in _runs(_normalised(text)):
        if is_unspaced(run):
            characters = _characters(run)
            words += _pairs(characters) + (characters if singles else characters[-1:])
        else:
            words.append(stem(run))
    return words


def indexed_text(text: str) -> str | None:
    """Return the words to index in place of a text, or None where the text itself will do."""
    if _is_plain(text):
        return None
    words = words_of(text)
    return None if words == _split(text.lower()) else " ".join(words)


def query_words(text: str) -> list[str]:
    """
    Return the different words of a text to search for, at most 64, as they are indexed.

    Function words are left out unless there are no others: nearly every chunk has them, and
    ranking them all takes long.
    """
    words: list[str] = []
    for run in _runs(_normalised(text)):
        if is_unspaced(run):
            characters = _characters(run)
            words += _pairs(characters) or characters
        else:
            words.append(stem(run))
    telling = [word for word in words if not is_function_word(word)]
    return [*dict.fromkeys(telling or words)][:_MOST_WORDS]


def stem(word: str) -> str:
    """
    Return a word without its endings where it is Cyrillic, and any other as it is.

    More than one ending is taken off: in Bulgarian, the article follows that of the number.
    """
    if word in _FUNCTION_WORD or not _CYRILLIC.fullmatch(word):
        return word
    for _ in range(_MOST_ENDINGS):
        ending = _ENDING.search(word, max(_STEM, len(word) - _LONGEST_ENDING))
        if ending is None:
            break
        word = word[: ending.start()]
    return word


def is_single(word: str) -> bool:
    """Return whether a word is a single character of a script without spaces."""
    return is_unspaced(word) and len(_characters(word)) == 1


def is_unspaced(word: str) -> bool:
    """Return whether a word is of a script without spaces between words."""
    return _RUN.match(word) is not None


def is_function_word(word: str) -> bool:
    """Return whether a word says little about what a text is about."""
    return word in _FUNCTION_WORD or _PARTICLES.fullmatch(word) is not None


def _is_plain(text: str) -> bool:
    """Whether all letters of a text are ASCII; other characters of it only separate words."""
    return text.isascii() or all(map(_is_separator, set(_NOT_ASCII.findall(text))))


@lru_cache(maxsize=4096)
def _is_separator(character: str) -> bool:
    """Whether a character is no part of a word, and normal forms leave no letter of it."""
    kept = _normalised(character)
    return bool(kept) and not any(category(each)[0] in "LMN" for each in kept + character)


def _normalised(text: str) -> str:
    """Return a text in lower case in which words are as people type them."""
    return unicodedata.normalize("NFKC", text).lower().translate(_folding())


def _runs(text: str) -> list[str]:
    """Return the words of a normalised text, runs without spaces whole."""
    return _split(_RUN.sub(r" \g<0> ", text))


def _split(text: str) -> list[str]:
    """Return the words of a text, each with its marks."""
    has_marks = _patterns()[0].search(text)
    return (_patterns()[1] if has_marks else _PLAIN).findall(text)


def _characters(run: str) -> list[str]:
    """Return the characters of a run, each with the marks that stand on it."""
    return _patterns()[2].findall(run) if _patterns()[0].search(run) else list(run)


def _pairs(characters: Sequence[str]) -> list[str]:
    return [one + other for one, other in pairwise(characters)]


@lru_cache(maxsize=1)
def _folding() -> dict[int, str | None]:
    """Return by what each character is replaced when people type it, None for nothing."""
    same = str.maketrans(_SAME_LETTERS)
    folding: dict[int, str | None] = {**same}
    for code in _DECORATED:
        plain = _DECORATION.sub("", unicodedata.normalize("NFD", chr(code))).translate(same)
        if plain != chr(code):
            folding[code] = plain
    decoration = map(ord, _DECORATION.findall("".join(map(chr, range(0x300, 0xFE30)))))
    return folding | dict.fromkeys([*_INVISIBLE, *decoration])


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return patterns of a mark, a word with marks in it, and a character with its marks."""
    # Python's re knows no classes of characters; this takes some milliseconds, once.
    marks = "".join(chr(c) for c in range(0x300, 0x10000) if category(chr(c))[0] == "M")
    found = rf"[{marks}]", rf"(?:[^\W_]|[{marks}])+", rf".[{marks}]*"
    mark, word, character = (re.compile(each, re.DOTALL) for each in found)
    return mark, word, character
