"""LangChain: a text splitter cuts, and an embeddings object embeds."""

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_text_splitters import RecursiveCharacterTextSplitter

from ragasync.documents import AsyncDocumentProcessor, SqliteStore

splitter = RecursiveCharacterTextSplitter(chunk_size=200, chunk_overlap=40)
embeddings = DeterministicFakeEmbedding(size=64)  # stands for OpenAIEmbeddings(...), or any other
store = SqliteStore("library.sqlite")
processor = AsyncDocumentProcessor(
    chunk=splitter.split_text, embed=embeddings.embed_documents, store=store
)
result = processor.process_sync("docs")
question = "What about errors?"
hits = store.search(question, k=3, vector=embeddings.embed_query(question))
