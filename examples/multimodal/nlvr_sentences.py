"""Sentences about NLVR's images whose truth follows from the annotation: more to learn from than people wrote.

The annotation lists the objects of each of the three boxes. A template is filled at random and judged by counting; the
result trains the model before it sees people's sentences. No held-out image and no held-out sentence is used.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Box: TypeAlias = Sequence[Mapping[str, Any]]
Claim: TypeAlias = tuple[str, bool]

COLOURS = {"yellow": "Yellow", "black": "Black", "blue": "#0099ff"}
SHAPES = ("circle", "square", "triangle")
NUMBERS = ("one", "two", "three", "four", "five", "six")


def sentence(boxes: Sequence[Box], generator: random.Random) -> Claim:
    """A sentence and whether it is true of the boxes; true and false ones are about equally frequent."""
    wanted = generator.random() < 0.5
    found: Claim = ("", False)
    for _ in range(12):
        found = generator.choice(_TOWERS if _towers(boxes) else _SCATTERED)(boxes, generator)
        if found[1] == wanted:
            break
    return found


def _towers(boxes: Sequence[Box]) -> bool:
    return all(item["x_loc"] == 40 and item["size"] == 20 and item["type"] == "square" for box in boxes for item in box)


def _kind(generator: random.Random) -> tuple[str, Callable[[Mapping[str, Any]], bool]]:
    """A noun in the singular, and what it is true of."""
    colour = generator.choice([*COLOURS, *COLOURS, ""])
    shape = generator.choice([*SHAPES, "item", "object", "block"])

    def fits(item: Mapping[str, Any]) -> bool:
        return (not colour or item["color"] == COLOURS[colour]) and (shape not in SHAPES or item["type"] == shape)

    return f"{colour} {shape}".strip(), fits


def _count(generator: random.Random) -> tuple[str, Callable[[int], bool]]:
    number = generator.choice([1, 1, 2, 2, 3, 3, 4, 5])
    said = generator.choice([NUMBERS[number - 1], str(number) if number < 5 else NUMBERS[number - 1]])
    how = generator.choice(["exactly", "at least", "only", ""])
    if how == "at least":
        return f"at least {said}", lambda count: count >= number
    if how == "":
        return said, lambda count: count >= number
    return f"{how} {said}", lambda count: count == number


def _any(boxes: Sequence[Box], generator: random.Random) -> Claim:
    noun, fits = _kind(generator)
    return f"there is a {noun}", any(fits(item) for box in boxes for item in box)


def _total(boxes: Sequence[Box], generator: random.Random) -> Claim:
    noun, fits = _kind(generator)
    said, right = _count(generator)
    return f"there are {said} {noun}s", right(sum(fits(item) for box in boxes for item in box))


def _in_a_box(boxes: Sequence[Box], generator: random.Random) -> Claim:
    noun, fits = _kind(generator)
    said, right = _count(generator)
    return f"there is a box with {said} {noun}s", any(right(sum(map(fits, box))) for box in boxes)


def _one_colour(boxes: Sequence[Box], generator: random.Random) -> Claim:
    sort = generator.randrange(3)
    colours = [{item["color"] for item in box} for box in boxes]
    if sort == 0:
        return "there is a box with items of only one color", any(len(found) == 1 for found in colours)
    if sort == 1:
        return "there is a box with all 3 different colors", any(len(found) == 3 for found in colours)
    colour = generator.choice(list(COLOURS))
    return f"there is a box with only {colour} items", any(found == {COLOURS[colour]} for found in colours)


def _every_box(boxes: Sequence[Box], generator: random.Random) -> Claim:
    noun, fits = _kind(generator)
    said = generator.choice(["each grey box contains at least one", "each box has a"])
    return f"{said} {noun}", all(any(map(fits, box)) for box in boxes)


def _touching(boxes: Sequence[Box], generator: random.Random) -> Claim:
    noun, fits = _kind(generator)

    def touches(item: Mapping[str, Any]) -> bool:
        low, high = min(item["x_loc"], item["y_loc"]), max(item["x_loc"], item["y_loc"]) + item["size"]
        return bool(low <= 1 or high >= 99)

    place = generator.choice(["the wall", "the edge", "the edge of a box"])
    if generator.random() < 0.3:
        return f"there is a {noun} not touching any edge", any(
            fits(item) and not touches(item) for box in boxes for item in box
        )
    found = sum(fits(item) and touches(item) for box in boxes for item in box)
    if generator.random() < 0.5:
        return f"there is a {noun} touching {place}", found > 0
    said, right = _count(generator)
    return f"there are {said} {noun}s touching {place}", right(found)


def _blocks(box: Box) -> list[str]:
    """Colours of a tower from its base up."""
    return [item["color"] for item in sorted(box, key=lambda item: -item["y_loc"])]


def _height(boxes: Sequence[Box], generator: random.Random) -> Claim:
    said, right = _count(generator)
    return f"there is a tower with {said} blocks", any(right(len(box)) for box in boxes if box)


def _height_of_colour(boxes: Sequence[Box], generator: random.Random) -> Claim:
    colour = generator.choice(list(COLOURS))
    said, right = _count(generator)
    found = any(right(_blocks(box).count(COLOURS[colour])) for box in boxes if box)
    return f"there is a tower with {said} {colour} blocks", found


def _at_end(boxes: Sequence[Box], generator: random.Random) -> Claim:
    colour = generator.choice(list(COLOURS))
    end, place = generator.choice([("base", 0), ("bottom", 0), ("top", -1)])
    found = sum(_blocks(box)[place] == COLOURS[colour] for box in boxes if box)
    sort = generator.randrange(3)
    if sort == 0:
        return f"there is a tower with a {colour} block at the {end}", found > 0
    if sort == 1:
        return f"there is a {colour} block as the {end} of a tower", found > 0
    said, right = _count(generator)
    return f"there are {said} towers with a {colour} block at the {end}", right(found)


def _above(boxes: Sequence[Box], generator: random.Random) -> Claim:
    upper, lower = generator.choice(list(COLOURS)), generator.choice(list(COLOURS))
    said = generator.choice(["over", "above", "on"])
    found = sum(
        any(
            (low, high) == (COLOURS[lower], COLOURS[upper])
            for low, high in zip(_blocks(box), _blocks(box)[1:], strict=False)
        )
        for box in boxes
    )
    if generator.random() < 0.5:
        return f"there is a {upper} block {said} a {lower} block", found > 0
    count, right = _count(generator)
    return f"there is {count} tower with a {upper} block {said} a {lower} block", right(found)


_SCATTERED = (_any, _total, _in_a_box, _one_colour, _every_box, _touching, _in_a_box, _touching)
_TOWERS = (_height, _height_of_colour, _at_end, _above, _at_end, _above, _total)
