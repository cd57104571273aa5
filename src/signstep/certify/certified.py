"""``certified``: rows for which no attack can succeed, by interval bounds."""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from signstep.certify.bounds import bounds_on, ends, worst_margins
from signstep.engine import arrays
from signstep.engine.defaults import plain_tensor
from signstep.engine.origin import contained
from signstep.engine.region import BallRegion
from signstep.engine.tasks import Multiclass, class_indices
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import wide
from signstep.errors import InputError, LabelError, ModelError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.space import Statistic

_ROWS = 256
_ROUNDING = 1e-9  # float64, relative


@torch.no_grad()
@contained
def certified(
    model: Model | nn.Module,
    x: Tensor | arrays.Array,
    y: Tensor | arrays.Array,
    *,
    threat: ThreatModel,
    mean: Statistic = None,
    std: Statistic = None,
) -> Tensor:
    """Which rows keep their class anywhere in the ball: (R,) bool, True only where interval bounds show it.

    An audit finds an upper limit of robust accuracy, this is a lower one; what lies between is open. Intervals are the
    loosest of bounds: they say much about a network trained with them (recipes ``mtl-ibp`` and ``ibp``) and next to
    nothing about any other. False does not mean that the row can be fooled.

    Taken in evaluation mode on a copy of the model in float64, rounded to the nearest and not outwards: it speaks
    of the network as a function, not of the last bits of its own arithmetic.

    Source: Gowal et al. (2018), "On the Effectiveness of Interval Bound Propagation", section 3, with the last linear
    layer joined to the differences of classes.

    Args:
        model: layers with a rule (`signstep.certify.bounds.rules`) that return scores (R, K); or an `ss.Model` of such.
        x: inputs (R, ...), raw, or as the model declares them.
        y: classes (R,).
        threat: a ball with box and mask, ``ss.linf(0.3)``; of another norm the box around it is taken, which is sound
            and loose.
        mean: of a bare network: it wants (x - mean) / std.
        std: see ``mean``.

    Raises:
        InputError: x, y or threat do not fit.
        LabelError: a label is no class of the model.
        ScaleError: x lies outside the box.
        ModelError: no interval goes through a part of the model, or the model leaves its own bounds.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> x = torch.tensor([[0.9, 0.1], [0.6, 0.5]])
        >>> ss.certified(model, x, torch.tensor([0, 0]), threat=ss.linf(0.1))
        tensor([ True, False])
    """
    if not isinstance(model, (Model, nn.Module)):
        raise InputError(
            Arg("model"),
            f"is a {type(model).__name__}, and bounds go through layers",
            remedy="pass the nn.Module itself",
        )
    declared = Model.of(model, mean=mean, std=std)
    network = _layers(declared)
    if not isinstance(threat, ThreatModel) or threat.eps is None:
        raise InputError(
            Arg("threat", threat), ": a certificate needs a ball with an eps", remedy="pass one, such as ss.linf(0.3)"
        )
    x, y = arrays.one_tensor(x, arrays.Home(network)), arrays.labels(y)
    if y is None:
        raise LabelError(
            Arg("y"),
            "is None, and a certificate is about a class",
            remedy="pass one for each row, such as model(x).argmax(1)",
        )
    if not len(x) or x.ndim < 2:
        raise InputError(
            Arg("x"),
            f"is empty or has no dimension beside the examples, shape {tuple(x.shape)}",
            remedy="pass at least one example",
        )
    if y.is_floating_point():
        raise LabelError(
            Arg("y", y.dtype, of="dtype"), ", and a certificate is about a class", remedy="pass whole numbers, y.long()"
        )
    space = declared.space()
    region = _wide(BallRegion.around(space.to_search(x, threat), replace(threat, grid=None)), threat)
    low, high = (space.normalise(end) for end in ends(region))
    exact = copy.deepcopy(network).to(low.device).to(low.dtype).eval()
    classes = class_indices(y, len(x), _classes(exact, low[:1], high[:1]), "y").to(low.device)
    parts = zip(*(torch.split(part, _ROWS) for part in (low, high, classes)), strict=True)
    return torch.cat([_held(exact, *part) for part in parts]).to(x.device)


@contained
def certified_share(model: Model, batches: Iterable[tuple[Tensor, Tensor]], threat: ThreatModel) -> float:
    """The share of rows in batches of (x, y) that `certified` holds for, on the device of the model."""
    where = arrays.Home(model.network).device
    held = [certified(model, x.to(where), y.to(where), threat=threat) for x, y in batches]
    return float(torch.cat(held).float().mean())


def _layers(declared: Model) -> nn.Module:
    """The network to go through.

    Raises:
        InputError: the declaration says something that bounds know nothing of.
    """
    network = getattr(declared.network, "_orig_mod", declared.network)  # what torch.compile wraps
    if not isinstance(network, nn.Module):
        raise InputError(
            Arg("model"),
            f"is a {type(network).__name__}, and bounds go through layers",
            remedy="pass the nn.Module itself",
        )
    for name, fits, reason in (
        ("transform", declared.transform is None, "a certificate is about the network without it"),
        ("output", declared.output is None, "bounds go through layers to what the network returns"),
        ("outputs", declared.outputs in ("auto", "logits"), "no interval goes through a softmax"),
        ("task", declared.task in ("auto", "multiclass") or type(declared.task) is Multiclass, "it is about one class"),
        ("mode", declared.mode == "eval", "it is taken in evaluation mode"),
    ):
        if not fits:
            raise InputError(
                Arg(name, getattr(declared, name)), f"has no meaning for certified: {reason}", remedy="leave it out"
            )
    return network


def _wide(region: BallRegion, threat: ThreatModel) -> BallRegion:
    """The same region in float64, after x was checked in its own precision."""
    x = wide(region.x)
    radius = (
        wide(plain_tensor(threat.eps))
        if isinstance(threat.eps, Tensor)
        else torch.tensor(float(threat.eps or 0), dtype=torch.float32, device="cpu").double()
    )
    low, high = (None if end is None else wide(end) for end in (region.low, region.high))
    mask = None if region.mask is None else region.mask.to(x.device)
    return BallRegion(region.norm, x, radius.to(x.device).expand(len(x)), low, high, mask, None)


def _classes(model: nn.Module, low: Tensor, high: Tensor) -> int:
    """How many the model has; seen by its answer to one row."""
    shape = tuple(bounds_on(model, low, high).centre.shape)
    if len(shape) != 2 or shape[1] < 2:
        raise ModelError(
            f"the model's outputs have shape {shape} for one row",
            remedy="return scores (R, K), K > 1, as a certificate needs",
        )
    return shape[1]


def _held(model: nn.Module, low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    """No other class reaches this one anywhere in the box, (R,); NaN is no certificate.

    The model itself is asked at three points: a part that does not do what its type promises shows there.
    """
    margins, outputs = worst_margins(model, low, high, y), bounds_on(model, low, high)
    slack = _ROUNDING * (1 + outputs.centre.abs() + outputs.radius)
    for point in (low, (low + high) / 2, high):
        if bool(((model(point) - outputs.centre).abs() > outputs.radius + slack).any()):
            raise ModelError(
                f"{type(model).__name__} leaves its own bounds: a part of it does more than its layers say (a value "
                "overwritten, a random draw, code outside of the trace), and no certificate can be given",
                remedy="pass a model of plain layers",
            )
    return (margins.scatter(1, y.unsqueeze(1), -torch.inf) < 0).all(1)
