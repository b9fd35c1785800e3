"""
The Lua script of a shared rate limit, its requests and replies, and what a process remembers.

The script is the generic cell rate algorithm of `_limits/bucket.py`, but it makes reservations:
each request gets slots in time, and how far away they are. Redis runs one script at a time, so
slots are assigned in the order in which requests arrive, and by the clock of Redis alone, so the
clocks of the machines need not agree. One request may ask for several slots.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

SCRIPT: Final = """
local key, log = KEYS[1], KEYS[2]
local known, ahead, pause = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local sets_terms = ARGV[4] == '1'
local rate, burst, per = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local new_pause, ends_pause, no_slots_in_pause = ARGV[8] == '1', ARGV[9] == '1', ARGV[10] == '1'
local weighted, grace, set_at = ARGV[11] == '1', tonumber(ARGV[12]), tonumber(ARGV[13])
local time = redis.call('TIME')
local fields = {'epoch', 'offset', 'at', 'tat', 'last', 'opens', 'rate', 'burst', 'per', 'sum',
  'logged', 'set_at', 'server'}
local state = redis.call('HMGET', key, unpack(fields))
local epoch = state[1]
local offset, now, tat, last, opens, sum, logged
local owed, closed = 0, 0

-- The id of this server. After a restart or a failover it is another one, whose copy of the state
-- may be old. Some users may not read it, and some servers do not have it.
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or state[13] or ''
local is_another = (state[13] or '') ~= '' and state[13] ~= server

-- The terms that were set last are in force, also if the state that had them was lost.
local set_before = tonumber(state[12] or 0)
if sets_terms then set_at = math.max(time[1] + time[2] / 1000000, set_before) end

if epoch then
  -- Seconds since the state was created, so that a double is precise enough.
  offset, tat, last = tonumber(state[2]), tonumber(state[4]), tonumber(state[5])
  opens, sum, logged = tonumber(state[6]), tonumber(state[10]), tonumber(state[11])
  now = time[1] - string.match(epoch, '^%d+') + time[2] / 1000000 + offset
  local at = tonumber(state[3])
  if now < at then  -- the clock was set back: continue from the latest time
    offset = offset + at - now
    now = at
  end
  if sets_terms or set_at > set_before then
    local base = math.max(now, last)  -- assigned slots stay assigned
    if tat > base then tat = base + (tat - base) * tonumber(state[7]) / rate end
  else
    rate, burst, per = tonumber(state[7]), tonumber(state[8]), tonumber(state[9])
    set_at = set_before
  end
  if is_another or redis.call('LLEN', log) ~= logged then
    epoch, owed, closed = false, tat - now, opens - now
  end
end
if not epoch then
  -- A new name, or one whose state was lost: it is unknown which slots were assigned before. So
  -- the bucket starts empty, and the window starts full if weights may differ.
  epoch = time[1] .. '.' .. time[2]
  offset, now, sum, logged = 0, time[2] / 1000000, 0, 0
  redis.call('DEL', log)
  last, opens = now, now + math.max(closed, 0)
  tat = math.max(now + grace + math.max(burst - 1, 0) / rate, now + owed)
  if per > 0 and weighted then
    sum, logged = rate * per, 1
    redis.call('RPUSH', log, string.format('%.17g %.17g', now + grace, sum))
  end
end
if known ~= epoch then tat = math.max(tat, now + ahead) end
if ends_pause then opens = now end
-- A pause that was reported before counts only if the state was lost: it may have ended since.
if new_pause or known ~= epoch then opens = math.max(opens, now + pause) end

-- Grants whose calls used another amount than their weight, as pairs of both.
local pairs_end = 14 + 2 * tonumber(ARGV[14])
local places  -- of each weight in the log, the oldest last
for i = 15, pairs_end, 2 do
  local weight, used = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  if used > weight then
    tat = math.max(tat, now) + (used - weight) / rate
    if per > 0 then
      sum, logged = sum + used - weight, logged + 1
      local when = math.max(now, last)  -- the log is in the order of time
      redis.call('RPUSH', log, string.format('%.17g %.17g', when, used - weight))
    end
  elseif known == epoch then  -- otherwise the state that counted the grant is lost
    tat = tat - (weight - used) / rate  -- before now, it means that the bucket is full
    if per > 0 and not places then
      places = {}
      local entries = redis.call('LRANGE', log, 0, -1)
      for place = #entries, 1, -1 do
        local when, amount = string.match(entries[place], '(%S+) (%S+)')
        amount = tonumber(amount)
        places[amount] = places[amount] or {}
        table.insert(places[amount], {place - 1, when})
      end
    end
    local entry = places and places[weight] and table.remove(places[weight])
    if entry then
      sum = sum - (weight - used)
      redis.call('LSET', log, entry[1], string.format('%s %.17g', entry[2], used))
    end
  end
end

local waits = {}
-- A slot after a pause would not move forward if the pause is ended early.
local last_arg = no_slots_in_pause and opens > now and pairs_end or #ARGV
for i = pairs_end + 1, last_arg do
  local weight = tonumber(ARGV[i])
  local due = math.max(now, opens, last, tat - math.max(burst - weight, 0) / rate)
  if per > 0 then
    local limit = rate * per * (1 + 1e-9)
    while sum + weight > limit do
      local first = redis.call('LPOP', log)
      if not first then
        sum, logged = 0, 0
        break
      end
      logged = logged - 1
      local when, expired = string.match(first, '(%S+) (%S+)')
      sum = sum - expired
      due = math.max(due, when + per + 0.02)  -- longer, for a call that starts late
    end
    sum = sum + weight
    logged = logged + 1
    redis.call('RPUSH', log, string.format('%.17g %.17g', due, weight))
  end
  tat = math.max(tat, due) + weight / rate
  last = due
  waits[#waits + 1] = string.format('%.6f', due - now)
end

local values = {offset, now, tat, last, opens, rate, burst, per, sum, logged, set_at}
local written = {'epoch', epoch, 'server', server}
for i, value in ipairs(values) do
  written[#written + 1] = fields[i + 1]
  written[#written + 1] = string.format('%.17g', value)
end
redis.call('HSET', key, unpack(written))
-- Kept for an hour without requests; afterwards the bucket starts empty.
local expires = math.ceil(math.max(tat, last + per, opens) - now) + 3600
redis.call('EXPIRE', key, expires)
if per > 0 then redis.call('EXPIRE', log, expires) end
local reply = {epoch}
for _, value in ipairs({tat - now, rate, burst, per, math.max(opens - now, 0), set_at}) do
  reply[#reply + 1] = string.format('%.17g', value)
end
return {reply, waits}
"""

SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The SHA-1 by which Redis knows the script."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    The terms of a limit: rate, burst and window.

    Attributes:
        rate: The rate per second.
        burst: The weight that Redis assigns immediately after an idle time.
        per: The length of a window that never gets more than `rate * per`; 0 for no window.
    """

    rate: float
    burst: float
    per: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """
    A request to the script: the process's knowledge of the limit, and the weights of new slots.

    Attributes:
        epoch: The id of the state that the process knows; empty for none.
        ahead: Seconds until the bucket is full again after the slots that this process has used;
            counts if the state was lost.
        pause: Seconds for which no slots are to be assigned.
        terms: The terms that the process believes to be in force.
        sets_terms: Whether these terms are new and overrule those in Redis.
        weights: The weight of each requested slot.
        new_pause: Whether the pause is new; one reported before counts only if Redis has lost it.
        ends_pause: Whether a pause in force ends now.
        no_slots_in_pause: Whether to assign no slots during a pause, which may be ended early.
        weighted: Whether the weights of slots may differ.
        grace: Seconds for which a new state assigns no slot, because slots of a former state may
            still be used.
        set_at: The time at which the terms were set, by the clock of Redis; 0 if unknown. If the
            state was lost, the terms that were set last come into force.
        corrections: The weights of earlier slots, each with what was used instead. A surplus counts
            only if `epoch` is still in force.
    """

    epoch: str
    ahead: float
    pause: float
    terms: Terms
    sets_terms: bool
    weights: Sequence[float]
    new_pause: bool = True
    ends_pause: bool = False
    no_slots_in_pause: bool = False
    weighted: bool = False
    grace: float = 0.0
    set_at: float = 0.0
    corrections: Sequence[tuple[float, float]] = ()

    def arguments(self) -> list[str]:
        """Return the request as the arguments of the script."""
        terms = self.terms
        numbers = (float(terms.rate), float(terms.burst), float(terms.per))
        weights = (repr(float(weight)) for weight in self.weights)
        head = [self.epoch, repr(self.ahead), repr(self.pause), "1" if self.sets_terms else "0"]
        flags = (self.new_pause, self.ends_pause, self.no_slots_in_pause, self.weighted)
        bits = ("1" if flag else "0" for flag in flags)
        amounts = [repr(float(amount)) for pair in self.corrections for amount in pair]
        changes = [repr(self.grace), repr(self.set_at), str(len(self.corrections)), *amounts]
        return [*head, *map(repr, numbers), *bits, *changes, *weights]


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A reply of the script: the state of the limit, and the wait until each slot.

    Attributes:
        epoch: The id of the state; another one after it was lost.
        ahead: Seconds until the bucket is full, with all assigned slots refilled.
        terms: The terms in force for all processes.
        waits: Seconds until each slot, in ascending order. Empty in a pause, for a request with
            `no_slots_in_pause`.
        paused_for: Seconds until the pause in force ends; 0 without one.
        set_at: The time at which the terms in force were set.
    """

    epoch: str
    ahead: float
    terms: Terms
    waits: tuple[float, ...]
    paused_for: float = 0.0
    set_at: float = 0.0

    @classmethod
    def read(cls, reply: Any) -> Reply:
        """Return a reply parsed from the bytes that Redis sends."""
        (epoch, *numbers), waits = reply
        ahead, rate, burst, per, paused_for, set_at = map(float, numbers)
        terms = Terms(rate, burst, per)
        return cls(epoch.decode(), ahead, terms, tuple(map(float, waits)), paused_for, set_at)


LEASE: Final = 0.1
"""
Seconds for which slots stay valid after their process last heard of the state that assigned them.

So no slot is used later than that after the state was lost.
"""


class LocalState:
    """
    The state of a shared limit as this process knows it: terms, pause, and use of slots.

    Redis may lose its state: killed, flushed, replaced. Then the next request of each process
    restores what that process knows. It may be used from any thread.

    Args:
        terms: The limiter's terms; the first request sets them.
        weighted: Whether the limiter has a `weight`.
    """

    def __init__(self, terms: Terms, *, weighted: bool = False) -> None:
        self._lock = threading.Lock()
        self._terms, self._set_at = terms, 0.0
        self._weighted = weighted
        # Changes made here are numbered, to know which of them Redis has acknowledged.
        self._version, self._acknowledged = 1, 0
        self._terms_version, self._pause_version, self._resume_version = 1, 0, 0
        self._paused_until = -1.0
        self._epoch, self._full_at = "", 0.0
        self._corrections: list[tuple[float, float]] = []  # that no request has taken along

    @property
    def terms(self) -> Terms:
        """The terms in force, as far as known; set them to change them for all processes."""
        return self._terms

    @terms.setter
    def terms(self, terms: Terms) -> None:
        with self._lock:
            self._terms = terms
            self._version = self._terms_version = self._version + 1

    @property
    def paused_for(self) -> float:
        """Seconds until the pause in force ends, as far as known; 0.0 without one."""
        return max(0.0, self._paused_until - monotonic())

    def pause(self, seconds: float) -> None:
        """Pause the limit for all processes; a pause in force that ends later stays."""
        with self._lock:
            if (until := monotonic() + seconds) > self._paused_until and seconds > 0.0:
                self._paused_until = until
                self._version = self._pause_version = self._version + 1

    def resume(self) -> None:
        """End the pause in force, for all processes."""
        with self._lock:
            self._paused_until = -1.0
            self._version = self._resume_version = self._version + 1

    def correct(self, weight: float, used: float) -> None:
        """Correct an earlier slot, for all processes; the next request takes it along."""
        with self._lock:
            self._weighted = True
            self._corrections.append((weight, used))
            if used > weight:
                owed = (used - weight) / self._terms.rate
                self._full_at = max(self._full_at, monotonic()) + owed

    def restore(self, request: Request) -> None:
        """
        Keep the debts of a request that may not have arrived for the next one.

        A surplus is dropped: if the request did arrive, it would be returned twice.
        """
        debts = [(weight, used) for weight, used in request.corrections if used > weight]
        with self._lock:
            self._corrections[:0] = debts

    def request(self, weights: tuple[float, ...]) -> tuple[Request, int]:
        """Return a request for slots, and the version of the changes that it reports."""
        with self._lock:
            self._weighted = self._weighted or any(weight != 1.0 for weight in weights)
            corrections, self._corrections = self._corrections, []
            request = Request(
                self._epoch,
                max(0.0, self._full_at - monotonic()),
                self.paused_for,
                self._terms,
                self._terms_version > self._acknowledged,
                weights,
                new_pause=self._pause_version > self._acknowledged,
                ends_pause=self._resume_version > self._acknowledged,
                no_slots_in_pause=True,
                weighted=self._weighted,
                grace=LEASE + _grace_after_lease(self._terms),
                set_at=self._set_at,
                corrections=corrections,
            )
            return request, self._version

    def record_use(self, weight: float) -> None:
        """Record that a slot is used now: the bucket is full again after its burst at most."""
        with self._lock:
            owed = max(weight, self._terms.burst) / self._terms.rate
            self._full_at = max(self._full_at, monotonic() + owed)

    def update(self, reply: Reply, version: int) -> None:
        """Apply the reply to a request of this version; changes made since then are kept."""
        with self._lock:
            self._epoch = reply.epoch
            self._acknowledged = max(self._acknowledged, version)
            if self._terms_version <= version:
                self._terms, self._set_at = reply.terms, reply.set_at
            if max(self._pause_version, self._resume_version) <= version:
                self._paused_until = monotonic() + reply.paused_for if reply.paused_for else -1.0


def _grace_after_lease(terms: Terms) -> float:
    """
    Return the seconds between the last slot of a lost state and the first of a new state.

    Slots of the lost state were assigned at the rate, after an initial burst. The bound of a bucket
    allows for that burst, and the new state's bucket starts empty, so the next slot is due after
    1 / rate. The bound of a window does not allow for it; its slots may also be used 20 ms late.
    """
    if not terms.per:
        return 1 / terms.rate
    return 0.02 + (1 + terms.burst) / terms.rate
