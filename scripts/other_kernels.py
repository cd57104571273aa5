"""Run the laws marked ``kernels`` once more under the kernels that torch has for lesser processors than this one.

    python scripts/other_kernels.py [arguments for pytest]

torch picks its kernels by the processor. What holds with AVX-512 need not hold with AVX2 or without either: functions
round by other formulas, convolutions run other code. The processors of laptops are seen here wherever the tests run.
"""

import os
import subprocess
import sys
from pathlib import Path

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
    worst = 0
    for name in others:
        chosen = {"ATEN_CPU_CAPABILITY": name.lower(), "DNNL_MAX_CPU_ISA": KERNELS[name]}
        print(" ".join(f"{key}={value}" for key, value in chosen.items()), flush=True)
        command = [sys.executable, "-m", "pytest", "-m", "kernels", "-q", *sys.argv[1:], *marked()]
        worst = max(worst, abs(subprocess.run(command, env=os.environ | chosen, check=False).returncode))
    return min(worst, 1)


if __name__ == "__main__":
    sys.exit(main())
