"""Candidates of a comparison, each trained and audited by a worker of an executor, by their names.

A candidate writes into its own folder of the output, as where one follows the other: checkpoints, weights, the ledger
of its audit and its report. So a sweep that was stopped goes on from these, and every worker has to see that folder.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from signstep.auditing.pairwise import Training
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.cli.candidates import Candidate
from signstep.cli.final_audit import Terms, opened
from signstep.cli.ring import Ring
from signstep.cli.terminal import say, silence
from signstep.domains.case import Request
from signstep.errors import LoadError
from signstep.scale.errands import Doing, Stopped, run_errands
from signstep.scale.executors import Staff
from signstep.scale.pool import Pool
from signstep.scale.work import Errands, in_turn


def enter_all(ring: Ring, asked: Request, candidates: tuple[Candidate, ...], test: str | None, *, split: bool) -> bool:
    """Train and audit all candidates, by the executor of the ring's terms where there is one and they are trained.

    Args:
        ring: takes what comes of it.
        asked: the data to train on, and how models and data are read.
        candidates: in the order of the comparison.
        test: data to audit on.
        split: whether a split was asked for.

    Returns:
        Whether that was not interrupted.
    """
    staff = None
    if candidates[0].recipe is not None:
        ring.prepare(candidates, test)
        staff = staff_of(ring.terms.run, len(candidates))
    if staff is None:
        return all(ring.enter(candidate) for candidate in candidates)
    return Sweep.of(ring, asked, candidates, test, split=split).train(staff, ring)


def staff_of(run: Run, count: int) -> Staff | None:
    """Who trains so many candidates side by side; None where they follow each other in this process.

    An executor of somebody's own that is no `Staff` is asked for the audits alone.
    """
    executor: Any = run.executor
    if not isinstance(executor, Staff):
        return None
    if isinstance(executor, Pool):
        return None if executor.workers == 0 else replace(executor, workers=min(executor.places, count))
    return executor


@dataclass(frozen=True)
class Sweep(Errands):
    """What a worker is given; it opens data and models itself.

    Attributes:
        asked: the data to train on, and how models and data are read.
        request: the data as the comparison has it.
        split: whether a split was asked for.
        candidates: in the order of the comparison.
        test: data to audit on.
        terms: of the audits, which a worker carries out in its own process.
        folder: of the output.
        limit: examples of each audit.
        fingerprint: of the data.
    """

    asked: Request
    request: Request
    split: bool
    candidates: tuple[Candidate, ...]
    test: str | None
    terms: Terms
    folder: Path
    limit: int
    fingerprint: str

    @classmethod
    def of(
        cls, ring: Ring, asked: Request, candidates: tuple[Candidate, ...], test: str | None, *, split: bool
    ) -> "Sweep":
        """What the ring of this process would do."""
        alone = replace(ring.terms.run, executor=Pool(0))
        terms, fingerprint = replace(ring.terms, run=alone), ring.source.fingerprint()
        folder = ring.folder.resolve()
        return cls(asked, ring.request, split, candidates, test, terms, folder, ring.limit, fingerprint)

    def begun(self, slot: int) -> Doing:
        """See `signstep.scale.work.Errands`.

        Raises:
            LoadError: a worker sees no such folder, or has other data.
        """
        if not self.folder.is_dir():
            raise LoadError(
                f"a worker cannot see the folder {self.folder}", remedy="write where every worker has that folder"
            )
        source = opened(self.asked, asked=self.split)
        if source.fingerprint() != self.fingerprint:
            raise LoadError(
                f"a worker has other data than {self.fingerprint[:16]}", remedy="give every worker the same files"
            )
        terms = replace(self.terms, device=in_turn(self.terms.device, slot))
        ring = Ring(source, self.request, terms, self.folder, silence(), self.limit)
        ring.prepare(self.candidates, self.test)
        return Doing(lambda number, again: self._done(ring, number, again), terms.device)

    def _done(self, ring: Ring, number: int, again: bool) -> bytes:
        candidate, before = self.candidates[number], len(ring.notes)
        run = ring.terms.run
        # What a worker that died has left of the audit is gone on with.
        ring.terms = replace(ring.terms, run=replace(run, resume=run.resume or again))
        try:
            if not ring.enter(candidate):
                raise Stopped(f"{candidate.name} was interrupted")
        finally:
            ring.terms = replace(ring.terms, run=run)
        name = candidate.name
        found = {
            "result": ring.results[name].to_json(),
            "training": asdict(ring.trainings[name]) if name in ring.trainings else None,
            "notes": ring.notes[before:],
        }
        return json.dumps(found).encode()

    def train(self, staff: Staff, ring: Ring) -> bool:
        """Have all candidates trained and audited, and put what came of it where the ring of this process would have.

        Returns:
            Whether that was not interrupted.
        """
        names = [candidate.name for candidate in self.candidates]
        came: dict[int, dict[str, Any]] = {}
        try:
            for number, content in run_errands(staff, self, names):
                came[number] = json.loads(content)
                say(ring.quiet, f"{names[number]}: trained and audited, {len(came)} of {len(names)}")
        except KeyboardInterrupt:
            pass
        for number in sorted(came):
            told, name = came[number], names[number]
            ring.results[name] = Result.from_json(told["result"])
            if told["training"] is not None:
                ring.trainings[name] = Training(**{**told["training"], **_tuples(told["training"])})
            ring.notes = (*ring.notes, *told["notes"])
        return len(came) == len(names)


def _tuples(training: dict[str, Any]) -> dict[str, Any]:
    """Of what JSON has as lists."""
    return {"passes": tuple(training["passes"]), "events": tuple(training["events"])}
