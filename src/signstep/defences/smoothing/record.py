"""What was certified of a smoothed classifier: a record of its own, since it is about another classifier."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from signstep.engine.statistics import wilson
from signstep.io.files import write_whole

SCHEMA = 1
ABSTAINED = -1


@dataclass(frozen=True)
class Certificates:
    """The vote on each example and the radius that it proves.

    It speaks of the smoothed classifier, g(x) = the class that the model answers most often at x + sigma N(0, 1), and
    of L2 alone. Each radius is wrong with a chance of at most ``alpha``.

    Attributes:
        model: description of what is smoothed.
        data: description.
        sigma: standard deviation of the noise, in raw units.
        alpha: the chance, for each example, that its radius is wrong.
        n0: draws that choose the class.
        n: draws that the bound is taken from.
        seed: of the draws, with the content of each example.
        answers: the class of the vote, -1 where it abstains.
        radii: in L2 and raw units, 0 where it abstains.
        votes: for the class chosen, of ``n``.
        labels: what would be right; empty where that is not known.
        passes: what inputs pass through behind the noise, in words; "" for nothing.
        partial: whether it was interrupted.
        notes: what the reader must know.
        versions: of Signstep and torch.
    """

    model: str
    data: str
    sigma: float
    alpha: float
    n0: int
    n: int
    seed: int
    answers: tuple[int, ...]
    radii: tuple[float, ...]
    votes: tuple[int, ...]
    labels: tuple[int, ...] = ()
    passes: str = ""
    partial: bool = False
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] | None = None

    @property
    def examples(self) -> int:
        """How many."""
        return len(self.answers)

    @property
    def abstained(self) -> int:
        """On how many there was no clear majority."""
        return self.answers.count(ABSTAINED)

    @property
    def clean_accuracy(self) -> float:
        """The share on which the vote is right; abstentions are not."""
        return self.certified_accuracy(0.0)

    def certified_accuracy(self, radius: float) -> float:
        """The share that is right and proved to stay so within ``radius`` in L2; NaN without labels."""
        if not self.labels:
            return math.nan
        return self._right(radius) / self.examples

    def _right(self, radius: float) -> int:
        rows = zip(self.answers, self.labels, self.radii, strict=True)
        return sum(answer == label and length >= radius for answer, label, length in rows)

    @property
    def steps(self) -> tuple[float, ...]:
        """Radii to show: quarters of sigma up to the largest that was proved."""
        most = max(self.radii, default=0.0)
        return tuple(step * self.sigma / 2 for step in range(1 + int(2 * most / self.sigma)))[:12]

    def __str__(self) -> str:
        lines = [
            f"smoothed classifier: the vote of {self.model} under Gaussian noise of {self.sigma:g}"
            + (f", behind which inputs pass through {self.passes}" if self.passes else ""),
            f"{self.n0} draws choose, {self.n} prove; each radius is wrong with a chance of at most {self.alpha:g}; "
            f"abstained on {self.abstained} of {self.examples}" + (" (PARTIAL)" if self.partial else ""),
        ]
        if self.labels:
            lines += ["", "L2 radius   right and proved   95 % of the sampling of examples"]
            for radius in self.steps:
                low, high = wilson(self._right(radius), self.examples)
                share = 100 * self.certified_accuracy(radius)
                lines.append(f"{radius:9.4g}   {share:14.1f} %   {100 * low:.1f} to {100 * high:.1f} %")
        lines += ["", "It says nothing of the model without the vote, and nothing of other norms.", *self.notes]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The record as JSON."""
        plain = {name: list(part) if isinstance(part, tuple) else part for name, part in asdict(self).items()}
        return json.dumps({"kind": "smoothing", "schema": SCHEMA, **plain}, indent=1)

    def save(self, path: str | Path) -> Path:
        """Write the record; the file appears whole or not at all."""
        path = Path(path)
        write_whole(path, self.to_json() + "\n")
        return path
