"""Load, chunk, embed and store documents on the engine."""

from ragasync.documents.chunk import RecursiveSplitter
from ragasync.documents.chunk_frames import chunks_dataframe
from ragasync.documents.document import Chunk, Document
from ragasync.documents.embed import Embedder, HashingEmbedder
from ragasync.documents.errors import LOAD_REASONS, LoadError, LoadReason
from ragasync.documents.failures import SomeDocumentsFailed
from ragasync.documents.frames import documents_dataframe, stages_dataframe
from ragasync.documents.lance import LanceStore
from ragasync.documents.load import LOADERS, load_source
from ragasync.documents.loaders.csv_rows import CsvRows
from ragasync.documents.loaders.json_lines import JsonLines
from ragasync.documents.located import located
from ragasync.documents.memory import MemoryStore
from ragasync.documents.metering import note_usage
from ragasync.documents.openai import OpenAIEmbedder
from ragasync.documents.pipeline import AsyncDocumentProcessor
from ragasync.documents.processed import ProcessedDocument
from ragasync.documents.semantic import SemanticSplitter
from ragasync.documents.sources import Source, find_sources
from ragasync.documents.sqlite import SqliteStore
from ragasync.documents.stage import Stage
from ragasync.documents.store import Hit, Store, StoreError, WrongEmbedder
from ragasync.documents.tokens import TokenSplitter
from ragasync.documents.where import Where
from ragasync.documents.wordllama import WordLlamaEmbedder

__all__ = [
    "LOADERS",
    "LOAD_REASONS",
    "AsyncDocumentProcessor",
    "Chunk",
    "CsvRows",
    "Document",
    "Embedder",
    "HashingEmbedder",
    "Hit",
    "JsonLines",
    "LanceStore",
    "LoadError",
    "LoadReason",
    "MemoryStore",
    "OpenAIEmbedder",
    "ProcessedDocument",
    "RecursiveSplitter",
    "SemanticSplitter",
    "SomeDocumentsFailed",
    "Source",
    "SqliteStore",
    "Stage",
    "Store",
    "StoreError",
    "TokenSplitter",
    "Where",
    "WordLlamaEmbedder",
    "WrongEmbedder",
    "chunks_dataframe",
    "documents_dataframe",
    "find_sources",
    "load_source",
    "located",
    "note_usage",
    "stages_dataframe",
]
