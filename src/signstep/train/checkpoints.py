"""Checkpoints: whole or not at all, checked before they are believed, and always one more than is needed."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from signstep.errors import InputError
from signstep.io.files import write_whole

_NAME = re.compile(r"checkpoint-(\d+)\.pt")
_KEPT = 2
_DIGEST = hashlib.sha256().digest_size


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state of a run after ``step`` steps; the one before is kept, older ones go.

    The file is what ``torch.save`` writes, followed by its SHA-256.

    Raises:
        LoadError: it cannot be written (a full disk, a folder without permission); those before it still stand.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"checkpoint-{step:08d}.pt"
    write_whole(path, content + hashlib.sha256(content).digest())
    for old in _found(folder)[_KEPT:]:
        old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path, terms: str) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The newest state that can be believed, or None; and notes on those that could not.

    Args:
        folder: where checkpoints lie.
        terms: of the run that wants to go on; a checkpoint made under others is refused.

    Raises:
        InputError: the newest whole checkpoint belongs to another run.
    """
    notes = []
    for path in _found(folder):
        state = _read(path)
        if state is None:
            notes.append(f"{path.name} is damaged (its checksum does not fit) and was passed over")
            continue
        if state["terms"] != terms:
            raise InputError(
                f"{path} belongs to a run with other settings, data or model",
                remedy="pass what that run was given, or another folder",
            )
        return state, tuple(notes)
    return None, tuple(notes)


def _found(folder: Path) -> list[Path]:
    """The newest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.name, reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(body), weights_only=True, map_location="cpu")
    except Exception:  # whoever writes a file can write its checksum too; no code of it is run
        return None
    return state if isinstance(state, dict) and isinstance(state.get("terms"), str) else None
