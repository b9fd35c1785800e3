"""
Patterns of secrets: word lists for names and key prefixes, and regular expressions.

They find most secrets, not all. Each expression starts at a cheap sign of a secret, and either
consumes the characters that it reads or reads a bounded number of them. So the time is linear in
the length of the text, even if an attacker wrote it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
"""The start and the end of a part of a text."""


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


NAME_STARTS = (
    *("token", "key", "secret", "pass", "pw", "jwt", "cookie", "auth", "credential", "sig", "sess"),
)
"""The beginnings of the last words of secrets' names, in lower case."""

SECRET_KEYS = _words(
    "api access secret private account subscription signing encryption master auth service shared "
    "storage client admin webhook license deploy ssh rest openai anthropic cohere voyage pinecone "
    "mistral groq azure nvidia replicate huggingface hf together jina google gemini qdrant "
    "weaviate milvus tavily serper langsmith deepseek xai aws slack github stripe sendgrid llm"
)
"""Words before `key` in the names of secrets, whatever the value looks like."""

LOOKUP_KEYS = _words(
    "sort partition primary foreign cache group row dict lookup idempotency object public index "
    "hash join dedup unique order composite surrogate range routing shard message record s3 blob "
    "map json item document doc metadata attribute field column event registry missing duplicate "
    "filter facet bucket root parent child config dataset task job chunk node edge batch"
)
"""Words before `key` in the names of lookup keys."""

TEXT_TOKENS = _words(
    "next nextpage page nextsync continuation pad eos bos cls unk sep mask stop start end special "
    "prompt completion cached reasoning total max min num n per image text input output first last "
    "cursor unexpected current previous invalid illegal pagination skip separator word"
)
"""Words before `token` for a piece of text, or a position in a listing."""

WORDS_ABOUT_SECRETS = _words(
    "required missing invalid incorrect wrong expired empty none null unset unknown denied failed "
    "rejected revoked optional given provided redacted hidden masked yes no true false must is was "
    "not field this that the should cannot too unauthorized forbidden mandatory absent set str "
    "string bytes int value text mismatch changed reset protected needed default blank weak strong "
    "short long ok undefined nil disabled enabled malformed please enter unsupported exceeded "
    "available unavailable accepted to in and or for has have are will were with of on from as at "
    "by if flag flags option options argument arguments here there instead"
)
"""Words that an error message says about a password."""

PREFIX_ENDS = "-_."
"""Separators after a vendor's prefix; each is a rule of its own, which is faster than one rule."""

SURE_PREFIXES = _words("sk pk rk xoxa xoxb xoxe xoxp xoxr xoxs glpat github")
"""Vendors' key prefixes up to the first separator; a few further characters suffice."""

KEY_PREFIXES = _words(
    "xapp gldt ghp gho ghu ghs ghr hf gsk pcsk nvapi r8 npm hvs hvb hvr xai tvly lsv2 whsec dop "
    "doo dor ya29 pplx csk jina tgp pypi shpat shpss sbp ntn glsa dckr figd sntrys sntryu phx SG "
    "esecret rpa GOCSPX llx e2b pscale"
)
"""Vendors' key prefixes that a longer run of characters must follow."""

COMMON_PREFIXES = _words("pa al api key secret sb fw fc lin ops rnd pat pul KEY")
"""Vendors' key prefixes that are also common words: the rest must be long and look random."""


def _behind(words: tuple[str, ...]) -> str:
    """Return a look-behind for one of these words and one further character."""
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(word), []).append(word)
    return "|".join(f"(?<=(?:{'|'.join(some)}).)" for some in by_length.values())


_AFTER_PREFIX = _behind(SURE_PREFIXES + KEY_PREFIXES + COMMON_PREFIXES)

_LAST_WORD = r"""authorization | passphrase | passw(?:or)?d | pass | pwd? | jwt | secret | token
    | key | cookie | credential | signature | sig | auth | session_?id | sessid"""
"""The last words of secrets' names, in lower case."""

_NAME_SUFFIXES = """prod(?:uction)? | prd | dev(?:elopment)? | test | staging | stage | live | local
    | backup | old | new | main | primary | secondary | default"""
"""Suffixes after the last word of a name."""

_QUOTES = r"""%2[27] | &quot; | &\#3[49]; | \\{1,4}u002[27]"""
_SIGNS = r"""%3[ad] | \\{1,4}u003[ad]"""
_BREAK = r"""(?: \n | \\{1,4}n )"""
"""Quotes, equals signs and line breaks, as escaped in URLs, HTML, JSON and reprs."""

_ALL = {
    # The last word of a name, if something follows that may lead to a value.
    "name": rf"""
        (?P<word> {_LAST_WORD} )
        (?P<suffix> s | [_-]?\d{{1,2}} | _?id | [_-] (?: {_NAME_SUFFIXES} ) )? (?! [\w-] )
        (?= (?: \\*+ ["'`] | {_QUOTES} )? \]? (?: [ \t] | %20 ){{0,4}} (?: [:=](?!=) | {_SIGNS} )
        | \\*+ ["'] ,?[ ]? \\*+ ["']? value\b
        | \\*+ ["'] [ ]?,?[ ]? (?: [\])], | b?\\*+["'] )
        | > | (?: \.\w{{1,40}} ){{0,3}} {_BREAK} [ ][ ]\S | [ ][\w.-]+=
        | \\*+ ["'`]? (?: [ ](?:is|was|value|given|used|sent|provided|supplied) ){{0,2}} :?
            [ ]{{1,2}} \(? \\*+ ["'`]? (?= [a-z+/_=.~!-]*+ \d ) [\w+/=.~!-]{{7}} )""",
    # A name as a command-line option, with what may separate it from its value.
    "argument": rf"""
        -- (?: [\w]{{1,20}} - ){{0,3}} (?P<word> {_LAST_WORD} ) (?P<suffix>)
        (?: [ ]{{1,2}} (?! [-<\[({{|] ) | \\*+ ["'] ,[ ]? (?= b?\\*+["'][^-] ) )""",
    # Between a name and its value: in a header, a dict, JSON, a query or a call.
    "sign": rf"""
        (?: \\*+ ["'`] | {_QUOTES} )? \]? (?: [ \t] | %20 ){{0,4}}
        (?: => | := | :(?!=) | =(?! = | [ ]{{1,4}} [a-z_]\w{{0,30}}=\w ) | {_SIGNS} )
        (?P<space> (?: [ \t] | %20 ){{0,4}} )""",
    # Between an annotated argument and its default: `api_key: str | None = "a1b2"`.
    "annotated": r"""
        :[ ]? (?-i: str | bytes | (?: \w{1,40} \. )? [A-Z][a-z]\w{1,40} )
        (?: \[ [\w., |\[]{0,60} \]{1,3} )? (?: [ ]?\|[ ]? [a-zA-Z]\w{0,40} ){0,4}
        [ ]?=[ ]? (?= b?["'] ) (?P<space>)""",
    # Between a name in one field and its value in the next, in JSON or XML.
    "separate field": r"""
        \\*+ ["'] ,?[ ]? \\*+ ["']? value \\*+ ["']? [ ]?[:=][ ]? (?= b?\\*+["'] ) (?P<space>)""",
    # In a tuple, and in XML.
    "pair": r"""\\*+ ["'] ,[ ]? (?= b? \\*+ ["'] ) (?P<space>)""",
    "pair in a list": r"""
        \\*+ ["'] ,[ ]? (?= b?\\*+["'] (?! [a-z_]*+ \\*+["'] ) [^"'\\\n]{1,200}+ \\*+["'] \s?\] )
        (?P<space>)""",
    "element": r"> (?P<space>)",
    # From a field of a model to the input value that pydantic or FastAPI rejected there.
    "input value": rf"""
        (?: (?: \.\w{{1,40}} ){{0,3}} {_BREAK} [ ]{{2}} (?: (?! {_BREAK} ) . ){{0,600}}?
            \[type=\w{{1,80}},[ ] input_value=
        | \\{{0,3}}["'] [ ]? ,? [ ]? [\])] , [^\n]{{0,400}}?
            \\{{0,3}}["']input\\{{0,3}}["']: [ ]? )
        (?P<space>)""",
    # A value that a sentence mentions: `invalid token 'a1b2'`, `API key provided: a1b2`.
    "mention": r"""
        \\{0,3}["'`]? (?: [ ](?:is|was|value|given|used|sent|provided|supplied) ){0,2} :?
        [ ]{1,2} \(? \\{0,3} ["'`]? (?P<mention> [A-Za-z0-9+/_=.~!-]{7,}+ )""",
    # A value in quotes, up to the closing quote or, in a text that was cut, the end of the line.
    "quoted": rf"""
        (?P<entity> {_QUOTES} ) (?P<encoded> (?: (?! (?P=entity) ) \S )*+ ) |
        (?: [a-z]\w{{0,40}}\( | [(\[]{{1,2}} )? [bruf]{{0,2}}
        (?: (?P<quote> ["'`] ) (?! [ ] | [,:;)\]}}>] (?: $ | [\s,:;)\]}}] ) )  # it closes, there
            (?P<quoted> (?: \\. | (?! (?P=quote) ) [^\\\n] )*+ )
        | (?P<escape> \\++ ["'] )
            (?P<escaped> (?: (?! (?P=escape) ) (?: \\{{2,}}+ . | [^\n] ) )*+ ) )""",
    # A value without quotes, which ends at a space, an ampersand or a quote.
    "bare": r"""
        (?: [|>][-+]?\n[ ]{1,8} )? (?! \*{3}@ )
        (?P<bare> \{ [^{}\s"']{0,100} \} [^\s"'`&;\\]*+ | [^\s"'`&;\\<]++ )""",
    "rest": r"""[^\s"'`&;\\<]++""",
    # All values of a list or dict.
    "several": r"(?P<several> [\[({] [^\[\](){}\n]{1,2000} )",
    # The values of the headers Authorization and Cookie.
    "credentials": r"""
        [\[(]{0,2} (?: b (?= \\*+ ["'] ) )? \\*+ ["']?
        (?P<credentials> (?: digest | oauth | hawk | aws4-[\w-]++ ) [ ] [^\r\n]*+
        | (?: (?: bearer | basic | token | apikey | api-key | negotiate | ntlm | key ) [ ]++ )?
            [^\s"'\\]++ )""",
    "crumbs": r"""
        b? \\*+ ["'] (?P<quoted_crumbs> [\w.-]++ = [^\r\n"'\\]*+ )
        | (?P<crumbs> [\w.-]++ = [^\r\n]*+ )""",
    "crumb": r"""[ ] [\w.-]{1,60} = (?P<crumb> [^\s;,>]++ )""",
    # A frame of a traceback with its lines of code, where only literals can be secrets.
    "frame": r"""
        ^ [ |+]*+ File[ ]"[^"\n]*+",[ ]line[ ]\d++ [^\n]*+
        (?: \n [ |+]*+ (?<=[ ]{4}) [^\n]*+ )*+""",
    "address": r"""
        :// (?: [^\s:/@'"<>\[\\]{0,128}+ : (?! \d{1,5} [/?\#] )
            (?P<password> [^\s/?\#'"<>]* (?=@)
                | [^\s@'"<>]{1,256} (?: @ [^\s/?\#@'"<>]*+ )* (?=@) )
        | (?P<user> [^\s:/@'"<>?\#\[\\]{8,256}+ ) (?=@) )""",
    "login": r"""
        (?<=\s) (?:-u|--user) [ =] ["']? (?! \d{1,10}:\d{1,10} (?!\S) ) [\w.@-]{1,64}:
        (?P<login> [^\s"']{1,200}+ )""",
    "command": r"""
        sshpass [ ]{1,2} -p [ ]? ["']? (?P<sshpass> [^\s"']{1,200}+ )
        | mysql\w{0,12} (?: [ ] [^\s]{1,60} ){0,8}? [ ]-p["']? (?! ort | assword )
            (?P<mysql> [^\s"']{1,200}+ )""",
    # URLs that are secrets themselves: of webhooks, and of bots.
    "hook": r"""
        /services/T\w{1,40}/B\w{1,40}/ (?P<slack> \w{8,}+ )
        | /webhooks/\d{1,40}/ (?P<discord> [\w-]{16,}+ )
        | /bot\d{1,40}: (?P<telegram> [\w-]{3,}+ )""",
    "wrapped": r"""Secret(?:Str|Bytes)\( b?["'] (?P<wrapped> [^"'\n]{1,200}+ )""",
    # The user and password of BasicAuth, and of requests.
    "auth": r"""
        [Aa]uth=? \( \s{0,2} b? (["']) [^"'\n]{0,200} \1 ,\s{0,2} b? ["']
        (?P<second> [^"'\n]{1,200}+ )""",
    "bearer": r"""
        [Bb] (?<! [^\\] [\w-] [Bb] ) earer [ ]++ (?! (?:realm|error|scope|charset)\w*= )
            (?P<bearer> [\w.~+/=-]{3,}+ )""",
    "basic": r"[Bb] (?<! [\w-] [Bb] ) asic [ ]++ (?P<basic> [A-Za-z0-9+/=_-]{6,}+ )",
    "pem": r"""
        -----BEGIN[ ][A-Z0-9 ]{0,40}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
        (?P<pem> [A-Za-z0-9+/=\s\\:,-]++ )""",
    # The separator after a vendor's prefix, the key after it, and keys without a separator.
    **{sign: rf"\{sign} (?= [\w-]{{6}} ) (?: {_AFTER_PREFIX} )" for sign in PREFIX_ENDS},
    "key": r"[\w-]{6,}+ (?: \.[\w-]{6,}+ )*+",
    "run": r"(?= [A-Za-z]*+ [0-9] ) [A-Za-z0-9]{12}",
    "second prefix": r"(?: (?: ant | proj | live | test | pat | pw ) [-_] )",
    "plain": r"""
        [eAdS] (?<! [A-Za-z0-9] . ) (?:
            (?<= e ) yJ (?P<jwt> [\w-]{8,}+ (?: \. [\w-]*+ )*+ )
            | (?<= A ) Iza (?P<google> [\w-]{6,}+ )
            | (?<= A ) (?: KIA | SIA ) (?P<amazon> [A-Za-z0-9]{12,}+ )
            | (?<= d ) api (?P<databricks> [A-Za-z0-9]{24,}+ )
            | (?<= S ) K (?P<twilio> [0-9a-f]{32} ) (?! \w ) )""",
    # An escaped character before a key: \n, \x22, %22, or a terminal colour.
    "escapes": r"""
        (?: \x1b | \\ (?: x1b | u001b | 033 | e ) ) \[ [0-9;]{0,20} m
        | \\ (?: [abfnrtv] | x[0-9a-f]{2} | u[0-9a-f]{4} ) | % (?: 25 ){0,4} [0-9a-f]{2}""",
    "letters": "[A-Za-z]{20,}+",
    # The beginning of a value that is kept to identify it: the scheme, and the prefix of the key.
    "beginning": r"""
        (?: (?: bearer|basic|token|apikey|api-key|negotiate|ntlm|key|digest|oauth|hawk|aws4-\S+ )
            [ ]+ )?
        (?: sk-ant- | sk-proj- | [spr]k- | [spr]k_(?:live|test)_ | xox[a-z]- | gh[pousr]_
            | github_pat_ | glpat- | hf_ | AKIA | ASIA | AIza | eyJ )?""",
    # A harmless value in the position of a secret: nothing, a placeholder, a mask.
    "no secret": r"""
        \** | \.{3} | …? | [\[({<]* | none | null | true | false | undefined | %[srd]
        | \$? \{ [\w.!:\[\]]* \} | \$\w+ | <[\w. -]+>? | \[(?:secure|redacted|masked)\]
        | (?: optional | union | annotated ) \[ .* | secret(?: str | bytes )""",
    "words after bearer": r"""
        and | are | auth | authentication | authorization | credentials? | error | format | has
        | header | not | prefix | required | scheme | the | tokens? | type | was""",
    "digit or run": """
        (?: [A-Za-z]{0,15}+ [^A-Za-z0-9] )*+ (?: [A-Za-z]{0,15}+ [0-9] | [A-Za-z]{16} )""",
    "digit": "[0-9]",
    "change": "[a-z] (?= [0-9A-Z] ) | [A-Z] (?= [0-9] ) | [0-9] (?= [A-Za-z] )",
    # The beginning of a call whose argument `key` is a secret.
    "client": r"(?: client | credentials? | openai | api | auth | embeddings? ) \w*\( [^()]*+ $",
    "algorithm": r"(?: sha | md | base | utf | argon | pbkdf | oauth | x | [rhe]s | aes ) -?\d \w*",
    "uuid": r"[0-9a-f]{8} (?: -[0-9a-f]{4} ){3} -[0-9a-f]{12}",
}

_WITH_CASES = frozenset(
    (*_words("address bearer basic pem key frame name argument change plain"), *PREFIX_ENDS)
)


@cache
def rule(name: str) -> re.Pattern[str]:
    """Return the compiled rule of a name; it is compiled on first use, not at import."""
    flags = re.VERBOSE | re.ASCII | re.MULTILINE
    return re.compile(_ALL[name], flags if name in _WITH_CASES else flags | re.IGNORECASE)


def looks_random(value: str, least: int) -> bool:
    """Return whether a value of at least `least` characters looks like a random secret."""
    if len(value) < least or rule("uuid").fullmatch(value):
        return False
    if not (digits := len(rule("digit").findall(value))):
        return False
    changes = len(rule("change").findall(value))
    # In base 62 or base 16, or at least without the separators of names with several words.
    return changes * 5 >= len(value) or (changes * digits > 3 and value.isalnum())
