"""A small network that was shown clean and attacked rows: the odds that a row is an attacked one.

It reads penultimate features, scaled, and the sorted logits. With ``rounds`` above 0 the detector is attacked by
somebody who knows it after each training, and trained on what came of that as well (RADAR's idea).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from signstep.api import attack
from signstep.detectors.detector import Detector
from signstep.detectors.evading import knowing_points
from signstep.detectors.policy import Policy
from signstep.detectors.rule import DetectorRow, Fitting, whole
from signstep.detectors.seen import Reader, Seen
from signstep.errors import InputError
from signstep.model.search import Search

_NAME = "learned"
_RATE, _WEIGHT_DECAY = 0.01, 1e-3


@dataclass(frozen=True, eq=False)
class Learned:
    """Two layers: (D, H) and (H,), over inputs less ``mean`` over ``spread`` (D,)."""

    mean: Tensor
    spread: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    passes: int = 0

    @property
    def state(self) -> Mapping[str, Tensor]:
        """All of them."""
        return {
            "mean": self.mean,
            "spread": self.spread,
            "first": self.first,
            "first_bias": self.first_bias,
            "second": self.second,
        }

    def scores(self, seen: Seen) -> Tensor:
        """Log-odds (R,) up to a constant."""
        return self.odds(shown(seen))

    def odds(self, x: Tensor) -> Tensor:
        """The same of what is shown, (R, D)."""
        scaled = (x - self.mean.to(x)) / self.spread.to(x)
        hidden = functional.softplus(scaled @ self.first.to(x) + self.first_bias.to(x))
        return hidden @ self.second.to(x)

    def surrogate(self, seen: Seen) -> Tensor:
        """The same."""
        return self.scores(seen)


def shown(seen: Seen) -> Tensor:
    """What the network is shown of each row: its features and its sorted logits less the largest, (R, D)."""
    ordered = seen.logits.sort(1, descending=True).values
    return torch.cat([seen.features, torch.nan_to_num(ordered[:, 1:] - ordered[:, :1], neginf=-1e4)], 1)


def fit(fitting: Fitting, *, hidden: int = 32, steps: int = 300, rounds: int = 0) -> Learned:
    """Attack the fit half by each recipe, and learn to tell the points that fooled the model from the rows.

    Raises:
        InputError: fewer than 10 points fooled the model.
    """
    for name, value, least in (("hidden", hidden, 1), ("steps", steps, 1), ("rounds", rounds, 0)):
        whole(name, value, least, _NAME)
    clean = fitting.over(shown)
    labels = fitting.classed()
    attacked = [fitting.over(shown, points) for points in _points(fitting, labels)]
    made = _trained(clean, torch.cat(attacked), hidden, steps, fitting.seed)
    for number in range(rounds):
        scores = made.odds(clean).double().cpu().sort().values
        stand_in = Detector(_NAME, {}, scores, {"model": "", "preprocessing": ""}, made, fitting.reader)
        policy = Policy(detectors=[stand_in], reject=0.1)
        assert fitting.threat is not None
        points = knowing_points(policy, fitting.raw, labels, fitting.threat, fitting.seed + number)
        if len(points):
            attacked.append(fitting.over(shown, points))
        made = _trained(clean, torch.cat(attacked), hidden, steps, fitting.seed)
    return made


def _points(fitting: Fitting, labels: Tensor) -> list[Tensor]:
    """By recipe, the attacked rows that fooled the model."""
    assert fitting.threat is not None
    declared = fitting.reader.model
    x = fitting.reader.space.normalise(fitting.raw) if declared.inputs == "normalised" else fitting.raw
    found = []
    for recipe in fitting.recipes:
        outcome = attack(declared, x, labels, threat=fitting.threat, recipe=recipe, search=Search(seed=fitting.seed))
        assert isinstance(outcome.x, Tensor)
        found.append(outcome.x[outcome.fooled])
    count = sum(map(len, found))
    if count < 10:
        raise InputError(
            f"only {count} attacked rows fooled the model, too few to learn from",
            remedy="pass more rows, stronger attacks or a larger threat",
            where=_NAME,
        )
    return found


def _trained(clean: Tensor, attacked: Tensor, hidden: int, steps: int, seed: int) -> Learned:
    """Full-batch Adam on cross-entropy, in which both kinds weigh the same."""
    with torch.inference_mode(False), torch.enable_grad():
        draws = torch.Generator().manual_seed(seed)
        x = torch.cat([clean, attacked]).detach().float().clone()
        size = x.shape[1]
        mean, spread = x.mean(0), x.std(0).clamp_min(1e-3)

        def drawn(*shape: int, scale: float) -> Tensor:
            made = torch.randn(*shape, generator=draws, dtype=torch.float32, device="cpu") * scale
            return made.to(x.device).requires_grad_()

        first, second = drawn(size, hidden, scale=size**-0.5), drawn(hidden, scale=hidden**-0.5)
        bias, offset = drawn(hidden, scale=0.0), drawn(1, scale=0.0)
        target = torch.cat([torch.zeros_like(x[: len(clean), 0]), torch.ones_like(x[len(clean) :, 0])])
        weight = torch.where(target > 0, 0.5 / len(attacked), 0.5 / len(clean))
        step = torch.optim.Adam([first, bias, second, offset], lr=_RATE, weight_decay=_WEIGHT_DECAY)
        for _ in range(steps):
            made = Learned(mean, spread, first, bias, second)
            loss = functional.binary_cross_entropy_with_logits(made.odds(x) + offset, target, weight, reduction="sum")
            step.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            step.step()
    return Learned(mean, spread, first.detach(), bias.detach(), second.detach())


def restore(
    state: Mapping[str, Tensor],
    other: Reader | None,  # noqa: ARG001
    *,
    hidden: int = 32,
    steps: int = 300,  # noqa: ARG001
    rounds: int = 0,  # noqa: ARG001
) -> Learned:
    """From its weights."""
    made = Learned(state["mean"], state["spread"], state["first"], state["first_bias"], state["second"])
    size = len(made.mean)
    if made.first.shape != (size, hidden) or made.second.shape != (hidden,) or made.spread.shape != (size,):
        raise ValueError("its weights do not fit each other")
    return made


ROW = DetectorRow(
    _NAME,
    fit,
    restore,
    "a small network trained on clean and attacked rows",
    "Metzen et al. 2017 (arXiv:1702.04267); with rounds: Chen et al. 2024 (arXiv:2404.12120)",
    "Carlini & Wagner 2017 (arXiv:1705.07263): it learns the attacks that it was shown",
    "features",
    trained_on_attacks=True,
)
