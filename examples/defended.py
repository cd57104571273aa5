"""A photograph attacked, defended by JPEG, and attacked again by one who knows of the JPEG: MobileNetV2.

The photograph is scikit-learn's own (``pip install scikit-learn``; CC BY 2.0, danielbuechele); the network is the one
of ``../shared/models``. Every answer is that to a PNG file as it was written, read back; the attacked ones differ from
the photograph by at most eps. Needs the extra ``defend``.

    python examples/defended.py --models ../shared/models --out docs/images/defended-photograph.png
"""

import argparse
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

import signstep as ss
from photograph import Panel, square, strip
from signstep.export import read_png, write_png
from signstep.networks.mobilenet import mobilenet_v2


def main() -> None:
    """Attack twice, print the figures and draw the strip."""
    parser = argparse.ArgumentParser(description="A photograph attacked, defended, and attacked by one who knows.")
    parser.add_argument("--models", type=Path, default=Path("../shared/models"), help="folder with the network")
    parser.add_argument("--photo", default="china.jpg", choices=("china.jpg", "flower.jpg"))
    parser.add_argument("--eps", default="1/255", help="how far each value may move")
    parser.add_argument("--defence", default="jpeg:quality=75", help="what stands in front of the network")
    parser.add_argument("--recipe", default="pgd:steps=20")
    parser.add_argument("--out", type=Path, default=Path("defended-photograph.png"))
    given = parser.parse_args()

    model = ss.Model(mobilenet_v2(given.models))
    guarded = ss.defend(model, [given.defence])
    names = (given.models / "imagenet_labels_1001.txt").read_text(encoding="utf-8").splitlines()
    x, threat = square(load_sample_image(given.photo)), ss.linf(given.eps, grid=255)
    with torch.no_grad():
        right = model(x).argmax(1)
    first = ss.attack(model, x, right, threat=threat, recipe=given.recipe)
    second = ss.attack(guarded, x, right, threat=threat, recipe=given.recipe)
    assert isinstance(first.x, Tensor)
    assert isinstance(second.x, Tensor)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.png") for name in ("photograph", "attacked", "knowing")]
        write_png(torch.cat([x, first.x, second.x]), paths)
        files = read_png(paths)
    step = given.defence.partition(":")[0]
    shown = (
        ("photograph", 0, model),
        ("attacked", 1, model),
        (f"the same file, behind {step}", 1, guarded),
        (f"attacked, knowing of {step}", 2, guarded),
    )
    panels = []
    for title, place, asked in shown:
        below = said(asked, files[place : place + 1], names)
        wrong = "" if below[0] == int(right) else "  (wrong)"
        print(f"{title}: {below[1]}{wrong}")
        panels.append(Panel(files[place], title, below[1]))
    for place, name in ((1, "attacked"), (2, "attacked, knowing")):
        print(f"{name}: largest change {int(((files[place] - x[0]).abs() * 255).round().max())} of 255 grey levels")
    strip(*panels).save(given.out, optimize=True)
    print(f"written: {given.out}, {given.out.stat().st_size / 1000:.0f} kB")


def said(model: ss.Model, x: Tensor, names: list[str]) -> tuple[int, str]:
    """The likeliest class, and it with its share in words."""
    with torch.no_grad():
        share, number = model(x).softmax(1)[0].max(0)
    return int(number), f"{names[int(number)].partition(',')[0]}: {float(share):.0%}"


if __name__ == "__main__":
    main()
