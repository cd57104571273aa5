"""A photograph that turns into something else: one step of FGSM against MobileNetV2.

The photograph is scikit-learn's own (``pip install scikit-learn``; CC BY 2.0, danielbuechele); the network is the one
of ``../shared/models``. What the picture shows is what lies on disk: the attacked photograph is written to PNG,
read back and scored again.

    python examples/photograph.py --models ../shared/models --out docs/images/fgsm-photograph.png
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor, nn

import signstep as ss
from signstep.export import read_png, write_png
from signstep.networks.mobilenet import mobilenet_v2

SIDE, GAP, CAPTION = 224, 8, 44


@dataclass(frozen=True)
class Panel:
    """A picture (3, H, W) in [0, 1] and the two lines below it."""

    picture: Tensor
    title: str
    below: str


def main() -> None:
    """Attack the photograph, print the figures and draw the strip."""
    parser = argparse.ArgumentParser(description="FGSM on a photograph, drawn as clean | change | attacked.")
    parser.add_argument("--models", type=Path, default=Path("../shared/models"), help="folder with the network")
    parser.add_argument("--photo", default="china.jpg", choices=("china.jpg", "flower.jpg"))
    parser.add_argument("--eps", default="2/255", help="how far each value may move")
    parser.add_argument("--target", default="pirate, pirate ship", help="a line of the labels, or any for no target")
    parser.add_argument("--out", type=Path, default=Path("fgsm-photograph.png"))
    given = parser.parse_args()

    model = mobilenet_v2(given.models)
    names = (given.models / "imagenet_labels_1001.txt").read_text(encoding="utf-8").splitlines()
    x = square(load_sample_image(given.photo))
    if given.target not in (*names, "any"):
        parser.error(f"--target {given.target!r} is no line of {given.models / 'imagenet_labels_1001.txt'}")
    target = None if given.target == "any" else torch.tensor([names.index(given.target)])
    # Without labels, what counts as right is what the network says of the untouched photograph.
    outcome = ss.attack(model, x, threat=ss.linf(given.eps, grid=255), recipe="fgsm", target=target)
    assert isinstance(outcome.x, Tensor)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "attacked.png")
        write_png(outcome.x, [path])
        again = read_png([path])
    before, after = said(model, x, names), said(model, again, names)

    change = ((again - x)[0] * 255).round()  # in grey levels
    levels = int(change.abs().max())
    factor = 127 // max(1, levels)
    print(f"{given.photo}, eps {given.eps}: {before} -> {after} (read back from PNG)")
    print(f"largest change {levels} of 255 grey levels; {float((change != 0).float().mean()):.0%} of values change")
    strip(
        Panel(x[0], "photograph", before),
        Panel((128 + factor * change) / 255, f"change, x {factor} (grey: none)", f"FGSM, eps = {given.eps}"),
        Panel(again[0], "photograph + change", after),
    ).save(given.out, optimize=True)
    print(f"written: {given.out}, {given.out.stat().st_size / 1000:.0f} kB")


def square(photo: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
    """The middle of a photograph as (1, 3, 224, 224) in [0, 1]."""
    image = Image.fromarray(photo)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(middle)).permute(2, 0, 1).unsqueeze(0).float() / 255


def said(model: nn.Module, x: Tensor, names: list[str]) -> str:
    """The likeliest class and its share."""
    with torch.no_grad():
        share, number = model(x).softmax(1)[0].max(0)
    return f"{names[int(number)]}: {float(share):.0%}"


def strip(*panels: Panel) -> Image.Image:
    """Panels side by side on white."""
    whole = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    draw = ImageDraw.Draw(whole)
    for number, panel in enumerate(panels):
        left = number * (SIDE + GAP)
        pixels = (panel.picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        whole.paste(Image.fromarray(pixels), (left, 0))
        for line, (text, size) in enumerate(((panel.title, 13), (panel.below, 16))):
            place = (left + SIDE / 2, SIDE + 4 + 17 * line)
            colour = "#555555" if line == 0 else "black"
            draw.text(place, text, colour, ImageFont.load_default(size), anchor="ma")
    return whole


if __name__ == "__main__":
    main()
