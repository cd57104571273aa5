from pathlib import Path
from typing import Any

import pytest

from signstep.data import open_data
from signstep.data.digits import digits
from signstep.errors import InputError, LoadError

SHARED = Path(__file__).parents[2] / ".." / "shared"


def test_the_built_in_digits_have_a_name() -> None:
    source = open_data("digits", batch_size=300)
    assert [len(x) for x, _ in source] == [300, 200]
    x, y = digits("test")
    for _ in range(2):
        first = next(iter(source))
        assert first[0].equal(x[:300])
        assert first[1].equal(y[:300])
        first[0].zero_()
    assert open_data("digits", split="train").len_hint == 1297
    assert [len(x) for x, _ in open_data("digits", limit=7, batch_size=5)] == [5, 2]
    assert len(source.fingerprint()) == 64


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"none.npz does not exist; pass a .npz with x and y, .*'digits'"):
        open_data(tmp_path / "none.npz")


def test_a_file_of_no_known_kind(tmp_path: Path) -> None:
    path = tmp_path / "table.xlsx"
    path.write_text("1,2")
    with pytest.raises(LoadError, match=r"table.xlsx is of no known kind; pass a .npz"):
        open_data(path)


def test_a_folder_of_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(LoadError, match=r"holds nothing that can be read; pass a .npz"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0; pass at least 1"),
        ({"limit": 0}, "limit=0; pass at least 1, or leave"),
        ({"split": "valid"}, "split='valid'; pass 'test' or 'train'"),
        ({"resize": (0, 4)}, r"resize=\(0, 4\); pass \(height, width\) in pixels"),
        ({"resize": (4, 4)}, r"resize=\(4, 4\) works for folders of images only"),
        (
            {"label_column": "y"},
            "label_column='y' names the label column of a table or saved data set, and digits is none",
        ),
        ({"classes": ["a"]}, "classes=.* gives an order to class names, and digits has no class names of its own"),
        ({"skip_bad": True}, "skip_bad=True works for folders of images, tables and saved data sets only"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data("digits", **arguments)


@pytest.mark.skipif(
    not (SHARED / "data" / "cifar10").is_dir(), reason="needs ../shared/data/cifar10 beside the checkout"
)
def test_the_real_cifar10() -> None:
    source = open_data(SHARED / "data" / "cifar10" / "test_first1000.npz", batch_size=400)
    assert [(tuple(x.shape), len(y)) for x, y in source] == [((n, 3, 32, 32), n) for n in (400, 400, 200)]
    assert next(iter(source))[1][:5].tolist() == [3, 8, 8, 0, 6]


def test_a_file_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t10k-images-idx3-ubyte").touch()
    (tmp_path / "t10k-labels-idx1-ubyte").touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LoadError, match=r"cannot be read \(.*Permission denied\); check that it may be opened"):
        open_data(tmp_path)
