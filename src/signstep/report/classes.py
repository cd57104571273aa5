"""What happens to each class: the answers before and after, and the robust accuracy of each."""

from collections import Counter
from dataclasses import dataclass

from signstep.auditing.record import NOT_RUN
from signstep.auditing.result import Result
from signstep.report.attacks import strongest
from signstep.report.charts import bar
from signstep.report.numerals import fraction, interval, percent, share
from signstep.report.table import Column, Table

_CLASSES = 10  # of a confusion, by count
_ROWS = 24  # of the table of classes
_OTHER = -1


@dataclass(frozen=True)
class Confusion:
    """Clean answers (rows) against answers at the attacked points (columns), as counts.

    ``tints`` holds for each cell how strongly it is coloured, in steps of 0 to 5; ``left_out`` counts the classes that
    share the row and column "other".
    """

    attack: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    tints: tuple[tuple[int, ...], ...]
    left_out: int

    @property
    def changed(self) -> int:
        """Answers off the diagonal; a change within "other" is not seen here."""
        return sum(count for i, row in enumerate(self.counts) for j, count in enumerate(row) if i != j)


def class_name(result: Result, index: int) -> str:
    """The name of a class, with its number where several have that name; the number where names are not known.

    ImageNet's list has a bird and a machine that are both called "crane".
    """
    if not 0 <= index < len(result.classes):
        return str(index)
    name = result.classes[index]
    return f"{name} ({index})" if result.classes.count(name) > 1 else name


def confusion(result: Result) -> Confusion | None:
    """For the strongest attack, or a whole ladder; None where the answers are no classes."""
    best = strongest(result)
    answers = result.per_example.answers
    if best is None or not answers.get("clean") or not answers.get(best.name):
        return None
    before, after = answers["clean"], _after(result) if result.ladder else answers[best.name]
    frequency = Counter([*before, *after])
    kept = sorted(index for index, _ in frequency.most_common(_CLASSES))
    left_out = len(frequency) - len(kept)
    order = [*kept, _OTHER] if left_out else kept
    place = {index: position for position, index in enumerate(order)}
    grid = [[0] * len(order) for _ in order]
    for first, second in zip(before, after, strict=True):
        grid[place.get(first, place.get(_OTHER, 0))][place.get(second, place.get(_OTHER, 0))] += 1
    tints = tuple(tuple(-(-5 * count // max(1, sum(row))) for count in row) for row in grid)
    names = tuple("other" if index == _OTHER else class_name(result, index) for index in order)
    return Confusion(
        f"the ladder {result.ladder}" if result.ladder else best.name, names, tuple(map(tuple, grid)), tints, left_out
    )


def _after(result: Result) -> tuple[int, ...]:
    """The answer at the point of the last rung that met the example; the clean answer if none did."""
    after = list(result.per_example.answers["clean"])
    for entry in result.attacks:
        said = result.per_example.answers[entry.name]
        for row, letter in enumerate(result.per_example.verdicts[entry.name]):
            if letter != NOT_RUN:
                after[row] = said[row]
    return tuple(after)


def by_class(result: Result) -> tuple[Table, int] | None:
    """Accuracy and robust accuracy of each class, the weakest first, and how many classes are left out.

    None where labels are no classes.
    """
    labels, verdicts = result.per_example.labels, result.worst_case
    if not labels:
        return None
    groups: dict[int, Counter[str]] = {}
    for label, verdict in zip(labels, verdicts, strict=True):
        groups.setdefault(label, Counter())[verdict] += 1
    ranked = sorted(groups.items(), key=lambda item: (item[1]["h"] / item[1].total(), -item[1].total(), item[0]))
    rows = []
    for label, letters in ranked[:_ROWS]:
        whole = letters.total()
        right, held = whole - letters["w"], letters["h"]
        rows.append(
            (
                class_name(result, label),
                bar(held, right, whole),
                f"{percent(share(held, whole))} ({fraction(held, whole)})",
                interval(held, whole),
                percent(share(right, whole)),
                str(letters["u"]),
            )
        )
    columns = (
        Column("Class" if result.terms.get("labels") != "predicted" else "Own answer", numeric=False),
        Column("Robust of right", numeric=False),
        Column("Robust accuracy"),
        Column("95 % interval"),
        Column("Clean accuracy"),
        Column("Undetermined"),
    )
    caption = (
        "Robust accuracy of each class under all attacks combined, weakest first. In the bars: solid what is robust, "
        "outlined what is right untouched, the line its interval."
    )
    return Table("table-classes", caption, columns, tuple(rows)), len(groups) - len(rows)
