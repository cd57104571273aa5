"""Sentences about NLVR's scenes whose truth follows from the annotation: more to learn from than people wrote.

The annotation lists the objects of each of the three boxes. A template is filled at random and judged by counting; the
wording is that of the corpus's training sentences. What the words mean was taken from people's answers on those: "two"
is false of three, "a" is one or more, to touch a wall is to have no gap to it, the item "on top" is the highest.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

Item: TypeAlias = Mapping[str, Any]
Box: TypeAlias = Sequence[Item]
Claim: TypeAlias = tuple[str, bool]

COLOURS = {"yellow": "Yellow", "black": "Black", "blue": "#0099ff"}
SHAPES = ("circle", "square", "triangle")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven")


class _Noun(NamedTuple):
    """``words`` is "yellow square" or "item"; what it is true of."""

    words: str
    fits: Callable[[Item], bool]

    def count(self, items: Sequence[Item]) -> int:
        return sum(map(self.fits, items))


class _Number(NamedTuple):
    """``words`` is "two" or "at least two"; what counts it is true of; whether a noun after it is in the plural."""

    words: str
    fits: Callable[[int], bool]
    many: bool

    def of(self, noun: str) -> str:
        return f"{self.words} {_many(noun) if self.many else noun}"

    @property
    def there(self) -> str:
        return f"there {'are' if self.many else 'is'} {self.words}"


def sentence(boxes: Sequence[Box], chance: random.Random) -> Claim:
    """A sentence and whether it is true of the boxes; as often true as false, of whatever sort it is."""
    wanted = chance.random() < 0.5
    found: Claim = ("", False)
    while True:
        template = chance.choice(_TOWERS if is_towers(boxes) else _SCATTERED)
        for _ in range(8):
            found = template(boxes, chance)
            if found[1] == wanted:
                return found


def is_towers(boxes: Sequence[Box]) -> bool:
    """Whether the boxes hold towers of blocks, not scattered objects."""
    return all(item["x_loc"] == 40 and item["size"] == 20 and item["type"] == "square" for box in boxes for item in box)


def walls(item: Item) -> dict[str, bool]:
    """Which walls of its box an object touches."""
    x, y, size = item["x_loc"], item["y_loc"], item["size"]
    return {"left": x <= 1, "top": y <= 1, "right": x + size >= 99, "bottom": y + size >= 99}


def _many(noun: str) -> str:
    return f"{noun}es" if noun.endswith("x") else f"{noun}s"


def _colour(chance: random.Random) -> str:
    return chance.choice(list(COLOURS))


def _noun(chance: random.Random, *, coloured: float = 0.75, small: bool = False) -> _Noun:
    colour = _colour(chance) if chance.random() < coloured else ""
    shape = chance.choice([*SHAPES, "item", "object"])
    little = small and chance.random() < 0.1
    either = chance.choice([c for c in COLOURS if c != colour]) if colour and chance.random() < 0.07 else ""
    said = " ".join(filter(None, ["small" if little else "", f"{colour} or {either}" if either else colour, shape]))
    shades = {COLOURS[c] for c in (colour, either) if c}

    def fits(item: Item) -> bool:
        return (
            (not shades or item["color"] in shades)
            and (shape not in SHAPES or item["type"] == shape)
            and (not little or item["size"] == 10)
        )

    return _Noun(said, fits)


def _number(chance: random.Random, *, most: int = 5, zero: bool = True) -> _Number:
    """A number with or without what qualifies it."""
    sort = chance.choice(["a", "", "", "exactly", "exactly", "only", "least", "least", "no"])
    if sort == "a":
        return _Number("a", lambda count: count >= 1, many=False)
    if sort == "no" and zero:
        return _Number("no", lambda count: count == 0, many=False)
    number = min(most, chance.choice([1, 1, 1, 2, 2, 2, 3, 3, 4, 5]))
    said = str(number) if number < 5 and chance.random() < 0.4 else NUMBERS[number - 1]
    if sort == "least":
        return _Number(
            f"{chance.choice(['at least', 'at least', 'atleast'])} {said}", lambda count: count >= number, number > 1
        )
    return _Number(f"{sort} {said}" if sort not in ("", "no") else said, lambda count: count == number, number > 1)


def _all(boxes: Sequence[Box]) -> list[Item]:
    return [item for box in boxes for item in box]


# Scattered objects.


def _total(boxes: Sequence[Box], chance: random.Random) -> Claim:
    noun, number = _noun(chance, small=True), _number(chance)
    return f"{number.there} {_plural(noun, number)}", number.fits(noun.count(_all(boxes)))


def _plural(noun: _Noun, number: _Number) -> str:
    return _many(noun.words) if number.many else noun.words


def _in_a_box(boxes: Sequence[Box], chance: random.Random) -> Claim:
    noun, number = _noun(chance), _number(chance, zero=False)
    inside = [number.fits(noun.count(box)) for box in boxes]
    sort = chance.randrange(4)
    said = f"{number.words} {_plural(noun, number)}"
    if sort == 0:
        return f"one box has {said}", any(inside)
    if sort == 1:
        return f"there is 1 box with {said}", sum(inside) == 1
    return f"there is a box {chance.choice(['with', 'with', 'that has', 'which has'])} {said}", any(inside)


def _two_in_a_box(boxes: Sequence[Box], chance: random.Random) -> Claim:
    first, second = _noun(chance, coloured=0.9), _noun(chance, coloured=0.9)
    one, two = _number(chance, most=4, zero=False), _number(chance, most=3)
    if first.words.split()[-1] == "item" and chance.random() < 0.3:
        first = _Noun("item", lambda _: True)
    found = any(one.fits(first.count(box)) and two.fits(second.count(box)) for box in boxes)
    return (
        f"there is a box with {one.words} {_plural(first, one)} and {two.words} {_plural(second, two)}",
        found,
    )


def _three_in_a_box(boxes: Sequence[Box], chance: random.Random) -> Claim:
    nouns = [_noun(chance, coloured=1.0) for _ in range(3)]
    found = any(all(noun.count(box) for noun in nouns) for box in boxes)
    return "there is a box with a {}, a {} and a {}".format(*(noun.words for noun in nouns)), found


def _grey(boxes: Sequence[Box], chance: random.Random) -> Claim:
    number = chance.randint(1, 7)
    said = NUMBERS[number - 1]
    place = chance.choice(["one of the grey square", "one of the grey box"])
    verb = chance.choice(["has", "contains"])
    noun = "object" if number == 1 else "objects"
    if chance.random() < 0.15:
        kind = _noun(chance, coloured=0.2)
        found = any(len(box) == number and kind.count(box) for box in boxes)
        return f"{place} {verb} exactly {said} {noun} one of which is a {kind.words}", found
    if chance.random() < 0.3:
        return f"there is a box with {said} {noun.replace('object', 'item')}", any(len(box) == number for box in boxes)
    return f"{place} {verb} exactly {said} {noun}", any(len(box) == number for box in boxes)


def _colours_of_a_box(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colours = [{item["color"] for item in box} for box in boxes]
    one, two = chance.sample(list(COLOURS), 2)
    pair = {COLOURS[one], COLOURS[two]}
    said, right = chance.choice(
        [
            ("items of only one color", [len(found) == 1 for found in colours]),
            ("items of 2 different colors", [len(found) == 2 for found in colours]),
            ("all 3 colors", [len(found) == 3 for found in colours]),
            ("all 3 different colors", [len(found) == 3 for found in colours]),
            (f"only {one} items", [found == {COLOURS[one]} for found in colours]),
            (f"only {one} and {two} items", [found == pair for found in colours]),
            (f"items of {one} and {two} color", [pair <= found for found in colours]),
        ]
    )
    number = chance.choice(["a", "a", "1", "2"])
    if number == "2":
        return f"there are 2 boxes with {said}", sum(right) == 2
    return f"there is {number} box with {said}", sum(right) == 1 if number == "1" else any(right)


def _every_box(boxes: Sequence[Box], chance: random.Random) -> Claim:
    noun = _noun(chance)
    least = chance.choice(["at least 1", "atleast one", "at least one", "a"])
    wall = chance.random() < 0.4
    found = all(any(noun.fits(item) and (not wall or any(walls(item).values())) for item in box) for box in boxes)
    said = f"{noun.words}{' touching the edge' if wall else ''}"
    if chance.random() < 0.3:
        return f"there is {least} {said} in each box", found
    return f"{chance.choice(['each box has', 'each grey box contains'])} {least} {said}", found


def _touches_any(item: Item) -> bool:
    return any(walls(item).values())


def _touches(wall: str) -> Callable[[Item], bool]:
    return lambda item: walls(item)[wall]


def _cornered(item: Item) -> bool:
    touched = walls(item)
    return (touched["left"] or touched["right"]) and (touched["top"] or touched["bottom"])


_PLACES: tuple[tuple[str, Callable[[Item], bool]], ...] = (
    *((place, _touches_any) for place in ("the wall", "the edge", "an edge", "the side", "any edge", "the wall")),
    *((place, _touches("bottom")) for place in ("the base", "the bottom of a box", "the bottom of a box")),
    ("the top of a box", _touches("top")),
    ("right wall of a box", _touches("right")),
    *((place, _cornered) for place in ("a corner", "the corner", "a corner of a box")),
)


def _touching(boxes: Sequence[Box], chance: random.Random) -> Claim:
    noun, number = _noun(chance, small=True), _number(chance)
    near = chance.choice(["", "closely "])
    place, touches = chance.choice(_PLACES)
    many = _all(boxes)
    if place in ("the edge", "any edge") and chance.random() < 0.6:
        sort = chance.randrange(4)
        away = sum(noun.fits(item) and not touches(item) for item in many)
        if sort == 0:
            return f"none of the {_many(noun.words)} are touching {place}", away == noun.count(many)
        if sort == 1:
            return f"{_many(noun.words)} are not touching {place}", away == noun.count(many)
        return f"{number.there} {_plural(noun, number)} not touching {place}", number.fits(away)
    count = sum(noun.fits(item) and touches(item) for item in many)
    if chance.random() < 0.2:
        boxed = chance.choice([1, 2])
        having = sum(any(noun.fits(item) and touches(item) for item in box) for box in boxes)
        said = f"there {'is 1 box' if boxed == 1 else 'are 2 boxes'} with a {noun.words}"
        return f"{said} {near}touching {place}", having == boxed
    return f"{number.there} {_plural(noun, number)} {near}touching {place}", number.fits(count)


def _all_touching(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colour = _colour(chance)
    if chance.random() < 0.5:
        having = [box for box in boxes if any(item["color"] == COLOURS[colour] for item in box)]
        return f"{chance.choice(['all', 'll'])} {colour} items are in the same box", len(having) <= 1
    touching = {item["color"] for item in _all(boxes) if any(walls(item).values())}
    return f"{chance.choice(['all', 'll'])} 3 different colors are touching the wall", len(touching) == 3


def _highest(boxes: Sequence[Box], chance: random.Random) -> Claim:
    noun = _noun(chance, coloured=0.95)
    said = chance.choice([noun.words, f"{noun.words.split()[0]} item"])
    colour = said.split()[0]
    fits = noun.fits if said == noun.words else lambda item: item["color"] == COLOURS.get(colour)
    if said != noun.words and (colour not in COLOURS or " or " in noun.words):
        said, fits = noun.words, noun.fits
    on_top = [bool(box) and fits(min(box, key=lambda item: item["y_loc"])) for box in boxes]
    sort = chance.randrange(4)
    number = chance.randint(1, 6)
    if sort == 0:
        found = any(top and len(box) == number for top, box in zip(on_top, boxes, strict=True))
        return f"there is a box with {number if number < 5 else NUMBERS[number - 1]} items and a {said} on top", found
    if sort == 1:
        return f"there are 2 boxes with a {said} on top", sum(on_top) == 2
    return f"there is a {'box with a ' if sort == 2 else ''}{said} on top", any(on_top)


def _above_another(boxes: Sequence[Box], chance: random.Random) -> Claim:
    upper, lower = _noun(chance, coloured=0.9), _noun(chance, coloured=0.9)
    found = any(
        upper.fits(one) and lower.fits(other) and _rests(one, other) for box in boxes for one in box for other in box
    )
    said = chance.choice(["above", "on top of", "over", "right on top of"])
    return f"there is a {upper.words} {said} a {lower.words}", found


def _rests(one: Item, other: Item) -> bool:
    """Whether an object lies right above another."""
    gap = other["y_loc"] - one["y_loc"] - one["size"]
    beside = max(one["x_loc"] - other["x_loc"] - other["size"], other["x_loc"] - one["x_loc"] - one["size"])
    return one is not other and 0 <= gap <= 3 and beside < 0


# Towers.


def _blocks(box: Box) -> list[str]:
    """Colours of a tower from its base up, in words."""
    names = {shade: name for name, shade in COLOURS.items()}
    return [names[item["color"]] for item in sorted(box, key=lambda item: -item["y_loc"])]


def _built(boxes: Sequence[Box]) -> list[list[str]]:
    return [_blocks(box) for box in boxes if box]


def _some_towers(right: Sequence[bool], said: str, chance: random.Random) -> Claim:
    """Of how many towers something is said."""
    number = _number(chance, most=3)
    noun = "towers" if number.many else "tower"
    joined = chance.choice(["with", "with", "with", "having", "that has", "which has"])
    return f"{number.there} {noun} {joined} {said}", number.fits(sum(right))


def _height(boxes: Sequence[Box], chance: random.Random) -> Claim:
    number = _number(chance, most=4, zero=False)
    right = [number.fits(len(tower)) for tower in _built(boxes)]
    said = f"{number.words} {'blocks' if number.many else 'block'}"
    if chance.random() < 0.5:
        return f"there is a tower {chance.choice(['with', 'which has', 'that has'])} {said}", any(right)
    return _some_towers(right, said, chance)


def _of_colour(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colour, number = _colour(chance), _number(chance, most=4)
    right = [number.fits(tower.count(colour)) for tower in _built(boxes)]
    said = f"{number.words} {colour} {'blocks' if number.many else 'block'}"
    sort = chance.randrange(6)
    if sort == 0:
        return f"{chance.choice(['all', 'll'])} 3 towers have {said}", all(right)
    if sort == 1:
        total = number.fits(sum(tower.count(colour) for tower in _built(boxes)))
        return f"{number.there} {colour} {'blocks' if number.many else 'block'}", total
    return _some_towers(right, said, chance)


def _mixed(boxes: Sequence[Box], chance: random.Random) -> Claim:
    towers = _built(boxes)
    one, two = chance.sample(list(COLOURS), 2)
    three = next(colour for colour in COLOURS if colour not in (one, two))
    few = chance.choice([2, 3])
    said, right = chance.choice(
        [
            (f"only {one} and {two} blocks", [set(tower) == {one, two} for tower in towers]),
            (f"only {one} blocks", [set(tower) == {one} for tower in towers]),
            (
                f"a {one} block and two {two} blocks",
                [tower.count(one) >= 1 and tower.count(two) == 2 for tower in towers],
            ),
            (f"a {one} block, a {two} block and a {three} block", [len(set(tower)) == 3 for tower in towers]),
            ("only one color", [len(set(tower)) == 1 for tower in towers]),
            ("blocks of 2 different colors", [len(set(tower)) == 2 for tower in towers]),
            (f"{few} {one} blocks stacked together", [_run(tower, one) == few for tower in towers]),
            (f"{few} blocks of the same color", [any(tower.count(c) == few for c in COLOURS) for tower in towers]),
        ]
    )
    if chance.random() < 0.2:
        return f"there is a {one} tower", any(set(tower) == {one} for tower in towers)
    return _some_towers(right, said, chance)


def _run(tower: Sequence[str], colour: str) -> int:
    """The longest stretch of one colour."""
    best = now = 0
    for block in tower:
        now = now + 1 if block == colour else 0
        best = max(best, now)
    return best


_ENDS = (("base", 0), ("bottom", 0), ("top", -1), ("base", 0), ("top", -1))


def _at_end(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colour, (end, place) = _colour(chance), chance.choice(_ENDS)
    number = _number(chance, most=3)
    right = [tower[place] == colour for tower in _built(boxes)]
    block = "blocks" if number.many else "block"
    sort = chance.randrange(4)
    if sort == 0:
        said = f"{number.there} {colour} {block} as the {end} of {chance.choice(['a tower', 'a tower', 'the tower'])}"
        return said, number.fits(sum(right))
    if sort == 1 and place == 0:
        bases = f"towers have {colour} bases" if number.many else f"tower has a {colour} base"
        return f"{number.words} {bases}", number.fits(sum(right))
    return _some_towers(right, f"a {colour} block at {chance.choice(['the ', 'the ', ''])}{end}", chance)


def _at_end_of_height(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colour, (end, place) = _colour(chance), chance.choice(_ENDS)
    height = _number(chance, most=4, zero=False)
    tall = f"{height.words} {'blocks' if height.many else 'block'}"
    towers = [tower for tower in _built(boxes) if height.fits(len(tower))]
    right = [tower[place] == colour for tower in towers]
    sort = chance.randrange(4)
    if sort == 0:
        return f"the tower with {tall} has a {colour} block at the {end}", any(right)
    if sort == 1:
        number = _number(chance, most=3)
        block = "blocks" if number.many else "block"
        said = f"{number.there} {colour} {block} as the {end} of a tower with {tall}"
        return said, number.fits(sum(right))
    joined = chance.choice(["having", "with", "which has"])
    return _some_towers(right, f"{tall} {joined} a {colour} block at the {end}", chance)


def _at_level(boxes: Sequence[Box], chance: random.Random) -> Claim:
    colour = _colour(chance)
    right = [len(tower) > 1 and tower[1] == colour for tower in _built(boxes)]
    number = _number(chance, most=3, zero=False)
    noun = "towers" if number.many else "tower"
    where = chance.choice(["where the second block is", "that the second block from the base is"])
    return f"{number.there} {noun} {where} {colour}", number.fits(sum(right))


def _above(boxes: Sequence[Box], chance: random.Random) -> Claim:
    upper, lower = _colour(chance), _colour(chance)
    said = chance.choice(["over", "above", "on", "below"])
    low, high = (upper, lower) if said == "below" else (lower, upper)
    right = [(low, high) in list(pairwise(tower)) for tower in _built(boxes)]
    if chance.random() < 0.4:
        number = _number(chance, most=2)
        pairs = sum(pair == (low, high) for tower in _built(boxes) for pair in pairwise(tower))
        block = "blocks" if number.many else "block"
        return f"{number.there} {upper} {block} {said} a {lower} block", number.fits(pairs)
    if said == "below" and chance.random() < 0.3:
        right = [len(tower) > 1 and tower[-2:] == [low, high] for tower in _built(boxes)]
        return _some_towers(right, f"a {upper} block below a {lower} block at the top", chance)
    return _some_towers(right, f"a {upper} block {said} a {lower} block", chance)


def _alike(boxes: Sequence[Box], chance: random.Random) -> Claim:
    towers = _built(boxes)
    least = chance.random() < 0.4
    words = f"there are {'at least ' if least else chance.choice(['', 'only '])}two towers"
    said, of = chance.choice(
        [
            ("with the same height", len),
            ("which has the same base color", lambda tower: tower[0]),
            ("which has the same top color", lambda tower: tower[-1]),
        ]
    )
    values = [of(tower) for tower in towers]
    most = max((values.count(value) for value in values), default=0)
    return f"{words} {said}", most >= 2 if least else most == 2


_SCATTERED = (
    *(_total, _total, _in_a_box, _in_a_box, _two_in_a_box, _two_in_a_box, _three_in_a_box, _grey, _colours_of_a_box),
    *(_every_box, _touching, _touching, _touching, _touching, _all_touching, _highest, _above_another),
)
_TOWERS = (
    *(_height, _of_colour, _of_colour, _mixed, _mixed, _at_end, _at_end, _at_end),
    *(_at_end_of_height, _at_end_of_height, _at_level, _above, _above, _above, _alike),
)
