"""A folder whose files are replaced all together or not at all."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from signstep.errors import LoadError


@contextmanager
def replaced(folder: Path, owned: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """A staging folder for the ``with`` block; at its end the files in it take the place of those that were there.

    What belongs to somebody else stays where it is. The staging folder lies inside the folder, not beside it: so a
    folder that is a mount point, a link or the current folder can be replaced too, the one above need not be writable,
    and files of others are never moved. Old files are renamed aside, then new ones in, and if anything fails on the way
    (a full disk, Ctrl-C) the old ones are put back and nothing new is left. Only a process that is killed between two
    of these renames leaves a mixture, which SHA256SUMS shows.

    Args:
        folder: Exists.
        owned: The files, below the folder it is given, that are of an earlier time and now go.

    Raises:
        LoadError: A file cannot be written.
    """
    try:
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=".signstep-"))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        new, aside = staging / "new", staging / "old"
        try:
            new.mkdir()
            aside.mkdir()
            yield new
            _swap(folder, new, aside, owned)
        except OSError as error:
            raise _unwritable(folder, error) from error
        except LoadError as error:  # the reader knows the folder, not where its files are made
            raise LoadError(str(error).replace(str(new), str(folder))) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(folder: Path, new: Path, aside: Path, owned: Callable[[Path], Iterable[Path]]) -> None:
    moved: list[tuple[Path, Path]] = []
    made: list[Path] = []

    def move(source: Path, to: Path) -> None:
        if not to.parent.is_dir():
            to.parent.mkdir(parents=True)
            made.append(to.parent)
        # Noted first: an interruption between the two must not lose the way back.
        moved.append((source, to))
        source.rename(to)

    going, coming = list(owned(folder)), sorted(path for path in new.rglob("*") if path.is_file())
    try:
        for path in going:
            move(path, aside / path.relative_to(folder))
        for path in coming:
            to = folder / path.relative_to(new)
            if to.is_dir() or (to.exists() and to not in going):
                raise FileExistsError(17, f"{to.relative_to(folder)} there is not of an earlier report")
            move(path, to)
    except BaseException:
        for source, to in reversed(moved):
            if to.exists() and not source.exists():
                to.rename(source)
        for made_folder in reversed(made):
            if made_folder.is_relative_to(folder) and not made_folder.is_relative_to(aside):
                made_folder.rmdir()
        raise
    for parent in {path.parent for path in going} - {folder}:
        if not any(parent.iterdir()):
            parent.rmdir()


def _unwritable(folder: Path, error: OSError) -> LoadError:
    return LoadError(f"{folder} cannot be written ({error.strerror or error}); pass another folder")
