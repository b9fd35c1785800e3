"""
The script that Redis runs: the arithmetic of a rate limit that many processes share.

It is the generic cell rate algorithm of `limits/bucket.py`, but it reserves: whoever asks is given
a place in time, and told how far off that is. Redis runs one script at a time, so that places are
given in the order in which requests arrive, and all by its own clock: those of the machines do not
matter. One request may ask for several places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

SCRIPT: Final = """
local key, log = KEYS[1], KEYS[2]
local known, ahead, pause = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local says = ARGV[4] == '1'
local rate, burst, per = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local pauses, resumes, waits_out = ARGV[8] == '1', ARGV[9] == '1', ARGV[10] == '1'
local weighs, lapse, set_at = ARGV[11] == '1', tonumber(ARGV[12]), tonumber(ARGV[13])
local time = redis.call('TIME')
local fields = {'epoch', 'offset', 'at', 'tat', 'last', 'opens', 'rate', 'burst', 'per', 'sum',
  'logged', 'set_at', 'server'}
local state = redis.call('HMGET', key, unpack(fields))
local epoch = state[1]
local offset, now, tat, last, opens, sum, logged
local owed, closed = 0, 0

-- Which server this is: another one after a restart or a failover, whose copy may be old. Some
-- users may not ask, and some servers do not say.
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or state[13] or ''
local is_another = (state[13] or '') ~= '' and state[13] ~= server

-- The terms that were set last are in force, also where the state that had them was lost.
local set_before = tonumber(state[12] or 0)
if says then set_at = math.max(time[1] + time[2] / 1000000, set_before) end

if epoch then
  -- Seconds since the state began, so that a double holds them finely.
  offset, tat, last = tonumber(state[2]), tonumber(state[4]), tonumber(state[5])
  opens, sum, logged = tonumber(state[6]), tonumber(state[10]), tonumber(state[11])
  now = time[1] - string.match(epoch, '^%d+') + time[2] / 1000000 + offset
  local at = tonumber(state[3])
  if now < at then  -- somebody set the clock back: go on from where it was
    offset = offset + at - now
    now = at
  end
  if says or set_at > set_before then
    local base = math.max(now, last)  -- places that were given stay given
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
  -- A new name, or one whose state was lost: nobody can tell what was given before. So the bucket
  -- begins empty, and the window full where weights may have gone together.
  epoch = time[1] .. '.' .. time[2]
  offset, now, sum, logged = 0, time[2] / 1000000, 0, 0
  redis.call('DEL', log)
  last, opens = now, now + math.max(closed, 0)
  tat = math.max(now + lapse + math.max(burst - 1, 0) / rate, now + owed)
  if per > 0 and weighs then
    sum, logged = rate * per, 1
    redis.call('RPUSH', log, string.format('%.17g %.17g', now + lapse, sum))
  end
end
if known ~= epoch then tat = math.max(tat, now + ahead) end
if resumes then opens = now end
-- What was said before counts only if it was lost: somebody may have ended that pause since.
if pauses or known ~= epoch then opens = math.max(opens, now + pause) end

local waits = {}
-- A place behind a pause could not be had earlier when the pause is ended.
local asked = waits_out and opens > now and 13 or #ARGV
for i = 14, asked do
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
      due = math.max(due, when + per + 0.02)  -- longer, for a call that began late
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
-- Kept for an hour of rest: what is gone begins with an empty bucket.
local expires = math.ceil(math.max(tat, last + per, opens) - now) + 3600
redis.call('EXPIRE', key, expires)
if per > 0 then redis.call('EXPIRE', log, expires) end
local told = {epoch}
for _, value in ipairs({tat - now, rate, burst, per, math.max(opens - now, 0), set_at}) do
  told[#told + 1] = string.format('%.17g', value)
end
return {told, waits}
"""

SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The name under which Redis keeps the script."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a limiter allows.

    Attributes:
        rate: a second.
        burst: how much Redis gives at once after a rest.
        per: the length of a window that never takes more than `rate * per`; 0 for none.
    """

    rate: float
    burst: float
    per: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """
    What a process tells the script, and asks.

    Attributes:
        epoch: which state it knows, as the script named it; empty for none.
        ahead: seconds until the bucket is full again after the places that this process has used:
            counts where the state was lost.
        pause: seconds for which nothing is to be given.
        terms: what it takes to be in force.
        says: whether these terms hold from now on, even if others said otherwise.
        weights: of the places that it asks for.
        pauses: whether the pause is new; one said before counts only where Redis has lost it.
        resumes: whether a pause in force ends now.
        waits_out: whether to give no places while there is a pause, which may be ended early.
        weighs: whether places may differ in weight.
        lapse: seconds that a new state gives nothing, until no place of a former one is used.
        set_at: when the terms were set, by the clock of the Redis that was told; 0 where unknown.
            If its state was lost, those that were set last of all that are told come into force.
    """

    epoch: str
    ahead: float
    pause: float
    terms: Terms
    says: bool
    weights: Sequence[float]
    pauses: bool = True
    resumes: bool = False
    waits_out: bool = False
    weighs: bool = False
    lapse: float = 0.0
    set_at: float = 0.0

    def arguments(self) -> list[str]:
        """Return them as the script reads them."""
        terms = self.terms
        numbers = (float(terms.rate), float(terms.burst), float(terms.per))
        weights = (repr(float(weight)) for weight in self.weights)
        head = [self.epoch, repr(self.ahead), repr(self.pause), "1" if self.says else "0"]
        flags = (self.pauses, self.resumes, self.waits_out, self.weighs)
        said = ("1" if flag else "0" for flag in flags)
        return [*head, *map(repr, numbers), *said, repr(self.lapse), repr(self.set_at), *weights]


@dataclass(frozen=True, slots=True)
class Reply:
    """
    What the script tells.

    Attributes:
        epoch: which state this is; another one after it was lost.
        ahead: seconds until the bucket is full, in which all that was given is paid back.
        terms: in force for all.
        waits: seconds until each place comes, never less than for the one before. There are none
            in a pause, for a request that waits it out.
        closed: seconds until the pause in force ends; 0 without one.
        set_at: when the terms in force were set.
    """

    epoch: str
    ahead: float
    terms: Terms
    waits: tuple[float, ...]
    closed: float = 0.0
    set_at: float = 0.0

    @classmethod
    def read(cls, told: Any) -> Reply:
        """Read it, as bytes."""
        (epoch, *numbers), waits = told
        ahead, rate, burst, per, closed, set_at = map(float, numbers)
        terms = Terms(rate, burst, per)
        return cls(epoch.decode(), ahead, terms, tuple(map(float, waits)), closed, set_at)
