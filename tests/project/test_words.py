"""
The words of the code: those of the field, not of the dialect that it was written in.

`python -m tests.project.test_words` lists every line that is left, with the better word.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragasync

PACKAGE = Path(ragasync.__file__).parent

pytestmark = pytest.mark.slow  # it reads the same files with every Python

CEILING = 50
"""Lines that may be left in the package without the documents, where the word is right."""

BETTER = {
    # The names of things.
    "lanes?": "worker",
    "bed|beds": "waiter",
    "breaths?|breathe|hold_breath": "yield_to_loop",
    "heed|heeded|attend_at|reconsider": "set_interrupt, update_interrupt",
    "_?run_through|(?-i:FRESH)": "fast path",
    "aftermath|broken_off|gave_up_late": "error handling, on_cancelled, fail_if_past_deadline",
    "(?-i:Halve|GiveUp|GIVE_UP)": "Split, Fail",
    "tickets?": "PendingCall, call",
    "park|parked|parks": "queue, push",
    "suspects?|apart(?! from)": "isolate",
    "(?-i:Permission|Admission)": "StartDecision, LimiterWait",
    "feeds?": "ItemSource",
    "at_hand|nothing_soon": "has_ready, no_more_expected",
    "forming|(?-i:LINGER)": "filling, FILL_TIMEOUT",
    "settle|settles": "record",
    "hold_back|held_back|holds? back": "pause_input, input_paused",
    "outlet|break_off": "OutcomeBuffer, CancellableSetup.cancel",
    "batch_run": "job_run",
    "hops?|errands?": "group",
    "is_death|made_alike|hindrance": "is_worker_crash, clone_executor, pickling_problem",
    "rouse|roused|take_in_turn|stand_again|give_back": "notify_loop, acquire_all, requeue, refund",
    "gates?": "limiter",
    "lone(?!_? ?surrogate)|leeway|delay_of_some": "single, fast_path_slack, group_delay",
    "alarms?": "timers",
    "(?-i:CUT|HOLDS|RISEN)|cohorts?": "DECREASE, TOLERANCE, CONGESTED, SampleWindow",
    "announce|announced|default_verdict|splits_at_once": "notify, default_retry, should_split",
    "status_of|carries_reply|mismatch_behind": "http_status, may_have_response, find_loop_mismatch",
    "run_?facts|stage_?facts|no_facts": "RunStats, StageStats",
    "knobs?|notch(es)?": "setting, step",
    "(?-i:STRETCHES)": "BINS",
    "columns_of|message_of|note_on": "from_sequences, safe_message, add_note",
    "telling": "notify",
    "in_hops|concurrency_of": "grouped, parse_concurrency",
    "clock_of|clock_here|time_here": "loop_clock, current_clock, now",
    "own_database|open_own": "sqlite_file, open_database",
    "Desk|desk": "Dispatcher",
    "used_by|Recalling|LookedUp|seal|sealed": "bind_journal, JournalReader, Lookup, checksum",
    "_bring_back|WAYS_OUT": "_copy_context_back, ADVICE",
    "showing|how_far": "view, progress_text",
    "(?-i:Making|Ticker)": "WidgetFactory, Refresher",
    "(?-i:ink)|wasted": "text_color, failed_seconds",
    "pattern_of|kinds_of|headline": "error_template, group_errors, title",
    "run_apart|LeapingLoop|rehearse|rehearsals?": "run_on_virtual_clock, run_simulation",
    "circumstances|AS_IN_THE_PILOT": "scenario, USE_PILOT",
    "(?-i:Tried)|lasting": "Attempt, transient, permanent",
    "Resampled|drag_of|Foresight|poison_rate": "BootstrapService, estimate_overhead, ...",
    "poison|poisoned": "bad item",
    # The grammar.
    "return what": "name what is returned",
    "told": "given, reported, stats",
    "whoever|whosoever": "the caller",
    "so many": "a number of",
    "at[ _]once": "concurrently, immediately",
    "in vain|likewise|of late|but for": "without success, too, recently, except",
    "beside|besides": "next to, in addition to",
    "anew": "again",
    "came of|comes? of": "the outcome of",
    "under way": "in progress",
    "bears?": "can take",
    "mend|mended|mends": "fix",
    "is to hold": "must hold",
    "of (its|their|his) own accord": "itself",
}
"""Words of the dialect, as regular expressions without respect to case, and what to write."""

DIALECT = re.compile(
    r"(?<![A-Za-z])(?:"
    + "|".join(rf"(?P<w{i}>({words})(?![A-Za-z]))" for i, words in enumerate(BETTER))
    + ")",
    re.IGNORECASE,
)


def lines_in_dialect() -> Iterator[tuple[str, str, str]]:
    """Yield where each line stands that has a word of the dialect, the word, and a better one."""
    better = list(BETTER.values())
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] == "documents":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if found := DIALECT.search(line):
                yield f"ragasync/{name}:{number}", found[0], better[int(str(found.lastgroup)[1:])]


def test_the_code_is_written_in_the_words_of_the_field():
    """A few lines may be left where the word is the right one."""
    found = list(lines_in_dialect())
    assert len(found) <= CEILING, "\n".join(map(str, found[-20:]))


if __name__ == "__main__":
    only = tuple(sys.argv[1:])
    for place, word, instead in lines_in_dialect():
        if place.startswith(only or "ragasync"):
            print(f"{place}: {word!r}: {instead}")  # noqa: T201  # a command prints
