"""A model that returns several tensors: which of them was attacked is said, and how to choose another."""

import re
from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import mlp, rand
from torch import Tensor

import signstep as ss
from signstep.errors import ModelError

X = rand(12, 18, seed=1)
NET = mlp()
Pair = namedtuple("Pair", ["features", "scores"])


def _logits(x: Tensor) -> Any:
    return NET(x)


AMBIGUOUS: dict[str, tuple[Any, str]] = {
    "nested": (
        lambda x: {"out": {"a": NET(x)}, "aux": NET(x) * 2},
        r"dict of \{'out': dict of \['a'\], 'aux': \(R, 4\)\}, and 'aux' was taken",
    ),
    "features first": (lambda x: (x.flatten(1), NET(x)), r"tuple of \{0: \(R, 18\), 1: \(R, 4\)\}, and 0 was taken"),
    "logits first": (lambda x: [NET(x), x], r"list of .*, and 0 was taken"),
    "behind None": (lambda x: (None, NET(x), (x, x)), r"\{0: NoneType, 1: \(R, 4\), 2: tuple\}, and 1 was taken"),
    "named": (lambda x: Pair(x.flatten(1), NET(x)), r"Pair of .*, and 0 was taken"),
}
PLAIN: dict[str, Any] = {
    "tensor": _logits,
    "only one": lambda x: (NET(x),),
    "one and no tensor": lambda x: {"scores": NET(x), "name": "net", "parts": [1, 2]},
    "logits by name": lambda x: {"features": x, "logits": NET(x)},
    "logits as an attribute": lambda x: SimpleNamespace(logits=NET(x), hidden=x),
    "ordered": lambda x: OrderedDict(out=NET(x)),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3", "square:queries=20"])
def test_what_was_taken_is_said_once(name: str, recipe: str) -> None:
    model, words = AMBIGUOUS[name]
    found = ss.attack(model, X, None, threat=ss.linf(0.1), recipe=recipe)
    notes = [note for note in found.notes if "was taken for the scores" in note]
    assert len(notes) == 1

    assert re.search(words, notes[0])
    assert "pass output=" in notes[0]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_who_chooses_is_told_nothing(name: str) -> None:
    model, _ = AMBIGUOUS[name]
    key: Any = "aux" if name == "nested" else 1 if name != "logits first" else 0
    found = ss.attack(ss.Model(model, output=key), X, None, threat=ss.linf(0.1))
    assert not any("was taken" in note for note in found.notes)


@pytest.mark.parametrize("name", PLAIN)
def test_one_way_to_read_it_is_no_note(name: str) -> None:
    found = ss.attack(PLAIN[name], X, None, threat=ss.linf(0.1))
    wanted = ss.attack(_logits, X, None, threat=ss.linf(0.1))
    assert found.notes == wanted.notes
    assert torch.equal(found.fooled, wanted.fooled)


def test_an_audit_says_it_too() -> None:
    model, _ = AMBIGUOUS["features first"]
    y = torch.zeros(12, dtype=torch.int64)
    result = ss.audit(model, [(X[:7], y[:7]), (X[7:], y[7:])], threat=ss.linf(0.1), attacks=["fgsm"], curve=False)
    assert sum("was taken for the scores" in note for note in result.notes) == 1


@pytest.mark.parametrize("made", [lambda rows: rows, lambda rows: dict(enumerate(rows))])
def test_what_is_listed_of_a_return_does_not_grow_with_the_batch(made: Any) -> None:
    with pytest.raises(ModelError, match=r"and 4 more\], which holds no scores") as caught:
        ss.attack(lambda x: made(_logits(x).tolist()), X, None, threat=ss.linf(0.1))
    assert len(str(caught.value)) < 300


def test_a_note_names_the_first_few_of_many_tensors() -> None:
    found = ss.attack(lambda x: [_logits(x)] * 50, X, None, threat=ss.linf(0.1))
    assert any("and 42 more}, and 0 was taken" in note for note in found.notes)
