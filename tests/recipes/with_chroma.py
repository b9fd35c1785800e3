"""Chroma: a collection keeps the chunks, under ids that are the same in each run."""

import chromadb

from ragasync.documents import AsyncDocumentProcessor, HashingEmbedder

collection = chromadb.PersistentClient("chroma").get_or_create_collection(
    "library", embedding_function=None
)


def store(document, chunks, embeddings):
    if chunks:
        ids = [f"{document.id}#{n}" for n in range(len(chunks))]
        metadatas = [{"document": document.id, "n": n, **c.metadata} for n, c in enumerate(chunks)]
        collection.upsert(ids, embeddings, metadatas=metadatas, documents=[c.text for c in chunks])
    # What an older version that was longer has left.
    collection.delete(where={"$and": [{"document": document.id}, {"n": {"$gte": len(chunks)}}]})


processor = AsyncDocumentProcessor(store=store)
result = processor.process_sync("docs")
hits = collection.query(HashingEmbedder()(["What about errors?"]), n_results=3)["documents"][0]
