"""Four real processes share one rate."""

import subprocess
import sys
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.real_time

SCRIPT = Path(__file__).parents[1] / "support" / "redis_rate_script.py"  # it imports redis

RATE, SECONDS = 200.0, 5.0
GIVEN = 4.0  # the weight that Redis assigns together at this rate; the declared burst is 8


def most_in_a_second(times: Sequence[float]) -> int:
    """Return the most in any half-open second; it is enough to start one at each."""
    return max(bisect_left(times, start + 1) - n for n, start in enumerate(times))


def test_four_processes_share_a_rate(tmp_path: Path):
    """All of it, none above the bound, each its part; and no call begins before its slot."""
    script = [sys.executable, str(SCRIPT)]
    with RedisServer(tmp_path) as server:
        command = [*script, str(server.port), str(RATE), str(SECONDS)]
        sharers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
        outputs = [sharer.communicate()[0].split() for sharer in sharers]
        assert [sharer.returncode for sharer in sharers] == [0] * 4
        slots = sorted(float(slot) for slot in server.asked().lrange("slots", 0, -1))
    counts = [len(each) for each in outputs]
    calls = sorted(float(when) for each in outputs for when in each)
    late = [call - slot for call, slot in zip(calls, slots, strict=True)]

    assert min(late) > -0.002  # the two clocks are one, read in microseconds
    assert most_in_a_second(slots) <= RATE + GIVEN
    assert most_in_a_second(calls) <= GIVEN + RATE * (1 + max(0.02, max(late)))
    # All four are there for these seconds.
    middle = [call for call in calls if 1.0 <= call - calls[0] < SECONDS - 1.0]
    assert len(middle) == pytest.approx(RATE * (SECONDS - 2.0), rel=0.02)
    assert min(counts) > 0.7 * max(counts)
