"""Advice in error messages: each piece is followed, and then the call succeeds."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import ragasync
from tests.support.requirements import needs

needs("pandas", "redis")

PACKAGE = Path(ragasync.__file__).parent
TESTS = Path(__file__).parent.parent

ADVICE = re.compile(r"\b([Pp]ass|use|call) (?!of|around|is|was|only|but|the same|has|in )")
"""The beginning of advice in a message."""

SETUP = """
import asyncio
import concurrent.futures
from contextlib import asynccontextmanager
import pandas as pd
from ragasync import *
from ragasync.documents import *
from ragasync.documents import FrameSource
from ragasync.simulation import ScriptedService
from pathlib import Path

def embed(texts):
    return [[float(len(text)), 1.0] for text in texts]

async def reply():
    return "reply"

async def two(texts):
    return [[1.0, 2.0] for text in texts]

@asynccontextmanager
async def client():
    yield "client"

def with_client(item, client):
    return item, client

def frame():
    return pd.DataFrame({"a": [1, 2, 3]}, index=["x", "y", "z"])

def run(function, items, **arguments):
    return AsyncBatchProcessor(function, **arguments).process_sync(items)

def ingest(store=None, sources=(("guide", "A bucket refills."),), **arguments):
    return AsyncDocumentProcessor(store=store, **arguments).process_sync(list(sources))

async def a_stream():
    yield "a text"

async def chunked(text):
    return [text]

def ingest_or_raise(**arguments):
    for error in filter(None, ingest(**arguments).errors):
        raise error

def stored(embed=None):
    store = MemoryStore()
    ingest(store, embed=embed)
    return store

def pilot(**arguments):
    return run(lambda item: item, range(200), **arguments)

Path("docs").mkdir(exist_ok=True)
Path("docs/a.md").write_text("A bucket refills.")
"""


class Case(NamedTuple):
    """A part of a message, code that is answered with it, and code that follows the advice."""

    message: str
    wrong: str
    right: str


CASES = [
    # Calls of coroutines and functions.
    Case(
        "was: call its function again to get a new one",
        "coro = reply(); run_async(coro); run_async(coro)",
        "run_async(reply())",
    ),
    Case(
        "can never finish here: it belongs to the loop that this call blocks",
        "async def main():\n run_async(asyncio.get_running_loop().create_future())\n"
        "asyncio.run(main())",
        "async def main():\n future = asyncio.get_running_loop().create_future()\n"
        " future.set_result(1)\n await future\nasyncio.run(main())",
    ),
    Case("pass fetch or lambda: fetch(url)", "AsyncRetry()(3)", "AsyncRetry()(reply)"),
    Case(
        "these attempts were used before: call policy.attempts() each time",
        "attempts = AsyncRetry().attempts()\n"
        "for _ in range(2):\n for a in attempts:\n  with a: pass",
        "policy = AsyncRetry()\nfor _ in range(2):\n for a in policy.attempts():\n  with a: pass",
    ),
    # The settings of a processor.
    Case(
        "taken letter by letter: pass [text] for a single item",
        "run(str, 'text')",
        "run(str, ['text'])",
    ),
    Case(
        "pass {} or retry={}, not both",
        "AsyncBatchProcessor(str, retry_count=1, retry=AsyncRetry(2))",
        "AsyncBatchProcessor(str, retry=AsyncRetry(2))",
    ),
    Case(
        "got {}: for 3 retries pass retry_count=3 or AsyncRetry(3)",
        "AsyncBatchProcessor(str, retry=3)",
        "AsyncBatchProcessor(str, retry_count=3); AsyncBatchProcessor(str, retry=AsyncRetry(3))",
    ),
    Case(
        "for 10 calls a second pass RateLimiter(10)",
        "AsyncBatchProcessor(str, rate_limiter=10)",
        "AsyncBatchProcessor(str, rate_limiter=RateLimiter(10))",
    ),
    Case(
        "decorate an async generator with contextlib.asynccontextmanager, or pass a client's class",
        "run(with_client, [1], resources=lambda: 'client')",
        "run(with_client, [1], resources=client)",
    ),
    Case(
        "pass the function, not what it returns",
        "AsyncBatchProcessor(with_client, resources=object())",
        "run(with_client, [1], resources=client)",
    ),
    Case(
        "but an executor has a fixed number of workers: pass that number",
        "AsyncBatchProcessor(str, executor=concurrent.futures.ThreadPoolExecutor(2),"
        " max_concurrency='auto')",
        "AsyncBatchProcessor(str, executor=concurrent.futures.ThreadPoolExecutor(2),"
        " max_concurrency=2)",
    ),
    Case(
        "to limit the rate by weight, pass RateLimiter(..., weight=) instead",
        "AsyncBatchProcessor(list, batched=True, weight=len)",
        "AsyncBatchProcessor(str, rate_limiter=RateLimiter(100, weight=len))",
    ),
    Case(
        "for a share of the items, use max_error_rate={}",
        "AsyncBatchProcessor(str, max_errors=0.05)",
        "AsyncBatchProcessor(str, max_error_rate=0.05)",
    ),
    Case(
        "for a number of items, use max_errors=",
        "AsyncBatchProcessor(str, max_error_rate=5)",
        "AsyncBatchProcessor(str, max_errors=5)",
    ),
    Case(
        "pass the limits that the service states, such as requests=500, tokens=200_000",
        "RateLimiter.per_minute()",
        "RateLimiter.per_minute(requests=500, tokens=200_000, weight=len)",
    ),
    Case(
        "pass tokens=, the limit, with weight=, a function",
        "RateLimiter.per_minute(tokens=200_000)",
        "RateLimiter.per_minute(tokens=200_000, weight=lambda text: len(text) / 4)",
    ),
    Case(
        "pass redis.asyncio.Redis.from_url(url), or the client of",
        "RedisRateLimiter(object(), 'name')",
        "import redis.asyncio; RedisRateLimiter(redis.asyncio.Redis.from_url('redis://h'), 'name')",
    ),
    Case(
        "estimate counts items that are at hand, got {}: pass a list of them",
        "AsyncBatchProcessor(str).estimate(a_stream())",
        "AsyncBatchProcessor(str).estimate(['a text'])",
    ),
    Case(
        "pass tokenizer.count or lambda text: len(encode(text))",
        "AsyncBatchProcessor(str).estimate(['a text'], count_tokens=5)",
        "AsyncBatchProcessor(str).estimate(['a text'], count_tokens=lambda text: len(list(text)))",
    ),
    # Results and DataFrames.
    Case(
        "of a DataFrame df, pass df.index, or df.index[mask]; after reset_index, df['item_index']",
        "r = run(str, [1, 2]); run_async(r.retry_failed(AsyncBatchProcessor(str),"
        " only=r.to_dataframe()))",
        "r = run(str, [1, 2]); run_async(r.retry_failed(AsyncBatchProcessor(str),"
        " only=r.errors_dataframe().index))",
    ),
    Case(
        "of a DataFrame df, pass df.index, or df.index[mask]",
        "r = run(str, [1, 2]); run_async(r.retry_failed(AsyncBatchProcessor(str), only=[True]))",
        "r = run(str, [1, 2]); df = r.to_dataframe(); run_async(r.retry_failed("
        "AsyncBatchProcessor(str), only=df.index[df.status == 'failed']))",
    ),
    Case(
        "only= takes labels, got a mask: of a DataFrame df, pass df.index[mask]",
        "r = run(str, frame()['a']); run_async(r.retry_failed(AsyncBatchProcessor(str),"
        " only=[True, False, True]))",
        "r = run(str, frame()['a']); df = r.to_dataframe(); run_async(r.retry_failed("
        "AsyncBatchProcessor(str), only=df.index[df.status == 'done']))",
    ),
    Case(
        "choose others with columns=[...], or pass prefix=",
        "f = frame().assign(status=1); run(str, f['a']).attach(f)",
        "f = frame().assign(status=1); run(str, f['a']).attach(f, prefix='r_')",
    ),
    Case(
        "use retry_failed(processor, only=labels) instead of merge",
        "a = pd.Series([1, 2], ['x', 'x']); b = pd.Series([1], ['x']);"
        " run(str, a).merge(run(str, b))",
        "a = pd.Series([1, 2], ['x', 'x']); r = run(str, a);"
        " run_async(r.retry_failed(AsyncBatchProcessor(str), only=['x']))",
    ),
    Case(
        "use retry_failed(processor, only=...) instead of merge",
        "items = ['a', 'b']; run(str, items).merge(run(str, items[1:]))",
        "r = run(str, ['a', 'b']); run_async(r.retry_failed(AsyncBatchProcessor(str), only=[1]))",
    ),
    Case(
        "call attempt.set_result(value) in it",
        "for a in AsyncRetry(retry_on_result=bool).attempts():\n with a: pass",
        "for a in AsyncRetry(retry_on_result=bool).attempts():\n with a: a.set_result(0)",
    ),
    Case(
        "pass count_tokens=, such as lambda item: len(encode(item))",
        "AsyncBatchProcessor(str).estimate([1], price_per_million=2.0)",
        "AsyncBatchProcessor(str).estimate([1], price_per_million=2.0, count_tokens=int)",
    ),
    # A journal.
    Case(
        "pass another path, or the name= and version= that it has",
        "run(str, [1], journal=Journal('j', name='a')); run(str, [1], journal=Journal('j'))",
        "run(str, [1], journal=Journal('j2', name='a'));"
        " run(str, [1], journal=Journal('j2', name='a'))",
    ),
    Case(
        "this run has {}: pass Journal(..., serializer={})",
        "run(str, [1], journal=Journal('k'));"
        " run(str, [1], journal=Journal('k', serializer='pickle'))",
        "run(str, [1], journal=Journal('k2', serializer='pickle'));"
        " run(str, [1], journal=Journal('k2', serializer='pickle'))",
    ),
    # Documents.
    Case(
        "expected a list of texts, not one {}: pass [text]",
        "HashingEmbedder()('a')",
        "HashingEmbedder()(['a'])",
    ),
    Case(
        "expected a key: pass api_key=, or set OPENAI_API_KEY before the start",
        "run_async(OpenAIEmbedder('m').open().__aenter__())",
        "run_async(OpenAIEmbedder('m', api_key='k').open().__aenter__())",
    ),
    Case(
        "got {}: pass str(path)",
        "Document('a', 'text', source=Path('a'))",
        "Document('a', 'text', source=str(Path('a')))",
    ),
    Case(
        "because the store has them: call chunks_dataframe(store), or pass keep_content=True",
        "chunks_dataframe(ingest(MemoryStore()))",
        "chunks_dataframe(stored()); chunks_dataframe(ingest(MemoryStore(), keep_content=True))",
    ),
    Case(
        "got a Series: pass a DataFrame with the columns 'id' and 'text', or series.items()",
        "AsyncDocumentProcessor().process_sync(pd.Series(['text'], ['a']))",
        "AsyncDocumentProcessor().process_sync(pd.DataFrame({'id': ['a'], 'text': ['text']}));"
        " AsyncDocumentProcessor().process_sync(pd.Series(['text'], ['a']).items())",
    ),
    Case(
        "name yours with FrameSource(frame, id=..., text=...), or call frame.reset_index()",
        "AsyncDocumentProcessor().process_sync(pd.DataFrame({'key': ['a'], 'body': ['text']}))",
        "AsyncDocumentProcessor().process_sync(FrameSource(pd.DataFrame("
        "{'key': ['a'], 'body': ['text']}), id='key', text='body'))",
    ),
    Case(
        "this is {}, and there is no loader for {}, also not in an extra; pass one",
        "Path('a.pptx').write_bytes(b'PK'); load_source('a.pptx')",
        "from functools import partial; AsyncDocumentProcessor(partial(load_source, loaders="
        "{**LOADERS, '.pptx': bytes.decode})).process_sync(['a.pptx']).raise_for_errors()",
    ),
    Case(
        "pass an existing folder, or a list with one, got {}",
        "AsyncDocumentProcessor(store=MemoryStore()).process_sync([('a', 'b')], prune=True)",
        "AsyncDocumentProcessor(store=MemoryStore()).process_sync(['docs'], prune=True)",
    ),
    Case(
        'prune=True would delete: mount its disk, or pass prune="force"',
        "import shutil; shutil.copytree('docs', 'gone'); store = MemoryStore();"
        " ingest(store, ['gone']); shutil.rmtree('gone');"
        " AsyncDocumentProcessor(store=store).process_sync('gone', prune=True)",
        "import shutil; shutil.copytree('docs', 'gone'); store = MemoryStore();"
        " ingest(store, ['gone']); shutil.rmtree('gone');"
        " AsyncDocumentProcessor(store=store).process_sync('gone', prune='force')",
    ),
    Case(
        "pass root=, or use another store",
        "store = MemoryStore(); ingest(store, ['docs'], root='.'); ingest(store, ['docs'])",
        "store = MemoryStore(); ingest(store, ['docs'], root='.');"
        " ingest(store, ['docs'], root='.')",
    ),
    Case(
        "leave root= out, or use another store",
        "store = MemoryStore(); ingest(store, ['docs']); ingest(store, ['docs'], root='.')",
        "store = MemoryStore(); ingest(store, ['docs']); ingest(store, ['docs'])",
    ),
    Case(
        "pass a folder that holds all sources as root=, or leave root= out for absolute paths",
        "[*find_sources('docs', root='docs/none')]",
        "[*find_sources('docs', root='.')]; [*find_sources('docs')]",
    ),
    Case(
        "version must be a str, got {}: pass {}",
        "Stage(embed, version=2)",
        "Stage(embed, version='2')",
    ),
    Case(
        "a list of documents has no texts: call store.get({})",
        "stored().documents()[0].text",
        "stored().get('guide').text",
    ),
    Case(
        "or where= with conditions: pass one of them",
        "stored().delete()",
        "stored().delete('guide'); stored().delete(where={'id': 'guide'})",
    ),
    Case(
        "unsupported operator {} for {}: use one of {}",
        "stored().search('a', where={'id': {'$like': 'a'}})",
        "stored().search('a', where={'id': {'$in': ['a']}})",
    ),
    Case(
        "in place of a metadata key: use one of {}, $not, with conditions in it",
        "stored().search('a', where={'$nor': [{'id': 'a'}]})",
        "stored().search('a', where={'$not': {'id': 'a'}})",
    ),
    Case(
        'pass embedder= to the store or vector= to the search, or search with mode="keyword"',
        "ingest(SqliteStore('s'), embed=Stage(embed, name='mine')); SqliteStore('s').search('a')",
        "ingest(SqliteStore('s'), embed=Stage(embed, name='mine'));"
        " SqliteStore('s', embedder=embed).search('a');"
        " SqliteStore('s').search('a', vector=[1.0, 2.0]);"
        " SqliteStore('s').search('a', mode='keyword')",
    ),
    Case(
        "pass embedder= the one that made the former",
        "ingest(SqliteStore('t'), embed=Stage(embed, name='mine'));"
        " SqliteStore('t', embedder=lambda texts: [[1.0] for _ in texts]).search('a')",
        "ingest(SqliteStore('t'), embed=Stage(embed, name='mine'));"
        " SqliteStore('t', embedder=embed).search('a')",
    ),
    Case(
        "pass the one that made them, or store in another file",
        "ingest(SqliteStore('u'), embed=Stage(embed, name='mine'));"
        " SqliteStore('u', embedder=HashingEmbedder()).search('a')",
        "ingest(SqliteStore('u'), embed=Stage(embed, name='mine'));"
        " SqliteStore('u', embedder=embed).search('a')",
    ),
    Case(
        "{} is async and does not say so: pass the async function",
        "ingest_or_raise(chunk=lambda text: chunked(text))",
        "ingest_or_raise(chunk=chunked)",
    ),
    Case(
        "if {} is not the delimiter, pass it: CSVLoader(delimiter=...)",
        "Path('w.csv').write_text(('a,' * 200_001 + '\\n') * 3); load_source('w.csv')",
        "Path('w.csv').write_text(('a,' * 200_001 + '\\n') * 3);"
        " load_source('w.csv', loaders={'.csv': CSVLoader(delimiter=';')})",
    ),
    # Simulations and forecasts.
    Case(
        "with an AsyncBatchProcessor and pass that result",
        "forecast(ingest(), 10)",
        "forecast(pilot(), 10)",
    ),
    Case(
        "pass rate_limiter= (it is copied, never used), or rate_limiter=None",
        "import pickle; r = pilot(rate_limiter=RateLimiter(10_000, weight=float));"
        " forecast(pickle.loads(pickle.dumps(r)), 10)",
        "r = pilot(); forecast(r, 10, rate_limiter=RateLimiter(10)); forecast(r, 10,"
        " rate_limiter=None)",
    ),
    Case(
        "Pass the pilot's own result",
        "r = pilot(); forecast(r.merge(run(str, [0])), 10)",
        "forecast(pilot(), 10)",
    ),
    Case(
        "or every outcome came from a journal. Pass a result of process()",
        "forecast(BatchResult(['a'] * 30, [None] * 30, 30, 0), 10)",
        "forecast(pilot(), 10)",
    ),
    Case(
        "got {}: pass AsyncRetry(3)",
        "forecast(pilot(), 10, retry=3)",
        "forecast(pilot(), 10, retry=AsyncRetry(3))",
    ),
    Case(
        "pass weight=, the weight of an item: a number, or a sequence of weights to draw from",
        "simulate(5, rate_limiter=RateLimiter(10, weight=len))",
        "simulate(5, rate_limiter=RateLimiter(10, weight=len), weight=2)",
    ),
    Case(
        "for 3 retries pass retry_count=3 or AsyncRetry(3)",
        "simulate(5, retry=3)",
        "simulate(5, retry_count=3); simulate(5, retry=AsyncRetry(3))",
    ),
    Case(
        "pass either service= or latency, error_rate and permanent_error_rate, not both",
        "simulate(5, latency=2, service=ScriptedService(2))",
        "simulate(5, latency=2); simulate(5, service=ScriptedService(2))",
    ),
    Case(
        "sources are several, got a {}: pass its .items()",
        "AsyncDocumentProcessor(embed=embed).process_sync({'a': 'text'})",
        "AsyncDocumentProcessor(embed=embed).process_sync({'a': 'text'}.items())",
    ),
    Case(
        "expected an object, got the class {}: pass {}(...)",
        "AsyncDocumentProcessor(store=MemoryStore)",
        "AsyncDocumentProcessor(store=MemoryStore())",
    ),
    Case(
        "{} is of {}, which JSON cannot hold: pass {}",
        "import numpy as np; store = SqliteStore(':memory:'); d = Document('a', 'b',"
        " {'n': np.int64(3)}); raise AsyncDocumentProcessor(embed=embed,"
        " store=store).process_sync([d]).errors[0]",
        "import numpy as np; store = SqliteStore(':memory:'); d = Document('a', 'b',"
        " {'n': np.int64(3).item()}); assert AsyncDocumentProcessor(embed=embed,"
        " store=store).process_sync([d]).all_succeeded",
    ),
]

ELSEWHERE = {
    "stopped while a blocking call inside this cell was waiting": "no advice",
    "use frame.with_columns(": "polars",
    "got a polars LazyFrame": "polars",
    "set them on the client itself": "a client of openai",
    "redirected {} times in a row": "a server that redirects",
    "if you trust that address, pass it as base_url=": "a server that redirects",
    "use the former, or store in another file": "two processes that store concurrently",
    "use that embedder, or store in another file": "two processes that store concurrently",
    "give all runs the same root=, or use another store": "two processes that store concurrently",
    "the table {} in {} is of another version": "a table of another release",
    "this ragasync reads version {}": "a file of another release",
    "the concurrency of the pilot is not known": "a result of another release",
    "a simulation copies limiters by their rate": "a limiter of the user's own",
}
"""Parts of other messages, by what their advice needs that a short example does not have."""


def texts_of(node: ast.expr) -> str:
    """The text of a message, with {} for values."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                texts_of(part) if isinstance(part, ast.Constant) else "{}" for part in parts
            )
        case ast.BinOp(left=left, right=right):
            return texts_of(left) + texts_of(right)
    return ""


def messages_with_advice() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each message that an error is raised with."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                text = " ".join(map(texts_of, node.exc.args))
                if ADVICE.search(text):
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def pattern_of(message: str) -> re.Pattern[str]:
    """The pattern of a part of a message, with {} for values."""
    return re.compile(".*".join(map(re.escape, message.split("{}"))), re.DOTALL)


@pytest.mark.parametrize("case", CASES, ids=[case.message[:60] for case in CASES])
def test_the_advice_of_an_error_can_be_followed(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The wrong code raises an error with the advice, and code that follows it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    names: dict[str, object] = {}
    exec(SETUP, names)
    with pytest.raises(Exception, match=pattern_of(case.message)):
        exec(case.wrong, names)
    exec(case.right, names)


def test_every_message_with_advice_has_a_case():
    """A new message needs a case here, or the reason why its advice cannot be followed here."""
    known = [case.message for case in CASES] + list(ELSEWHERE)
    without = [
        f"{place}: {text}"
        for place, text in messages_with_advice()
        if not any(part in text for part in known)
    ]
    assert without == []


def test_every_exception_from_the_rule_is_of_a_message_that_exists():
    """No reason outlives its message."""
    texts = [text for _, text in messages_with_advice()]
    known = [case.message for case in CASES] + list(ELSEWHERE)
    assert [part for part in known if not any(part in text for text in texts)] == []


EXTRAS = {
    "matplotlib": ("plot", "plot_latency(AsyncBatchProcessor(str).process_sync([1]))"),
    "redis": ("redis", "run_async(AsyncRedisConnection().__aenter__())"),
    "wordllama": ("ingest", "WordLlamaEmbedder()(['a'])"),
    "httpx": ("openai", "run_async(OpenAIEmbedder('m', api_key='k').open().__aenter__())"),
    "lancedb": ("lance", "LanceStore('kb').documents()"),
    "pypdfium2": ("ingest", "load_source('a.pdf')"),
    "semantic_text_splitter": ("ingest", "SemanticTextSplitter()('a')"),
    "cloudpickle": ("processes", "in_a_pool()"),
}
"""The extra of each optional package, and code that needs it."""


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_named_with_its_pip_line(package: str, tmp_path: Path):
    """In a process where the package cannot be imported."""
    extra, code = EXTRAS[package]
    script = f"""
import sys
sys.modules[{package!r}] = None
import concurrent.futures
from pathlib import Path
from ragasync import *
from ragasync.documents import *
def in_a_pool():
    pool = concurrent.futures.ProcessPoolExecutor(1)
    AsyncBatchProcessor(lambda item: item, executor=pool).process_sync([1]).raise_for_errors()
Path("a.pdf").write_bytes(b"%PDF-1.7")
if __name__ == "__main__":
    try:
        {code}
    except BaseException as error:
        print("".join(map(str, [error, *getattr(error, "exceptions", ())])))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert f'pip install "ragasync[{extra}]"' in ran.stdout, ran.stdout + ran.stderr[-2000:]
