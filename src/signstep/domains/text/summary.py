"""The outcome in the words of those who run a filter: what was changed where, in how few words, and beside chance."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Section, marked
from signstep.domains.text.codes import texts_of
from signstep.domains.text.letters import escaped
from signstep.domains.text.words import words_of

CONTROL = "random-words"
_SHOWN = 12
_AROUND = 40  # letters to show on both sides of what was changed


@dataclass(frozen=True, eq=False)
class Teller:
    """Sections about changed texts.

    Attributes:
        classes: names of the classes; () for numbers.
        words: that may change at most, over all texts.
    """

    classes: tuple[str, ...]
    words: int

    def __call__(self, result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:
        """How few words are enough, beside chance; and the texts."""
        return (*_sizes(result, self.words), self._texts(result, points))

    def _texts(self, result: Result, points: Mapping[str, Tensor]) -> Section:
        title = "Texts that fool"
        if "x_adv" not in points or not len(points["x_adv"]):
            return Section(title, ("No text was found that fools.",))
        names = [entry.name for entry in result.attacks]
        rows = []
        before, after = texts_of(points["x"]), texts_of(points["x_adv"])
        for place, (was, now) in enumerate(zip(before, after, strict=True)):
            rows.append(
                (
                    str(int(points["row"][place])),
                    f"{self._name(points['answer'][place])} -> {self._name(points['answer_adv'][place])}",
                    names[int(points["attack"][place])] if "attack" in points else "",
                    typed(was, now),
                )
            )
        shown = rows[:_SHOWN]
        more = f" The first {len(shown)} of {len(rows)} are shown." if len(rows) > len(shown) else ""
        text = (
            "Each text was sent to the model as it is typed: the point that is saved is the string itself, letter for "
            "letter, and `signstep verify` sends it again. "
            f"{marked('before → after')} is a changed word; letters that look like others and marks that "
            f"cannot be seen are written out, \\u0430 or \\u200b.{more}",
        )
        return Section(title, text, ("text", "answer", "attack", "what was typed"), tuple(shown))

    def _name(self, answer: Tensor) -> str:
        number = int(answer)
        return escaped(self.classes[number]) if 0 <= number < len(self.classes) else str(number)


def typed(before: str, after: str) -> str:
    r"""A text with what was changed marked, on one line; far from changes it is cut.

    >>> print(typed("Win cash now", "Win c\u0430sh now"))
    Win ⟦cash → c\u0430sh⟧ now
    """
    old, new = words_of(before), words_of(after)
    parts, here, last = [], 0, -1
    for was, now in zip(old, new, strict=False):
        if was.core == now.core:
            continue
        parts.append(_cut(before[here : was.start], first=last < 0, final=False))
        parts.append(marked(f"{escaped(was.core)} → {escaped(now.core)}"))
        here, last = was.end, now.end
    parts.append(_cut(before[here:], first=last < 0, final=True))
    return " ".join("".join(parts).split())


def _cut(text: str, *, first: bool, final: bool) -> str:
    """What stands between changes, without its far middle."""
    if first and final:
        return escaped(text[: 2 * _AROUND]) + ("..." if len(text) > 2 * _AROUND else "")
    if first:
        return ("..." if len(text) > _AROUND else "") + escaped(text[-_AROUND:])
    if final:
        return escaped(text[:_AROUND]) + ("..." if len(text) > _AROUND else "")
    if len(text) <= 2 * _AROUND:
        return escaped(text)
    return f"{escaped(text[:_AROUND])}...{escaped(text[-_AROUND:])}"


def _sizes(result: Result, words: int) -> tuple[Section, ...]:
    """How many texts fall to how few words, attack by attack; the control beside them."""
    clean = result.per_example.clean
    right = clean.count("r")
    columns = [entry.name for entry in result.attacks]
    if not right or not columns:
        return ()
    rows = []
    for size in range(1, words + 1):
        cells = [str(size)]
        for name in columns:
            nearest = result.per_example.nearest.get(name)
            verdicts = result.per_example.verdicts[name]
            if nearest is None:
                cells.append(str(_count(clean, verdicts)) if size == words else "")
            else:
                cells.append(
                    str(
                        sum(
                            letter == "r" and number is not None and number <= size
                            for letter, number in zip(clean, nearest, strict=True)
                        )
                    )
                )
        rows.append(tuple(cells))
    text = [f"Of {right} texts that are right untouched, so many are wrong with at most so many words changed."]
    if CONTROL in {name.partition(":")[0] for name in columns}:
        text.append(
            "random-words is the control: it changes as many random words as may change, as often as the others may "
            "ask. What it fools, no search was needed for."
        )
    text.append("An attack finds a number that is enough; a smaller one may be too.")
    return (Section("How few words", tuple(text), ("words", *columns), tuple(rows)),)


def _count(clean: str, verdicts: str) -> int:
    return sum(letter == "r" and verdict == "f" for letter, verdict in zip(clean, verdicts, strict=True))
