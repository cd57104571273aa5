"""Candidates that are trained by workers come to what they come to one after the other, whoever dies."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from own_process import FORKED
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.cli.sweep import Sweep
from signstep.scale import EXECUTORS, Pool
from signstep.scale.executors import Lost
from signstep.scale.work import Answer, Task, Work, hello, perform, raised

WORDS = ["compare", "--recipe", "a=natural", "--recipe", "b=n-fgsm", "--limit", "150", "--set", "epochs=2"]
WORDS += ["--ladder", "fgsm,pgd:steps=2", "--audit-limit", "20"]


pytestmark = pytest.mark.skipif(FORKED is None, reason="needs a fork server, which POSIX has")


class Away(Pool):
    """Workers in this process that get everything by its bytes; `lost` of their tasks are lost when they are done."""

    lost = 0

    def begun(self, make: Any, bench: Any) -> Any:  # noqa: ARG002
        return away(make(), self.lost)


@contextmanager
def away(work: Work, lost: int) -> Iterator["Places"]:
    work = pickle.loads(pickle.dumps(work))
    found = hello(work)
    if found.failure is not None:
        raise raised(found.failure)
    yield Places(work, lost)


class Places:
    places = 2

    def __init__(self, work: Work, lost: int) -> None:
        self.work, self.lost, self.given, self.number = work, lost, dict[int, Task](), 0

    @property
    def free(self) -> int:
        return self.places - len(self.given)

    def submit(self, task: Task) -> int:
        self.number += 1
        self.given[self.number] = pickle.loads(pickle.dumps(task))
        return self.number

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:  # noqa: ARG002
        number, task = self.given.popitem()  # the last one first
        answer: Answer = pickle.loads(pickle.dumps(perform(self.work, task)))
        if self.lost:
            self.lost -= 1
            return [(number, Lost("it was killed"))]
        return [(number, answer)]


@pytest.fixture
def sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What they come to one after the other."""
    monkeypatch.chdir(tmp_path)
    assert main([*WORDS, "--out", "one"]) == 0
    with EXECUTORS.lent():
        yield tmp_path


def same(one: Path, two: Path) -> None:
    for name in ("a", "b"):
        first, second = (load_file(out / name / "weights.safetensors") for out in (one, two))
        assert all(part.allclose(second[key], atol=1e-6) for key, part in first.items())
        first_, second_ = (Result.load(out / name / "report" / "result.json") for out in (one, two))
        assert first_.per_example == second_.per_example
    assert [line for line in (two / "compare.md").read_text().splitlines() if line.startswith("| a")]


def test_workers_come_to_what_one_comes_to(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EXECUTORS.add(lambda _: Away(2), name="away")
    words = [*WORDS, "--out", "two", "--on", "away"]
    assert main(words) == 0
    same(sequence / "one", sequence / "two")
    said = capsys.readouterr().err
    assert "b: trained and audited, 1 of 2" in said
    assert "a: trained and audited, 2 of 2" in said
    EXECUTORS.add(lambda _: Pool(2, threads=1, start="forkserver"), name="forked")
    assert main([*WORDS, "--out", "three", "--on", "forked"]) == 0
    same(sequence / "one", sequence / "three")
    # All is there: nothing is trained again.
    before = (sequence / "two" / "a" / "log.csv").read_bytes()
    assert main([*words, "--resume"]) == 0
    assert (sequence / "two" / "a" / "log.csv").read_bytes() == before


def test_a_worker_that_dies_is_made_good(sequence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lost, status in ((2, 0), (9, 2)):
        EXECUTORS.add(lambda _, lost=lost: type("Losing", (Away,), {"lost": lost})(2), name=f"losing-{lost}")
        assert main([*WORDS, "--out", f"lost-{lost}", "--on", f"losing-{lost}"]) == status
    same(sequence / "one", sequence / "lost-2")
    assert "a worker was lost 3 times (it was killed); give each worker more memory" in capsys.readouterr().err
    assert main([*WORDS, "--out", "lost-9", "--resume"]) == 0
    same(sequence / "one", sequence / "lost-9")


def test_a_worker_that_has_not_the_same_says_so_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    real = Sweep.begun
    others: dict[str, dict[str, Any]] = {
        "a worker has other data than 0000": {"fingerprint": "0" * 64},
        "a worker cannot see the folder ": {"folder": tmp_path / "elsewhere"},
    }
    with EXECUTORS.lent():
        EXECUTORS.add(lambda _: Away(2), name="away")
        for said, other in others.items():
            monkeypatch.setattr(Sweep, "begun", lambda self, slot, other=other: real(replace(self, **other), slot))
            assert main([*WORDS, "--out", "out", "--on", "away"]) == 2
            assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))
