"""Input spaces that models are commonly trained in, and which of them fits a record better than the declared one.

Whoever leaves out ``mean`` and ``std`` gets a number all the same: that of a model which sees other pictures than
those it was trained on. `signstep.auditing.look` asks the model in the spaces of `TABLE`, on a few examples; what it
wrote into the record is judged here, by counts alone. Nothing here asks a model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from signstep.auditing.parts import place as place_of
from signstep.auditing.record import Examples, Record
from signstep.engine.keys import Key
from signstep.engine.statistics import mcnemar
from signstep.messages import Arg, Message, Part

TERM = "input_check"
"""The term of a record that holds the answers."""

EXAMPLES = 64
"""The most examples that are asked."""

AT_MOST = 6
"""The most spaces that are tried."""

_BETTER = 0.2  # share of the examples
_CHANCE = 1e-3  # after Bonferroni's correction
_NUMBERS, _FEWEST = 2**24, 16  # kept of large inputs: 64 MiB, but no fewer examples than can show anything


@dataclass(frozen=True)
class KnownSpace:
    """What a model wants: (x - mean) / std of inputs x in [0, 1], and which order of the channels.

    Attributes:
        name: in records.
        title: in messages.
        mean: one number, or one for each channel.
        std: likewise.
        flipped: whether it takes blue, green, red.
        channels: of inputs that it is tried for; None for any.
        side: of images that it is tried for alone; None for any, 0 for any but those of 32 pixels.
    """

    name: str
    title: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flipped: bool = False
    channels: int | None = None
    side: int | None = None

    def suits(self, shape: Sequence[int]) -> bool:
        """Whether it is tried for inputs of a shape (C, H, W)."""
        small = tuple(shape[1:]) == (32, 32)
        return self.channels in (None, shape[0]) and (self.side is None or small == (self.side == 32))

    def raw(self, low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and std in the units of a box; None for those that are declared."""
        if self.mean is None or self.std is None:
            return None
        span = high - low
        return tuple(low + span * value for value in self.mean), tuple(span * value for value in self.std)


# The mean and the standard deviation of each channel over the training set, in [0, 1], as model cards state them.
TABLE: tuple[KnownSpace, ...] = (
    KnownSpace("imagenet", "the mean and std of ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), channels=3),
    KnownSpace("half", "inputs in [-1, 1]", (0.5,), (0.5,)),
    KnownSpace("unit", "inputs in [0, 1]", (0.0,), (1.0,)),
    KnownSpace(
        "cifar", "the mean and std of CIFAR-10", (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), channels=3, side=32
    ),
    KnownSpace("mnist", "the mean and std of MNIST", (0.1307,), (0.3081,), channels=1),
    KnownSpace("bytes", "inputs in 0..255", (0.0,), (1 / 255,)),
    KnownSpace("bgr", "channels in the order blue, green, red", None, None, flipped=True, channels=3),
    KnownSpace(
        "caffe",
        "bytes in the order blue, green, red without the mean of ImageNet (as Caffe had them)",
        (123.68 / 255, 116.779 / 255, 103.939 / 255),
        (1 / 255,),
        flipped=True,
        channels=3,
        side=0,
    ),
)
KNOWN: Mapping[str, KnownSpace] = {space.name: space for space in TABLE}


def examples_of(numbers: int) -> int:
    """How many examples are asked, of inputs with so many numbers each."""
    return max(_FEWEST, min(EXAMPLES, _NUMBERS // max(1, numbers)))


def rank(seed: int, identity: int) -> int:
    """The place of an example among all: the lowest are asked. The same in any batch, order and shard."""
    return Key(seed).fold("input space", identity).integer()


@dataclass(frozen=True)
class Fit:
    """A space in which the model answers far better than in the declared one.

    Attributes:
        space: which.
        asked: examples that were asked.
        right: how many of them it answers rightly there.
        declared: how many as declared.
        chance: of so large a difference where there is none: McNemar's exact test, times the spaces that were tried.
    """

    space: KnownSpace
    asked: int
    right: int
    declared: int
    chance: float

    def message(self, low: float, high: float, *, stated: bool = False) -> Message:
        """What was seen, and what to pass.

        Args:
            low: the lower end of the box, in raw units.
            high: the upper end.
            stated: whether mean and std are declared, by whoever asks or by the model's own file.
        """
        seen = (
            f"of {self.asked} examples {self.declared} are right as declared "
            f"({_percent(self.declared, self.asked)}) and {self.right} with {self.space.title} "
            f"({_percent(self.right, self.asked)}; chance {self.chance:.1e})"
        )
        return Message(seen, remedy=self._remedy(low, high, stated=stated))

    def _remedy(self, low: float, high: float, *, stated: bool) -> tuple[Part, ...]:
        found = self.space.raw(low, high)
        flip = "let the network turn the channels round, net(x.flip(1))"
        if found is None:
            return (flip,)
        mean, std = found
        if not any(mean) and set(std) == {1.0}:
            passed: tuple[Part, ...] = ("pass no", Arg("mean"), "and", Arg("std"))
        else:
            place = ("in the place of those declared",) if stated else ()
            passed = ("pass", _said("mean", mean), _said("std", std), *place)
        return (*passed, f"and {flip}") if self.space.flipped else passed


def fit_of(record: Record) -> Fit | None:
    """The space that fits a record far better than the declared one; None where none does, or none was tried.

    Far better: 20 points of the examples that were asked, also than one answer for all would be, and a chance below
    0.001 that the same examples differ so much by luck.
    """
    found = _read(record)
    return None if found is None else best(*found)


def sound(record: Record) -> bool:
    """Whether the term of a record, where it has one, says what such a term can say."""
    return TERM not in record.terms or _read(record) is not None


def _read(record: Record) -> tuple[dict[str, str], str, list[int]] | None:
    """Letters by space, those of the declared one, and labels, from a record that anybody may have written."""
    check, labels, clean = record.terms.get(TERM), record.per_example.labels, record.per_example.clean
    if not isinstance(check, dict) or set(check) != {"rows", "right", "most"} or len(labels) != len(clean):
        return None
    rows, right, most = check["rows"], check["right"], check["most"]
    if not isinstance(rows, list) or not isinstance(right, dict) or most not in range(EXAMPLES + 1):
        return None
    if not 0 < len(rows) <= most or not 0 < len(right) <= AT_MOST:
        return None
    if any(type(row) is not int or not 0 <= row < len(clean) for row in rows) or len({*rows}) < len(rows):
        return None
    for name, letters in right.items():
        if name not in KNOWN or not isinstance(letters, str) or len(letters) != len(rows) or not {*letters} <= {*"rw"}:
            return None
    return right, "".join(clean[row] for row in rows), [labels[row] for row in rows]


def best(right: Mapping[str, str], declared: str, labels: Sequence[int]) -> Fit | None:
    """The best of several spaces, by a letter for each example: r right, w wrong; the first of the table at a tie."""
    found: list[Fit] = []
    for name in (name for name in KNOWN if name in right):
        fit = _fit(KNOWN[name], right[name], declared, labels, len(right))
        if fit is not None:
            found.append(fit)
    return max(found, key=lambda fit: fit.right, default=None)


def possible(declared: str, labels: Sequence[int], tried: int) -> bool:
    """Whether any answers of another space could be far better: where not, nobody needs to be asked."""
    return tried > 0 and _fit(TABLE[0], "r" * len(declared), declared, labels, tried) is not None


def _fit(space: KnownSpace, right: str, declared: str, labels: Sequence[int], tried: int) -> Fit | None:
    count = len(declared)
    there, here = right.count("r"), declared.count("r")
    constant = max(Counter(labels).values(), default=0)
    if not count or there - max(here, constant) < _BETTER * count:
        return None
    won = sum(one == "r" and other == "w" for one, other in zip(right, declared, strict=True))
    chance = min(1.0, tried * mcnemar(won - (there - here), won))
    return Fit(space, count, there, here, chance) if chance < _CHANCE else None


def merged(
    checks: Sequence[Any], examples: Examples, seed: int, shards: Sequence[Sequence[int]]
) -> dict[str, Any] | None:
    """What a whole audit has of the looks of its shards, each of which kept its own lowest; None where that is nothing.

    Args:
        checks: the term of each part, in their order.
        examples: of the whole.
        seed: of the audit.
        shards: which part each is, as records state it.
    """
    parts = [check for check in checks if isinstance(check, dict)]
    if len(parts) != len(checks) or len({tuple(part["right"]) for part in parts}) != 1:
        return None
    order: list[tuple[int, int, dict[str, str]]] = []
    for shard, part in zip(shards, parts, strict=True):
        for at, row in enumerate(part["rows"]):
            place = place_of(shard, row)
            letters = {name: column[at] for name, column in part["right"].items()}
            order.append((rank(seed, int(examples.ids[place], 16)), place, letters))
    chosen = sorted(sorted(order, key=lambda entry: entry[:2])[: parts[0]["most"]], key=lambda entry: entry[1])
    rows = [place for _, place, _ in chosen]
    names = list(parts[0]["right"])
    declared = "".join(examples.clean[row] for row in rows)
    if not possible(declared, [examples.labels[row] for row in rows], len(names)):
        return None
    right = {name: "".join(letters[name] for _, _, letters in chosen) for name in names}
    return {"rows": rows, "right": right, "most": parts[0]["most"]}


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %"


def _said(name: str, values: tuple[float, ...]) -> Arg:
    """A statistic as it is passed, one number where one does."""
    if len(set(values)) == 1:
        value = values[0]
        return Arg(name, value, shown="1/255" if value == 1 / 255 else f"{value:.6g}")
    return Arg(name, tuple(round(value, 6) for value in values))
