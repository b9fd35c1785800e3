"""Stores in folders that cannot be written to, as on a share that somebody else keeps."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from ragasync.documents import AsyncDocumentProcessor, Document, HashingEmbedder, StoreError
from tests.support.embedders import CountingEmbedder
from tests.support.requirements import only_where
from tests.support.store_kinds import fill, ids, opened, put

pytestmark = only_where(os.name == "posix", "folders have no such permissions")

NOBODY = 65534


@pytest.fixture(params=["sqlite", "lance"])
def kind(request):
    """Give a kind of store that is kept in a folder."""
    return request.param


@pytest.fixture
def folder():
    """Give a folder of which everybody can reach what is in it, root or not."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)
        allow(Path(path))


def allow(folder, mode=0o777):
    """Let everybody read a folder and all in it, and write where the mode says so."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)


@contextmanager
def as_nobody():
    """Be a user whom permissions hold back: root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_in_a_read_only_folder_is_searched(kind, folder):
    """By vectors, words and conditions; nothing is left beside it."""
    with opened(kind, folder) as store:
        ids(fill(store).search("bucket"))  # what is imported on demand is there
    allow(folder, 0o555)
    before = sorted(folder.rglob("*"))
    with as_nobody(), opened(kind, folder) as store:
        assert ids(store.search("token bucket"))[0] == "bucket"
        assert ids(store.search("crème", mode="keyword", where={"lang": "fr"})) == ["café"]
        assert len(store) == 5
        assert store.fingerprint_of("bucket") == "first"
        assert "5 documents" in repr(store)
    assert sorted(folder.rglob("*")) == before


def test_what_cannot_be_written_to_says_so(kind, folder):
    """Before and after, it can be read."""
    with opened(kind, folder) as store:
        ids(fill(store).search("bucket"))
    allow(folder, 0o555)
    with as_nobody(), opened(kind, folder) as store:
        for write in (lambda: put(store, Document("new", "new")), lambda: store.delete("bucket")):
            with pytest.raises(StoreError, match=r"is read-only.* writable"):
                write()
        assert ids(store.search("token bucket"))[0] == "bucket"


def test_what_its_keeper_changes_is_found(kind, folder):
    """Though the one who searches takes no lock and sees no log."""
    with opened(kind, folder) as store:
        ids(fill(store).search("bucket"))
    allow(folder, 0o555)
    with as_nobody():
        reader = opened(kind, folder)
        assert reader.search("ponies") == []
    allow(folder)
    with opened(kind, folder) as keeper:
        put(keeper, Document("pony", "purple ponies"))
        keeper.delete("bucket")
    allow(folder, 0o555)
    with as_nobody(), reader:
        assert ids(reader.search("ponies")) == ["pony"]
        assert "bucket" not in ids(reader.search("token bucket"))


def test_a_log_that_cannot_be_read_is_refused_with_what_to_do(folder):
    """Rather than an older state be searched."""
    with opened("sqlite", folder) as store:
        fill(store)
        log = (folder / "store.sqlite-wal").read_bytes()
    (folder / "store.sqlite-wal").write_bytes(log)
    allow(folder, 0o555)
    with (
        as_nobody(),
        pytest.raises(StoreError, match=r"write-ahead log, .* copy all of"),
    ):
        opened("sqlite", folder)


def test_a_store_that_is_not_there_cannot_be_made_in_a_read_only_folder(kind, folder):
    """The error names the path."""
    allow(folder, 0o555)
    with as_nobody(), pytest.raises(StoreError, match=r"store\.(sqlite|lance)' cannot be"):
        opened(kind, folder)


@pytest.mark.parametrize("which", ["all of it", "only its inside"])
def test_a_run_into_a_read_only_store_is_refused_before_anything_is_embedded(kind, folder, which):
    """Once, with what to do; after that was done, the same store takes the run."""
    with opened(kind, folder) as store:
        ids(fill(store).search("bucket"))
        AsyncDocumentProcessor().process_sync([("a", "text")])  # all is imported
    if which == "all of it":
        allow(folder, 0o555)
    else:
        allow(folder)
        for inside in folder.rglob("*"):
            if inside.name in ("store.sqlite", "_versions", "ragasync_chunks.lance"):
                inside.chmod(0o444 if inside.is_file() else 0o555)
    embed = CountingEmbedder(0.0)
    with as_nobody(), opened(kind, folder) as store:
        processor = AsyncDocumentProcessor(embed=embed, store=store)
        with pytest.raises(StoreError, match=r"is read-only.*make its .* writable, or write"):
            processor.process_sync([(f"d{n}", f"text {n}") for n in range(9)])
        assert not embed.texts
        assert ids(store.search("token bucket"))[0] == "bucket"
    allow(folder)


def test_a_store_that_was_made_writable_takes_a_run(kind, folder):
    """It need not be opened again."""
    with opened(kind, folder) as store:
        ids(fill(store).search("bucket"))
        AsyncDocumentProcessor().process_sync([("a", "text")])  # all is imported
    allow(folder, 0o555)
    with as_nobody():
        store = opened(kind, folder)
    allow(folder)
    with as_nobody(), store:
        processor = AsyncDocumentProcessor(embed=HashingEmbedder(64), store=store)
        assert processor.process_sync([("new", "purple ponies")]).all_succeeded
        assert ids(store.search("ponies")) == ["new"]
