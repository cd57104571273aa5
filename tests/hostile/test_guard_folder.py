"""The folder of a guard as an enemy may have written it: each word of its documents replaced by each of many others."""

import copy
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import signstep as ss
from signstep.detectors import load
from signstep.errors import LoadError, SignstepError
from signstep.guard.calibrating import Terms, calibrate, open_guard
from signstep.guard.reading import when

NAME, DETECTOR = "calibration.json", "detector-0.safetensors"
EVIL: list[Any] = [
    *(None, True, -1, 0, 10**400, -(10**400), 2**64, 1e308, 0.5),
    *("", "../detector-0.safetensors", "enemy_of_guards:ROW", "\ud800\x1b[2J\n"),
    *([], [[]], {}, [10**400, 10**401], [1, 2, 3]),
]


@cache
def model() -> ss.Model:
    """A tiny one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ss.Model(nn.Linear(4, 2).eval(), classes=("a", "b"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = torch.rand(220, 4, generator=torch.Generator().manual_seed(1))
    made = tmp_path_factory.mktemp("guard")
    terms = Terms(detectors=("confidence:temperature=2",), reject=0.02, low_confidence=0.5)
    calibrate(model(), [(rows, None)], terms).save(made)
    return made


def lies(plain: Any) -> Iterator[tuple[str, Any]]:
    """Documents with one part replaced, and what was."""

    def places(part: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield where
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            yield from places(inner, (*where, key))

    for where in [place for place in places(plain) if place]:
        for value in EVIL:
            lie = copy.deepcopy(plain)
            part = lie
            for key in where[:-1]:
                part = part[key]
            part[where[-1]] = value
            yield f"{where} = {str(value)[:30]!a}", lie


def used(folder: Path) -> bool:
    """Whether it opens, and then whatever a guard does with it is done; else there is one sentence."""
    try:
        guard = open_guard(folder, model())
        assert guard.calibration is not None
        assert 0 <= guard.rules.low_confidence < 1
        when(guard.calibration.made)
        guard(torch.full((1, 4), 0.5), client="c")
        guard.close()
    except SignstepError as error:
        one_sentence(error)
        return False
    return True


def one_sentence(error: SignstepError) -> None:
    """See that it is, and is plain."""
    assert str(error).isprintable(), repr(str(error))


def test_whatever_the_calibration_says_is_used_or_refused_in_a_sentence(folder: Path) -> None:
    sound = (folder / NAME).read_text()
    try:
        for what, lie in lies(json.loads(sound)):
            (folder / NAME).write_text(json.dumps(lie))
            try:
                used(folder)
            except Exception as error:
                raise AssertionError(what) from error
    finally:
        (folder / NAME).write_text(sound)
    assert used(folder)
    assert "enemy_of_guards" not in sys.modules


def stored(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(folder / DETECTOR, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_whatever_a_detector_says_is_used_or_refused_in_a_sentence(folder: Path) -> None:
    sound, (tensors, said) = (folder / DETECTOR).read_bytes(), stored(folder)
    try:
        for what, lie in lies(json.loads(said["terms"])):
            save_file(tensors, folder / DETECTOR, {**said, "terms": json.dumps(lie)})
            try:
                used(folder)
                load(folder / DETECTOR, model()).p_values(torch.zeros(2, 4))
            except SignstepError as error:
                one_sentence(error)
            except Exception as error:
                raise AssertionError(what) from error
    finally:
        (folder / DETECTOR).write_bytes(sound)
    assert used(folder)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("calibration", lambda part: part.flip(0)),
        ("calibration", lambda part: part[:0]),
        ("calibration", lambda part: part.float()),
        ("calibration", lambda part: part * float("nan")),
        ("calibration", lambda part: part.clone().index_fill_(0, torch.tensor([len(part) - 1]), float("inf"))),
        ("classes", lambda _: torch.zeros(3, dtype=torch.int64)),
        ("guides", lambda _: torch.zeros(())),
        ("guides", lambda _: torch.zeros(1, 4, dtype=torch.complex64)),
    ],
)
def test_scores_that_carry_no_promise_are_refused(name: str, change: Any, folder: Path, tmp_path: Path) -> None:
    tensors, said = stored(folder)
    tensors[name] = change(tensors["calibration"]).contiguous()
    save_file(tensors, tmp_path / DETECTOR, said)
    with pytest.raises(LoadError, match="detector"):
        load(tmp_path / DETECTOR, model())
