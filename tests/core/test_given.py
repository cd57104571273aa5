"""What people pass: every spelling of the same data gives the same result, and what is no data gets one sentence."""

import functools
from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import signstep as ss
from signstep.errors import InputError, SignstepError
from signstep.testing import assert_robust
from signstep.train import Settings, fit

ROWS, WIDTH, CLASSES = 12, 4, 3


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, CLASSES))


NET = _net()
X = torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
Y = torch.arange(ROWS) % CLASSES
THREAT = ss.linf(0.2)


class Table:
    """As a table of pandas reads."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)


class Scipy:
    """As a sparse matrix of SciPy reads."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def toarray(self) -> Any:
        return np.asarray(self.values)


def _inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


SPELLINGS: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda x: x.numpy(),
    "numpy float64": lambda x: x.double().numpy(),
    "numpy big-endian": lambda x: x.numpy().astype(">f4"),
    "numpy, read only": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "numpy, reversed twice": lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
    "fortran order": lambda x: np.asfortranarray(x.numpy()),
    "table": lambda x: Table(x.numpy()),
    "scipy": lambda x: Scipy(x.numpy()),
    "coo": lambda x: x.to_sparse(),
    "csr": lambda x: x.to_sparse_csr(),
    "not contiguous": lambda x: torch.stack([x, x], 2)[..., 0],
    "requires grad": lambda x: x.clone().requires_grad_(),
    "inference": _inference,
    "parameter": nn.Parameter,
}

LABELS: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda y: y.numpy(),
    "numpy uint16": lambda y: y.numpy().astype(np.uint16),
    "list": lambda y: y.tolist(),
    "floats": lambda y: y.float(),
    "column": lambda y: y[:, None],
    "table": lambda y: Table(y.numpy()),
    "sparse": lambda y: y.to_sparse(),
    "inference": _inference,
}


def _attack(x: Any, y: Any) -> Tensor:
    found = ss.attack(NET, x, y, threat=THREAT, recipe="pgd:steps=3")
    assert isinstance(found.x, Tensor)
    return found.x


def _audit(x: Any, y: Any) -> Tensor:
    result = ss.audit(NET, (x, y), threat=THREAT, curve=False)
    return torch.tensor([float(result.clean_right), float(result.held), *map(hash, result.per_example.ids)])


def _patch(x: Any, y: Any) -> Tensor:
    dense = isinstance(x, np.ndarray) or (isinstance(x, Tensor) and x.layout == torch.strided and not x.is_nested)
    shaped = x.reshape(len(x), 1, 2, 2) if dense else x
    return ss.patch(nn.Sequential(nn.Flatten(), NET), (shaped, y), size=1, steps=1, holdout=0).values


def _fit(x: Any, y: Any) -> Tensor:
    net = _net()
    fit(net, x, y, threat=THREAT, settings=Settings(epochs=1, batch=4, validation=0, on_collapse="ignore"))
    return torch.cat([part.detach().flatten() for part in net.parameters()])


def _shares(matrix: ss.TransferMatrix) -> Tensor:
    return torch.tensor([[cell.fooled, cell.right] for cell in matrix.cells])


class Sum(nn.Module):
    """An objective with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).sum(1)  # type: ignore[no-any-return]


def _asserted(x: Any, y: Any) -> Tensor:
    assert_robust(NET, (x, y), threat=THREAT, at_least=0.0, attacks=["fgsm"])
    return torch.zeros(1)


VERBS: dict[str, Callable[[Any, Any], Tensor]] = {
    "attack": _attack,
    "fgsm": lambda x, y: ss.fgsm(NET, x, y, eps=0.2),
    "fgsm fast": lambda x, y: ss.fgsm(NET, x, y, eps=0.2, search=ss.Search(engine="float32")),
    "audit": _audit,
    "maximise": lambda x, y: ss.maximise(Sum(), x, THREAT, level=y).after,
    "certified": lambda x, y: ss.certified(NET, x, y, threat=ss.linf(0.01)).float(),
    "transfer": lambda x, y: _shares(ss.transfer({"a": NET}, {"b": _net()}, (x, y), threat=THREAT)),
    "universal": lambda x, y: ss.universal(NET, (x, y), threat=THREAT, epochs=1).delta,
    "patch": _patch,
    "assert_robust": _asserted,
    "fit": _fit,
}


# Verbs that take their labels otherwise: a certificate is about a class number, and no float is one.
_REFUSED = {("certified", "floats")}


@functools.cache
def _plain(verb: str) -> Tensor:
    """What the verb makes of plain tensors, found once for all spellings."""
    return VERBS[verb](X, Y)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_spelling_of_the_inputs_gives_the_same(verb: str, spelling: str) -> None:
    if verb == "patch" and spelling in ("table", "scipy", "coo", "csr"):
        pytest.skip("these have two dimensions, images three")
    assert torch.equal(VERBS[verb](SPELLINGS[spelling](X), Y), _plain(verb))


@pytest.mark.parametrize("spelling", LABELS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_spelling_of_the_labels_gives_the_same(verb: str, spelling: str) -> None:
    if (verb, spelling) in _REFUSED:
        with pytest.raises(SignstepError, match="whole numbers"):
            VERBS[verb](X, LABELS[spelling](Y))
        return
    assert torch.equal(VERBS[verb](X, LABELS[spelling](Y)), _plain(verb))


BAD: dict[str, Callable[[], tuple[Any, Any]]] = {
    "meta": lambda: (X.to("meta"), Y),
    "no rows": lambda: (X[:0], Y[:0]),
    "bool": lambda: (X > 0.5, Y),
    "bytes": lambda: ((X * 255).byte(), Y),
    "complex": lambda: (X + 0j, Y),
    "quantised": lambda: (torch.quantize_per_tensor(X, 0.01, 0, torch.quint8), Y),
    "float8": lambda: (X.to(torch.float8_e4m3fn), Y),
    "nested": lambda: (torch.nested.nested_tensor([X[0], X[1][:2]]), Y[:2]),
    "text": lambda: (np.array([["a"] * WIDTH] * ROWS), Y),
    "objects": lambda: (np.array([[object()] * WIDTH] * ROWS), Y),
    "times": lambda: (np.zeros((ROWS, WIDTH), "datetime64[s]"), Y),
    "masked": lambda: (np.ma.masked_less(X.numpy(), 0.5), Y),
    "list of rows": lambda: (X.tolist(), Y),
    "a number": lambda: (0.5, Y),
    "a set": lambda: ({0.5}, Y),
    "a function": lambda: (lambda: X, Y),
    "labels of meta": lambda: (X, Y.to("meta")),
    "text labels": lambda: (X, ["cat"] * ROWS),
    "labels in a set": lambda: (X, {0, 1}),
    "an object for labels": lambda: (X, object()),
    "complex labels": lambda: (X, Y + 0j),
    "quantised labels": lambda: (X, torch.quantize_per_tensor(Y.float(), 1.0, 0, torch.quint8)),
    "ragged labels": lambda: (X, [[0], [0, 1]] * (ROWS // 2)),
    "a number for labels": lambda: (X, 2),
    "too few labels": lambda: (X, Y[:5]),
    "a masked label": lambda: (X, np.ma.masked_equal(Y.numpy(), 2)),
}
_FINE = {("maximise", "a number for labels")}


@pytest.mark.parametrize("spelling", BAD)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_what_is_no_data_gets_one_sentence(verb: str, spelling: str) -> None:
    if (verb, spelling) in _FINE:
        pytest.skip("a level may be one number for all")
    with pytest.raises(SignstepError) as caught:
        VERBS[verb](*BAD[spelling]())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [Y * 1.5, Y * float("nan"), torch.eye(CLASSES)[Y], torch.where(Y == 0, -100, Y)])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "maximise"])
def test_labels_that_are_no_classes_get_one_sentence(verb: str, labels: Tensor) -> None:
    with pytest.raises(SignstepError, match="y"):
        VERBS[verb](X, labels)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_input_is_noted() -> None:
    assert "made dense" in str(ss.attack(NET, X.to_sparse(), Y, threat=THREAT).notes)
    assert "made dense" in str(ss.audit(NET, (X.to_sparse_csr(), Y), threat=THREAT).notes)
    assert "made dense" not in str(ss.attack(NET, X, Y, threat=THREAT).notes)


PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "NumPy eps": ({"eps": np.float64(0.1)}, {"eps": 0.1}),
    "eps in an array": ({"eps": np.array(0.1)}, {"eps": 0.1}),
    "eps for each": ({"eps": np.full(ROWS, 0.1)}, {"eps": torch.full((ROWS,), 0.1, dtype=torch.float64)}),
    "eps in a list": ({"eps": [0.1] * ROWS}, {"eps": torch.full((ROWS,), 0.1, dtype=torch.float64)}),
    "sparse eps": ({"eps": torch.full((ROWS,), 0.1).to_sparse()}, {"eps": torch.full((ROWS,), 0.1)}),
    "box in a list": ({"eps": 0.1, "box": [0, 1]}, {"eps": 0.1}),
    "box in an array": ({"eps": 0.1, "box": np.array([0.0, 1.0])}, {"eps": 0.1}),
    "box for each feature": ({"eps": 0.1, "box": ([0.0] * WIDTH, np.ones(WIDTH))}, {"eps": 0.1}),
    "mask in a list": (
        {"eps": 0.1, "mask": [True, False, True, True]},
        {"eps": 0.1, "mask": torch.tensor([True, False, True, True])},
    ),
    "NumPy mask": (
        {"eps": 0.1, "mask": np.arange(WIDTH) > 0},
        {"eps": 0.1, "mask": torch.arange(WIDTH) > 0},
    ),
    "NumPy grid": ({"eps": 0.1, "grid": np.int64(1)}, {"eps": 0.1, "grid": 1}),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_spelling_of_a_threat_gives_the_same(part: str) -> None:
    given, plain = PARTS[part]
    x = X.round() if "grid" in given else X
    one, other = (ss.attack(NET, x, Y, threat=ss.linf(**options)).x for options in (given, plain))
    assert torch.equal(one, other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"eps": True},
        {"eps": "x"},
        {"eps": {}},
        {"eps": 1j},
        {"eps": ["a"]},
        {"eps": [[0.1], [0.1, 0.2]]},
        {"eps": torch.tensor([True])},
        {"eps": torch.tensor(0.1, device="meta")},
        {"eps": 0.1, "box": 5},
        {"eps": 0.1, "box": (0, 0.5, 1)},
        {"eps": 0.1, "box": "0,1"},
        {"eps": 0.1, "box": ("a", 1)},
        {"eps": 0.1, "box": ([0, [1]], 1)},
        {"eps": 0.1, "box": (0, True)},
        {"eps": 0.1, "mask": "x"},
        {"eps": 0.1, "mask": True},
        {"eps": 0.1, "mask": [1, 0]},
        {"eps": 0.1, "grid": True},
    ],
    ids=str,
)
def test_parts_of_a_threat_that_are_none_get_one_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(ss.SignstepError) as caught:
        ss.linf(**options)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in options)


class Batch(UserDict[str, Any]):
    """As a tokenizer returns one: a mapping that is no dict."""


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor, mask: Any = None, scale: float = 1.0, mode: str = "a", token: Any = None) -> Tensor:
        assert mode == "a"
        assert token is None
        z = self.net(x) * scale
        return z if mask is None else z * torch.as_tensor(mask)[:, :1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=4", "square:queries=20", "apgd:steps=5"])
def test_a_mapping_may_hold_what_is_the_same_for_every_row(recipe: str) -> None:
    ones = torch.ones(ROWS, 2)
    given = Batch(x=X.numpy(), mask=ones.tolist(), scale=2.0, mode="a", token=None)
    found = ss.attack(Model(), given, Y, threat={"x": THREAT}, recipe=recipe)
    plain = ss.attack(Model(), {"x": X, "mask": ones}, Y, threat={"x": THREAT}, recipe=recipe)
    assert isinstance(found.x, dict)
    assert isinstance(plain.x, dict)
    assert torch.equal(found.fooled, plain.fooled)  # the scale of logits decides nothing
    assert list(found.x) == ["x"]


def test_a_mapping_goes_through_an_audit_and_its_halves() -> None:
    def data() -> Iterator[Any]:
        for start in range(0, ROWS, 5):
            yield Batch(x=X[start : start + 5], scale=2.0, token=None), Y[start : start + 5]

    found = ss.audit(Model(), data(), threat={"x": THREAT}, curve=False, run=ss.Run(shard=(0, 1)))
    plain = ss.audit(Model(), ({"x": X}, Y), threat={"x": THREAT}, curve=False)
    assert found.per_example.verdicts == plain.per_example.verdicts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": X, 3: X}, "key 3"),
        ({"x": None}, "none of them a tensor"),
        ({"x": X, "mask": torch.tensor(1.0)}, "plain number"),
        ({"x": X, "mask": ["a"] * ROWS}, "no numbers"),
        ({"x": X, "mask": X[:3]}, "different numbers of rows"),
        ({}, "none of them a tensor"),
    ],
)
def test_a_mapping_that_does_not_fit_gets_one_sentence(given: Any, said: str) -> None:
    with pytest.raises(SignstepError, match=said):
        ss.attack(Model(), given, Y, threat={"x": THREAT})


def test_a_threat_on_what_has_no_rows_is_refused() -> None:
    with pytest.raises(SignstepError, match="threat names 'token', which is None"):
        ss.attack(Model(), {"x": X, "token": None}, Y, threat={"token": THREAT})


class Examples(Dataset[Any]):
    def __init__(self, convert: Callable[[int], Any]) -> None:
        self.convert = convert

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> Any:
        return self.convert(row)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from ((x, int(y)) for x, y in zip(X, Y, strict=True))


FORMS: dict[str, Callable[[], Any]] = {
    "a pair in a list": lambda: [X, Y],
    "batches": lambda: [(X[:7], Y[:7]), [X[7:], Y[7:].tolist()]],
    "a batch without rows": lambda: [(X[:0], Y[:0]), (X, Y)],
    "single examples": lambda: [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "single examples of NumPy": lambda: [(x.numpy(), y.numpy()) for x, y in zip(X, Y, strict=True)],
    "single examples of tensors": lambda: list(zip(X, Y, strict=True)),
    "a loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=5),
    "a data set": lambda: TensorDataset(X, Y),
    "a data set of NumPy": lambda: Examples(lambda row: (X[row].double().numpy(), np.int16(Y[row]))),
    "a stream": Stream,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same(form: str) -> None:
    plain, found = (ss.audit(NET, data, threat=THREAT, curve=False) for data in ((X, Y), FORMS[form]()))
    assert found.per_example == plain.per_example
    plain_cell, cell = (
        ss.transfer({"a": NET}, {"b": NET}, data, threat=THREAT).cell("a", "b") for data in ((X, Y), FORMS[form]())
    )
    assert cell == plain_cell
    learnt, other = (ss.universal(NET, data, threat=THREAT, epochs=1) for data in ((X, Y), FORMS[form]()))
    assert torch.equal(learnt.delta, other.delta)


def _failing() -> Iterator[Any]:
    yield X, Y
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: None, "NoneType"),
        (lambda: 3, "int"),
        (lambda: "digits", "open_data"),
        (lambda: {"x": X, "y": Y}, "dict"),
        (lambda: X, "one tensor"),
        (X.numpy, "one ndarray"),
        (lambda: [X], "pair"),
        (lambda: [X, X, X], "pair"),
        (lambda: [(X, Y, Y)], "length 3"),
        (lambda: [(X, Y[:3])], "12 inputs and 3 labels"),
        (lambda: [(X[0], 1), (X, Y)], "after single examples"),
        (lambda: [(X[0], 1), (X[0][:2], 1)], "shapes"),
        (lambda: [(X[0], "cat")] * 3, "cannot be made a tensor|dimension"),
        (lambda: TensorDataset(X), "pair"),
        (lambda: Examples(lambda row: {"x": X[row]}), "dict"),
        (lambda: Examples(lambda row: (X[row], None if row else 1)), "labels for all or for none"),
        (lambda: Examples(lambda row: row // 0), r"data raised ZeroDivisionError \(.*test_given.py:\d+\)"),
        (_failing, r"data raised KeyError \(.*test_given.py:\d+\): 'lost'"),
        (lambda: DataLoader(Examples(lambda row: (X[row], [1] * (row + 1)))), "data"),
        (list, "no batches"),
    ],
)
def test_data_that_is_none_gets_one_sentence(data: Callable[[], Any], said: str) -> None:
    with pytest.raises(SignstepError, match=said) as caught:
        ss.audit(NET, data(), threat=THREAT, curve=False)
    assert "\n" not in str(caught.value)


def test_one_worker_reads_a_stream() -> None:
    found = ss.audit(NET, DataLoader(Stream(), batch_size=5, num_workers=2), threat=THREAT, curve=False)
    plain = ss.audit(NET, (X, Y), threat=THREAT, curve=False)
    assert found.per_example == plain.per_example
    assert any("read by one worker" in note for note in found.notes)
    assert ss.Result.from_json(found.to_json()) == found


def test_what_a_loader_drops_is_counted() -> None:
    found = ss.audit(NET, DataLoader(TensorDataset(X, Y), 5, drop_last=True), threat=THREAT, curve=False)
    assert found.examples == 10
    assert found.terms["left_out"] == {"dropped by the DataLoader with drop_last=True": 2}
    assert "2 dropped by the DataLoader" in str(found)


MARKED = torch.where(torch.arange(ROWS) % 4 == 1, -100, Y)


def test_rows_with_a_label_to_ignore_are_left_out_and_counted() -> None:
    kept = MARKED != -100
    task = ss.Multiclass(ignore=-100)
    found = ss.audit(ss.Model(NET, task=task), [(X[:7], MARKED[:7]), (X[7:], MARKED[7:])], threat=THREAT)
    plain = ss.audit(NET, (X[kept], Y[kept]), threat=THREAT)
    assert found.per_example == plain.per_example
    assert found.terms["left_out"] == {"with the label -100, which is to be ignored": 3}
    assert "3 with the label -100" in str(found)
    assert ss.Result.from_json(found.to_json()) == found
    shards = [
        ss.audit(ss.Model(NET, task=task), (X, MARKED), threat=THREAT, run=ss.Run(shard=(part, 2))) for part in range(2)
    ]
    merged = ss.merge(shards)
    assert merged.terms["left_out"] == found.terms["left_out"]
    assert merged.per_example == plain.per_example
    matrix = ss.transfer({"a": ss.Model(NET, task=task)}, {"b": ss.Model(NET, task=task)}, (X, MARKED), threat=THREAT)
    assert matrix.cells == ss.transfer({"a": NET}, {"b": NET}, (X[kept], Y[kept]), threat=THREAT).cells
    assert any("3 with the label -100" in note for note in matrix.notes)
    learnt = ss.universal(ss.Model(NET, task=task), (X, MARKED), threat=THREAT, epochs=1)
    assert torch.equal(learnt.delta, ss.universal(NET, (X[kept], Y[kept]), threat=THREAT, epochs=1).delta)


def test_a_batch_with_a_label_to_ignore_is_refused() -> None:
    with pytest.raises(SignstepError, match=r"3 examples with the label -100.*x\[y != -100\]"):
        ss.attack(ss.Model(NET, task=ss.Multiclass(ignore=-100)), X, MARKED, threat=THREAT)
    with pytest.raises(InputError, match="examples with the label -100 are left out on the way"):
        ss.audit(ss.Model(NET, task=ss.Multiclass(ignore=-100)), (X, MARKED), threat=ss.linf([0.1] * ROWS))


@pytest.mark.parametrize("value", [-100, -1, 255])
def test_a_label_that_is_to_be_ignored_is_recognised(value: int) -> None:
    y = torch.where(Y == 0, value, Y)
    with pytest.raises(SignstepError, match=rf"are the 4 with {value} to be ignored\? .*Multiclass\(ignore={value}\)"):
        ss.attack(NET, X, y, threat=THREAT)
    with pytest.raises(SignstepError, match="check the order of classes"):
        ss.attack(NET, X, torch.where(Y == 0, 40, Y), threat=THREAT)


def test_an_image_with_nothing_but_positions_to_ignore_is_left_out() -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(1, 3, 1)
    x, y = torch.rand(5, 1, 4, 4), torch.randint(3, (5, 4, 4))
    y[1], y[2, 0] = 255, 255
    found = ss.audit(ss.Model(net, task=ss.Segmentation(ignore=255)), (x, y), threat=THREAT, curve=False)
    assert found.examples == 4
    assert found.terms["left_out"] == {"with the label 255, which is to be ignored": 1}
    with pytest.raises(SignstepError, match=r"Segmentation\(ignore=255\)"):
        ss.audit(ss.Model(net, task="segmentation"), (x, y), threat=THREAT, curve=False)
