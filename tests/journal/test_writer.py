"""Writer: a job that waits for space is notified."""

import threading

# Internals: a writer that waits when the test wants it to.
from ragasync.journal.session import Writer


def test_a_job_that_finds_the_writer_full_is_notified_of_space():
    """The last entry may fill it just when a group is done: the space is still announced."""
    room, writing, go_on = threading.Event(), threading.Event(), threading.Event()

    def write(_group: object) -> None:
        writing.set()
        assert go_on.wait(10)

    writer: Writer[int] = Writer(write, 0.0, 4, lambda _: None, room.set)
    writer.put(0)
    assert writing.wait(10)
    for entry in (1, 2):
        writer.put(entry)
    assert not writer.is_full
    writer.put(3)
    assert writer.is_full
    go_on.set()
    assert room.wait(10)
    writer.close()
    assert not writer.is_full


def test_a_writer_under_load_always_notifies():
    """It is full and empty thousands of times, and its user is notified each time."""
    room = threading.Event()
    written: list[int] = []
    writer: Writer[int] = Writer(written.extend, 0.0, 2, lambda _: None, room.set)
    for entry in range(5_000):
        room.clear()
        while writer.is_full:
            assert room.wait(10)
            room.clear()
        writer.put(entry)
    writer.close()
    assert written == [*range(5_000)]


def test_a_writer_that_has_failed_is_full_for_good():
    """Calls started before the run knows of the error would be lost with the process."""
    heard = threading.Event()

    def write(_group: object) -> None:
        raise OSError("the disk is full")

    writer: Writer[int] = Writer(write, 0.0, 4, lambda _: heard.set(), lambda: None)
    assert not writer.is_full
    writer.put(0)
    assert heard.wait(10)
    assert writer.is_full
    writer.close()
