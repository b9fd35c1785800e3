"""LlamaIndex: a node parser cuts, and an embedding model embeds."""

from llama_index.core import Document
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.node_parser import MarkdownNodeParser

from ragasync.documents import AsyncDocumentProcessor, SqliteStore

parser = MarkdownNodeParser()
model = MockEmbedding(embed_dim=8)  # stands for OpenAIEmbedding(...), or any other


def nodes(text):  # of a splitter such as SentenceSplitter, splitter.split_text does without
    return [node.text for node in parser.get_nodes_from_documents([Document(text=text)])]


store = SqliteStore("library.sqlite")
processor = AsyncDocumentProcessor(chunk=nodes, embed=model.get_text_embedding_batch, store=store)
result = processor.process_sync("docs")
hits = store.search("What about errors?", k=3)
