"""
What a retry policy adds to a call: one that succeeds, and one that is retried without delay.

    python benchmarks/retries.py --calls 50000 --rounds 5

To add a contender, give POLICIES a line: a function that wraps an async function of no arguments.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from measuring import in_turns, installed, processor_time, ratios, table

from ragasync import AsyncRetry

Call: TypeAlias = Callable[[], Awaitable[int]]

ATTEMPTS = 4
"""The most attempts that every policy allows, the first included."""


async def succeed() -> int:
    """Return at once."""
    return 1


def failing_every_other() -> Call:
    """Return a service whose every other call fails, so that each item is tried twice."""
    calls = count(1)

    async def call() -> int:
        if next(calls) % 2:
            raise ConnectionError("reset by peer")
        return 1

    return call


def hand_made(call: Call) -> Call:
    """Catch, sleep, and try again."""

    async def attempts() -> int:
        for _ in range(ATTEMPTS - 1):
            try:
                return await call()
            except ConnectionError:
                await asyncio.sleep(0)
        return await call()

    return attempts


def our_call(call: Call) -> Call:
    """Hand the function to the policy at each call, as where it is not known before."""
    policy = AsyncRetry(max_retries=ATTEMPTS - 1, base_delay=0)
    return lambda: policy.call(call)


def with_backoff(call: Call) -> Call:
    """Wrap with the decorator of backoff."""
    import backoff

    decorate = backoff.on_exception(
        backoff.constant, ConnectionError, max_tries=ATTEMPTS, interval=0, jitter=None
    )
    wrapped: Call = decorate(call)
    return wrapped


def with_stamina(call: Call) -> Call:
    """Wrap with the decorator of stamina, which here logs and counts nothing, as the others."""
    import stamina
    from stamina.instrumentation import set_on_retry_hooks

    set_on_retry_hooks([])
    decorate = stamina.retry(
        on=ConnectionError,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=0,
        wait_max=0,
        wait_jitter=0,
    )
    wrapped: Call = decorate(call)
    return wrapped


def with_tenacity(call: Call) -> Call:
    """Wrap with the decorator of tenacity."""
    import tenacity

    decorate = tenacity.retry(
        retry=tenacity.retry_if_exception_type(ConnectionError),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_none(),
    )
    wrapped: Call = decorate(call)
    return wrapped


def with_langchain(call: Call) -> Call:
    """Make a runnable of it, and one that retries of that."""
    from langchain_core.runnables import RunnableLambda

    async def ignore_input(_: Any) -> int:
        return await call()

    runnable = RunnableLambda(ignore_input).with_retry(
        retry_if_exception_type=(ConnectionError,),
        stop_after_attempt=ATTEMPTS,
        wait_exponential_jitter=False,
    )
    return lambda: runnable.ainvoke(None)


@dataclass(frozen=True)
class Policy:
    """A way to retry, the package it needs, and how many calls of it do not take minutes."""

    wrap: Callable[[Call], Call]
    needs: str | None = None
    most_calls: int = 1_000_000


OURS, REFERENCE = "ragasync", "hand-made loop"

POLICIES = {
    "bare, which retries nothing": Policy(lambda call: call),
    REFERENCE: Policy(hand_made),
    OURS: Policy(AsyncRetry(max_retries=ATTEMPTS - 1, base_delay=0)),
    "ragasync, policy.call": Policy(our_call),
    "backoff": Policy(with_backoff, "backoff"),
    "stamina": Policy(with_stamina, "stamina", 10_000),
    "tenacity": Policy(with_tenacity, "tenacity", 10_000),
    "LangChain with_retry": Policy(with_langchain, "langchain_core", 1_000),
}

RETRYING = {name: policy for name, policy in POLICIES.items() if not name.startswith("bare")}


def microseconds(policy: Policy, service: Callable[[], Call], most: int) -> float:
    """Return processor microseconds a call; every one must succeed in the end."""
    wrapped = policy.wrap(service())
    calls = min(most, policy.most_calls)

    async def run() -> int:
        return sum([await wrapped() for _ in range(calls)])

    def check(succeeded: object) -> None:
        assert succeeded == calls, f"{succeeded} of {calls} calls succeeded"

    return processor_time(run, check) * 1e6 / calls


def table_of(
    title: str, policies: Mapping[str, Policy], service: Callable[[], Call], calls: int, rounds: int
) -> str:
    """Measure these policies around a service, and return their table."""
    for policy in policies.values():  # imports, off the clock
        microseconds(policy, service, 10)
    figures = in_turns(
        {name: partial(microseconds, policy, service, calls) for name, policy in policies.items()},
        rounds,
    )
    over = ratios(figures, REFERENCE)
    rows = [[name, each, f"{over[name]:.2f}"] for name, each in figures.items()]
    return table(f"{title}: processor µs a call, median (min-max)", ["", "µs", "ratio"], rows)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Compare what retry policies add to a call.")
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    cases: dict[str, tuple[Callable[[], Call], dict[str, Policy]]] = {
        "a call that succeeds": (lambda: succeed, POLICIES),
        "a call that is retried once, without delay": (failing_every_other, RETRYING),
    }
    for title, (service, policies) in cases.items():
        here = {
            name: policy
            for name, policy in policies.items()
            if policy.needs is None or installed(policy.needs)
        }
        print(table_of(title, here, service, given.calls, given.rounds), flush=True)
        if left_out := policies.keys() - here.keys():
            print(f"Left out: {', '.join(sorted(left_out))}; pip install 'ragasync[bench]'\n")


if __name__ == "__main__":
    main()
