"""Data sets of Hugging Face's ``datasets`` that were saved with ``save_to_disk``.

Either one column of images (others but the label are left aside; ``signstep.data.images`` states what becomes of each)
or columns of numbers (as in ``signstep.data.tables``). Nothing is downloaded, and no code that comes with the data is
run: images must lie in the saved files.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from signstep.data.batches import DataSource
from signstep.data.images import MAX_PIXELS
from signstep.data.parquet import arrow_rows, check_types
from signstep.data.pictures import PictureColumn, class_name, image_bytes
from signstep.data.tables import BLOCK_ROWS, Rows, listed, open_tables
from signstep.data.targets import REAL
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.io.documents import read_json
from signstep.messages import Arg


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder, of one data set or of splits."""
    return _is_one(folder) or (folder / "dataset_dict.json").is_file()


def open_saved(
    folder: Path,
    *,
    split: str | None,
    resize: tuple[int, int] | None,
    target: str | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    limit: int | None,
    batch_size: int,
    real: bool = False,
    max_pixels: int = MAX_PIXELS,
    ignore: int | None = None,
) -> DataSource:
    """A saved data set; of several splits the one named, or else test, or train.

    The target is the only column of type ClassLabel where it is not given.

    Raises:
        MissingExtraError: Without ``datasets``, or without Pillow for images.
        InputError: If the target cannot be told, or an option does not fit.
        LoadError: If the folder cannot be read, or holds something else than images or numbers with labels.
    """
    chosen, notes = _split(folder, split)
    data = _load(chosen)
    features = dict(data.features)
    target = _target(chosen, data, target)
    names = getattr(features[target], "names", None)
    order = classes or (tuple(names) if names else None)
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if len(images) > 1:
        raise LoadError(
            f"{chosen} has the image columns {listed(images)}", remedy="keep one, with datasets' remove_columns"
        )
    column = _Saved(chosen, data, target, names)
    if images and real:
        raise InputError(REAL, f"works for numbers only, and {chosen} holds images", remedy="save them as .npz")
    if images:
        source = column.pictures(images[0]).source(
            order,
            resize=resize,
            skip_bad=skip_bad,
            limit=limit,
            batch_size=batch_size,
            max_pixels=max_pixels,
            ignore=ignore,
        )
    else:
        if resize is not None:
            raise InputError(
                Arg("resize", resize),
                f"works for images only, and {chosen} has no column of images",
                remedy="leave it out",
            )
        source = open_tables(
            [column],
            name=str(chosen),
            files=files_of(chosen),
            target=target,
            classes=order,
            skip_bad=skip_bad,
            batch_size=batch_size,
            real=real,
            ignore=ignore,
        )
    return replace(source, notes=(*notes, *source.notes))


def _is_one(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _split(folder: Path, split: str | None) -> tuple[Path, tuple[str, ...]]:
    """The folder of a split, and a note where it was not asked for."""
    if _is_one(folder):
        if split is not None:
            raise InputError(
                Arg("split", split), f"has no meaning for {folder}", remedy="pass the path of that split instead"
            )
        return folder, ()
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and _is_one(path))
    chosen = split or next((name for name in ("test", "train") if name in found), None)
    if chosen not in found:
        what = f"no split {split!r}" if split else "neither a test nor a train split"
        raise LoadError(
            f"{folder} holds {what} but {listed(found) or 'none at all'}", remedy="pass the path of one of its splits"
        )
    return folder / chosen, () if split else (f"split not given: {chosen} is used",)


def _load(folder: Path) -> Any:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingExtraError("datasets", "datasets") from error
    try:
        if not any(name.endswith(".arrow") for name in files_of(folder)):  # a set without rows is saved without them
            raise LoadError(f"{folder} holds no rows", remedy="save at least one example")
        data = datasets.load_from_disk(str(folder))
        for name, feature in data.features.items():
            if type(feature).__name__ == "Image":
                data = data.cast_column(name, datasets.Image(decode=False))
    except LoadError:
        raise
    except Exception as error:  # a damaged folder makes it raise nearly anything
        raise LoadError(f"{folder} cannot be read as a saved data set ({error})", remedy="save it again") from error
    if not len(data):
        raise LoadError(f"{folder} holds no rows", remedy="save at least one example")
    return data


def _target(folder: Path, data: Any, target: str | None) -> str:
    columns = list(data.features)
    if target is None:
        labels = [name for name, feature in data.features.items() if type(feature).__name__ == "ClassLabel"]
        if len(labels) != 1:
            raise InputError(
                f"{folder} has the columns {listed(columns)}",
                remedy=("pass", Arg("label_column"), "with the one that holds the labels"),
            )
        return str(labels[0])
    if target not in columns:
        raise InputError(
            f"{folder} has no column {target!r}", remedy=("pass", Arg("label_column"), f"with one of {listed(columns)}")
        )
    return target


@dataclass(frozen=True)
class _Saved:
    """A saved data set as a table, its class numbers replaced by their names where it has names."""

    folder: Path
    data: Any
    target: str
    names: list[str] | None
    unit: str = "row"

    @property
    def place(self) -> str:
        return str(self.folder)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.data.features)

    def check(self, target: str, *, real: bool) -> None:
        check_types(self.place, self.data.features.arrow_schema, target, real=real)

    def rows(self, target: str) -> Iterator[Rows]:
        start = 0
        for block in _blocks(self.folder, self.data):
            rows = arrow_rows(block, target, start)
            yield replace(rows, targets=[self.named(value) for value in rows.targets])
            start += block.num_rows

    def named(self, value: Any) -> Any:
        """See `class_name`."""
        return class_name(self.names, value)

    def pictures(self, image: str) -> PictureColumn:
        """Its images, of one column."""
        check_types(self.place, [self.data.features.arrow_schema.field(self.target)], self.target)
        cells = self.data.select_columns([image])

        def stored(row: int) -> BytesIO:
            embedded = "save the data set with its images embedded"
            return image_bytes(cells[row][image], f"{self.folder}, row {row}", embedded)

        return PictureColumn(
            str(self.folder),
            image,
            self.target,
            self._labels(),
            stored,
            lambda row: f"{self.folder}, row {row}",
            files_of(self.folder),
        )

    def _labels(self) -> Iterator[Any]:
        for block in _blocks(self.folder, self.data.select_columns([self.target])):
            yield from map(self.named, block.column(self.target).to_pylist())


def _blocks(folder: Path, data: Any) -> Iterator[Any]:
    """Arrow tables with consecutive rows."""
    try:
        yield from data.with_format("arrow").iter(batch_size=BLOCK_ROWS)
    except (OSError, ValueError) as error:
        raise LoadError(f"{folder} cannot be read ({error})", remedy="save it again") from error


def files_of(folder: Path) -> dict[str, Path]:
    """The files that ``state.json`` lists, and the two that describe them, by name.

    Raises:
        LoadError: It lists none, or some that lie elsewhere.
    """
    state = read_json(folder / "state.json", "the list of files")
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
        inside = all(isinstance(name, str) and not {"/", "\\", ".."} & {name, *name} for name in names)
    except (KeyError, TypeError) as error:
        raise LoadError(
            f"{folder / 'state.json'} lists no files ({error!r})", remedy="save the data set again"
        ) from error
    if not inside:
        raise LoadError(f"{folder / 'state.json'} lists files outside of its folder", remedy="save the data set again")
    return {name: folder / name for name in ("dataset_info.json", "state.json", *names)}
