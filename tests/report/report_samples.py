"""Records of every kind that a report must render, and a reader of the pages."""

from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.record import Examples
from signstep.engine.tasks import Regression
from signstep.report import write_report

HOSTILE = "<script>alert(1)</script>"
FILE = "a \"quoted\" 'file' & <b>.npz"


def linear(features: int, classes: int, *, gain: float = 1.0) -> nn.Module:
    """A seeded linear classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = nn.Linear(features, classes)
    with torch.no_grad():
        head.weight *= gain
    return nn.Sequential(nn.Flatten(), head).eval()


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


@cache
def images() -> tuple[ss.Result, dict[str, Tensor]]:
    """Colour images with hostile names; some labels are wrong, so that some clean answers are errors."""
    model, x, kept = linear(48, 5), noise(60, 3, 4, 4), Evidence()
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 5
    result = ss.audit(
        ss.Model(model, classes=(HOSTILE, "cat|dog", "a_b*c", "\u202egnp.exe", "na\u00efve"), name="module:net"),
        (x, y),
        threat=ss.linf("8/255"),
        attacks=("random-sign", "fgsm", "pgd:steps=5"),
        curve=ss.Curve(True, ("random-sign", "pgd:steps=5")),
        run=ss.Run(data=FILE, hashes={"weights": "ab" * 32, "data": "cd" * 32}, evidence=kept),
    )
    assert result.fooled
    return result, kept.tensors()


@cache
def targeted() -> tuple[ss.Result, dict[str, Tensor]]:
    model, x, kept = linear(48, 5), noise(40, 3, 4, 4), Evidence()
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 5
    result = ss.audit(
        model, (x, y), threat=ss.linf("32/255"), search=ss.Search(target="next"), run=ss.Run(evidence=kept)
    )
    return result, kept.tensors()


@cache
def predicted() -> ss.Result:
    return ss.audit(linear(6, 3), (noise(30, 6), None), threat=ss.l2(0.3), attacks=("fgsm",), curve=False)


@cache
def regression() -> ss.Result:
    """Answers in steps of 0.001, whose gradient is zero everywhere."""

    class Stepped(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.round(1000 * super().forward(x)) / 1000

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Stepped(5, 1).eval()
    x = noise(30, 5)
    return ss.audit(ss.Model(model, task=Regression(0.05)), (x, model(x).detach()), threat=ss.linf(0.1))


@cache
def several_inputs() -> ss.Result:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = linear(6, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            scores: Tensor = self.head(torch.cat([a, b], 1))
            return scores

    x = {"a": noise(20, 2), "b": noise(20, 4)}
    threat = {"a": ss.linf(0.1), "b": ss.l2(0.3)}
    return ss.audit(Two().eval(), [(x, torch.arange(20) % 3)], threat=threat)


@cache
def many_classes() -> ss.Result:
    model, x = linear(30, 40, gain=3.0), noise(200, 30)
    return ss.audit(model, (x, model(x).argmax(1)), threat=ss.linf(0.02, box=None), attacks=("fgsm", "pgd"))


@cache
def ladder() -> tuple[ss.Result, dict[str, Tensor]]:
    """Rungs of every kind, one of them with a name that is long, and points shown to another model of hostile name."""
    model, x, kept = linear(48, 5), noise(80, 3, 4, 4), Evidence()
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 5
    result = ss.audit(
        ss.Model(model, classes=(HOSTILE, "cat|dog", "a_b*c", "d", "e")),
        (x, y),
        threat=ss.l2(0.08),
        ladder=[
            "fgsm",
            "ddn:steps=10",
            "square:queries=40,restarts=2,start=best near<=0.9",
            "apgd:loss=margin,steps=9",
        ],
        engine="float32",
        run=ss.Run(transfer_to={HOSTILE: linear(48, 5, gain=2.0)}, evidence=kept),
    )
    assert 0 < result.held < result.clean_right
    return result, kept.tensors()


def empty() -> ss.Result:
    """No example at all: an audit refuses that, a record may still say so."""
    result, _ = images()
    none = tuple(
        replace(entry, fooled=0, held=0, undetermined=0, right_after=0, distance=None, gradients=0, dead_gradients=0)
        for entry in result.attacks
    )
    return replace(
        result,
        examples=0,
        clean_right=0,
        held=0,
        undetermined=0,
        attacks=none,
        curves={},
        per_example=Examples((), "", {entry.name: "" for entry in none}, ()),
    )


def all_kinds() -> dict[str, tuple[ss.Result, dict[str, Tensor] | None]]:
    """By name: a record and, for some, its points."""
    result, points = images()
    flat = {**points, "x": points["x"].flatten(1), "x_adv": points["x_adv"].flatten(1)}
    return {
        "images": (result, points),
        "no points": (result, None),
        "not images": (result, flat),
        "nothing kept": (result, {}),
        "partial": (replace(result, partial=True), points),
        "targeted": targeted(),
        "ladder": ladder(),
        "partial ladder": (replace(ladder()[0], partial=True, ladder="standard@1"), None),
        "predicted": (predicted(), None),
        "regression": (regression(), None),
        "several inputs": (several_inputs(), None),
        "many classes": (many_classes(), None),
        "empty": (empty(), None),
        "nothing right": (replace(result, clean_right=0, held=0, undetermined=0), None),
    }


@dataclass
class Page(HTMLParser):
    """Tables by the id of their caption, as rows of text; tags, attributes and text."""

    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    _rows: list[list[str]] = field(default_factory=list)
    _cell: bool = False
    _skip: bool = False

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = []
        if tag == "caption":
            self.tables[dict(attrs)["id"] or ""] = self._rows
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
            self._cell = True
        if tag == "span" and self._cell:
            self._rows[-1][-1] += " "
        self._skip = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")
        self._skip = False

    def handle_data(self, data: str) -> None:
        if self._skip:
            return
        self.text += data
        if self._cell:
            self._rows[-1][-1] += data

    def rows(self, ident: str) -> dict[str, list[str]]:
        """The body of a table by its first cell; spaces are plain."""
        plain = [[" ".join(cell.split()) for cell in row] for row in self.tables[ident]]
        return {row[0]: row[1:] for row in plain[1:]}


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def written(folder: Path, result: ss.Result, points: dict[str, Tensor] | None = None, **more: dict[str, str]) -> str:
    return write_report(result, folder, points=points, **more).read_text(encoding="utf-8")
