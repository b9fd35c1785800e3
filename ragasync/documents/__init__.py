"""Load, chunk, embed and store documents on the engine."""

from ragasync.documents.chunk import RecursiveSplitter
from ragasync.documents.document import Chunk, Document
from ragasync.documents.embed import Embedder, HashingEmbedder
from ragasync.documents.errors import LoadError
from ragasync.documents.load import load_source
from ragasync.documents.memory import MemoryStore
from ragasync.documents.openai import OpenAIEmbedder
from ragasync.documents.pipeline import AsyncDocumentProcessor
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.semantic import SemanticSplitter
from ragasync.documents.sources import Source, find_sources
from ragasync.documents.sqlite import SqliteStore
from ragasync.documents.stage import Stage
from ragasync.documents.store import Hit, Store, StoreError, WrongEmbedder
from ragasync.documents.where import Where
from ragasync.documents.wordllama import WordLlamaEmbedder

__all__ = [
    "AsyncDocumentProcessor",
    "Chunk",
    "Document",
    "Embedder",
    "HashingEmbedder",
    "Hit",
    "LoadError",
    "MemoryStore",
    "OpenAIEmbedder",
    "ProcessedDocument",
    "RecursiveSplitter",
    "SemanticSplitter",
    "Source",
    "SqliteStore",
    "Stage",
    "Store",
    "StoreError",
    "Where",
    "WordLlamaEmbedder",
    "WrongEmbedder",
    "find_sources",
    "load_source",
]
