"""Two strips of tape that make a stop sign a speed limit, before a camera.

Signs are drawn here, a small network learns to tell them apart in seconds, and tape may show anything inside its two
strips (Eykholt et al. 2018, arXiv:1707.08945): it is searched for through a declared camera, printed as PNG, read back,
and judged by fresh views that no search has used, beside the bare sign and tape of random colours. Needs Pillow, the
extra ``images``.

    python examples/sticker.py --out sticker.png
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import signstep as ss
from signstep.engine.counts import Count
from signstep.engine.keys import Key
from signstep.export import read_png, write_png

SIDE, FINE = 48, 4  # pixels of a sign, and how many finer it is drawn
SHOWN, GAP, CAPTION = 144, 8, 44
BACKGROUND = (146, 158, 168)
CAMERA = ss.transforms.print_view_camera()


def octagon(draw: ImageDraw.ImageDraw, side: int) -> None:
    """A stop sign."""
    draw.regular_polygon((side / 2, side / 2, side * 0.46), 8, fill="#b01020", outline="white", width=5)
    draw.text((side / 2, side / 2), "STOP", "white", ImageFont.load_default(side // 4), anchor="mm", stroke_width=1)


def limit(draw: ImageDraw.ImageDraw, side: int) -> None:
    """A speed limit."""
    draw.ellipse((side * 0.06, side * 0.06, side * 0.94, side * 0.94), "white", "#c01020", side // 9)
    draw.text((side / 2, side / 2), "30", "black", ImageFont.load_default(side // 2), anchor="mm", stroke_width=1)


def triangle(draw: ImageDraw.ImageDraw, side: int) -> None:
    """Give way."""
    draw.regular_polygon((side / 2, side * 0.38, side * 0.5), 3, rotation=180, fill="#c01020")
    draw.regular_polygon((side / 2, side * 0.38, side * 0.3), 3, rotation=180, fill="white")


def bar(draw: ImageDraw.ImageDraw, side: int) -> None:
    """No entry."""
    draw.ellipse((side * 0.06, side * 0.06, side * 0.94, side * 0.94), "#b01020")
    draw.rectangle((side * 0.2, side * 0.42, side * 0.8, side * 0.58), "white")


def diamond(draw: ImageDraw.ImageDraw, side: int) -> None:
    """A priority road."""
    draw.regular_polygon((side / 2, side / 2, side * 0.47), 4, rotation=45, fill="white", outline="black", width=2)
    draw.regular_polygon((side / 2, side / 2, side * 0.33), 4, rotation=45, fill="#f0b000")


SIGNS: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "stop": octagon,
    "speed limit 30": limit,
    "give way": triangle,
    "no entry": bar,
    "priority road": diamond,
}


def sign(name: str, background: tuple[int, int, int] = BACKGROUND) -> Tensor:
    """A sign as (3, 48, 48) in [0, 1]."""
    image = Image.new("RGB", (SIDE * FINE, SIDE * FINE), background)
    SIGNS[name](ImageDraw.Draw(image), SIDE * FINE)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(SIDE, SIDE, 3).permute(2, 0, 1) / 255


def trained(steps: int, seed: int) -> nn.Module:
    """A network for the signs, before any background and any camera that is declared."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, len(SIGNS))),
        )
        colours = [tuple(torch.randint(40, 216, (3,)).tolist()) for _ in range(12)]
        x = torch.stack([sign(name, colour) for colour in colours for name in SIGNS])
        y = torch.arange(len(SIGNS)).repeat(len(colours))
        optimiser = torch.optim.Adam(network.parameters(), 2e-3)
        for step in range(steps):
            seen = views(x, Key(seed).fold("training", step))
            optimiser.zero_grad()
            torch.autograd.backward([nn.functional.cross_entropy(network(seen), y)])
            optimiser.step()
    return network.eval()


def views(x: Tensor, key: Key) -> Tensor:
    """Images as the camera sees them, each by a draw of its own."""
    return CAMERA(x, key.draws(torch.arange(len(x)), x.device))


def tape() -> Tensor:
    """Where the tape is: two strips, above and below the word; bool (3, 48, 48)."""
    mask = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    mask[:, 7:17, 11:37] = True
    mask[:, 31:41, 11:37] = True
    return mask


@dataclass(frozen=True)
class Judged:
    """What the network says of fresh views of a sign.

    Attributes:
        wanted: views that it takes for the sign that the tape is to make of it.
        kept: views that it takes for what it is.
    """

    wanted: Count
    kept: Count

    @classmethod
    def of(cls, network: nn.Module, x: Tensor, source: int, target: int, count: int, seed: int) -> "Judged":
        """Ask the network about so many views of one picture, drawn from the seed alone."""
        with torch.no_grad():
            said = network(views(x.expand(count, -1, -1, -1), Key(seed).fold("judged"))).argmax(1)
        return cls(Count(int((said == target).sum()), count), Count(int((said == source).sum()), count))


def main(arguments: list[str] | None = None) -> None:
    """Search for the tape, print what fresh views of the PNG say, and draw the strip."""
    parser = argparse.ArgumentParser(description="Tape on a sign, searched for through a declared camera.")
    parser.add_argument("--sign", default="stop", choices=SIGNS, help="the sign that is taped")
    parser.add_argument("--target", default="speed limit 30", choices=SIGNS, help="what it is to pass for")
    parser.add_argument("--train", type=int, default=150, help="steps of training")
    parser.add_argument("--steps", type=int, default=100, help="steps of the search")
    parser.add_argument("--eot", type=int, default=16, help="views that each step of the search sees")
    parser.add_argument("--views", type=int, default=200, help="fresh views that judge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("sticker.png"))
    given = parser.parse_args(arguments)
    if given.sign == given.target:
        parser.error(f"--target {given.target!r} is the sign itself")

    names, mask, x = list(SIGNS), tape(), sign(given.sign)[None]
    source, target = names.index(given.sign), names.index(given.target)
    network = trained(given.train, given.seed)
    # Climbed to its end: an attack would stop at the first tape that most views take for the target.
    likely = ss.Model(lambda u: network(u).log_softmax(1)[:, target], transform=CAMERA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ss.SignstepWarning)  # as large as the box: tape may show anything
        threat = ss.linf(1.0, mask=mask, grid=255)
    recipe = f"pgd:steps={given.steps},step=0.1"
    found = ss.maximise(likely, x, threat, recipe, search=ss.Search(eot=given.eot, seed=given.seed))
    assert isinstance(found.x, Tensor)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "taped.png")
        write_png(found.x, [path])
        taped = read_png([path])
    assert bool((((taped - x).abs() > 0) <= mask).all()), "something beside the tape has changed"
    noise = Key(given.seed).fold("random tape").draws(torch.zeros(1, dtype=torch.int64), x.device)
    random = torch.where(mask, noise.uniform("values", (3, SIDE, SIDE)), x)

    shown = {"the bare sign": x, "random tape": random, "the tape, read back from PNG": taped}
    judged = {
        name: Judged.of(network, picture, source, target, given.views, given.seed) for name, picture in shown.items()
    }
    share = float(mask.float().mean())
    print(f"{given.sign} -> {given.target}, tape on {share:.0%} of the picture, {given.views} fresh views")
    for name, seen in judged.items():
        print(f"  {name:<28}  {given.target}: {seen.wanted}")
        print(f"  {'':<28}  {given.sign}: {seen.kept}")
    strip(network, names, {"the sign": x, "random tape": random, "tape": taped}, judged, given).save(
        given.out, optimize=True
    )
    print(f"written: {given.out}, {given.out.stat().st_size / 1000:.0f} kB")


def strip(
    network: nn.Module,
    names: list[str],
    pictures: dict[str, Tensor],
    judged: dict[str, Judged],
    given: argparse.Namespace,
) -> Image.Image:
    """The three signs with their shares, and two views of the last, side by side on white."""
    panels = [
        (picture, title, f"{given.target}: {found.wanted.hits} of {found.wanted.of}")
        for (title, picture), found in zip(pictures.items(), judged.values(), strict=True)
    ]
    for view in views(pictures["tape"].expand(2, -1, -1, -1), Key(given.seed).fold("shown")):
        with torch.no_grad():
            share, number = network(view[None]).softmax(1)[0].max(0)
        panels.append((view[None], "tape, seen", f"{names[int(number)]}: {float(share):.0%}"))
    whole = Image.new("RGB", (len(panels) * (SHOWN + GAP) - GAP, SHOWN + CAPTION), "white")
    draw = ImageDraw.Draw(whole)
    for place, (picture, title, below) in enumerate(panels):
        left = place * (SHOWN + GAP)
        pixels = (picture[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        whole.paste(Image.fromarray(pixels).resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (left, 0))
        for line, (text, size, colour) in enumerate(((title, 12, "#555555"), (below, 12, "black"))):
            middle = (left + SHOWN / 2, SHOWN + 4 + 17 * line)
            draw.text(middle, text, colour, ImageFont.load_default(size), anchor="ma")
    return whole


if __name__ == "__main__":
    main()
