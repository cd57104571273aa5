"""The one place where a name or a path becomes batches with a declared input space."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from signstep.data.batches import DataSource, without_label
from signstep.data.csv_text import SUFFIXES as COMMA_SUFFIXES
from signstep.data.csv_text import open_comma
from signstep.data.digits import digits_source
from signstep.data.folder import SUFFIXES, holds_classes, holds_images, is_image, open_folder
from signstep.data.formats import SPELLING, Asked, DataFormat, row_of
from signstep.data.hub import holds_pictures, open_hub
from signstep.data.huggingface import is_saved, open_saved
from signstep.data.idx import IMAGES_NAME, holds_idx, open_idx, open_idx_folder
from signstep.data.npz import open_npz
from signstep.data.parquet import open_parquet
from signstep.data.remote import fetched, is_uri
from signstep.data.shards import find_shards, open_shards
from signstep.data.tables import Table, open_tables
from signstep.data.targets import read_classes
from signstep.errors import InputError, LoadError, SignstepError
from signstep.importing import is_spec
from signstep.io.caps import current
from signstep.io.files import expanded, refuse_unwritable
from signstep.messages import Arg
from signstep.registry import Registry

ACCEPTED = (
    "a .npz with x and y, a .csv, .csv.gz or .parquet with a target column, a folder with .npz or .parquet shards, "
    "an MNIST *-images-idx3-ubyte[.gz] file or a folder with such files, "
    f"a folder with one folder of images ({' '.join(SUFFIXES)}) per class, "
    "a folder that Hugging Face's save_to_disk wrote, .parquet files with images, or 'digits'"
)

HUGGING_FACE = "hf-dataset:"
"""Before a folder: it is to be read as a data set of Hugging Face."""

# What each option is for, and what to do where it has no place.
_LEAVE = "leave it out"
_MEANT: dict[str, tuple[str, str]] = {
    "resize": ("works for folders of images only (by class, or a saved data set), and {} is none", _LEAVE),
    "split": ("has no meaning for {}", "pass the path of that split instead"),
    "label_column": ("names the label column of a table or saved data set, and {} is none", _LEAVE),
    "classes": ("gives an order to class names, and {} has no class names of its own", _LEAVE),
    "skip_bad": ("works for folders of images, tables and saved data sets only, and {} is none", _LEAVE),
    "max_pixels": ("works for folders of images only (by class, or a saved data set), and {} is none", _LEAVE),
}


def open_data(
    path: str | Path,
    *,
    batch_size: int = 128,
    limit: int | None = None,
    split: str | None = None,
    resize: tuple[int, int] | None = None,
    label_column: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    skip_bad: bool = False,
    real: bool = False,
    ignore_label: int | None = None,
    max_pixels: int | None = None,
) -> DataSource:
    """Open a data set by its name or path; nothing but labels stays in memory.

    Args:
        path: A ``.npz``, a table (``.csv``, ``.csv.gz``, ``.parquet``), a folder of ``.npz`` or ``.parquet`` shards, an
            MNIST IDX file or folder, a folder of images by class, a folder written by the ``save_to_disk`` of Hugging
            Face's ``datasets`` (also as "hf-dataset:FOLDER"), ``.parquet`` files with images as they lie on the hub, or
            "digits" for the built-in set. Or code of your own, "module:name": an iterable of
            batches (x, y), or a function that gives one, which may take these arguments by their names. Or the URI of
            one such file, "s3://bucket/test.npz", which is copied here first (`signstep.data.remote`).
        batch_size: Rows per batch.
        limit: Use the first few examples only.
        split: "test" or "train", where the path holds both; the test split where it is not given.
        resize: (height, width) that images are brought to.
        label_column: The column of a table that holds the labels. A saved data set needs it where it has no column of
            type ClassLabel, or several.
        classes: The class names in the order of the model's outputs, or a text file with one name per line, for data
            whose classes have names. A class folder that is not in it is an error;
            a name without a folder is a class without images, and noted.
        skip_bad: Leave out images that cannot be read and rows with missing values, and count them in
            ``DataSource.skipped`` and its notes, instead of stopping at the first. They are looked for before the first
            batch, so each image is decoded once more.
        ignore_label: Leave out examples with this label (-100 or 255 in many data sets), and count them.
        max_pixels: The most pixels that an image may have, 25 million where it is not given.
        real: The targets of a ``.npz`` or the label column of a table are real numbers (regression), not classes.

    Raises:
        InputError: If an argument makes no sense, alone or for this kind of data.
        LoadError: If the data cannot be found or read.
        MissingExtraError: For images without Pillow, Parquet without pyarrow, a saved data set without ``datasets``.
    """
    _check(batch_size=batch_size, limit=limit, split=split, resize=resize, max_pixels=max_pixels)
    if ignore_label is not None and real:
        raise InputError(
            Arg("ignore_label", ignore_label), "leaves out a class, and real targets have none", remedy="leave it out"
        )
    if isinstance(classes, str | Path):
        refuse_unwritable(classes, "the name of the list of classes")
    names = None if classes is None else read_classes(classes)
    asked = Asked(
        *(batch_size, None if ignore_label is not None else limit, split, resize, label_column, names, skip_bad, real),
        *(max_pixels, ignore_label),
    )
    try:
        path = _of_hugging_face(path) if isinstance(path, str) and path.startswith(HUGGING_FACE) else path
        source = _open_remote(str(path), asked) if is_uri(path) else _open(path, asked)
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error})", remedy="check that it may be opened") from error
    if isinstance(classes, str | Path):
        file = expanded(classes)
        source = replace(source, files={**source.files, f"classes: {file.name}": file})
    if ignore_label is not None:
        source = without_label(source, ignore_label)
    return source if limit is None else replace(source, labels=source.labels[:limit])


def _open(path: str | Path, asked: Asked) -> DataSource:
    row = format_of(path)
    for option, (text, remedy) in _MEANT.items():
        value = getattr(asked, option)
        if value is not None and value is not False and option not in row.uses:
            raise InputError(Arg(option, value), text.replace("{}", str(path)), remedy=remedy)
    if asked.real and "real" not in row.uses:
        raise InputError(
            f"{path} holds classes, and a regression needs real targets",
            remedy="pass a .npz, or a table with its column",
        )
    return row.open(expanded(path), asked)


def _open_remote(uri: str, asked: Asked) -> DataSource:
    """What lies behind a URI, under that name."""
    local = fetched(uri)

    def named(text: str) -> str:
        return text.replace(str(local), uri)

    try:
        source = _open(local, asked)
    except SignstepError as error:
        raise error.within(uri) from error
    return replace(source, name=named(source.name), notes=tuple(map(named, source.notes)))


def format_of(path: str | Path) -> DataFormat:
    """The format of what lies at a path, or the set of that name; code of a person's own is imported if it is named.

    Raises:
        InputError: what is named as "module:name" is no data.
        LoadError: nothing is there, or it is of no known kind.
    """
    text, where = str(path), expanded(path)
    refuse_unwritable(where, "the name of the data")
    named = DATA.own.get(text)
    if named is not None and named.recognises is None:
        return named
    if not where.exists():
        known = DATA.get(text)
        if is_spec(text) or (known is not None and known.recognises is None):
            return DATA.find(text)
        raise LoadError(f"{path} does not exist", remedy=f"pass {ACCEPTED}, or your own, as {SPELLING.example}")
    # Packages are asked where none of Signstep's own formats is it.
    for rows in (DATA.own, DATA):
        found = next((row for row in rows.values() if row.recognises is not None and row.recognises(where)), None)
        if found is not None:
            return DATA.find(found.name)
    raise _unknown(where)


def _unknown(path: Path) -> LoadError:
    if not path.is_dir():
        return LoadError(f"{path} is of no known kind", remedy=f"pass {ACCEPTED}")
    if any(is_image(file) for file in path.iterdir()):
        remedy = "move the images of each class to a folder of its own"
        return LoadError(f"{path} holds images but no class folders", remedy=remedy)
    return LoadError(f"the folder {path} holds nothing that can be read", remedy=f"pass {ACCEPTED}")


# What readers call options that have another name where a person asks.
_CALLED = {"target": "label_column", "ignore": "ignore_label"}


def _asking(reader: Callable[..., DataSource]) -> Callable[[Path, Asked], DataSource]:
    """A reader as a format has it: what its keyword arguments ask for is what was asked of `open_data`."""
    takes = [part.name for part in inspect.signature(reader).parameters.values() if part.kind is part.KEYWORD_ONLY]

    def opened(path: Path, asked: Asked) -> DataSource:
        given = {name: getattr(asked, _CALLED.get(name, name)) for name in takes}
        if given.get("max_pixels", 0) is None:
            given["max_pixels"] = current().pixels
        return reader(path, **given)

    return opened


def _table(
    path: Path,
    *,
    target: str | None,
    classes: tuple[str, ...] | None,
    skip_bad: bool,
    batch_size: int,
    real: bool,
    ignore: int | None,
) -> DataSource:
    table: Table = open_parquet(path) if path.suffix.lower() == ".parquet" else open_comma(path)
    return open_tables(
        [table],
        name=str(path),
        files={path.name: path},
        target=target,
        classes=classes,
        skip_bad=skip_bad,
        batch_size=batch_size,
        real=real,
        ignore=ignore,
    )


def _of_hugging_face(text: str) -> Path:
    """The folder behind "hf-dataset:FOLDER".

    Raises:
        LoadError: it is none that can be read.
    """
    folder = expanded(text.removeprefix(HUGGING_FACE))
    refuse_unwritable(folder, "the name of the data")
    if not folder.is_dir():
        raise LoadError(
            f"{folder} is no folder (names on the hub are not downloaded)",
            remedy="load the data set once with datasets and pass the folder that its save_to_disk wrote",
        )
    if is_saved(folder) or holds_pictures(folder) or find_shards(folder):
        return folder
    raise LoadError(
        f"{folder} holds neither what save_to_disk wrote nor .parquet files, there or in its folder data",
        remedy="load it once with datasets and pass the folder that its save_to_disk wrote",
    )


def _is_file(path: Path, *ends: str) -> bool:
    return not path.is_dir() and path.name.lower().endswith(ends)


# In the order in which they are asked about a path; shards and saved sets look closer at options themselves.
_ROWS = (
    DataFormat(
        "digits",
        "1,797 handwritten digits that come with Signstep",
        lambda _, asked: digits_source(asked.split, batch_size=asked.batch_size),
        uses=frozenset({"split"}),
    ),
    DataFormat(
        "npz",
        "a .npz with x and y",
        _asking(open_npz),
        lambda path: _is_file(path, ".npz"),
        frozenset({"split", "real"}),
    ),
    DataFormat(
        "hub",
        "a .parquet with images in it, or a folder of such files, as on Hugging Face's hub",
        _asking(open_hub),
        holds_pictures,
        frozenset({"split", "resize", "label_column", "classes", "skip_bad", "max_pixels"}),
    ),
    DataFormat(
        "table",
        "a .csv, .csv.gz or .parquet with a target column",
        _asking(_table),
        lambda path: _is_file(path, ".parquet", *COMMA_SUFFIXES),
        frozenset({"label_column", "classes", "skip_bad", "real"}),
    ),
    DataFormat(
        "idx",
        "an MNIST *-images-idx3-ubyte[.gz] file",
        lambda path, asked: open_idx(path, batch_size=asked.batch_size),
        lambda path: not path.is_dir() and IMAGES_NAME.fullmatch(path.name) is not None,
    ),
    DataFormat(
        "idx-folder",
        "a folder with such files",
        lambda path, asked: open_idx_folder(path, split=asked.split, batch_size=asked.batch_size),
        lambda path: path.is_dir() and holds_idx(path),
        frozenset({"split"}),
    ),
    DataFormat(
        "saved",
        "a folder that Hugging Face's save_to_disk wrote",
        _asking(open_saved),
        lambda path: path.is_dir() and is_saved(path),
        frozenset({"split", "resize", "label_column", "classes", "skip_bad", "real", "max_pixels"}),
    ),
    DataFormat(
        "shards",
        "a folder with .npz or .parquet shards",
        _asking(open_shards),
        lambda path: path.is_dir() and bool(find_shards(path)) and not holds_images(path),
        frozenset({"split", "label_column", "classes", "skip_bad", "real"}),
    ),
    DataFormat(
        "folder",
        f"a folder with one folder of images ({' '.join(SUFFIXES)}) per class",
        _asking(open_folder),
        lambda path: path.is_dir() and holds_classes(path),
        frozenset({"resize", "classes", "skip_bad", "max_pixels"}),
    ),
)

DATA: Registry[DataFormat] = Registry(
    "signstep.data", SPELLING, row_of, {row.name: row for row in _ROWS}, argument="data"
)


def _check(
    *,
    batch_size: int,
    limit: int | None,
    split: str | None,
    resize: tuple[int, int] | None,
    max_pixels: int | None,
) -> None:
    if max_pixels is not None and max_pixels < 1:
        raise InputError(Arg("max_pixels", max_pixels), remedy="pass at least 1, or leave it out for 25 million")
    if batch_size < 1:
        raise InputError(Arg("batch_size", batch_size), remedy="pass at least 1")
    if limit is not None and limit < 1:
        raise InputError(Arg("limit", limit), remedy="pass at least 1, or leave it out for all examples")
    if split not in (None, "test", "train"):
        raise InputError(Arg("split", split), remedy="pass 'test' or 'train'")
    if resize is not None and min(resize) < 1:
        raise InputError(Arg("resize", resize), remedy="pass (height, width) in pixels")
