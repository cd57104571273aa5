"""Does what has a large gradient fall? The dual norm of each example's gradient against what fell."""

import torch
from torch import Tensor

from signstep.auditing.diagnosed import GRADIENT_SIZE
from signstep.auditing.ranks import chance, spearman
from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import PIECE, Bench, median
from signstep.diagnosing.view import Shown, View, unseen
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel

TITLE = "Sizes of gradients"
BINS = 8
RANK, LINEAR = "gradient size and falling, rank correlation", "linear distance and falling, rank correlation"


def _run(bench: Bench) -> Shown:
    threat = bench.threat
    if not isinstance(threat, ThreatModel) or not isinstance(bench.x, Tensor) or bench.named is None:
        return unseen(TITLE, "it needs one input and one norm")
    index = bench.right.nonzero().squeeze(1)
    sizes, margins = [], []
    for start in range(0, len(index), PIECE):
        with bench.asking(index[start : start + PIECE]) as question:
            key = Key(bench.search.seed).fold("sizes")
            score, gradient = bench.gradient(question, question.x, key)
            g = question.region.restrict(gradient)
            assert isinstance(g, Tensor)
            sizes.append(threat.norm.dual_length(g).double().cpu())
            margins.append(score.ways.double().amin(1).cpu())
    size, margin = torch.nan_to_num(torch.cat(sizes)), torch.nan_to_num(torch.cat(margins))
    fell = bench.named.fooled[index].double()
    # The log-odds rise as fast as the margin falls, so that this is where the linear model puts the boundary.
    distance = margin / size.clamp_min(1e-30)
    rank, linear = spearman(size, fell), spearman(-distance, fell)
    eps = float(threat.eps) if isinstance(threat.eps, float) else None
    said = "has no order" if rank is None else f"is {rank:+.2f} (p {chance(size, fell):.2g})"
    linearly = "has no order" if linear is None else f"is {linear:+.2f} (p {chance(-distance, fell):.2g})"
    down, up = _of(size, fell > 0), _of(size, fell == 0)
    text = [
        f"Of {len(index)} examples that are right untouched {int(fell.sum())} fell to {bench.named.spec}. Dual norm of "
        f"the gradient: median {median(size):.3g}, of those that fell {down}, of the others {up}.",
        f"The rank correlation of that size with falling {said}; that of the linear model's distance, margin over "
        f"size, {linearly}.",
    ]
    if rank is None:
        text.append("All of them fell, or none, or all have one size: there is nothing to be told apart.")
    elif chance(size, fell) >= 0.01:
        text.append("That is no more than chance: here the size of the gradient does not say who falls.")
    if eps is not None:
        reached = int((distance <= eps).sum())
        text.append(f"The linear model puts the boundary of {reached} of {len(index)} within eps.")
    sections = [Section(TITLE, tuple(text), chart=_chart(size, fell))]
    measures = {GRADIENT_SIZE: median(size)}
    measures |= {} if rank is None else {RANK: rank}
    measures |= {} if linear is None else {LINEAR: linear}
    return Shown(tuple(sections), measures)


def _of(size: Tensor, rows: Tensor) -> str:
    return f"{median(size[rows]):.3g}" if bool(rows.any()) else "none"


def _chart(size: Tensor, fell: Tensor) -> Chart | None:
    """Who fell, by the size of the gradient, in groups of equal number."""
    order = size.argsort(stable=True)
    groups = [part for part in order.tensor_split(min(BINS, len(order))) if len(part)]
    if len(groups) < 2:
        return None
    shares = tuple(float(fell[part].mean()) for part in groups)
    names = tuple(f"{float(size[part].median()):.2g}" for part in groups)
    return Chart(
        "bars", "Share that fell, by size of the gradient", "Groups of equal number, by the dual norm of the gradient",
        "median dual norm of the group", "share that fell",
        (Line("fell", tuple(float(number) for number in range(len(groups))), shares),), categories=names,
    )  # fmt: skip


ROW = View(
    "gradients",
    TITLE,
    "Does what has a large gradient fall?",
    "Ross & Doshi-Velez 2018 (arXiv:1711.09404); Simon-Gabriel et al. 2019 (arXiv:1802.01421)",
    "1 forward and 1 backward on every right example",
    _run,
)
