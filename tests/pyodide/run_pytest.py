"""Run pytest under Pyodide on some of the project's own tests; the arguments are their files."""

import asyncio
import os
import sys

sys.dont_write_bytecode = True
sys.path[:0] = ["/src", "/packages"]
os.chdir("/src")

import pytest  # noqa: E402


class NoTimeLimits:
    """Stands for pytest-timeout, which needs signals or threads."""

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """Know the option in pyproject.toml."""
        parser.addini("timeout", "seconds for a test")

    def pytest_configure(self, config: pytest.Config) -> None:
        """Know the mark on tests."""
        config.addinivalue_line("markers", "timeout(seconds): a limit of its own")


options = ["-q", "-p", "no:cacheprovider", "--tb=short"]
# The browser's loop counts as running wherever one asks, and refuses another one beside it.
around = asyncio._get_running_loop()
asyncio._set_running_loop(None)
try:
    code = pytest.main([*options, *sys.argv[1:]], plugins=[NoTimeLimits()])
finally:
    asyncio._set_running_loop(around)
sys.stdout.write(f"pytest ended with {code:d}\n")
