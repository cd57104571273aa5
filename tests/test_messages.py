"""Errors and warnings have their argument, value and remedy as fields, and are one sentence in Python's words."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

from signstep import errors
from signstep.errors import InputError, LoadError, MissingExtraError, SignstepError, SignstepWarning, ThreatError
from signstep.messages import UNSAID, Arg, Blank, Message, Part


@pytest.mark.parametrize(
    ("message", "text", "fields"),
    [
        (
            Message(Arg("eps", -1), "is negative", remedy="pass a number of at least 0"),
            "eps=-1 is negative; pass a number of at least 0",
            ("eps", -1, "eps=-1 is negative", "pass a number of at least 0"),
        ),
        (
            Message(Arg("steps", 0), remedy="pass at least 1", where="pgd"),
            "pgd: steps=0; pass at least 1",
            ("steps", 0, "steps=0", "pass at least 1"),
        ),
        (
            Message(Arg("soft", 2.0), Arg("sharp", 1.0), ": the first is larger", remedy="exchange them"),
            "soft=2.0, sharp=1.0: the first is larger; exchange them",
            ("soft", 2.0, "soft=2.0, sharp=1.0: the first is larger", "exchange them"),
        ),
        (
            Message(
                Arg("mean"), "is missing: both", Arg("mean"), "and", Arg("std"), "are needed (", Arg("std", 1), ")"
            ),
            "mean is missing: both mean and std are needed (std=1)",
            ("mean", None, "mean is missing: both mean and std are needed (std=1)", None),
        ),
        (
            Message(Arg("x", (0, 3), of="shape"), "and is empty", remedy="pass an example"),
            "x has shape (0, 3) and is empty; pass an example",
            ("x", (0, 3), "x has shape (0, 3) and is empty", "pass an example"),
        ),
        (
            Message(
                Arg("eps", [8.0], shown="8"),
                "is beyond the box (",
                Arg("box", (0, 1)),
                "). Another scale?",
                remedy=("pass", Arg("eps", None), "for the box alone"),
            ),
            "eps=8 is beyond the box (box=(0, 1)). Another scale? Pass eps=None for the box alone",
            (
                "eps",
                [8.0],
                "eps=8 is beyond the box (box=(0, 1)). Another scale?",
                "pass eps=None for the box alone",
            ),
        ),
        (
            Message("x runs to 255", remedy=("pass x / 255, or", Arg("box", Blank("low", "high")), ", or both")),
            "x runs to 255; pass x / 255, or box=(low, high), or both",
            (None, None, "x runs to 255", "pass x / 255, or box=(low, high), or both"),
        ),
        (
            Message(Arg("weights", Path("a.pt")), "is no file"),
            "weights='a.pt' is no file",
            ("weights", Path("a.pt"), "weights='a.pt' is no file", None),
        ),
        (
            Message(Arg("grid"), "and", Arg("box"), "do not fit", remedy=("drop", Arg("grid"))),
            "grid and box do not fit; drop grid=",
            ("grid", None, "grid and box do not fit", "drop grid="),
        ),
        (Message("a plain text; as it was"), "a plain text; as it was", (None, None, "a plain text; as it was", None)),
        (Message(), "", (None, None, "", None)),
    ],
    ids=str,
)
def test_parts_become_a_sentence_and_fields(message: Message, text: str, fields: tuple[object, ...]) -> None:
    assert str(message) == text
    assert (message.argument, message.value, message.text, message.remedy) == fields


def test_a_message_is_one_line_in_which_nothing_is_hidden() -> None:
    said = str(Message(Arg("recipe", "a\x1b[2J"), "\nis\u202e not", remedy="\twrite", where="p\ngd"))
    assert said == r"p\ngd: recipe='a\x1b[2J' \nis\u202e not; \twrite"


def test_another_way_in_writes_the_arguments_and_nothing_else() -> None:
    """Text is nobody's argument, whatever it quotes."""

    def say(argument: Arg, cure: bool) -> str:
        return f"<{argument.name}{'!' if cure else ''} {argument.shown}>"

    told = Message(Arg("box", None), "of mean=3, box= and <std>", remedy=("pass", Arg("std", 1), ", std=1"))
    assert told.said(say) == "<box None> of mean=3, box= and <std>; pass <std! 1>, std=1"
    together = Message("no model", remedy=("pass", Arg("model", 1), Arg("weights", 2)))
    assert together.said(say, between=" ") == "no model; pass <model! 1> <weights! 2>"
    assert together.within("here").said(say, between=" ") == "here: no model; pass model=1, weights=2"
    # An option of a recipe, or a key of a file, goes by its own name everywhere.
    assert told.within("square").said(say) == "square: box=None of mean=3, box= and <std>; pass std=1, std=1"
    assert told.said(say) != str(told)  # which was left as it is


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Message)]
MADE = [
    MissingExtraError("pillow", "images"),
    *(
        kind(Arg("eps", -1), "is negative", remedy=("pass", Arg("eps", None)), where="pgd")
        for kind in KINDS
        if kind not in (MissingExtraError, Message)
    ),
]


def test_all_kinds_are_tried() -> None:
    assert len(MADE) == len(KINDS) - 1 == 11


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_errors_survive_a_copy_and_another_process(error: Message, way: Any) -> None:
    again = way(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.argument, again.value, again.remedy) == (error.argument, error.value, error.remedy)
    placed = error.within("there")
    assert type(placed) is type(error)
    assert str(placed) == f"there: {error}"


def test_what_cannot_be_pickled_stays_as_it_is_written() -> None:
    function = lambda: None  # noqa: E731 - what has no name in its module
    error = InputError(Arg("loss", function), Arg("eps", 0.1), "do not fit")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.value == repr(function)
    assert pickle.loads(pickle.dumps(InputError(Arg("eps"), "is missing"))).parts[0].value is UNSAID


def test_warnings_have_the_same_fields() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(SignstepWarning(Arg("eps", 0.5), "is large"), stacklevel=1)
        warnings.warn("plain", SignstepWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["eps=0.5 is large", "plain"]
    assert isinstance(caught[0].message, SignstepWarning)
    assert caught[0].message.argument == "eps"


def test_classes_can_be_told_apart_as_before() -> None:
    parts: tuple[Part, ...] = (Arg("eps", -1), "is negative")
    with pytest.raises(ValueError, match="eps=-1 is negative") as caught:
        raise ThreatError(*parts)
    assert isinstance(caught.value, (InputError, SignstepError))
    assert not isinstance(caught.value, LoadError)
