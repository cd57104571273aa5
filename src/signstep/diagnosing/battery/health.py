"""Where do gradients die?"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from signstep.diagnosing.battery.numerics import SHARES, WIDE, widened
from signstep.diagnosing.bench import Bench, Cure, TooDearError, flat
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.errors import GradientError

FEW = 32
# Of examples whose gradient has no usable coordinate.
DEAD = 0.1

SATURATED, VANISHED = "saturated loss", "vanishing gradients"


def _run(bench: Bench) -> Observed:
    if bench.form == "labels":
        return not_asked("the model answers with labels alone, and they have no gradient")
    index = bench.few(FEW)
    try:
        found = _gradients(bench, index, bench.search.loss)
    except GradientError:
        return not_asked("there is no path for gradients, see graph")
    zero = found == 0
    tiny = (found.abs() < torch.finfo(torch.float32).tiny) & ~zero
    bad = ~torch.isfinite(found)
    dead = (zero | tiny | bad).all(1)
    share = float(dead.double().mean())
    told = (
        f"of {found.numel()} coordinates {float(zero.double().mean()):.0%} are zero, {float(tiny.double().mean()):.0%} "
        f"subnormal, {float(bad.double().mean()):.0%} not finite; {int(dead.sum())} of {len(dead)} gradients are dead"
    )
    if share <= DEAD:
        return Observed(share, False, told)
    own = bench.search.loss
    alive = _gradients(bench, index, None) if own not in (None, "ce") else found
    if float((alive != 0).any(1).double().mean()) > 1 - share + DEAD:
        told += f"; under the log-odds instead of {own} they live"
        return Observed(
            share, True, told, suspects=(Suspect(SATURATED, told, (Cure("pgd:steps=40", {"loss": None}),)),)
        )
    place = ""
    with suppress(TooDearError):
        place = _place_of_death(bench, index)
    told += f"; they die in {place}" if place else ""
    if bench.seen.get("crossings"):
        return Observed(share, True, f"{told}; see graph for the step")
    # Scores inside that lead further have told what hides the gradient, and are its cure.
    cures = bench.seen.get("inside") or (
        *_wider(bench, index),
        Cure("smooth-pgd:steps=40,start=uniform"),
        Cure("square:queries=2000", last=True),
    )
    lost = bench.form == "lost" or bench.seen.get("probabilities", False)
    remedy = "let the model return logits instead of probabilities" if lost else ""
    bench.seen["dead"] = cause = SATURATED if lost else VANISHED
    return Observed(share, True, told, suspects=(Suspect(cause, told, cures, remedy, True),))


def _wider(bench: Bench, index: Tensor) -> tuple[Cure, ...]:
    """Gradients in float64, where what vanishes in float32 may be left; of scores that are shares, as probabilities.

    A softmax that was written by hand over large scores is 0 and 1 in float32 long before it is so in float64.
    """
    with bench.asking(index) as question:
        raw = question.problem.ask(question.x, Key(bench.search.seed).fold("health")).raw.detach()
    bench.spend(len(index))
    shares = raw.ndim == 2 and bool((raw >= 0).all()) and bool(((raw.double().sum(1) - 1).abs() < 1e-3).all())
    bench.seen["probabilities"] = shares
    wide = widened(bench)
    if wide is None:
        return ()
    found = replace(wide, outputs="probabilities") if shares else wide
    changes = {"surrogate": found, "loss": None}
    return (Cure("pgd:steps=40", changes, f"{WIDE}{SHARES if shares else ''}"),)


def _gradients(bench: Bench, index: Tensor, loss: str | None) -> Tensor:
    with bench.asking(index, {"loss": loss}) as question:
        return flat(bench.gradient(question, question.x, Key(bench.search.seed).fold("health"))[1])


def _place_of_death(bench: Bench, index: Tensor) -> str:
    """The module nearest to the output whose input gets no gradient though its output does; nothing without modules."""
    network = bench.model.network
    if not isinstance(network, nn.Module):
        return ""
    names = {id(part): name or "the model" for name, part in network.named_modules()}
    reached: dict[str, float] = {}
    order: list[str] = []

    def watch(module: nn.Module, _: Any, out: Any) -> None:
        name = names.get(id(module))
        if name is not None and isinstance(out, Tensor) and out.requires_grad:
            order.append(name)
            out.register_hook(  # type: ignore[no-untyped-call]
                lambda g: reached.__setitem__(name, float((g != 0).double().mean()))
            )

    hook = nn.modules.module.register_module_forward_hook(watch)
    try:
        with bench.asking(index[:8]) as question:
            order.clear()
            bench.gradient(question, question.x, Key(bench.search.seed).fold("health"))
    finally:
        hook.remove()
    dead = [name for name in order if reached.get(name, 0.0) == 0.0]
    alive = [name for name in order if reached.get(name, 0.0) > 0.0]
    if alive and dead:
        after = order[order.index(dead[-1]) + 1 :]
        return f"what follows {dead[-1]}" if not after else after[0]
    return "" if dead else "what comes before the first module"


ROW = Test(
    "health",
    "Where do gradients die?",
    "share of examples whose gradient has no usable coordinate",
    f"above {DEAD}",
    "Carlini & Wagner 2017 (arXiv:1608.04644), section VI; Pintor et al. 2022 (arXiv:2106.09947), F1",
    (SATURATED, VANISHED),
    "the log-odds for the loss, gradients in float64, smooth-pgd, square",
    "up to 4 forwards and 3 backwards on 32 examples",
    _run,
)
