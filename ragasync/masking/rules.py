"""
The forms in which secrets turn up in texts, as regular expressions.

They are a net and no proof: names that secrets go by, and shapes that keys have. Whatever a rule
reads, it consumes, or reads only so far, and nothing is read again from its next character on. So
the time is linear in the text, whoever wrote it. Each begins with what can be looked for fast. In
each, the last group is the secret, and what stands before it stays.
"""

from __future__ import annotations

import re
from functools import cache

_NAME = r"""(?: authorization | cookie | token | secret | passw(?:or)?d | passphrase | pwd
    | (?: api | access | secret | private | account | subscription | signing | encryption | master
        | auth | service | shared | storage ) [-_\ ]? key )"""

_GIVEN = rf"""{_NAME} \\*+ ["']? [ \t]{{0,4}} (?: => | [:=] (?!=) | %3D ) [ \t]{{0,4}}"""
"""A name and the sign that its value follows: in a header, a dict, JSON, a query or a call."""

_FRAME = r"""
    (?P<frame> ^ [ |+]*+ File[ ]"[^"\n]*+",[ ]line[ ]\d++ [^\n]*+
        (?: \n [ |+]*+ (?<=[ ]{4}) [^\n]*+ )*+ )
"""
"""A frame of a traceback with its lines of code, where only literals can be secrets."""

_QUOTED = rf"""
    (?: {_GIVEN} (?: (?-i:[A-Z])\w{{0,40}}\( | [(\[]{{1,2}} )?
        | (?: \( b? \\*+ ["'] | ["']-- ) [\w-]{{0,40}}? {_NAME} \\*+ ["'] ,[ ]? (?=[^-]{{3}}) )
    [bruf]{{0,2}}
    (?: (?P<quote> ["'] ) (?! [ ] | [,:;)\]}}>] (?: $ | [\s,:;)\]}}] ) )  # that one is no opening
        (?P<quoted> (?: \\. | (?! (?P=quote) ) [^\\\n] )*+ )
    | (?P<escape> \\++ ["'] ) (?P<escaped> (?: (?! (?P=escape) ) (?: \\{{2,}}+ . | [^\n] ) )*+ ) )
"""
"""A value in quotes, up to the closing one or, in a text that was cut, to the end of the line."""

_BARE = rf"""
    authorization [ \t]{{0,4}} [:=] [ \t]{{0,4}}
        (?P<credentials> (?: digest | oauth | hawk | aws4-[\w-]++ ) [ ] [^\r\n]*+
        | (?: (?: bearer | basic | token | apikey | api-key | negotiate | ntlm | key ) [ ]++ )?
            [^\s"'\\]++ )
    | cookie: [ ]? (?P<crumbs> [\w.-]++ = [^\r\n"'\\]*+ )
    | (?: {_GIVEN} | (?<= [?&;] ) (?: key | sig | signature | auth | pass
        | x-(?:amz|goog)-(?:signature|credential) ) = ) (?! \*{{3}}@ )
        (?P<bare> \{{ [^{{}}\s"']{{0,100}} \}} (?: [^\s"'&;\\]* [^\s"'&;\\,.:)\]}}>] )?
            | [^\s"'&;\\]* [^\s"'&;\\,.:)\]}}>] )
"""
"""A value without quotes, which ends where a space does, or an ampersand, or the punctuation."""

_NAMED = r"""
    (?: authorization | cookie | token | secret | passw | passphrase | pwd | key ) (?:or)? d?
        \\* ["']? [ \t]{0,4} (?: [:=,] | %3d )
    | [?&;] (?: key | sig | signature | auth | pass | x-amz-[sc] | x-goog-[sc] )
"""
"""What a text in lower case has where a name with its value is worth to be looked for."""

_ADDRESS = r"""
    :// [^\s:/@'"<>\[\\]{0,128}+ : (?! \d{1,5} [/?\#] )
        (?P<password> [^\s/?\#'"<>]* (?=@)
            | [^\s@'"<>]{1,256} (?: @ [^\s/?\#@'"<>]*+ )* (?=@) )
"""
_BEARER = r"""
    [Bb] (?<! [\w-] [Bb] ) earer [ ]++ (?! (?:realm|error|scope|charset)\w*= )
        (?P<bearer> [\w.~+/=-]{3,}+ )
"""
_BASIC = r"[Bb] (?<! [\w-] [Bb] ) asic [ ]++ (?P<basic> [A-Za-z0-9+/=_-]{6,}+ )"
_PEM = r"""
    -----BEGIN[ ][A-Z0-9 ]{0,40}PRIVATE[ ]KEY----- (?P<pem> [A-Za-z0-9+/=\s\\:,-]++ )
"""
_KEY = r"""
    [esprxgAh] (?<! [A-Za-z0-9] . ) (?:
        (?<= e ) yJ (?P<jwt> [\w-]{8,}+ (?: \. [\w-]*+ )*+ )
        | (?: (?<= s ) k- (?: ant- | proj- )? | (?<= [pr] ) k- | (?<= [spr] ) k_(?:live|test)_
            | (?<= x ) ox[a-z]- | (?<= g ) (?: lpat- | ithub_pat_ ) | (?<= A ) Iza )
            (?P<key> [\w-]{6,}+ )
        | (?: (?<= g ) h[pousr]_ | (?<= h ) f_ | (?<= A ) (?: KIA | SIA ) )
            (?P<plain_key> [A-Za-z0-9]{12,}+ ) )
"""
"""Keys of known shape, each with the letters by which its maker marks it."""

_BEGINNING = r"""
    (?: (?:bearer|basic|token|apikey|api-key|negotiate|ntlm|key|digest|oauth|hawk|aws4-\S+) [ ]+ )?
    (?: sk-ant- | sk-proj- | [spr]k- | [spr]k_(?:live|test)_ | xox[a-z]- | gh[pousr]_ | github_pat_
        | glpat- | hf_ | AKIA | ASIA | AIza | eyJ )?"""
"""What of a value may stay to recognise it by: the scheme, and the sort of the key."""

_NO_SECRET = r"""
    \** | \.{3} | …? | [\[({<]* | none | null | true | false | undefined
    | %[srd] | \{[\w.!:\[\]]*\} | <[\w.]+>? | \[(?:secure|redacted|masked)\]"""
"""What stands where a secret might: nothing, a placeholder, a mask."""

_ABOUT_BEARERS = r"""
    and | are | auth | authentication | authorization | credentials? | error | format | has | header
    | not | prefix | required | scheme | the | tokens? | type | was"""
"""Words that follow in texts about bearer tokens."""


_ALL = {
    "values": (f"{_FRAME}|{_QUOTED}|{_BARE}", re.IGNORECASE | re.MULTILINE),
    "literals": (_QUOTED, re.IGNORECASE | re.MULTILINE),
    "named": (_NAMED, re.NOFLAG),
    "address": (_ADDRESS, re.NOFLAG),
    "bearer": (_BEARER, re.NOFLAG),
    "basic": (_BASIC, re.NOFLAG),
    "pem": (_PEM, re.NOFLAG),
    "key": (_KEY, re.NOFLAG),
    "beginning": (_BEGINNING, re.IGNORECASE),
    "about bearers": (_ABOUT_BEARERS, re.IGNORECASE),
    "no secret": (_NO_SECRET, re.IGNORECASE),
}


@cache
def rule(name: str) -> re.Pattern[str]:
    """Return a rule by its name, compiled when a text needs it first: not at import."""
    expression, flags = _ALL[name]
    return re.compile(expression, re.VERBOSE | re.ASCII | flags)
