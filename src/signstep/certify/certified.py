"""``certified``: rows for which no attack can succeed, by bounds on what the network can say anywhere in the ball."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from signstep.certify.methods import OPEN, method_of
from signstep.certify.proving import Prover
from signstep.engine import arrays
from signstep.engine.defaults import plain_tensor
from signstep.engine.origin import contained
from signstep.engine.region import BallRegion
from signstep.engine.tasks import Multiclass, class_indices
from signstep.engine.threat import ThreatModel
from signstep.engine.tree import wide
from signstep.engine.untouched import untouched
from signstep.engine.verify import verify
from signstep.errors import InputError, LabelError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.space import Statistic


@torch.no_grad()
@contained
def certified(
    model: Model | nn.Module,
    x: Tensor | arrays.Array,
    y: Tensor | arrays.Array,
    *,
    threat: ThreatModel,
    method: str = "interval",
    mean: Statistic = None,
    std: Statistic = None,
) -> Tensor:
    """Which rows keep their class anywhere in the ball: (R,) bool, True only where bounds prove it.

    An audit finds an upper limit of robust accuracy, this is a lower one; what lies between is open. False does not
    mean that the row can be fooled. A method tries the cheaper ones first, and each proves at least what those do:

    - "interval": a box goes through the network (Gowal et al. 2018, "On the Effectiveness of Interval Bound
      Propagation", section 3, with the last linear layer joined to the differences of classes). Cheap; it says much
      about networks trained with it (recipes ``mtl-ibp`` and ``ibp``) and next to nothing about any other.
    - "crown-ibp": lines around each activation between the ends of intervals, and linear bounds backwards through them
      (Zhang et al. 2018, "Efficient Neural Network Robustness Certification with General Activation Functions").
    - "crown": the same with the ends found by linear bounds too, layer by layer. The one to begin with.
    - "alpha": the slopes of lines below open rectifiers are chosen for each row and class (Xu et al. 2021, "Fast and
      Complete", section 3.2).
    - "exact": a mixed-integer program where few rectifiers are open (Tjeng et al. 2019), with the extra ``exact``.
    - "auto-lirpa": CROWN by auto_LiRPA, where you have it, on the box; believed as it stands.

    A certificate holds for the ball widened by what the checker of attacked points tolerates, in evaluation mode. It is
    taken in float64, rounded to the nearest: a margin counts only above a slack, 1e-6 of the scores' size and four
    times the difference between the model's own arithmetic and float64 that is seen at three points. Below that the
    row is open.

    Args:
        model: layers with a rule (`signstep.certify.bounds.rules`) that return scores (R, K); or an `ss.Model` of such.
        x: inputs (R, ...), raw, or as the model declares them.
        y: classes (R,).
        threat: a ball with box and mask, ``ss.linf(0.3)``; intervals take the box around an L2 or L1 ball, which is
            sound and loose, linear bounds the ball itself; of other norms all take the box.
        method: "interval", "crown-ibp", "crown", "alpha", "exact" or "auto-lirpa".
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
    declared, method = Model.of(model, mean=mean, std=std), method_of(method)
    network = layers_of(declared)
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
    seen, threat = space.to_search(x, threat), replace(threat, grid=None)
    region = BallRegion.around(seen, threat)
    prover = Prover(network, space.to_model, method)
    classes = class_indices(y, len(x), prover.classes(seen), "y")
    with untouched(network, mode="eval"):
        letters = prover.prove(sized(region, threat), classes, verify(seen, seen, threat.terms()).tolerance)
    return torch.tensor([letter != OPEN for letter in letters], dtype=torch.bool, device=x.device)


@contained
def certified_share(model: Model, batches: Iterable[tuple[Tensor, Tensor]], threat: ThreatModel) -> float:
    """The share of rows in batches of (x, y) that `certified` holds for, on the device of the model."""
    where = arrays.Home(model.network).device
    held = [certified(model, x.to(where), y.to(where), threat=threat) for x, y in batches]
    return float(torch.cat(held).float().mean())


def layers_of(declared: Model) -> nn.Module:
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
    if declared.transform is not None:
        raise InputError(
            Arg("transform"),
            f": inputs pass through {declared.transform}, and certified is about the network without it",
            remedy="leave the defence or transform out",
        )
    for name, fits, reason in (
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


def sized(region: BallRegion, threat: ThreatModel) -> BallRegion:
    """The region with eps as it was given, or as the search rounds it, whichever is larger."""
    radius = (
        wide(plain_tensor(threat.eps)) if isinstance(threat.eps, Tensor) else wide(region.radius).new_tensor(threat.eps)
    )
    return replace(region, radius=torch.maximum(wide(region.radius), radius.to(region.x.device)))
