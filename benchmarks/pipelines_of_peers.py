"""
Ways to cut documents into chunks and have them embedded that other packages offer.

Each is an async function of (documents, embed, at_once) that imports its package itself, and uses
it as its own documentation does; `pipelines.py` names them as contenders. Chunks are as long as
those of the others: LlamaIndex counts tokens, so its counter takes each character for one. What it
needs of tiktoken and nltk comes inside its package.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from corpus import Pair
from pipelines_by_hand import BATCH, CHARACTERS, Embed, again


async def with_langchain(
    documents: Sequence[Pair], embed: Embed, at_once: int
) -> list[tuple[Any, Any]]:
    """Cut with LangChain's splitter, and embed with `abatch`."""
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(chunk_size=CHARACTERS, chunk_overlap=0)
    chunks = splitter.split_documents(
        [Document(page_content=text, metadata={"source": name}) for name, text in documents]
    )
    texts = [chunk.page_content for chunk in chunks]
    calls = RunnableLambda(partial(again, embed))  # its own `with_retry` takes a fifth longer
    batches = await calls.abatch(
        [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)],
        {"max_concurrency": at_once},
    )
    return list(zip(chunks, chain.from_iterable(batches), strict=True))


async def with_llama_index(documents: Sequence[Pair], embed: Embed, at_once: int) -> Sequence[Any]:
    """Let LlamaIndex's pipeline cut by its SentenceSplitter, and embed by a class for it."""
    from llama_index.core import Document
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter

    class Embedding(BaseEmbedding):  # type: ignore[misc]  # a peer need not be installed
        async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            rows = await again(embed, texts)
            return [row.tolist() for row in rows]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return (await self._aget_text_embeddings([query]))[0]

        def _get_text_embedding(self, text: str) -> list[float]:
            raise NotImplementedError

        _get_query_embedding = _get_text_embedding

    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=CHARACTERS, chunk_overlap=0, tokenizer=list),
            Embedding(embed_batch_size=BATCH, num_workers=at_once),
        ],
    )
    nodes: Sequence[Any] = await pipeline.arun(
        documents=[Document(id_=name, text=text) for name, text in documents]
    )
    return nodes
