"""
Load, chunk, embed and store documents on the engine.

    pipeline      AsyncDocumentProcessor            frames     its results as tables
    stages/       its stages, open for a run, and how a document passes them
    stores/       SqliteStore, LanceStore           embedding/ by hashing, a small model, a service
    chunking/     where a text is cut, and where its pieces stand
    loaders/      bytes to text, by file type       sources/   folders, paths, texts, ids
    fingerprints  what counts as changed            embedding_cache  the vectors that a store has
    stage, store, document, where, hits, metering, spending, errors: nouns
    search_text   the words of a text in any script
"""

from ragasync.documents.chunk_dataframes import chunks_dataframe
from ragasync.documents.dataframes import documents_dataframe, stages_dataframe
from ragasync.documents.embedders.hashing import Embedder, HashingEmbedder
from ragasync.documents.embedders.openai import OpenAIEmbedder
from ragasync.documents.embedders.wordllama import WordLlamaEmbedder
from ragasync.documents.errors import LOAD_REASONS, IdConflictError, LoadError, LoadReason
from ragasync.documents.filters import Filter
from ragasync.documents.hits import Hit, Hits
from ragasync.documents.loaders.csv_rows import CSVLoader
from ragasync.documents.loaders.decode import load_text
from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.json_lines import JSONLinesLoader
from ragasync.documents.loaders.load import LOADERS, load_source
from ragasync.documents.loaders.pdf import EmptyPage, PDFLoader
from ragasync.documents.locations import add_locations
from ragasync.documents.metering import note_usage
from ragasync.documents.models import Chunk, Document
from ragasync.documents.processor import AsyncDocumentProcessor
from ragasync.documents.sources.finding import Source, find_sources
from ragasync.documents.splitters.recursive import RecursiveSplitter
from ragasync.documents.splitters.semantic import SemanticTextSplitter
from ragasync.documents.splitters.tokens import TokenSplitter
from ragasync.documents.stage import Stage
from ragasync.documents.stages.failures import PartialDocumentFailure
from ragasync.documents.stages.processed import ProcessedDocument
from ragasync.documents.store import (
    EmbedderMismatch,
    RunRefused,
    Store,
    StoredDocument,
    StoredDocuments,
    StoreError,
)
from ragasync.documents.stores.lance import LanceStore
from ragasync.documents.stores.memory import MemoryStore
from ragasync.documents.stores.sqlite import SqliteStore

__all__ = [
    "LOADERS",
    "LOAD_REASONS",
    "AsyncDocumentProcessor",
    "CSVLoader",
    "Chunk",
    "Document",
    "Embedder",
    "EmbedderMismatch",
    "EmptyPage",
    "Filter",
    "HashingEmbedder",
    "Hit",
    "Hits",
    "IdConflictError",
    "JSONLinesLoader",
    "LanceStore",
    "LoadError",
    "LoadReason",
    "MemoryStore",
    "OpenAIEmbedder",
    "PDFLoader",
    "PartialDocumentFailure",
    "ProcessedDocument",
    "RecursiveSplitter",
    "RunRefused",
    "SemanticTextSplitter",
    "Source",
    "SqliteStore",
    "Stage",
    "Store",
    "StoreError",
    "StoredDocument",
    "StoredDocuments",
    "TokenSplitter",
    "WordLlamaEmbedder",
    "add_locations",
    "chunks_dataframe",
    "documents_dataframe",
    "find_sources",
    "load_html",
    "load_source",
    "load_text",
    "note_usage",
    "stages_dataframe",
]
