"""The stores of this package, opened one like the other, and a few pages to put into them."""

from ragasync.documents import (
    Chunk,
    Document,
    HashingEmbedder,
    LanceStore,
    MemoryStore,
    SqliteStore,
)
from tests.support.requirements import needs

KINDS = ["sqlite", "memory", "lance"]

embed = HashingEmbedder(64)

# Each with its language and year.
PAGES = {
    "bucket": ("A token bucket refills at a fixed rate.", "en", 2020),
    "retry": ("Failed requests are tried again after a delay.", "en", 2021),
    "sort": ("Sorting keeps equal elements in their order.", "en", 2022),
    "café": ("Le café sert une crème brûlée.", "fr", 2023),
    "it's": ("A bucket of 'quotes' OR text:words.", "en", 2024),
}


def opened(kind, folder):
    """Return an empty store of a kind, in this folder."""
    if kind == "lance":
        needs("lancedb")
        return LanceStore(folder / "store.lance")
    return MemoryStore() if kind == "memory" else SqliteStore(folder / "store.sqlite")


def fill(store):
    """Put the pages into a store, a chunk each, and return it."""
    for name, (text, lang, year) in PAGES.items():
        path = f"/docs/{name}.md"
        put(store, Document(name, text, {"lang": lang, "year": year}, source=path, file=path))
    return store


def put(store, document, *chunks, fingerprint="first", made_by=embed):
    """Store a document, in one chunk unless others are given."""
    chunks = chunks or (Chunk(document.text, 0, len(document.text)),)
    vectors = made_by([chunk.text for chunk in chunks])
    store.upsert(document, chunks, vectors, fingerprint=fingerprint, embedder=made_by.name)


def ids(hits):
    """Return the documents' ids of hits."""
    return [hit.document_id for hit in hits]
