"""A folder of shards: files of one kind that are read in the order of their names as one data set."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from signstep.data.batches import DataSource, regroup
from signstep.data.npz import open_npz
from signstep.data.parquet import open_parquet
from signstep.data.tables import open_tables
from signstep.errors import InputError, LoadError
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg

SUFFIXES = (".npz", ".parquet")


def find_shards(folder: Path) -> list[Path]:
    """The shards in a folder, sorted by name as text (so number them with leading zeros)."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def open_shards(
    folder: Path,
    *,
    split: str | None,
    target: str | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    batch_size: int,
    real: bool = False,
    ignore: int | None = None,
) -> DataSource:
    """All shards of a folder as one data set.

    Raises:
        InputError: If an option does not fit the kind of shard.
        LoadError: If there are shards of both kinds, one cannot be read, or one does not agree with the first.
    """
    shards = find_shards(folder)
    for path in shards:
        refuse_unwritable(path.name, f"in {folder} the name of the shard")
    first, last = shards[0], next((path for path in shards if path.suffix.lower() != shards[0].suffix.lower()), None)
    if last is not None:
        raise LoadError(f"{folder} holds {first.name} and {last.name}", remedy="keep shards of one kind in a folder")
    name = f"{folder} ({len(shards)} shards)"
    if first.suffix.lower() == ".parquet":
        if split is not None:
            raise InputError(
                Arg("split", split), f"has no meaning for {folder}", remedy="pass the path of that split instead"
            )
        return open_tables(
            [open_parquet(path) for path in shards],
            name=name,
            files={path.name: path for path in shards},
            target=target,
            classes=classes,
            skip_bad=skip_bad,
            batch_size=batch_size,
            real=real,
            ignore=ignore,
        )
    for option, value in (("label_column", target), ("classes", classes), ("skip_bad", skip_bad or None)):
        if value is not None:
            raise InputError(
                Arg(option, value), f"has no meaning for the .npz shards in {folder}", remedy="leave it out"
            )
    return _open_archives(shards, name=name, split=split, batch_size=batch_size, real=real, ignore=ignore)


def _open_archives(
    shards: Sequence[Path], *, name: str, split: str | None, batch_size: int, real: bool, ignore: int | None
) -> DataSource:
    sources = [open_npz(path, split=split, batch_size=batch_size, real=real, ignore=ignore) for path in shards]
    first = sources[0]
    for source in sources[1:]:
        for what, here, there in (
            ("inputs of shape", source.shape, first.shape),
            ("inputs with the bounds", source.bounds, first.bounds),
            ("targets of shape", tuple(source.labels.shape[1:]), tuple(first.labels.shape[1:])),
        ):
            if here != there:
                raise LoadError(
                    f"the shard {source.name} has {what} {here} but {first.name} {there}",
                    remedy="write all shards alike",
                )

    def blocks() -> Iterator[Tensor]:
        for source in sources:
            whole, part = divmod(source.len_hint, batch_size)
            yield from source.read([*repeat(batch_size, whole), *([part] if part else [])])

    return DataSource(
        name=name,
        labels=torch.cat([source.labels for source in sources]),
        shape=first.shape,
        read=lambda sizes: regroup(blocks(), sizes),
        files={path.name: path for path in shards},
        batch_size=batch_size,
        total=sum(source.total for source in sources),
        bounds=first.bounds,
        treatment=first.treatment,
        notes=(f"shards read in the order of their names, as text: {first.name} first", *_notes(sources)),
    )


def _notes(sources: Sequence[DataSource]) -> list[str]:
    """The notes of the first shard, and those of others that differ."""
    notes = list(sources[0].notes)
    others = [(source, note) for source in sources[1:] for note in source.notes if note not in notes]
    notes += [f"{source.name}: {note}" for source, note in others[:3]]
    return notes + ([f"{len(others) - 3} more notes on single shards"] if len(others) > 3 else [])
