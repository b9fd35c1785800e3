"""Run Python scripts in processes of their own, for what concerns a whole process."""

import subprocess
import sys
import textwrap


def printed_by(*parts: str) -> list[str]:
    """
    Run a script, with warnings as errors, and return the lines that it printed.

    The parts are dedented one by one and put together; anything on stderr fails the test.
    """
    script = "\n".join(map(textwrap.dedent, parts))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.stderr == "", ran.stderr
    return ran.stdout.splitlines()
