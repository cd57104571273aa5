"""On what a unit was done: numbers of another processor or another torch may differ in their last digits."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device) -> dict[str, Any]:
    """Processor with what it can do, version of torch, threads, and the accelerator if it is one."""
    return {
        "processor": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def kinds(machines: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that differ, in one order."""
    found = {tuple(sorted((name, str(value)) for name, value in one.items())): dict(one) for one in machines}
    return [found[key] for key in sorted(found)]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes that are free here, as the kernel counts them; None where it does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
