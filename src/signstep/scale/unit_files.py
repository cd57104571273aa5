"""What is kept of a unit: its record and its points, in one file, so that it is whole or not there."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from signstep.auditing.reading import LARGEST
from signstep.auditing.result import Result
from signstep.errors import LoadError
from signstep.io.archives import check_safetensors
from signstep.io.documents import content_of
from signstep.plain import plain_json

_RECORD, _DROPPED, _POINT = "record", "dropped", "point."
MOST = 2**33
"""Bytes that the file of a unit may have."""


def packed(result: Result, points: Mapping[str, Tensor], dropped: int) -> bytes:
    """The content of a unit's file.

    Args:
        result: the record of the unit.
        points: that fooled the model; rows are those of the unit.
        dropped: points that were not kept.
    """
    text = plain_json(json.dumps(asdict(result), allow_nan=False, ensure_ascii=False, separators=(",", ":")))
    record = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    named = {f"{_POINT}{name}": part.contiguous() for name, part in points.items()}
    return bytes(save({_RECORD: record, _DROPPED: torch.tensor([dropped], dtype=torch.int64, device="cpu"), **named}))


def sha256(content: bytes) -> str:
    """As ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()


def content_if_whole(path: Path, digest: str) -> bytes | None:
    """What a unit's file holds; None where it is not there or not what was written."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        content = content_of(path, "the file of a unit", MOST)
    except LoadError:
        return None
    return content if sha256(content) == digest else None


def unpacked(content: bytes, path: Path) -> tuple[Result, dict[str, Tensor], int]:
    """Record, points, and how many points were not kept.

    Raises:
        LoadError: it is no such file; whoever wrote it can write its digest too.
    """
    try:
        check_safetensors(path)
        parts = load(content)
        record, dropped = parts.pop(_RECORD), parts.pop(_DROPPED)
        if record.dtype != torch.uint8 or dropped.dtype != torch.int64 or dropped.numel() != 1 or len(record) > LARGEST:
            raise ValueError("its record is none")
        result = Result.from_json(record.numpy().tobytes().decode())
        points = {name.removeprefix(_POINT): part for name, part in parts.items() if name.startswith(_POINT)}
        fine = len(points) == len(parts) and (not points or ("row" in points and points["row"].dtype == torch.int64))
        if not fine or len({len(part) if part.ndim else -1 for part in points.values()}) > 1:
            raise ValueError("its points are none")
        if points and not bool(((points["row"] >= 0) & (points["row"] < result.examples)).all()):
            raise ValueError("its points are of other examples")
        return result, points, max(0, int(dropped))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        said = str(error).partition("; ")[0]
        raise LoadError(
            f"{path} is no file of a unit ({said})", remedy="remove it, and the unit is done anew"
        ) from error
