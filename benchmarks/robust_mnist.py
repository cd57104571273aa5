"""Robust training on MNIST and Fashion-MNIST, from the data of ../shared to audited figures, over seeds.

    published   FGSM-RS as Wong, Rice & Kolter (2020) published it for MNIST: small network, 10 epochs, eps 0.3; and the
                same without this library's trainer, as one writes it by hand
    single      single-step candidates beside FGSM-RS at equal steps, schedule, averaging and smoothing
    budget      the most robust network for about 15 minutes on two cores
    collapse    FGSM from the clean point: when the collapse is called, and what is left of it after the recovery
    fashion     `single` and `collapse` on Fashion-MNIST at eps 0.1

Every model is audited on the first test images, at the eps of the question, whatever it was trained at. Nothing here
was chosen by test images: `fit` picks the weights by rows that it holds out of the training data.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from harness import machine, need_shared, percent, table
from signstep.certify.certified import certified_share
from signstep.data import open_data
from signstep.engine.untouched import untouched
from signstep.networks.small import mnist_cnn
from signstep.train import Settings, Trained, fit, training_recipe
from signstep.train.loop import Moment

# Steps are relative to eps: 0.01 of 0.3, as published.
PGD = "pgd:steps=50,restarts=10,step=0.0333"
SQUARE = "square:queries=5000"
BATCH = 250


def pointwise_cnn() -> nn.Sequential:
    """Two 1x1 convolutions before two strided ones: what to make of one pixel is learnt by itself."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.ReLU(),
        *strided_cnn(48, 96),
    )


def narrow_pointwise_cnn() -> nn.Sequential:
    """One 1x1 convolution instead, and less after it."""
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), *strided_cnn(32, 64))


def strided_cnn(first: int, second: int) -> nn.Sequential:
    """What follows them, on four maps."""
    return nn.Sequential(
        nn.Conv2d(4, first, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(first, second, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(49 * second, 200),
        nn.ReLU(),
        nn.Linear(200, 10),
    )


def centre(model: nn.Sequential, x: Tensor) -> None:
    """Set the biases of hidden layers so that each unit's inputs to its rectifier have the mean 0: none begins dead.

    Over grey values for 1x1 convolutions, since most pixels are black, and over images x for what follows (in the
    manner of Mishkin & Matas 2016, "All you need is a good init").
    """
    greys, images = torch.linspace(0, 1, 101).view(1, 1, 1, -1), x
    pointwise = True
    with torch.no_grad():
        for layer in list(model)[:-1]:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                pointwise = pointwise and isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
                seen = layer(greys if pointwise else images)
                layer.bias -= seen.transpose(0, 1).flatten(1).mean(1)
            greys = layer(greys) if pointwise else greys
            images = layer(images)


# As in the authors' program: Adam, the rate up to 0.005 at 40 % of the run and down to 0. One row in sixty is held out.
PUBLISHED = Settings(epochs=10, batch=100, rate=5e-3, peak=0.4, validation=1 / 60)


@dataclass(frozen=True)
class Plan:
    """A training to be measured.

    Attributes:
        title: in the tables.
        recipe: of training.
        eps: that it is audited at.
        reach: radius of training in units of that.
        settings: of the run; the seed is put in.
        build: the network.
        data: folder of ../shared/data.
        centred: whether the network's units are centred on training images first.
        bare: FGSM-RS by hand, on all rows and with its last weights, whatever recipe and settings say.
    """

    title: str
    recipe: str
    eps: float = 0.3
    reach: float = 1.0
    settings: Settings = field(default_factory=lambda: PUBLISHED)
    build: Callable[[], nn.Module] = mnist_cnn
    data: str = "mnist"
    centred: bool = False
    bare: bool = False


# As published means as it comes: a collapse is recorded, and nothing is done about it.
RS = Plan("FGSM-RS as published", "fgsm-rs", settings=replace(PUBLISHED, on_collapse="ignore"))
BARE = replace(RS, title="FGSM-RS by hand", bare=True)
# Half the steps, and weights averaged: both alike. Over 10 epochs the second one collapses on some seeds.
SHORT = replace(PUBLISHED, epochs=5, average=0.998, on_collapse="ignore")
BASE = replace(RS, title="FGSM-RS, averaged", settings=SHORT)
BEST = replace(
    BASE,
    title="FGSM-RS, step 1, radius warmed up to 7/6, averaged",
    recipe="fgsm-rs:step=1",
    reach=7 / 6,
    settings=replace(SHORT, warm_up=0.4),
)
# Ten epochs, as FGSM-RS has; bounds want a small eps while the rate is at its top.
BOUNDED = Plan(
    "MTL-IBP, weight 0.1, radius warmed up to 1.1, averaged",
    "mtl-ibp:weight=0.1",
    reach=1.1,
    settings=replace(PUBLISHED, rate=2e-3, peak=0.1, warm_up=0.5, average=0.999, on_collapse="ignore"),
)
ZERO = Plan("FGSM from the clean point", "fgsm")
BUDGET = Plan(
    "pointwise network, MTL-IBP",
    "mtl-ibp:weight=0.25,fade=0.2",
    reach=1.1,
    settings=Settings(
        epochs=26,
        batch=128,
        rate=2e-3,
        peak=0.1,
        average=0.999,
        hold=0.05,
        warm_up=0.4,
        max_norm=10.0,
        focus=2.0,
        crop=1,
        augment=0.7,
        autocast="bfloat16",
        channels_last=True,
        validation=1 / 60,
    ),
    build=pointwise_cnn,
    centred=True,
)
PGD_BUDGET = Plan(
    "one 1x1 convolution, PGD-AT",
    "pgd-at:steps=3,step=0.5",
    reach=7 / 6,
    settings=Settings(
        epochs=20, batch=100, rate=4e-3, average=0.999, warm_up=0.4, autocast="bfloat16", validation=1 / 60
    ),
    build=narrow_pointwise_cnn,
)


def on_fashion(plan: Plan) -> Plan:
    return replace(plan, title=f"{plan.title}, Fashion", eps=0.1, data="fashion-mnist")


FIGURES: dict[str, tuple[Plan, ...]] = {
    "published": (RS, BARE),
    "single": (BASE, BEST, BOUNDED),
    "budget": (BUDGET, PGD_BUDGET),
    "collapse": (RS, ZERO),
    "fashion": (on_fashion(BASE), on_fashion(BEST), on_fashion(ZERO)),
}


@dataclass
class Onset:
    """Watches a run from outside for the first step at which PGD-20 accuracy is below half of FGSM accuracy.

    Before the model answers a quarter of FGSM's points rightly there is nothing that could part.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    every: int = 10
    first: int | None = None
    called: int | None = None

    def __call__(self, moment: Moment) -> None:
        """Look, until the parting is found or the library has called it."""
        if moment.event is not None and self.called is None:
            self.called = moment.event.step
        if self.called is not None or self.first is not None or moment.step % self.every:
            return
        right = {}
        with untouched(self.model):
            for recipe in ("fgsm", "pgd:steps=20"):
                result = ss.attack(self.model, self.x, self.y, threat=ss.linf(self.eps), recipe=recipe)
                right[recipe] = int((~result.fooled).sum())
        if right["fgsm"] >= len(self.x) / 4 and right["pgd:steps=20"] < right["fgsm"] / 2:
            self.first = moment.step


def read(name: str, split: str) -> tuple[Tensor, Tensor]:
    source = open_data(need_shared("data", name), split=split, batch_size=1000)
    return torch.cat([x for x, _ in source]), source.labels


def by_hand(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> nn.Module:
    """Wong, Rice & Kolter 2020, algorithm 3, with what their program adds for MNIST."""
    optimiser = torch.optim.Adam(model.parameters())
    steps = len(x) // PUBLISHED.batch
    total = PUBLISHED.epochs * steps
    for epoch in range(PUBLISHED.epochs):
        for place, rows in enumerate(torch.randperm(len(x))[: steps * PUBLISHED.batch].chunk(steps)):
            part, labels = x[rows], y[rows]
            optimiser.param_groups[0]["lr"] = PUBLISHED.rate * PUBLISHED.factor(epoch * steps + place, total)
            d = torch.empty_like(part).uniform_(-eps, eps).requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(part + d), labels), d)
            d = torch.clamp(d.detach() + 1.25 * eps * gradient.sign(), -eps, eps)
            optimiser.zero_grad()
            F.cross_entropy(model(torch.clamp(part + d, 0, 1)), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.eval()


def trained(plan: Plan, seed: int, folder: Path | None) -> tuple[nn.Module, Trained | None, dict[str, object]]:
    """A model, and what its training took and went through."""
    torch.manual_seed(seed)
    model = plan.build()
    x, y = read(plan.data, "train")
    if plan.centred:
        assert isinstance(model, nn.Sequential)
        centre(model, x[:500])
    if plan.bare:
        wall, cpu = time.perf_counter(), time.process_time()
        by_hand(model, x, y, plan.eps)
        took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        return model, None, {**took, "onset": None, "called": None, "events": []}
    settings = replace(plan.settings, seed=seed)
    onset = Onset(model, x[:200], y[:200], plan.eps)
    wall, cpu = time.perf_counter(), time.process_time()
    record = fit(
        model,
        x,
        y,
        threat=ss.linf(plan.eps * plan.reach),
        recipe=plan.recipe,
        settings=settings,
        folder=folder,
        watch=onset if plan.recipe == "fgsm" else None,
    )
    return (
        model,
        record,
        {
            "seconds": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "onset": onset.first,
            "called": onset.called,
            "events": [str(event) for event in record.events],
        },
    )


def measured(model: nn.Module, plan: Plan, images: int, square: int, engine: str, *, whole: bool) -> dict[str, object]:
    """Clean accuracy on all test images; robust on the first ones, and with ``whole`` on all of them too."""
    x, y = read(plan.data, "test")
    with untouched(model), torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in torch.split(x, 1000)])
    found: dict[str, object] = {"clean": float((answers == y).float().mean())}
    ladders: tuple[tuple[str, str | Sequence[str], int], ...] = (
        ("standard@1", "standard@1", images),
        ("pgd", [PGD], images),
        ("square", [SQUARE], square),
        ("standard@1, all", "standard@1", len(x) if whole else 0),
    )
    for name, ladder, count in ladders:
        if count:
            batches = list(zip(torch.split(x[:count], BATCH), torch.split(y[:count], BATCH), strict=True))
            result = ss.audit(
                model,
                batches,
                threat=ss.linf(plan.eps),
                ladder=ladder,
                curve=False,
                engine="fast" if engine == "fast" else "exact",
            )
            found[name] = result.robust_accuracy
    if training_recipe(plan.recipe).objective == "bounded":
        for name, count in (("certified", images), ("certified, all", len(x) if whole else 0)):
            if count:
                rows = list(zip(torch.split(x[:count], BATCH), torch.split(y[:count], BATCH), strict=True))
                found[name] = certified_share(ss.Model(model), rows, ss.linf(plan.eps))
    return found


def line(name: str, values: Sequence[float]) -> tuple[str, ...]:
    spread = percent(statistics.stdev(values)) if len(values) > 1 else "-"
    return name, percent(statistics.mean(values)), spread, percent(min(values)), percent(max(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--seeds", default="0,1,2,3,4", help="with commas")
    parser.add_argument("--only", help="of the trainings of the figure, those whose title begins so")
    parser.add_argument("--images", type=int, default=1000, help="test images of standard@1 and PGD-50-10")
    parser.add_argument("--square", type=int, default=1000, help="test images of Square at 5,000 queries; 0 for none")
    parser.add_argument("--whole", action="store_true", help="standard@1 on all 10,000 test images as well")
    parser.add_argument("--epochs", type=int, help="other than planned")
    parser.add_argument("--engine", choices=("exact", "fast"), default="fast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for weights and results; what lies there is not done again")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(machine(), flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    for plan in FIGURES[options.figure]:
        if options.only is not None and not plan.title.startswith(options.only):
            continue
        if options.epochs is not None:
            plan = replace(plan, settings=replace(plan.settings, epochs=options.epochs))  # noqa: PLW2901
        rows: list[dict[str, object]] = []
        for seed in (int(part) for part in options.seeds.split(",")):
            stem = f"{plan.title}, {plan.settings.epochs} epochs, seed {seed}".replace("/", "-").replace(" ", "_")
            known = None if options.out is None else options.out / f"{stem}.json"
            if known is not None and known.exists():
                rows.append(json.loads(known.read_text()))
                continue
            model, record, found = trained(plan, seed, None if known is None else known.with_suffix(""))
            went = "" if record is None else f"; {record.overfitting}; {record.notes}"
            print(f"  seed {seed}: {found['seconds']:.0f} s{went}", flush=True)
            if known is not None:
                save_file(
                    {name: part.contiguous() for name, part in model.state_dict().items()},
                    known.with_suffix(".safetensors"),
                )
            found |= measured(model, plan, options.images, options.square, options.engine, whole=options.whole)
            print(f"  seed {seed}: {found}", flush=True)
            rows.append(found)
            if known is not None:
                known.write_text(json.dumps(found))
        print(f"\n{plan.title}: seeds {options.seeds}, eps {plan.eps}, first {options.images} test images")
        shares = [
            name
            for name in ("clean", "standard@1", "pgd", "square", "standard@1, all", "certified", "certified, all")
            if all(name in row for row in rows)
        ]
        body = [line(name, [float(str(row[name])) for row in rows]) for name in shares]
        print(table(("%", "mean", "deviation", "least", "most"), body))
        print("training seconds", [round(float(str(row["seconds"]))) for row in rows], "\n", flush=True)
        for row in rows:
            if row["called"] is not None or row["events"]:
                print(f"parted at {row['onset']}, called at {row['called']}: {row['events']}\n", flush=True)


if __name__ == "__main__":
    main()
