"""
Documents: load, chunk, embed and store them, and search them.

    processor.py         AsyncDocumentProcessor: its arguments, and how it runs; DocumentJob
    run_sources.py       RunSources: the sources of one run; RootCheck, Pruner
    sources.py           find_sources: folders, paths and texts; FrameSource; ids of files
    unique_sources.py    each source once per run, and no two sources with one id
    resume.py            the journal of a document processor
    stage.py             Stage: a function with its own settings, and what counts as changed
    config.py            PipelineConfig: the settings of all stages, and PipelineControls
    pipeline.py          Pipeline: the stages of one run, and the way of a document through them
    prepare.py           loads, looks up and chunks documents, on threads or on an executor
    thread_batches.py    ThreadBatcher: several quick calls in one hand-over to a thread
    adapters.py          users' functions and stores as the calls of the pipeline; StoreClaim
    document_records.py  PreparedDocument, on its way to the embedder; ProcessedDocument, the result
    loaders/             bytes to text, by file type
    splitters.py         text to chunks; lines, pages and headings of chunks
    embedders/           texts to vectors: by hashing, a small model, or a service
    stored_state.py      what the store has already; SpareVectors: of documents that are given up
    store.py             Store: the protocol of stores, and its errors
    stores/              SqliteStore, LanceStore, MemoryStore
    search.py            Filter: conditions on metadata; Hit, Hits: the results of a search
    search_text.py       the words of a text in any script
    dataframes.py        documents_, stages_, chunks_dataframe: the results as DataFrames
    models.py            Document, Chunk; LoadError and its reasons, and other errors

Each source is an item of a run. A thread loads a block of sources, looks their documents up in the
store, and splits them into chunks with locations. The chunks of many documents share the batches of
the embedder, unless the store has their vectors. When the last vector of a document is ready, it is
stored together with others, and its ProcessedDocument is the value of its outcome.
"""

from ragasync.documents.dataframes import chunks_dataframe, documents_dataframe, stages_dataframe
from ragasync.documents.document_records import ProcessedDocument
from ragasync.documents.embedders import Embedder, HashingEmbedder, WordLlamaEmbedder
from ragasync.documents.embedders.openai import OpenAIEmbedder
from ragasync.documents.loaders import LOADERS, load_source
from ragasync.documents.loaders.html import load_html
from ragasync.documents.loaders.pdf import EmptyPage, PDFLoader
from ragasync.documents.loaders.tables import CSVLoader, JSONLinesLoader
from ragasync.documents.loaders.text import load_text
from ragasync.documents.models import (
    LOAD_REASONS,
    Chunk,
    Document,
    IdConflictError,
    LoadError,
    LoadReason,
    PartialDocumentFailure,
)
from ragasync.documents.processor import AsyncDocumentProcessor, DocumentJob
from ragasync.documents.search import Filter, Hit, Hits
from ragasync.documents.sources import FrameSource, Source, find_sources
from ragasync.documents.splitters import (
    RecursiveSplitter,
    SemanticTextSplitter,
    TokenSplitter,
    add_locations,
)
from ragasync.documents.stage import Stage
from ragasync.documents.store import (
    EmbedderMismatch,
    RunRefused,
    Store,
    StoredDocument,
    StoredDocuments,
    StoreError,
    StoreRequest,
)
from ragasync.documents.stores.lance import LanceStore
from ragasync.documents.stores.sqlite import MemoryStore, SqliteStore

__all__ = [
    "LOADERS",
    "LOAD_REASONS",
    "AsyncDocumentProcessor",
    "CSVLoader",
    "Chunk",
    "Document",
    "DocumentJob",
    "Embedder",
    "EmbedderMismatch",
    "EmptyPage",
    "Filter",
    "FrameSource",
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
    "StoreRequest",
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
    "stages_dataframe",
]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return list(__all__)
