"""Which layer can stretch a change, and which one did: Lipschitz constants from below and from above."""

import math

from torch import Tensor, nn

from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import Bench
from signstep.diagnosing.landscape.bounds import above, below
from signstep.diagnosing.stain.moved import moved
from signstep.diagnosing.stain.taken import layer_of, names_of, shape_of
from signstep.diagnosing.view import Shown, View, unseen

TITLE = "How far each layer can stretch a change"
MOST = 64
PRODUCT = "product of layer bounds, log10"


def _run(bench: Bench) -> Shown:
    if not names_of(bench.model.network):
        return unseen(TITLE, "the model is a function, and its layers cannot be seen")
    seen = moved(bench, draws=1)
    rows: list[tuple[str, str, str, str, str]] = []
    found: list[tuple[str, float, float | None]] = []
    for name in list(seen.clean.outside)[:MOST]:
        layer = layer_of(bench.model.network, name)
        if layer is None:
            continue
        shape = shape_of(seen.clean, name)
        did = max(_stretched(seen.clean.inside[name], one.inside[name], seen.clean.outside[name], one.outside[name])
                  for one in (seen.attacked, *seen.noisy) if name in one.outside)  # fmt: skip
        least, most = _least(layer, shape, did), above(layer, shape)
        rows.append((name, type(layer).__name__, f"{did:.3g}", f"{least:.3g}", _said(most)))
        found.append((name, least, most))
    if not rows:
        return unseen(TITLE, "no layer sees a row for each example")
    finite = [most for _, _, most in found if most is not None and math.isfinite(most) and most > 0]
    known = all(most is not None for _, _, most in found)
    endless = [name for name, _, most in found if most == math.inf]
    text = [
        "In L2. Did: what the layer made of the attack's change or of noise, at most. From below: what it does to "
        "some change, by power iteration at the real stride and padding; other layers show what they did. From above: "
        "proved.",
    ]
    if endless or seen.clean.maps:
        where = f": {', '.join(endless[:4])}" if endless else f", and {len(seen.clean.maps)} maps were seen"
        text.append(f"Dot-product attention has no finite constant (Kim et al. 2021){where}.")
    measures = {}
    if known and finite and not endless and _chain(bench.model.network):
        measures[PRODUCT] = sum(math.log10(most) for most in finite)
        whole = f"10^{measures[PRODUCT]:.1f}"
        text.append(f"The layers follow each other, so the network stretches by at most their product, {whole}.")
    lines = (
        Line("did", tuple(map(float, range(len(rows)))), tuple(_log(float(row[2])) for row in rows)),
        Line("from below", tuple(map(float, range(len(rows)))), tuple(_log(least) for _, least, _ in found)),
        Line("from above", tuple(map(float, range(len(rows)))), tuple(_log(most) for _, _, most in found)),
    )
    chart = Chart(
        "dots", "How far each layer stretches", "Stretch of each layer, log10", "layer, in the order of the network",
        "log10 of the stretch", lines,
    )  # fmt: skip
    header = ("layer", "kind", "did", "from below", "from above")
    return Shown((Section(TITLE, tuple(text), header, tuple(rows), chart),), measures)


def _chain(network: object) -> bool:
    """Whether a network is its layers one after the other, so that their constants may be multiplied."""
    if not isinstance(network, nn.Sequential):
        return False
    return all(not list(part.children()) or _chain(part) for part in network)


def _stretched(before: Tensor, after: Tensor, said: Tensor, says: Tensor) -> float:
    """The largest of ||f(x') - f(x)|| / ||x' - x|| over the rows."""
    into = (after - before).flatten(1).norm(dim=1)
    out = (says - said).flatten(1).norm(dim=1)
    ratio = (out / into.clamp_min(1e-30)).nan_to_num(0.0, 0.0, 0.0)
    # Below, it is rounding that is stretched.
    small = into <= 1e-6 * before.flatten(1).norm(dim=1)
    return float(ratio.masked_fill(small, 0.0).max()) if len(ratio) else 0.0


def _least(layer: nn.Module, shape: tuple[int, ...], did: float) -> float:
    found = below(layer, shape)
    return did if found is None else max(found, did)


def _said(most: float | None) -> str:
    return "not known" if most is None else "none" if most == math.inf else f"{most:.3g}"


def _log(value: float | None) -> float | None:
    return math.log10(value) if value is not None and 0 < value < math.inf else None


ROW = View(
    "layers",
    TITLE,
    "Which layer can stretch a change, and which one did?",
    "Szegedy et al. 2014 (arXiv:1312.6199), section 4.3; Kim et al. 2021 (arXiv:2006.04710)",
    "4 forwards on 32 examples, and the attack once",
    _run,
)
