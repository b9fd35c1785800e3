"""
The program of a worker process: read texts from standard input, write their vectors to the output.

    python -m ragasync.documents.worker_process DIMENSION

EmbeddingProcesses starts it. It ends when its input does.
"""

from __future__ import annotations

import signal
import sys
from typing import BinaryIO

from ragasync.documents.embedders import HashingEmbedder
from ragasync.documents.embedding_processes import READY, read_texts


def serve(embedder: HashingEmbedder, requests: BinaryIO, replies: BinaryIO) -> None:
    """Embed texts until the input ends."""
    replies.write(READY)
    replies.flush()
    while (texts := read_texts(requests)) is not None:
        replies.write(embedder(texts).data)
        replies.flush()


if __name__ == "__main__":
    # Ctrl-C in a terminal reaches this process too; the run that started it decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # PYTHONUNBUFFERED may have made sys.stdout one that writes only a part of what it gets.
    with open(sys.stdout.fileno(), "wb", closefd=False) as replies:
        serve(HashingEmbedder(int(sys.argv[1])), sys.stdin.buffer, replies)
