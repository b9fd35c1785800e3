"""What is Lance's own: its folder, its many small files, and other processes in it."""

import subprocess
import sys
from datetime import timedelta

import pytest

from ragasync.documents import (
    AsyncDocumentProcessor,
    Chunk,
    Document,
    LanceStore,
    StoreError,
    StoreRequest,
)

# Internals: bounds and steps of a store, which these tests change or count.
from ragasync.documents.stores import lance
from ragasync.errors import MissingExtra
from tests.support.requirements import needs
from tests.support.store_kinds import embed, ids, put

needs("lancedb")


@pytest.fixture
def path(tmp_path):
    """Give a place for a store's folder."""
    return tmp_path / "store.lance"


def test_what_is_stored_is_there_after_opening_again(path):
    """Words, vectors and whose they are."""
    with LanceStore(path) as store:
        put(store, Document("bucket", "A token bucket."))
    with LanceStore(path) as store:
        assert ids(store.search("bucket")) == ["bucket"]
        assert store.fingerprint_of("bucket") == "first"
        assert repr(store).endswith("1 document, 1 chunk by 'hashing-64-v2'>")


def test_a_missing_lancedb_is_named_with_what_to_install(path, monkeypatch):
    """Before anything is made."""
    monkeypatch.setattr(lance, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r'pip install "ragasync\[lance\]"'):
        LanceStore(path)
    assert not path.exists()


def test_another_table_of_the_same_name_is_refused(path):
    """And left as it is."""
    import lancedb

    theirs = lancedb.connect(path).create_table("ragasync_chunks", [{"x": 1}])
    with pytest.raises(StoreError, match="another version"):
        LanceStore(path)
    assert theirs.schema.names == ["x"]


def test_a_path_that_cannot_be_used_is_an_error(tmp_path):
    """A file, and a folder within no folder."""
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file", tmp_path / "nowhere" / "store"):
        with pytest.raises(StoreError, match="cannot be used"):
            LanceStore(path)


@pytest.mark.parametrize("text", ["nul \0 in it", "🎈", "x" * 1_000_000, "'; DROP TABLE x", "é\n"])
def test_texts_come_back_as_they_were(path, text):
    """As text, id, source and metadata; no quote ends a predicate."""
    with LanceStore(path) as store:
        put(store, Document("another", "another"))
        document = Document(text, text, {text[:9]: text}, source=text, file=text)
        for _ in range(2):
            chunk = Chunk(text, 0, len(text))
            vectors = embed(["word"])  # of a text without words it would be near nothing
            store.upsert(document, [chunk], vectors, fingerprint=text, embedder=embed.name)
        [hit] = store.search("", where={"id": text}, mode="vector", vector=vectors[0])
        assert (hit.text, hit.document_id, hit.source) == (text, text, text)
        assert hit.metadata == {text[:9]: text}
        assert store.fingerprint_of(text) == text
        assert store.sources_within(text) == [(text, text)]
        assert store.delete(text)
        assert (len(store.documents()), len(store)) == (1, 1)


def files(path, folder="data"):
    """Names of the files of a table, or of its versions."""
    names = {file.name for file in (path / "ragasync_chunks.lance" / folder).iterdir()}
    return names - {"latest_version_hint.json"}


def fragments(store):
    """Number of files that a search reads."""
    with store._file.reading() as rows:
        table = rows._table
        return table.stats()["fragment_stats"]["num_fragments"]


def put_many(store, names):
    """Store documents of one chunk in one commit."""
    requests = [
        StoreRequest(Document(name, ""), [Chunk(f"token {name}", 0, 5)], embed([name]), "first")
        for name in names
    ]
    assert store.upsert_many(requests, embedder=embed.name) == [None] * len(requests)


def test_many_small_files_are_merged(path, monkeypatch):
    """After a number of commits; everything is found as before."""
    monkeypatch.setattr(lance, "_MAX_COMMITS", 5)
    with LanceStore(path) as store:
        for n in range(9):
            put(store, Document(f"page {n}", f"token {n}"))
        assert fragments(store) < 9 <= len(files(path))  # the old ones are kept for some minutes
        assert len(store.search("token", mode="keyword")) == 9
        assert len(store) == 9


def test_two_thousand_documents_in_groups_leave_few_files(path, monkeypatch):
    """One merged file is left, and few versions once the old ones may be removed."""
    names = [f"{n}" for n in range(2_000)]
    groups = [names[start : start + 64] for start in range(0, 2_000, 64)]
    with LanceStore(path) as store:
        for group in groups:
            put_many(store, group)
            assert fragments(store) <= len(groups)
    assert len(files(path, "_versions")) <= len(groups) + 10
    monkeypatch.setattr(lance, "_KEPT_FOR", timedelta(milliseconds=1))
    with LanceStore(path) as store:
        assert len(store.search("token", 2_000, mode="keyword")) == 2_000
        assert fragments(store) == 1
        assert len(files(path)) == 1
        assert len(files(path, "_versions")) <= 2


def test_small_commits_of_a_growing_store_are_merged_as_they_come(path, monkeypatch):
    """The number of files and of versions stays bounded, however many commits there are."""
    monkeypatch.setattr(lance, "_MAX_COMMITS", 8)
    monkeypatch.setattr(lance, "_KEPT_FOR", timedelta(milliseconds=1))
    with LanceStore(path) as store:
        for start in range(0, 200, 5):
            put_many(store, [f"{n}" for n in range(start, start + 5)])
            assert fragments(store) <= 10
            assert len(files(path, "_versions")) <= 13
        assert len(store.documents()) == 200


def test_what_a_killed_process_left_is_compacted_before_a_search(path):
    """Words are indexed that the process did not index."""
    with writer(path) as process:
        for n in range(3):
            tell(process, f"{n} 600")
            assert process.stdout.readline() == f"{n}\n"
        process.kill()
    with LanceStore(path) as store:
        assert unindexed(store) > 1_000
        assert len(store.search("600", mode="keyword")) == 10
        assert unindexed(store) == 0


def test_an_error_of_compaction_is_not_one_of_a_document(path, monkeypatch):
    """It changes no contents, and is tried again later."""
    from lancedb.table import LanceTable

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lance, "_MAX_COMMITS", 2)
    with LanceStore(path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(LanceTable, "optimize", no_space)
            for n in range(4):
                put(store, Document(f"{n}", "token"))
            assert len(store.search("token")) == 4
        assert fragments(store) == 4
        for n in range(4, 6):
            put(store, Document(f"{n}", "token"))
        assert fragments(store) < 4
        assert len(store) == 6


WRITER = """
import sys
from ragasync.documents.models import Chunk, Document
from ragasync.documents.embedders import HashingEmbedder
from ragasync.documents.stores.lance import LanceStore
embed, store = HashingEmbedder(64), LanceStore(sys.argv[1])
for line in sys.stdin:
    n, me = line.split()
    texts = [f"{me} {n} {i}" for i in range(int(me) + 1)]
    chunks = [Chunk(text, 0, 1) for text in texts]
    store.upsert(Document(n, ""), chunks, embed(texts), fingerprint=me, embedder=embed.name)
    print(n, flush=True)
"""


def writer(path):
    """Start a process that stores a document for each line `id number-of-chunks`."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process, line):
    """Let a process store a document, without waiting for it."""
    process.stdin.write(line + "\n")
    process.stdin.flush()


def whole(store):
    """Writer of each document, each of which must be whole and stored once."""
    writers = {}
    for name, rows in store.to_dataframe().groupby("document_id"):
        [writers[name]] = {text.partition(" ")[0] for text in rows.text}
        assert rows.ordinal.tolist() == list(range(int(writers[name]) + 1))
        assert store.fingerprint_of(name) == writers[name]
    assert len(store.documents()) == len(writers)
    return writers


@pytest.mark.real_time
def test_of_two_processes_one_may_be_killed(path):
    """What both store is there once and whole; the dead one holds up nobody, its word is kept."""
    with writer(path) as mortal, writer(path) as other:
        for n in range(8):
            for me, process in enumerate((mortal, other), start=1):
                tell(process, f"{n} {me}")
            for process in (mortal, other):
                assert process.stdout.readline() == f"{n}\n"
        for n in range(8, 20):
            tell(mortal, f"{n} 1")
        for _ in range(3):
            mortal.stdout.readline()
        mortal.kill()
        acknowledged = {f"{n}" for n in range(11)} | {line.strip() for line in mortal.stdout}
        tell(other, "after 2")
        assert other.stdout.readline() == "after\n"
        other.stdin.close()
    with LanceStore(path) as store:
        assert whole(store).keys() >= acknowledged | {"after"}


def unindexed(store):
    """Number of rows that a keyword search reads one by one."""
    with store._file.reading() as rows:
        table = rows._table
        [index] = table.list_indices()
        return table.index_stats(index.name).num_unindexed_rows


@pytest.mark.parametrize("then", ["search", "close"])
def test_many_new_words_are_indexed_before_a_search_and_at_the_end(path, then):
    """A search that reads thousands of rows one by one takes a multiple of the time."""
    with LanceStore(path) as store:
        for n in range(3):
            chunks = [Chunk(f"token {n} {i}", i, i + 1) for i in range(1_200)]
            put(store, Document(f"{n}", ""), *chunks)
        assert unindexed(store) > 1_000
        if then == "search":
            assert len(store.search("token", mode="keyword")) == 10
            assert unindexed(store) == 0
    with LanceStore(path) as store:
        assert unindexed(store) == 0
        assert len(store.search("1199", mode="keyword")) == 3


def test_documents_that_are_stored_are_looked_up_together(path, monkeypatch):
    """A second run scans the table a few times, not once for each document."""
    from lancedb.table import LanceTable

    scans = []
    search = LanceTable.search
    monkeypatch.setattr(
        LanceTable, "search", lambda *args, **kwargs: scans.append(1) or search(*args, **kwargs)
    )
    texts = [(f"d{number}", f"text {number}") for number in range(40)]
    with LanceStore(path) as store:
        AsyncDocumentProcessor(store=store).process_sync(texts)
    with LanceStore(path) as store:
        scans.clear()
        result = AsyncDocumentProcessor(store=store).process_sync(texts)
    assert all(done.unchanged for done in result.results)
    assert len(scans) < 10


def test_what_others_write_meanwhile_is_looked_up(path):
    """Replaced, deleted, and moved, by another store of the same folder or by this one."""
    with LanceStore(path) as store, LanceStore(path) as other:
        for name in ("a", "b", "c"):
            put(store, Document(name, name))

        def known() -> list[str | None]:
            return [store.fingerprint_of(name) for name in ("a", "b", "c", "d") for _ in "12"][::2]

        assert known() == ["first", "first", "first", None]
        put(other, Document("a", "a"), fingerprint="second")
        other.delete("b")
        assert known() == ["second", None, "first", None]
        other.relocate("c", "d")
        assert known() == ["second", None, None, "first"]
        put(store, Document("b", "b"), fingerprint="third")
        put(other, Document("c", "c"), fingerprint="fourth")
        put(store, Document("a", "a"), fingerprint="fifth")
        assert known() == ["fifth", "third", "fourth", "first"]
        store.delete("a")
        store.update_metadata({"b": {"mtime": 7.0}})
        assert known() == [None, "third", "fourth", "first"]
        assert store.entry_of("b").metadata == {"mtime": 7.0}
