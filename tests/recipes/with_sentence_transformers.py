"""sentence-transformers: a model embeds, one batch at a time, since it uses all cores itself."""

from sentence_transformers import SentenceTransformer

from ragasync.documents import AsyncDocumentProcessor, SqliteStore, Stage

name = "all-MiniLM-L6-v2"
model = SentenceTransformer(name)
store = SqliteStore("library.sqlite")
embed = Stage(model.encode, max_concurrency=1, name=name)  # the model does not say its name
processor = AsyncDocumentProcessor(embed=embed, store=store)
result = processor.process_sync("docs")
hits = store.search("What about errors?", k=3)
