from pathlib import Path

import pytest

from signstep.data import open_data
from signstep.data.targets import ClassIndex, read_classes
from signstep.errors import InputError, LoadError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    for name in ("cat", "dog", "emu"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(root / name / "1.png")
    return root


def test_a_sequence_fixes_the_order(zoo: Path) -> None:
    source = open_data(zoo, classes=["emu", "cat", "dog"])
    assert source.classes == ("emu", "cat", "dog")
    assert [path.parent.name for path in source.files.values()] == ["emu", "cat", "dog"]
    assert source.labels.tolist() == [0, 1, 2]
    assert "classes are numbered in the order given" in source.notes


def test_a_file_fixes_the_order_and_is_part_of_the_fingerprint(zoo: Path, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffdog\r\n cat \nemu\n\n", encoding="utf-8")
    source = open_data(zoo, classes=file)
    assert source.classes == ("dog", "cat", "emu")
    before = source.fingerprint()
    file.write_text("cat\ndog\nemu")
    assert open_data(zoo, classes=str(file)).fingerprint() != before


def test_a_folder_that_is_not_listed(zoo: Path) -> None:
    with pytest.raises(LoadError, match=r"the class folder .*emu is not among the 2 classes given"):
        open_data(zoo, classes=["cat", "dog"])


def test_a_name_without_a_folder(zoo: Path) -> None:
    assert open_data(zoo, classes=["fox", "cat", "dog", "emu"]).labels.tolist() == [1, 2, 3]
    (zoo / "fox").mkdir()
    (zoo / "fox" / ".keep").touch()
    source = open_data(zoo, classes=["fox", "cat", "dog", "emu"])
    assert source.labels.tolist() == [1, 2, 3]
    assert "no images of 1 classes: 'fox'" in source.notes
    (zoo / "fox" / "readme.txt").touch()
    with pytest.raises(LoadError, match=r"the class folder .*fox holds no images"):
        open_data(zoo, classes=["fox", "cat", "dog", "emu"])


def test_empty_folders_only(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(LoadError, match=r"all class folders of .* are empty"):
        open_data(tmp_path, classes=["cat"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "classes.txt holds no names"),
        ("cat\n\ndog", "classes.txt: name 2 is empty"),
    ],
)
def test_wrong_files(zoo: Path, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(LoadError, match=message):
        open_data(zoo, classes=file)


def test_a_missing_file_and_wrong_sequences(zoo: Path) -> None:
    with pytest.raises(LoadError, match=r"classes='cat,dog,emu' cannot be read .*one name per line, or a sequence"):
        open_data(zoo, classes="cat,dog,emu")
    with pytest.raises(InputError, match="classes holds no names"):
        open_data(zoo, classes=[])


def test_a_list_with_a_name_for_two_classes(zoo: Path, tmp_path: Path) -> None:
    """ImageNet's own list has such names: they matter only where one of them is looked up."""
    file = tmp_path / "classes.txt"
    file.write_text("cat\ncrane\ndog\nemu\ncrane\n")
    source = open_data(zoo, classes=file)
    assert source.labels.tolist() == [0, 2, 3]
    assert source.classes == ("cat", "crane", "dog", "emu", "crane")
    (zoo / "emu").rename(zoo / "crane")
    with pytest.raises(LoadError, match=r"class folder .*crane: 'crane' is the name of the classes 1 and 4; write 'cr"):
        open_data(zoo, classes=file)
    (zoo / "crane").rename(zoo / "crane (4)")
    assert open_data(zoo, classes=file).labels.tolist() == [0, 2, 4]


def test_imagenets_own_list() -> None:
    shared = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos" / "imagenet_classes.txt"
    if not shared.is_file():
        pytest.skip("needs ../shared")
    names = read_classes(shared)
    assert len(names) == 1000
    index = ClassIndex(names)
    assert names[index.number("crane (517)", "here")] == "crane"
    with pytest.raises(LoadError, match="'crane' is the name of the classes 134 and 517"):
        index.number("crane", "here")
