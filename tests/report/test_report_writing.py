"""Files of a report appear whole or not at all."""

import os
from pathlib import Path

import pytest
import report_samples as samples

from signstep.errors import InputError, LoadError
from signstep.report import write_report

FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["replace", "chmod"])
def test_a_failed_write_leaves_no_half_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, points = samples.images()

    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(Path, step, full)
    with pytest.raises(LoadError, match=r"cannot be written \(No space left on device\); pass another folder"):
        write_report(result, tmp_path, points=points)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_up_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, _ = samples.images()
    before = write_report(result, tmp_path).read_bytes()
    real = os.fdopen

    class Full:
        def __init__(self, handle: int) -> None:
            self.file = real(handle, "wb")

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:100])
            raise FULL

    monkeypatch.setattr(os, "fdopen", lambda handle, _: Full(handle))
    with pytest.raises(LoadError, match="No space left"):
        write_report(samples.regression(), tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checklist.md", "index.html"]


def test_old_and_new_files_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rename fails, also the first of the new files after the old ones went: the old report is put back."""
    result, points = samples.images()
    write_report(result, tmp_path, points=points)
    (tmp_path / "pictures" / "mine.png").write_bytes(b"foreign")
    (tmp_path / "notes.txt").write_text("foreign")
    before = contents(tmp_path)
    real, calls = Path.rename, [0]
    fewer = {name: part[:1] for name, part in points.items()}
    for failing in range(1, 40):
        calls[0] = 0

        def rename(self: Path, to: Path, failing: int = failing) -> Path:
            calls[0] += 1
            if calls[0] == failing:
                raise FULL if failing % 2 else KeyboardInterrupt
            return real(self, to)

        monkeypatch.setattr(Path, "rename", rename)
        try:
            write_report(samples.regression(), tmp_path, points=fewer)
        except (LoadError, KeyboardInterrupt):
            assert contents(tmp_path) == before
        else:
            break
    else:
        pytest.fail("it never came to its end")
    assert failing > 5
    after = contents(tmp_path)
    assert after["notes.txt"] == after["pictures/mine.png"] == b"foreign"
    assert after["index.html"] != before["index.html"]
    assert set(after) == {"checklist.md", "index.html", "notes.txt", "pictures/01.png", "pictures/mine.png"}


def test_a_folder_that_was_made_on_the_way_goes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, points = samples.images()
    write_report(result, tmp_path)
    real = Path.rename

    def rename(self: Path, to: Path) -> Path:
        if Path(to) == tmp_path / "pictures" / "01.png":
            raise FULL
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(LoadError, match="No space left"):
        write_report(result, tmp_path, points=points)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checklist.md", "index.html"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_pictures_goes_with_them(tmp_path: Path) -> None:
    result, points = samples.images()
    write_report(result, tmp_path, points=points)
    write_report(result, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checklist.md", "index.html"]


def test_somebody_elses_picture_is_named(tmp_path: Path) -> None:
    result, points = samples.images()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "02.png").write_bytes(b"holiday")
    with pytest.raises(InputError, match=r"02.png is no picture of a report and would be lost"):
        write_report(result, tmp_path, points=points)
    assert contents(tmp_path) == {"pictures/02.png": b"holiday"}


def test_a_folder_must_exist(tmp_path: Path) -> None:
    result, _ = samples.images()
    with pytest.raises(InputError, match="does not exist or is no folder"):
        write_report(result, tmp_path / "none")
    (tmp_path / "file").write_text("here")
    with pytest.raises(InputError, match="no folder"):
        write_report(result, tmp_path / "file")


def test_a_file_in_the_place_of_the_pictures_is_named(tmp_path: Path) -> None:
    result, points = samples.images()
    (tmp_path / "pictures").write_text("here")
    with pytest.raises(InputError, match="pictures is a file, and a report puts its folder there"):
        write_report(result, tmp_path, points=points)
    assert not (tmp_path / "index.html").exists()


def test_the_same_record_gives_the_same_files(tmp_path: Path) -> None:
    result, points = samples.images()
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pages.append(write_report(result, tmp_path / name, points=points).read_bytes())
    assert pages[0] == pages[1]
