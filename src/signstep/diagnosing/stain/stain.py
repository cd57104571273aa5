"""The stain of an attack: how much each layer changes, against noise of the same size, and how locally."""

import torch
from torch import Tensor

from signstep.auditing.compare import holm
from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import Bench, median
from signstep.diagnosing.stain.attention import attended
from signstep.diagnosing.stain.effect import LEVEL, Effect, effect
from signstep.diagnosing.stain.maps import attention, clearest, ripples
from signstep.diagnosing.stain.moved import DRAWS, FEW, Alone, Moved, moved
from signstep.diagnosing.stain.taken import Taken, names_of
from signstep.diagnosing.view import Shown, View, unseen

TITLE = "What the attack does inside the network"
CROSSED = "From one input into the layers of the other"
LARGEST, FIRST = "stain, largest effect", "stain in the first layer, times noise"
LAST = "stain in the last layer, times noise"
# Rows of a table.
MOST = 64


def _run(bench: Bench) -> Shown:
    if not names_of(bench.model.network):
        return unseen(TITLE, "the model is a function, and its layers cannot be seen")
    seen = moved(bench)
    names = [name for name in seen.clean.outside if all(name in one.outside for one in (seen.attacked, *seen.noisy))]
    if not names:
        return unseen(TITLE, "no layer sees a row for each example")
    effects = {name: _effect(seen, name) for name in names}
    ps = holm([one.p for one in effects.values()])
    more = [name for (name, one), p in zip(effects.items(), ps, strict=True) if p < LEVEL and one.times > 1]
    strongest = max(effects, key=lambda name: effects[name].size)
    text = [
        f"The relative change of each layer's output under {seen.spec}, on {len(seen.size)} examples, over that under "
        f"random noise of the same size ({len(seen.noisy)} seeds; what is left of a difference in L2 is divided out).",
    ]
    if more:
        text.append(
            f"{len(more)} of {len(names)} layers change more under the attack than under noise (exact sign test, p < "
            f"{LEVEL} by Holm's rule); most of all {strongest}, {effects[strongest].times:.1f} times, effect size "
            f"{effects[strongest].size:.2f}."
        )
    else:
        text.append(
            f"Null result: no layer changes more under the attack than under noise of the same size (exact sign test, "
            f"p < {LEVEL} by Holm's rule over {len(names)} layers)."
        )
    rows = tuple(
        (name, f"{median(_relative(seen.clean, seen.attacked, name)):.3g}", f"{median(_noise(seen, name)):.3g}",
         f"{one.times:.2f}", f"{one.size:.2f}", f"{p:.2g}")
        for (name, one), p in zip(list(effects.items())[:MOST], ps, strict=False)
    )  # fmt: skip
    numbers = tuple(map(float, range(len(names))))
    lines = (
        Line("attack", numbers, tuple(median(_relative(seen.clean, seen.attacked, name)) for name in names)),
        Line("noise", numbers, tuple(median(_noise(seen, name)) for name in names)),
    )
    said = "Relative change of each layer, median"
    chart = Chart("dots", said, f"{said}, under attack and noise", "layer, in the order of the network", said, lines)
    header = ("layer", "attack", "noise", "times", "effect size", "p")
    sections = [Section(TITLE, tuple(text), header, rows, chart)]
    place, measures = _places(seen, names)
    sections += [place] if place is not None else []
    found, attentive = attended(seen)
    sections += [found] if found is not None else []
    row = clearest(seen.fell.tolist())
    sections += [*ripples(seen, row), *attention(seen, row)]
    crossed = _crossed(seen, names)
    sections += [crossed] if crossed is not None else []
    measures |= attentive | {
        LARGEST: effects[strongest].size,
        FIRST: effects[names[0]].times,
        LAST: effects[names[-1]].times,
    }
    return Shown(tuple(sections), measures)


def _relative(clean: Taken, other: Taken, name: str) -> Tensor:
    """||a' - a|| / ||a|| of a layer's output (R,)."""
    before, after = clean.outside[name].flatten(1), other.outside[name].flatten(1)
    far, whole = (torch.linalg.vector_norm(part, dim=1) for part in (after - before, before))
    found: Tensor = (far / whole.clamp_min(1e-30)).nan_to_num(0.0, 0.0, 0.0)
    return found


def _noise(seen: Moved, name: str, of: Moved | Alone | None = None) -> Tensor:
    """The mean over the seeds, at the attack's size in L2."""
    of = of or seen
    parts = [
        _relative(seen.clean, one, name) * of.size / size.clamp_min(1e-30)
        for one, size in zip(of.noisy, of.sizes, strict=True)
    ]
    return torch.stack(parts).mean(0).nan_to_num(0.0, 0.0, 0.0)


def _effect(seen: Moved, name: str) -> Effect:
    return effect(_relative(seen.clean, seen.attacked, name), _noise(seen, name))


def _places(seen: Moved, names: list[str]) -> tuple[Section | None, dict[str, float]]:
    """How local the change is, in layers with places: what it can reach, and where half of its energy lies."""
    rows = []
    ratios = []
    for name in [name for name in names if seen.clean.outside[name].ndim in (3, 4)][:MOST]:
        energy = _energy(seen.clean, seen.attacked, name)
        noise = torch.stack([_half(_energy(seen.clean, one, name)) for one in seen.noisy]).mean(0)
        half = _half(energy)
        reach = seen.reach.get(name)
        fits = reach is not None and reach.shape == seen.clean.outside[name].shape
        reached = _positions(reach.double()) > 0 if reach is not None and fits else None
        within = None if reached is None else (energy * reached).sum(1) / energy.sum(1).clamp_min(1e-300)
        rows.append((
            name,
            "not known" if reached is None else f"{float(reached.double().mean()):.0%}",
            "not known" if within is None else f"{float(within.median()):.0%}",
            f"{float(half.median()):.0%}",
            f"{float(noise.median()):.0%}",
        ))  # fmt: skip
        ratios.append(float((half / noise.clamp_min(1e-12)).median()))
    if not rows:
        return None, {}
    text = (
        "Within reach: places that a changed value of the input can touch at all (changed values are made NaN, and "
        "every place that becomes NaN is within reach). Half: the smallest share of places that holds half of the "
        "energy of the change, under the attack and under noise.",
    )
    header = ("layer", "within reach", "energy within", "half, attack", "half, noise")
    measures = {"half of the change in the last layer with places, attack over noise": ratios[-1]}
    return Section("How local the change is", text, header, tuple(rows)), measures


def _positions(part: Tensor) -> Tensor:
    """Of (R, C, H, W) the sum over channels (R, H * W); of tokens (R, T, D) over their width (R, T)."""
    return part.sum(1).flatten(1) if part.ndim == 4 else part.sum(2)


def _energy(clean: Taken, other: Taken, name: str) -> Tensor:
    return _positions((other.outside[name] - clean.outside[name]).square().nan_to_num(0.0, 0.0, 0.0))


def _half(energy: Tensor) -> Tensor:
    """The smallest share of places (R,) that holds half of the energy (R, P); 1 where there is none."""
    total = energy.sum(1, keepdim=True)
    held = energy.sort(1, descending=True).values.cumsum(1) >= total / 2
    count = (~held).sum(1).double() + 1
    return torch.where(total.squeeze(1) > 0, count / energy.shape[1], torch.ones_like(count))


def _crossed(seen: Moved, names: list[str]) -> Section | None:
    """Of several inputs: how much each layer changes where one of them alone moves, against noise in it alone."""
    if not seen.alone:
        return None
    effects = {
        (name, one): effect(_relative(seen.clean, alone.attacked, name), _noise(seen, name, alone))
        for one, alone in seen.alone.items()
        for name in names
        if all(name in taken.outside for taken in (alone.attacked, *alone.noisy))
    }
    ps = dict(zip(effects, holm([one.p for one in effects.values()]), strict=True))
    text = [
        "The relative change of each layer where one input alone is attacked and the others are untouched, and its "
        "ratio to that under noise of the same size in that input alone. A layer that does not change is none of that "
        "input's."
    ]
    for one in seen.alone:
        more = [name for name in names if (name, one) in ps and ps[name, one] < LEVEL and effects[name, one].times > 1]
        said = f"most of all {max(more, key=lambda name: effects[name, one].size)}" if more else "a null result"
        text.append(f"{one} alone changes {len(more)} of {len(names)} layers more than noise in it does: {said}.")

    def cells(name: str, one: str) -> tuple[str, str]:
        if (name, one) not in effects:
            return "-", "-"
        change = median(_relative(seen.clean, seen.alone[one].attacked, name))
        return f"{change:.3g}", f"{effects[name, one].times:.2f}" if change > 0 else "-"

    rows = tuple((name, *(cell for one in seen.alone for cell in cells(name, one))) for name in names[:MOST])
    header = ("layer", *(said for one in seen.alone for said in (f"{one} alone", f"{one} alone, times noise")))
    return Section(CROSSED, tuple(text), header, rows)


ROW = View(
    "stain",
    TITLE,
    "Which layers does the attack change, more than noise of the same size does?",
    "Ilyas et al. 2019 (arXiv:1905.02175); Cohen's d: Cohen 1988; a few large shifts: arXiv:2505.12586",
    f"the attack once and {DRAWS + 3} forwards, on {FEW} examples",
    _run,
)
