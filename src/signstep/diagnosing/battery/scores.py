"""Is something done to the scores that hides their gradient?"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from signstep.attacks.stand_ins import StandIns
from signstep.diagnosing.battery import graph
from signstep.diagnosing.battery.pairs import LEVEL, pair
from signstep.diagnosing.bench import Bench, Cure, Ran, TooDearError
from signstep.diagnosing.inner import MEMBERS, NAME, STEPS, Inner, closed, picked
from signstep.diagnosing.test import Observed, Suspect, Test, not_asked
from signstep.engine.keys import Key
from signstep.errors import GradientError, ModelError, VictimError
from signstep.model.declaration import Model

FEW = 32
SATURATED, CHOICE = "saturated loss", graph.CAUSE


def _run(bench: Bench) -> Observed:
    if why := _unfit(bench):
        return not_asked(why)
    found = _inside(bench)
    if found is None:
        return Observed(0.0, False, "nothing that could hide a gradient is done to the scores")
    inside, count = found
    name = NAME if count == 1 else MEMBERS
    changes = {"surrogate": inside, "loss": None}
    try:
        through, again, ran = _runs(bench, changes, name)
    except TooDearError as error:
        return not_asked(str(error))
    one = pair(f"{name} find no more", ran.fooled, again.fooled)
    what = "the scores before what is done to them" if count == 1 else f"the {count} members together"
    told = f"the gradients of {what} alone fell {one.won}, those of the answer alone {one.lost}"
    if one.p >= LEVEL:
        return Observed(float(one.won - one.lost), False, told, one.p)
    path = "bpda-pgd" if through else "pgd"
    cures = (Cure(f"{path}:steps={2 * STEPS}", changes, name, upon=graph.CAUSE if through else ""),)
    bench.seen["inside"] = cures
    cause = SATURATED if count == 1 else CHOICE
    because = told if count == 1 else f"which of {count} members answers has no gradient: {told}"
    suspects: tuple[Suspect, ...] = (Suspect(cause, because, cures),)
    if through and not bench.seen.get("cut") and cause != graph.CAUSE:
        # Where scores have no gradient either way, the step without one could not be seen in them.
        step = "; ".join(str(part) for part in bench.seen["crossings"][:3])
        suspects = (Suspect(graph.CAUSE, f"no gradient at {step}", (Cure("bpda-pgd:steps=40"),)), *suspects)
    return Observed(float(one.won - one.lost), True, told, one.p, suspects)


def _unfit(bench: Bench) -> str:
    """Why the question makes no sense; nothing where it does."""
    if bench.form == "labels" or bench.classes is None or bench.classes < 2 or not isinstance(bench.x, Tensor):
        return "it needs scores for classes, and one input"
    if bench.model.inputs != "raw" or bench.search.surrogates:
        return "gradients come from a surrogate, or inputs are prepared by others"
    if closed(bench.model.network):
        return "compiled and scripted code is not looked into"
    if bench.random:
        return "a random model's scores are others in each pass"
    return "" if bench.seen.get("bridged", True) else "no gradient leads back to the input, see graph"


def _runs(bench: Bench, changes: dict[str, Any], name: str) -> tuple[bool, Ran, Ran]:
    """Equal steps along the answer and along the scores inside; through stand-ins where those alone find more.

    Raises:
        TooDearError: they may cost more than is left.
    """
    on, found = bench.held, []
    for path in ("pgd", "bpda-pgd") if bench.seen.get("crossings") else ("pgd",):
        again = bench.run(f"{path}:steps={STEPS + 1}", on=on)
        found.append((again, bench.run(f"{path}:steps={STEPS}", on=on, changes=changes, name=name)))
        if not bool((on & ~found[-1][1].fooled).any()):
            break
    through = len(found) > 1 and pair("", found[1][1].fooled, found[0][1].fooled).p < LEVEL
    return through, *found[int(through)]


def _inside(bench: Bench) -> tuple[Model, int] | None:
    """The model that answers with its scores inside, and how many they are; None where there are none."""
    held, looked = bench.model, Inner(bench.model.network, bench.classes or 0)
    # What follows a step without a gradient is found through stand-ins.
    mode = StandIns() if bench.seen.get("crossings") else None
    try:
        bench.model = replace(held, network=looked)
        with bench.asking(bench.few(FEW)) as question, torch.enable_grad():
            key = Key(bench.search.seed).fold("scores")
            leaf = question.region.land(question.region.zero())
            assert isinstance(leaf, Tensor)
            leaf = leaf.detach().clone().requires_grad_()
            bench.need(4 * len(leaf))
            bench.spend(4 * len(leaf))
            if mode is None:
                answer = question.problem.ask(leaf, key).raw
            else:
                with mode:
                    answer = question.problem.ask(leaf, key).raw
            places = picked(looked.met, answer.detach(), leaf) if answer.ndim == 2 else ()
    except VictimError:
        raise
    except (GradientError, ModelError, RuntimeError):
        return None
    finally:
        bench.model = held
        looked.met = []
    if not places:
        return None
    inner = Inner(held.network, bench.classes or 0, places)
    return replace(held, network=inner, outputs="logits", output=None), len(places)


ROW = Test(
    "scores",
    "Is something done to the scores that hides their gradient?",
    "examples felled along the scores inside, less those felled along the answer, by equal steps",
    f"exact paired p < {LEVEL}",
    "Carlini & Wagner 2016 (arXiv:1607.04311); Tramèr et al. 2020 (arXiv:2002.08347), sections 7 and 8",
    (SATURATED, CHOICE),
    "gradients of the scores before what is done to them; of all members together",
    f"where there are such scores: 2 times {STEPS} steps of pgd on what the attack left standing",
    _run,
)
