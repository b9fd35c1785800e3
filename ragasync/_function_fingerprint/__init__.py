"""
The fingerprint of a function: what counts as a change of it, over restarts and Python versions.

    walk.py         fingerprint_of: walks from a function to its code and values
    code.py         Sources; digests of source or bytecode, and what code reads and changes
    values.py       an object's settings, read without running code; plain values as text
    fingerprint.py  FunctionFingerprint: the parts; differences of two fingerprints

A fingerprint is taken when a processor is made. It covers the function's code and the values that
the code works with: defaults, closure, arguments of a partial, settings of the object whose method
it is, and the global constants and functions of its own module that it reads. Taking it runs no
code of the user, and it holds no value that may be a secret.
"""

from ragasync._function_fingerprint.code import Sources
from ragasync._function_fingerprint.fingerprint import (
    UNKNOWN,
    FunctionFingerprint,
    differences,
    is_same_digest,
)
from ragasync._function_fingerprint.values import module_of
from ragasync._function_fingerprint.walk import fingerprint_of

__all__ = [
    "UNKNOWN",
    "FunctionFingerprint",
    "Sources",
    "differences",
    "fingerprint_of",
    "is_same_digest",
    "module_of",
]
