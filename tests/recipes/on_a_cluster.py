"""
Dask: the same notebook, its work on a cluster.

The function travels, with what it refers to, and so do the items and the values. The limit, the
retries, the journal and the progress stay here: workers know nothing of them. A group of
`batch_size` items goes at a time, of at most `max_concurrency` groups; a worker that dies costs a
retry of what it had not finished. Workers need ragasync too, and what the function imports.
"""

from pathlib import Path

from distributed import Client, LocalCluster

from ragasync import AsyncBatchProcessor, RateLimiter

STOP_WORDS = {"the", "a", "of"}


def count_words(path):
    words = Path(path).read_text().lower().split()
    return sum(word not in STOP_WORDS for word in words)


if __name__ == "__main__":  # worker processes import this file
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        processor = AsyncBatchProcessor(
            count_words,
            batch_size=16,
            max_concurrency=8,
            rate_limiter=RateLimiter(500),
            journal="counted.sqlite",
            executor=client.get_executor(),
        )
        result = processor.process_sync(sorted(Path("docs").glob("*.md")), print)
