"""What looks like a secret is taken out of texts, and ordinary texts stay as they are."""

import asyncio
import email.message
import http.client
import json
import linecache
import secrets
import shutil
import subprocess
import traceback
import urllib.request
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# Internals: single texts, without a run for each.
from ragasync.redact import redact

PEM = (
    r"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA1234567890+/\n-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"

FORMS = [
    ("Authorization: Bearer abc", "Authorization: Bearer ***"),
    ("GET / HTTP/1.1\nProxy-Authorization: Basic dTpw\nHost: h", "Basic ***\nHost: h"),
    ("Authorization: plain", "Authorization: ***"),
    ('Authorization: Digest username="ann", response="6629fae4"', "Authorization: Digest ***"),
    ("{'Authorization': 'Bearer abc', 'n': 1}", "{'Authorization': 'Bearer ***', 'n': 1}"),
    ("{'authorization': ['Bearer abc']}", "{'authorization': ['Bearer ***']}"),
    ("[(b'Authorization', b'Bearer abc'), (b'x-api-key', b'k')]", "(b'x-api-key', b'***')]"),
    ("Headers([('x-api-key', 'k'), ('host', 'h')])", "[('x-api-key', '***'), ('host', 'h')])"),
    ('{"api_key": "a", "deep": {"token": "b2"}}', '{"api_key": "***", "deep": {"token": "***"}}'),
    (r'"{\"api_key\": \"a\\\"b\", \"n\": 1}"', r'"{\"api_key\": \"***\", \"n\": 1}"'),
    ("https://h/v1?api_key=a&n=5&token=b#c", "https://h/v1?api_key=***&n=5&token=***"),
    ("https://h/v1?key=a&q=b", "https://h/v1?key=***&q=b"),
    ("https://h/?next=%2F%3Ftoken%3Dabc", "token%3D***"),
    ("https://blob/f?sv=1&sig=a%3D&se=2", "https://blob/f?sv=1&sig=***&se=2"),
    ("Client(api_key='a', password=\"it's\", n=1)", "Client(api_key='***', password=\"***\", n=1)"),
    ("Client(api_key=a1, secret=b2, n=1)", "Client(api_key=***, secret=***, n=1)"),
    ("Settings(api_key=SecretStr('a'))", "Settings(api_key=SecretStr('***'))"),
    ("host=db password=hunter2 user=ann", "host=db password=*** user=ann"),
    ("AccountKey=a+/==;Endpoint=e", "AccountKey=***;Endpoint=e"),
    ("PWD={p;w};Server=s", "PWD=***;Server=s"),
    ("Cookie: a=b; c=d", "Cookie: ***"),
    ("Command '['x', '--token', 'abc', '-n']' failed", "['x', '--token', '***', '-n']"),
    ("password: 'cut in the midd", "password: '***"),
    ("it says Bearer abc", "it says Bearer ***"),
    ("it says Basic dXNlcjpwYXNz.", "it says Basic ***."),
    ("Incorrect API key provided: sk-abcdefgh12345678.", "provided: sk-***."),
    ("sk-ant-api03-abcDEF-123 sk-proj-a1b2c3d4 pk-lf-12345678", "sk-ant-*** sk-proj-*** pk-***"),
    ("sk_live_abc123456 AKIAIOSFODNN7EXAMPLE", "sk_live_*** AKIA***"),
    ("ghp_abcdefghijklmn0123 gho_abcdefghijklmn0123", "ghp_*** gho_***"),
    ("github_pat_11ABC_def hf_abcdefghijKLMN0123", "github_pat_*** hf_***"),
    ("xoxb-1234567890-abc AIzaSyD-1234567890abc", "xoxb-*** AIza***"),
    (f"the token {JWT} is old", "the token eyJ*** is old"),
    (f"'{PEM}'", "'-----BEGIN RSA PRIVATE KEY-----***'"),
    ("postgresql://ann:pw@db.test:5432/x", "postgresql://ann:***@db.test:5432/x"),
    ("postgresql://ann:p@s:s@db.test/x", "postgresql://ann:***@db.test/x"),
    ("mysql://ann:pa/ss@db.test/x", "mysql://ann:***@db.test/x"),
    ("redis://:pw@cache", "redis://:***@cache"),
    ("https://x-access-token:pw@git.test/r", "https://x-access-token:***@git.test/r"),
    ("https://sk-abcd1234:pw@api.test/", "https://sk-***:***@api.test/"),
    ('  File "a.py", line 1, in f\n    call(token="abc1")\n', 'call(token="***")'),
]

ORDINARY = [
    "risk-based task-1 disk-0123456 sk-learn sk-SK pk-1",
    "token bucket, tokens=12, max_tokens=512, 8192 tokens, token: 5",
    "Unexpected token: '}' and unexpected token: else",
    "password: This field is required",
    "f() missing 2 required positional arguments: 'token' and 'password'",
    "expected one of 'username', 'password' or 'token'",
    "token=None, password='', api_key=..., secret=<unset>, token={token}",
    "Bearer token expired, the bearer of news, Bearer realm='x', Basic usage, Basic JavaScript",
    "https://h:8080/@scope/pkg?mail=a@b http://h/a:b@c mailto:a@b git@h:o/r",
    "KeyError: 'key' keyword=1 monkey: 'banana split' sort(key='name')",
    "-----BEGIN PRIVATE KEY----- is missing; PRIVATE KEY",
    "eyJ sk- AKIA hf_hub_download ghp_",
    "password=***, Bearer ***, https://ann:***@h, api_key='[secure]'",
]

HOSTILE = [
    *("token", "token ", "token=", "token='", 'token="', "token\\", "token\\'", "token='\\"),
    *("('token', '", "('", "'--", "--", "api key", "authorization: ", "authorization: digest "),
    *("cookie: a=", "?key=", "://", "://a:", "://a:b", "://@", "@", "a@:", "//:"),
    *("Bearer ", "bearer", "Basic ", "Basic a", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----"),
    *(
        "sk-",
        "sk-a",
        "eyJ",
        "eyJaaaaaaaa.",
        "ghp_",
        "AKIA",
        "xoxb-",
        "=",
        "'",
        '"',
        "\\",
        " ",
        "\n",
    ),
    *('  File "', '  File "a", line 1\n    token="', "    ", "|   ", "{", "[", "(", "a", "?", ","),
]


@pytest.mark.parametrize(("text", "shown"), FORMS, ids=[text[:30] for text, _ in FORMS])
def test_secrets_are_masked_in_every_form(text: str, shown: str):
    """Names, schemes, users, hosts and the beginnings of keys stay."""
    assert shown in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_stay(text: str):
    """They name secrets, or look a bit like one."""
    assert redact(text) == text


MODULES = [asyncio.base_events, http.client, urllib.request, subprocess, shutil, secrets]


@pytest.mark.parametrize("module", [*MODULES, email.message, json.decoder, traceback])
def test_frames_of_the_standard_library_stay(module: ModuleType):
    """Code is full of tokens, keys and passwords that are names and no secrets."""
    assert module.__file__ is not None
    lines = linecache.getlines(module.__file__)
    frames = [
        f'  File "{module.__file__}", line {number}, in call\n    {line.strip()}\n'
        for number, line in enumerate(lines, 1)
        if "geheim$parole" not in line  # a password in an example
    ]
    changed = [frame for frame in frames if redact(frame) != frame]
    assert len(frames) > 50
    assert changed == []


WRONG_CALLS: list[Callable[[], object]] = [
    lambda: int("token"),
    lambda: json.loads('{"token": }'),
    lambda: {}["password"],
    lambda: open("no such file"),  # noqa: SIM115, PTH123
    lambda: secrets.token_hex("x"),  # type: ignore[arg-type]
    lambda: urllib.request.urlopen("no scheme"),
    lambda: http.client.HTTPConnection("h:port"),
    lambda: compile("password = = 'x'", "f", "exec"),
    lambda: subprocess.run(["no such command", "key"], check=True),
    lambda: shutil.copy("no such file", "key"),
    lambda: b"\xff".decode(),
    lambda: asyncio.run(None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_tracebacks_without_secrets_stay(call: Callable[[], object]):
    """Whole ones, as they are printed."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # any will do
        call()
    text = "".join(traceback.format_exception(caught.value))
    assert redact(text) == text


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_the_time_is_linear_whoever_wrote_the_text(piece: str):
    """300 kB of what a rule may begin with: a second of work, but hours if it were quadratic."""
    text = piece * (300_000 // len(piece))
    once = redact(text)
    assert redact(once) == once


DENSE = [
    *("key=", "auth=", "auth=a,", "key=1,", "(key=value),", "x.key:1,", "key=***", "key={"),
    *("\udc80key=", "xoxb-", "&key=a", "key_", "sk-", '"key":'),
    *("key=%22", "key=&quot;", "mysql -p", "mysql ", "sshpass -p ", "SecretStr('", "/bot1:"),
    *(
        "/services/T1/B1/",
        "%25",
        "\x1b[3",
        "\\x1b[",
        "key: Optional[",
        "'key', value='",
        "['key', 'A",
    ),
    *("['key', 'A", "key\\n  a", "pw", "jwt", "key_prod", "hf_aA", "webhooks/1"),
]


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("piece", DENSE)
def test_the_time_is_linear_in_names_without_secrets(piece: str):
    """64 KB in a fraction of a second, but in a minute if each name read to the end again."""
    redact(piece * (65_536 // len(piece)))


PIECES = st.sampled_from([*HOSTILE, *(text for text, _ in FORMS), "***", "abc1", "%3D", "pwd", ";"])


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_what_is_masked_stays_as_it_is(text: str):
    """A text may come through here more than once: of a cause, of a note, of a journal."""
    once = redact(text)
    assert redact(once) == once


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100), st.text(max_size=100))
def test_a_key_is_found_wherever_it_stands(before: str, after: str):
    """Between any texts that do not go on with it."""
    assert "abcd1234efgh" not in redact(f"{before} sk-abcd1234efgh {after}")
