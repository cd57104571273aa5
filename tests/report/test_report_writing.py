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
    with pytest.raises(LoadError, match="pictures cannot be written"):
        write_report(result, tmp_path, points=points)
    assert not (tmp_path / "index.html").exists()


def test_the_same_record_gives_the_same_files(tmp_path: Path) -> None:
    result, points = samples.images()
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pages.append(write_report(result, tmp_path / name, points=points).read_bytes())
    assert pages[0] == pages[1]
