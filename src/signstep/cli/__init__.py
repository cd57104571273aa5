"""The command line: parses, calls and prints; it computes nothing.

Exit status: 0 done, 1 gate failed, 2 wrong use, 3 internal error, 4 a report that could not be checked whole, 130
interrupted (128 + n by signal n).
"""

from signstep.cli import (
    attack,
    audit,
    compare,
    defences,
    detect,
    diagnose,
    domain,
    explaining,
    guard,
    merge,
    sign,
    smooth,
    train,
    transfer,
    verify,
)
from signstep.cli.app import app, main

__all__ = [
    "app",
    "attack",
    "audit",
    "compare",
    "defences",
    "detect",
    "diagnose",
    "domain",
    "explaining",
    "guard",
    "main",
    "merge",
    "sign",
    "smooth",
    "train",
    "transfer",
    "verify",
]
