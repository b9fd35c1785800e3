"""Qdrant: a collection keeps the chunks, under ids that are the same in each run."""

from uuid import NAMESPACE_URL, uuid5

from qdrant_client import QdrantClient
from qdrant_client.models import (
    Batch,
    Distance,
    FieldCondition,
    Filter,
    MatchValue,
    Range,
    VectorParams,
)

from ragasync.documents import AsyncDocumentProcessor, HashingEmbedder, Stage

client = QdrantClient(path="qdrant")
if not client.collection_exists("library"):
    client.create_collection("library", VectorParams(size=1024, distance=Distance.COSINE))


def store(document, chunks, embeddings):
    if chunks:
        ids = [str(uuid5(NAMESPACE_URL, f"{document.id}#{n}")) for n in range(len(chunks))]
        payloads = [{"document": document.id, "n": n, "text": c.text} for n, c in enumerate(chunks)]
        client.upsert("library", Batch(ids=ids, vectors=embeddings.tolist(), payloads=payloads))
    # What an older version that was longer has left.
    own = FieldCondition(key="document", match=MatchValue(value=document.id))
    stale = FieldCondition(key="n", range=Range(gte=len(chunks)))
    client.delete("library", Filter(must=[own, stale]))


# Without a server it takes one call at a time: two at once write over each other.
processor = AsyncDocumentProcessor(store=Stage(store, max_concurrency=1))
result = processor.process_sync("docs")
question = HashingEmbedder()(["What about errors?"])[0]
hits = [hit.payload["text"] for hit in client.query_points("library", question, limit=3).points]
