"""Parquet files with images, as data sets lie on Hugging Face's hub: a column ``{bytes, path}`` and one of labels.

They are read with pyarrow alone. What the files say of themselves, the names of the classes, stands in their schema.
Nothing is downloaded, no code that comes with the data is run, and paths that point elsewhere are not followed.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from signstep.data.batches import DataSource
from signstep.data.images import MAX_PIXELS
from signstep.data.parquet import check_types, reading
from signstep.data.pictures import PictureColumn, class_name, image_bytes
from signstep.data.tables import listed
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.caps import current
from signstep.io.files import refuse_unwritable
from signstep.messages import Arg

_SUFFIX = ".parquet"
_SPLITS = ("test", "validation", "train")


def holds_pictures(path: Path) -> bool:
    """Whether a path is such a file, or a folder with such files in it or in its folder ``data``.

    A schema is read for it where pyarrow is installed; without it nothing is, and `open_parquet` says what to install.
    """
    files = _files(path)
    if not files:
        return False
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        return _picture_columns(parquet.read_schema(files[0])) != []
    except Exception:  # no pyarrow, or no Parquet file: whoever reads tables says so
        return False


def open_hub(
    path: Path,
    *,
    split: str | None,
    resize: tuple[int, int] | None,
    target: str | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    limit: int | None,
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
    ignore: int | None = None,
) -> DataSource:
    """The images of Parquet files, in the order of the files' names.

    The split of a file is what its name begins with (``test-00000-of-00001.parquet``). The target is the only column of
    type ClassLabel where it is not given, or the one called "label".

    Raises:
        MissingExtraError: Without pyarrow or Pillow.
        InputError: If the target cannot be told, or an option does not fit.
        LoadError: If a file cannot be read, or files do not agree.
    """
    files, notes = _of_split(path, split)
    shards = _Shards.of(files)
    image, target = shards.image, shards.target(path, target)
    names = shards.names(target)
    column = PictureColumn(
        str(path),
        image,
        target,
        (class_name(names, value) for value in shards.column(target)),
        shards.stored,
        shards.place,
        {file.name: file for file in files},
    )
    source = column.source(
        classes or names,
        resize=resize,
        skip_bad=skip_bad,
        limit=limit,
        batch_size=batch_size,
        max_pixels=max_pixels,
        ignore=ignore,
    )
    return replace(source, notes=(*notes, *source.notes))


def _files(path: Path) -> list[Path]:
    """The Parquet files at a path, in the order of their names."""
    if path.is_file():
        return [path] if path.suffix.lower() == _SUFFIX else []
    for folder in (path, path / "data"):
        found = sorted(
            file
            for file in (folder.iterdir() if folder.is_dir() else ())
            if file.suffix.lower() == _SUFFIX and not file.name.startswith(".") and file.is_file()
        )
        if found:
            return found
    return []


def _of_split(path: Path, split: str | None) -> tuple[list[Path], tuple[str, ...]]:
    """The files of a split, and a note where it was not asked for; all files where their names name none."""
    files = _files(path)
    for file in files:
        refuse_unwritable(file.name, f"in {path} the name of the file")
    splits = {file.name.partition("-")[0].removesuffix(_SUFFIX): None for file in files}
    named = [name for name in splits if name in _SPLITS]
    if not named:
        if split is not None:
            raise InputError(
                Arg("split", split), f"has no meaning for {path}, whose files name no split", remedy="leave it out"
            )
        return files, ()
    chosen = split or next(name for name in _SPLITS if name in named)
    if chosen not in named:
        raise LoadError(f"{path} holds no split {chosen!r} but {listed(named)}", remedy="pass one of its files")
    kept = [file for file in files if file.name.partition("-")[0].removesuffix(_SUFFIX) == chosen]
    return kept, () if split or len(splits) == 1 else (f"split not given: {chosen} is used",)


@dataclass
class _Shards:
    """Parquet files as one list of rows; of images a group of rows is kept at a time.

    Attributes:
        files: in their order.
        schema: of the first, which that of the others must be.
        groups: of all files: the file, the number of the group in it, and its first row and rows among all.
    """

    files: Sequence[Path]
    schema: Any
    groups: Sequence[tuple[Path, int, int, int]]
    _kept: dict[int, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[Path]) -> "_Shards":
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise MissingExtraError("pyarrow", "tables") from error
        groups: list[tuple[Path, int, int, int]] = []
        first: Any = None
        start = 0
        for path in files:
            most = current().unpacked(path.stat().st_size)
            with reading(path), parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                first = schema if first is None else first
                if not schema.equals(first):
                    raise LoadError(
                        f"{path} has other columns than {files[0].name}", remedy="keep files of one kind in a folder"
                    )
                for number in range(file.metadata.num_row_groups):
                    group = file.metadata.row_group(number)
                    if group.total_byte_size > most:
                        raise LoadError(
                            f"{path} has a group of rows of {group.total_byte_size} bytes, over the {most} allowed",
                            remedy="write it with smaller row groups",
                        )
                    groups.append((path, number, start, group.num_rows))
                    start += group.num_rows
        if not start:
            raise LoadError(f"{files[0]} holds no rows", remedy="pass another file")
        return cls(files, first, groups)

    @property
    def count(self) -> int:
        """Rows."""
        return self.groups[-1][2] + self.groups[-1][3]

    @property
    def image(self) -> str:
        """The column of images."""
        found = _picture_columns(self.schema)
        if len(found) > 1:
            raise LoadError(f"{self.files[0]} has the image columns {listed(found)}", remedy="keep one of them")
        return found[0]

    def target(self, path: Path, asked: str | None) -> str:
        """The column of labels."""
        columns = [name for name in self.schema.names if name != self.image]
        known = [name for name in columns if self.names(name) is not None]
        if asked is None and len(known) != 1:
            known = [name for name in ("label", "labels") if name in columns]
        if asked is None and len(known) != 1:
            raise InputError(
                f"{path} has the columns {listed(columns)}",
                remedy=("pass", Arg("label_column"), "with the one that holds the labels"),
            )
        chosen = known[0] if asked is None else asked
        if chosen not in columns:
            raise InputError(
                f"{path} has no column {chosen!r}",
                remedy=("pass", Arg("label_column"), f"with one of {listed(columns)}"),
            )
        check_types(str(self.files[0]), [self.schema.field(chosen)], chosen)
        return chosen

    def names(self, column: str) -> tuple[str, ...] | None:
        """The names of the classes that a column numbers, as the files say; None where they say none."""
        stated = (self.schema.metadata or {}).get(b"huggingface")
        try:
            feature = json.loads(stated)["info"]["features"][column] if stated else {}
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        names = feature.get("names") if isinstance(feature, Mapping) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        return None

    def column(self, name: str) -> Iterator[Any]:
        """The values of a column, a group of rows at a time."""
        for path, number, _, _ in self.groups:
            yield from self._read(path, number, name)

    def stored(self, row: int) -> BytesIO:
        """The bytes of an image.

        Raises:
            LoadError: they are not in the file.
        """
        at = next(place for place, (_, _, start, rows) in enumerate(self.groups) if start <= row < start + rows)
        if at not in self._kept:
            path, number, _, _ = self.groups[at]
            self._kept = {at: self._read(path, number, self.image)}  # one at a time: images are read in order
        cell = self._kept[at][row - self.groups[at][2]]
        return image_bytes(cell, self.place(row), "write the images into the file")

    def place(self, row: int) -> str:
        """What a row is called: the file and its number there."""
        path, base = self.files[0], 0
        for file, _, start, _ in self.groups:
            if start > row:
                break
            if file != path:
                path, base = file, start
        return f"{path}, row {row - base}"

    def _read(self, path: Path, number: int, column: str) -> list[Any]:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        with reading(path), parquet.ParquetFile(path) as file:
            found: list[Any] = file.read_row_group(number, columns=[column]).column(column).to_pylist()
        return found


def _picture_columns(schema: Any) -> list[str]:
    """Columns of ``{bytes, path}``."""
    types = importlib.import_module("pyarrow").types

    def is_picture(kind: Any) -> bool:
        fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return set(fields) == {"bytes", "path"} and (
            types.is_binary(fields["bytes"]) or types.is_large_binary(fields["bytes"])
        )

    return [part.name for part in schema if types.is_struct(part.type) and is_picture(part.type)]
