"""The one place where a name or a path becomes batches with a declared input space."""

from dataclasses import replace
from pathlib import Path

from signstep.data.batches import DataSource
from signstep.data.digits import digits_source
from signstep.data.folder import SUFFIXES, holds_classes, is_image, open_folder
from signstep.data.idx import IMAGES_NAME, holds_idx, open_idx, open_idx_folder
from signstep.data.npz import open_npz
from signstep.errors import InputError, LoadError

ACCEPTED = (
    "a .npz with x and y, an MNIST *-images-idx3-ubyte[.gz] file or a folder with such files, "
    f"a folder with one folder of images ({' '.join(SUFFIXES)}) per class, or 'digits'"
)


def open_data(
    path: str | Path,
    *,
    batch_size: int = 128,
    limit: int | None = None,
    split: str | None = None,
    resize: tuple[int, int] | None = None,
) -> DataSource:
    """Open a data set by its name or path; nothing but labels stays in memory.

    Args:
        path: A ``.npz``, an MNIST IDX file or folder, a folder of images by class, or "digits" for the built-in set.
        batch_size: Rows per batch.
        limit: Use the first few examples only.
        split: "test" or "train", where the path holds both; the test split where it is not given.
        resize: (height, width) that images of a folder are brought to.

    Raises:
        InputError: If an argument makes no sense, alone or for this kind of data.
        LoadError: If the data cannot be found or read.
        MissingExtraError: For a folder of images without Pillow.
    """
    _check(batch_size=batch_size, limit=limit, split=split, resize=resize)
    try:
        source = _open(path, batch_size=batch_size, limit=limit, split=split, resize=resize)
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error}): check that it may be opened") from error
    return source if limit is None else replace(source, labels=source.labels[:limit])


def _open(
    path: str | Path, *, batch_size: int, limit: int | None, split: str | None, resize: tuple[int, int] | None
) -> DataSource:
    where = Path(path).expanduser()
    kind = "digits" if path == "digits" else _kind(where)
    if resize is not None and kind != "folder":
        raise InputError(f"resize={resize} works for folders of images only, and {path} is none: leave it out")
    if split is not None and kind in ("idx", "folder"):
        raise InputError(f"split={split!r} has no meaning for {path}: pass the path of that split instead")
    match kind:
        case "digits":
            return digits_source(split, batch_size=batch_size)
        case "npz":
            return open_npz(where, split=split, batch_size=batch_size)
        case "idx":
            return open_idx(where, batch_size=batch_size)
        case "idx folder":
            return open_idx_folder(where, split=split, batch_size=batch_size)
        case _:
            return open_folder(where, resize=resize, batch_size=batch_size, limit=limit)


def _kind(path: Path) -> str:
    if not path.exists():
        raise LoadError(f"{path} does not exist: pass {ACCEPTED}")
    if path.is_dir():
        return _folder_kind(path)
    if path.suffix.lower() == ".npz":
        return "npz"
    if IMAGES_NAME.fullmatch(path.name):
        return "idx"
    raise LoadError(f"{path} is of no known kind: pass {ACCEPTED}")


def _folder_kind(path: Path) -> str:
    if holds_idx(path):
        return "idx folder"
    if holds_classes(path):
        return "folder"
    if any(is_image(file) for file in path.iterdir()):
        raise LoadError(
            f"{path} holds images but no class folders: move the images of each class to a folder of its own"
        )
    raise LoadError(f"the folder {path} holds nothing that can be read: pass {ACCEPTED}")


def _check(*, batch_size: int, limit: int | None, split: str | None, resize: tuple[int, int] | None) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}: leave it out for all examples")
    if split not in (None, "test", "train"):
        raise InputError(f"split must be 'test' or 'train', got {split!r}")
    if resize is not None and min(resize) < 1:
        raise InputError(f"resize must be (height, width) in pixels, got {resize}")
