"""Places in a JSON document, as TOML writes them: ``predictions[].scores``, ``data[0].label``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from signstep.errors import InputError
from signstep.messages import Key
from signstep.model.victims.exchange import Unreadable
from signstep.plain import one_line

_PIECE = re.compile(r'(?P<rows>\[\])|\[(?P<index>\d{1,6})\]|"(?P<quoted>[^"]+)"|(?P<name>[^.\[\]"]+)')
_MOST = 32


class Rows:
    """The step into a list that has an entry for each input."""

    def __repr__(self) -> str:
        return "[]"


EACH = Rows()


@dataclass(frozen=True)
class Place:
    """A place: names of objects, positions in lists, and once at most `EACH`.

    Attributes:
        steps: from the outside in.
        text: as it was written.
        key: of the TOML file that says it.
    """

    steps: tuple[str | int | Rows, ...]
    text: str
    key: str

    @classmethod
    def of(cls, text: str, key: str) -> "Place":
        """Read a place; empty for the whole document.

        Raises:
            InputError: it is not written so.
        """
        steps: list[str | int | Rows] = []
        at = 0
        while at < len(text):
            if text[at] == "." and at and text[at - 1] != ".":
                at += 1
            found = _PIECE.match(text, at)
            joined = found is not None and (found["rows"] or found["index"] or at == 0 or text[at - 1] == ".")
            if found is None or not joined:
                raise _unread(key, text)
            steps.append(
                EACH if found["rows"] else int(found["index"]) if found["index"] else found["quoted"] or found["name"]
            )
            at = found.end()
        if text.endswith(".") or steps.count(EACH) > 1 or len(steps) > _MOST:
            raise _unread(key, text)
        return cls(tuple(steps), text, key)

    @property
    def several(self) -> bool:
        """Whether it has room for many inputs."""
        return EACH in self.steps

    def put(self, values: Sequence[Any]) -> Any:
        """A document with the values there: one for each input, or the one."""
        made: Any = None
        pending = list(values)
        cut = self.steps.index(EACH) if self.several else len(self.steps)
        inner, outer = self.steps[cut + 1 :], self.steps[:cut]
        made = [_wrapped(inner, value) for value in pending] if self.several else pending[0]
        return _wrapped(outer, made)

    def read(self, document: Any, rows: int) -> list[Any]:
        """What stands there, one for each of so many inputs.

        Raises:
            Unreadable: it is not there, or there are more or fewer.
        """
        if not self.several:
            return [self._walked(document, self.steps, ())]
        cut = self.steps.index(EACH)
        listed = self._walked(document, self.steps[:cut], ())
        if not isinstance(listed, list):
            raise self._absent(self.steps[:cut], f"{kind_of(listed)}, where [] stands for a list")
        if len(listed) != rows:
            raise self._absent(self.steps[:cut], f"{kind_of(listed)} for {rows} inputs")
        return [self._walked(one, self.steps[cut + 1 :], self.steps[: cut + 1]) for one in listed]

    def _walked(self, here: Any, steps: Sequence[str | int | Rows], before: Sequence[str | int | Rows]) -> Any:
        for number, step in enumerate(steps):
            done = (*before, *steps[:number])
            if isinstance(step, int):
                if not isinstance(here, list) or step >= len(here):
                    raise self._absent(done, f"{kind_of(here)}, which has no entry {step}")
            elif not isinstance(here, dict) or step not in here:
                raise self._absent(done, f"{kind_of(here)}, which has no {step!r}")
            here = here[step]
        return here

    def _absent(self, steps: Sequence[str | int | Rows], what: str) -> Unreadable:
        where = f"has at {_text(steps)!r}" if steps else "is"
        return Unreadable(
            f"{where} {what}, unlike",
            Key(self.key, self.text),
            remedy=("correct", Key(self.key), ", the place of the answer in the JSON that comes back"),
        )


def kind_of(value: Any) -> str:
    """What a value of JSON is, in a few words."""
    if isinstance(value, dict):
        names = [one_line(str(name))[:30] for name in list(value)[:6]]
        return f"an object of {', '.join(names)}{', ...' if len(value) > 6 else ''}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the text {one_line(value)[:40]!r}"
    return "null" if value is None else str(value).lower()[:40]


def _wrapped(steps: Sequence[str | int | Rows], value: Any) -> Any:
    for step in reversed(steps):
        value = {step: value}
    return value


def _text(steps: Sequence[str | int | Rows]) -> str:
    said = "".join(
        f"[{step}]" if isinstance(step, int) else "[]" if isinstance(step, Rows) else f".{step}" for step in steps
    )
    return said.removeprefix(".")


def _unread(key: str, text: str) -> InputError:
    return InputError(
        Key(key, text),
        "is no place in JSON",
        remedy="write names with dots, [0] for an entry of a list, and once [] for the list of inputs: data[].scores",
    )
