"""Scenes in the style of NLVR's, as many as wanted: three boxes of a tower or of scattered objects, and their pictures.

A scene is what the corpus annotates: for each box a list of objects with ``x_loc``, ``y_loc`` (of the upper left
corner, from the top), ``size``, ``color`` and ``type``, in pixels of a box of 100 x 100.
"""

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Item = dict[str, Any]
Scene = list[list[Item]]

SHADES = {"Yellow": (1.0, 1.0, 0.0), "Black": (0.0, 0.0, 0.0), "#0099ff": (0.0, 0.6, 1.0)}
FORMS = ("circle", "square", "triangle")
FLOOR, GAP = 211 / 255, 128 / 255
SIDE, APART = 100, 50


def random_scene(chance: random.Random) -> Scene:
    """Towers in half of the scenes, scattered objects in the others."""
    return [_tower(chance) for _ in range(3)] if chance.random() < 0.5 else [_scattered(chance) for _ in range(3)]


def picture(boxes: Scene, size: tuple[int, int]) -> Tensor:
    """A drawing (3, H, W) in [0, 1], antialiased, and made smaller as `signstep.data.images` does."""
    drawn = torch.full((3, SIDE, 3 * SIDE + 2 * APART), GAP)
    rows, columns = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    for number, box in enumerate(boxes):
        here = torch.full((3, SIDE, SIDE), FLOOR)
        for item in box:
            down, across = rows - item["y_loc"], columns - item["x_loc"]
            colour = torch.tensor(SHADES[item["color"]])[:, None, None]
            here = torch.lerp(here, colour.expand_as(here), _inside(item["type"], down, across, item["size"]))
        left = number * (SIDE + APART)
        drawn[:, :, left : left + SIDE] = here
    small = F.interpolate(drawn[None], size=size, mode="bilinear", antialias=True)
    return (255 * small[0].clamp(0, 1)).round() / 255


def _inside(form: str, down: Tensor, across: Tensor, size: int) -> Tensor:
    """How much of each pixel an object covers, about."""
    if form == "circle":
        return (size / 2 + 0.5 - torch.hypot(down - size / 2, across - size / 2)).clamp(0, 1)
    if form == "square":
        return ((down > 0) & (down < size) & (across > 0) & (across < size)).float()
    edge = (down / 2 - (across - size / 2).abs()) / 1.25**0.5
    covered: Tensor = (edge + 0.5).clamp(0, 1) * ((down > 0) & (down < size))
    return covered


def _tower(chance: random.Random) -> list[Item]:
    height = chance.choice([1, 2, 3, 4])
    colours = [chance.choice(list(SHADES)) for _ in range(height)]
    if chance.random() < 0.25:
        colours = [colours[0]] * height
    return [
        {"x_loc": 40, "y_loc": 80 - 21 * level, "size": 20, "color": colour, "type": "square"}
        for level, colour in enumerate(colours)
    ]


def _scattered(chance: random.Random) -> list[Item]:
    box: list[Item] = []
    wanted = chance.choice([1, 2, 3, 4, 5, 6, 7])
    few = chance.sample(list(SHADES), chance.choice([1, 2, 3, 3, 3]))  # boxes of one or two colours are spoken of
    for _ in range(60):
        if len(box) == wanted:
            break
        size = chance.choice([10, 20, 20, 30])
        x, y = _place(size, chance), _place(size, chance)
        if box and chance.random() < 0.2:  # on top of another
            below = chance.choice(box)
            x, y = below["x_loc"] + (below["size"] - size) // 2, below["y_loc"] - size - 1
            if not (0 <= x <= SIDE - size and y >= 0):
                continue
        if any(_overlap(x, y, size, item) for item in box):
            continue
        box.append(
            {"x_loc": x, "y_loc": y, "size": size, "color": chance.choice(few), "type": chance.choice(list(FORMS))}
        )
    return box


def _place(size: int, chance: random.Random) -> int:
    """A coordinate: at either wall in a fifth of the cases, else clear of both."""
    if chance.random() < 0.2:
        return chance.choice([0, SIDE - size])
    return chance.randint(2, SIDE - size - 2)


def _overlap(x: int, y: int, size: int, item: Item) -> bool:
    return bool(
        x < item["x_loc"] + item["size"] + 1
        and item["x_loc"] < x + size + 1
        and y < item["y_loc"] + item["size"] + 1
        and item["y_loc"] < y + size + 1
    )
