"""Run the laws marked ``kernels`` once more under the kernels that torch has for lesser processors than this one.

    python scripts/other_kernels.py [arguments for pytest]

torch picks its kernels by the processor. What holds with AVX-512 need not hold with AVX2 or without either: functions
round by other formulas, convolutions run other code. The processors of laptops are seen here wherever the tests run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import torch

TESTS = Path(__file__).resolve().parents[1] / "tests"

# The most capable first: what ATen calls them, and how oneDNN's own are held to the same.
KERNELS = {"AVX512": "AVX512_CORE", "AVX2": "AVX2", "DEFAULT": "SSE41"}


def lesser(own: str) -> list[str]:
    """The names in KERNELS of all that a processor with ``own`` can run but does not pick."""
    names = list(KERNELS)
    return names[names.index(own) + 1 :] if own in names else []


def marked() -> list[str]:
    """The files with such laws: to collect all others takes longer than to run these."""
    return [str(path) for path in sorted(TESTS.rglob("test_*.py")) if "mark.kernels" in path.read_text("utf-8")]


def main() -> int:
    """The worst exit status of pytest over the kernels."""
    own = torch.backends.cpu.get_cpu_capability()
    others = lesser(own)
    print(f"this processor's kernels: {own}; the laws run again under: {', '.join(others) or 'no others'}", flush=True)
    running = [(name, *_started(name)) for name in others]
    worst = 0
    for name, process, said in running:
        worst = max(worst, abs(process.wait()))
        print(" ".join(f"{key}={value}" for key, value in _chosen(name).items()), flush=True)
        said.seek(0)
        shutil.copyfileobj(said, sys.stdout)
        said.close()
    return min(worst, 1)


def _chosen(name: str) -> dict[str, str]:
    return {"ATEN_CPU_CAPABILITY": name.lower(), "DNNL_MAX_CPU_ISA": KERNELS[name]}


def _started(name: str) -> "tuple[subprocess.Popen[str], TextIO]":
    """One process for each: workers of pytest-xdist would take as long to begin as these laws to run."""
    said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - read when the process has ended
    command = [sys.executable, "-m", "pytest", "-m", "kernels", "-q", *sys.argv[1:], *marked()]
    # Each is a suite of its own, whose cache the other would write too.
    command += ["-p", "no:cacheprovider"]
    return subprocess.Popen(command, env=os.environ | _chosen(name), stdout=said, stderr=said, text=True), said


if __name__ == "__main__":
    sys.exit(main())
