"""Data of somebody's own: a function, an iterable, a source or a format, by "module:name" and under names."""

from pathlib import Path

import pytest
import torch
from scratch import installed, written

import signstep as ss
from signstep.cli import main
from signstep.data import DataSource, open_data
from signstep.data.sources import DATA
from signstep.errors import InputError, LabelError, LoadError, ModelError

MODULE = '''
"""Data of our own."""
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from signstep.data.batches import DataSource, regroup
from signstep.data.formats import DataFormat

X = torch.rand(12, 6, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2] * 4)


def loader():
    """Twelve examples.

    In batches of five.
    """
    return DataLoader(TensorDataset(X, Y), batch_size=5)


def generator():
    for start in range(0, 12, 5):
        yield X[start : start + 5].numpy(), Y[start : start + 5].numpy()


def lists():
    return [(X[row], int(Y[row])) for row in range(12)]


def arrays():
    return X.numpy().astype("float64"), Y.numpy()


class Stated:
    bounds = (-1, 2)
    classes = ["a", "b", "c"]
    total = 1000

    def __iter__(self):
        return iter(loader())


BATCHES = [(X[:8], Y[:8]), (X[8:], Y[8:])]
ONCE = iter(BATCHES)
asked = []


def choosy(split=None, limit=None, *, batch_size, seed=3):
    asked.append((split, limit, batch_size))
    return loader() if split == "test" else [(X[:4], Y[:4])]


def shuffled():
    return DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)


def levels():
    return [((X * 255).round().to(torch.uint8), Y)]


def real():
    return [(X, Y / 3)]


def unlabelled():
    return [(X, None)]


def two_inputs():
    return [({"a": X, "b": X}, Y)]


def two_shapes():
    return [(X, Y), (X[:, :4], Y)]


def empty():
    return []


def number():
    return 7


def unbounded():
    found = Stated()
    found.bounds = (0, 1, 2)
    return found


def misnamed():
    found = Stated()
    found.classes = "abc"
    return found


def raising():
    raise SystemExit(0)


def late():
    yield X, Y
    raise ValueError("no more\\x1b[2J")


def needy(folder):
    return loader()


def _read(path, asked):
    numbers = np.loadtxt(path, ndmin=2)
    return torch.tensor(numbers[:, 1:]), torch.tensor(numbers[:, 0]).long()


TEXT = DataFormat("text", "lines of numbers, the label first", _read, lambda path: path.suffix == ".lines")
WRONG = DataFormat("wrong", "", _read, uses=frozenset({"colour"}))
SOURCE = DataSource(
    name="ours", labels=Y, shape=(6,), read=lambda sizes: regroup([X], sizes), files={}, batch_size=2, total=12
)
'''
NETS = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""
X = torch.rand(12, 6, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2] * 4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written(tmp_path, {"ourdata.py": MODULE, "ournets.py": NETS})
    lines = "\n".join(f"{y} {' '.join(map(str, x))}" for x, y in zip(X.tolist(), Y.tolist(), strict=True))
    (tmp_path / "set.lines").write_text(lines)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WAYS = ("loader", "generator", "lists", "arrays", "Stated", "BATCHES", "SOURCE")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", WAYS)
def test_data_is_named_by_its_module(name: str) -> None:
    source = open_data(f"ourdata:{name}", batch_size=7)
    for _ in range(2):
        batches = list(source)
        assert [len(x) for x, _ in batches] == [7, 5]
        assert torch.equal(torch.cat([x for x, _ in batches]), X)
        assert torch.equal(torch.cat([y for _, y in batches]), Y)
        assert {x.dtype for x, _ in batches} == {torch.float32}
    assert source.len_hint == 12
    assert "12" in source.description
    assert "6" in source.description
    assert source.fingerprint() == source.fingerprint() != open_data(f"ourdata:{name}", limit=4).fingerprint()


@pytest.mark.usefixtures("here")
def test_what_can_be_known_is_known_and_what_not_is_said() -> None:
    prints = {name: open_data(f"ourdata:{name}", batch_size=3).fingerprint() for name in WAYS if name != "SOURCE"}
    assert len(set(prints.values())) == 1, "the same numbers in the same order, however they are cut"
    plain = open_data("ourdata:loader")
    assert (plain.bounds, plain.classes, plain.total) == (None, None, 12)
    assert plain.description == "ourdata:loader: 12 examples of shape 6"
    assert plain.notes == (
        "ourdata:loader is code of somebody's own: what is said of the data is what it gave",
        "SHA-256 of the data is that of the numbers that it gave, in their order, not of a file",
    )
    stated = open_data("ourdata:Stated", limit=5)
    assert (stated.bounds, stated.classes, stated.total) == ((-1.0, 2.0), ("a", "b", "c"), 1000)
    assert stated.description == "ourdata:Stated: the first 5 of 1000 examples of shape 6"
    limited = open_data("ourdata:loader", limit=5)
    assert limited.len_hint == 5
    assert "how many examples lie beyond the first 5 is not known" in limited.notes
    levels = open_data("ourdata:levels")
    assert "x is uint8, taken as the numbers that it holds" in levels.notes
    assert float(next(iter(levels))[0].max()) > 200
    assert open_data("ourdata:real", real=True).labels.dtype == torch.float32
    assert open_data("ourdata:loader", ignore_label=2).len_hint == 8


@pytest.mark.usefixtures("here")
def test_a_function_gets_the_options_that_it_names() -> None:
    import importlib

    assert open_data("ourdata:choosy", split="test", batch_size=4, limit=9).len_hint == 9
    assert open_data("ourdata:choosy").len_hint == 4
    assert importlib.import_module("ourdata").asked == [("test", 9, 4), (None, None, 128)]
    with pytest.raises(InputError, match="split='test' has no meaning for ourdata:loader"):
        open_data("ourdata:loader", split="test")
    with pytest.raises(InputError, match=r"resize=\(2, 2\) works for folders of images"):
        open_data("ourdata:choosy", resize=(2, 2))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("ONCE", InputError, "ourdata:ONCE is a list_iterator, which can be read once alone; name a function of it"),
        ("unlabelled", LabelError, "ourdata:unlabelled gives no labels, and commands need them"),
        ("two_inputs", InputError, r"gives several inputs \['a', 'b'\], and a command takes one tensor"),
        ("two_shapes", InputError, r"examples of the shapes \[\(6,\), \(4,\)\]; bring them to one shape"),
        ("empty", InputError, "ourdata:empty gives no examples"),
        ("number", InputError, "data is a int; pass batches"),
        ("unbounded", InputError, r"bounds=\(0, 1, 2\) are not two numbers"),
        ("misnamed", InputError, "classes='abc' are no names; write a tuple of text"),
        ("raising", ModelError, r"the data ourdata:raising raised SystemExit: 0 \(.*ourdata.py, line \d+, in raising"),
        ("late", InputError, r"data raised ValueError .*no more\\u001b\[2J; correct it there"),
        ("needy", InputError, "its argument folder has no default; let it take split, resize"),
        ("WRONG", InputError, "it uses colour, which no option is"),
        ("loadre", InputError, "has no loadre; did you mean loader"),
    ],
)
def test_what_is_no_data_is_refused_in_a_sentence(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        open_data(f"ourdata:{name}")


@pytest.mark.usefixtures("here", "no_global_seed")
def test_another_order_at_the_second_reading_is_seen() -> None:
    torch.manual_seed(3)
    source = open_data("ourdata:shuffled")
    with pytest.raises(LoadError, match="ourdata:shuffled gives other labels when it is read again; let it give one"):
        list(source)


def test_a_file_of_that_name_is_a_file(here: Path) -> None:
    (here / "ourdata:loader").write_text("")
    with pytest.raises(LoadError, match="ourdata:loader is of no known kind"):
        open_data("ourdata:loader")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("data", ["ourdata:loader", "ourdata:generator"])
def test_the_command_line_takes_it(data: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "ournets:net", "--data", data, "--threat", "linf:0.1", "--device", "cpu"]
    assert main(["audit", *options, "--attack", "fgsm", "--curve", "none"]) == 0
    shown = capsys.readouterr()
    assert f"data: {data}: 12 examples of shape 6" in shown.err
    record = ss.Result.load(here / "signstep-report" / "result.json")
    assert record.data == f"{data}: 12 examples of shape 6"
    assert any("code of somebody's own" in note for note in record.notes)
    assert record.hashes["data"] == open_data(data).fingerprint()
    assert main(["attack", *options, "--format", "npz"]) == 0
    trained = ["--model", "ournets:net", "--data", data, "--threat", "linf:0.1", "--device", "cpu", "--epochs", "1"]
    assert main(["train", *trained, "--out", "trained"]) == 0, capsys.readouterr().err


POINTS = "[signstep.data]\ntext = ourdata:TEXT\nours = ourdata:loader\n"


def test_an_installed_package_brings_formats_and_named_sets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError, match=r"set\.lines is of no known kind"):
        open_data("set.lines")
    with pytest.raises(LoadError, match=r"ours does not exist; pass .*, or your own, as my_data:loader"):
        open_data("ours")
    installed(here, "our-data", {}, POINTS, monkeypatch)
    source = open_data("set.lines", batch_size=5)
    assert isinstance(source, DataSource)
    torch.testing.assert_close(torch.cat([x for x, _ in source]), X)
    assert torch.equal(source.labels, Y)
    assert open_data("ours").description == "ours: 12 examples of shape 6"
    assert "text" not in DATA.own
    (here / "ours").mkdir()
    with pytest.raises(LoadError, match="the folder ours holds nothing that can be read"):
        open_data("ours")
