"""What `signstep explain` prints: formula, worked example, pitfalls, sources; the examples are computed, not quoted."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import torch

from signstep.api import fgsm
from signstep.auditing.findings import CATALOGUE, Rule
from signstep.core.norms import NORMS
from signstep.core.recipes import RECIPES, canonical, options_of
from signstep.errors import InputError


@dataclass(frozen=True)
class Topic:
    """One entry: what it is, pitfalls, and perhaps a worked example that is computed when it is shown."""

    formula: str
    pitfalls: tuple[str, ...]
    example: Callable[[], str] | None = None


def explain(name: str) -> str:
    """The text for a recipe or a finding.

    Raises:
        InputError: nothing is known under that name.
    """
    if name.upper() in CATALOGUE:
        return _finding(CATALOGUE[name.upper()])
    name = canonical(name)
    if name not in TOPICS:
        raise InputError(
            f"nothing is known about {name!r}; topics are {', '.join(TOPICS)} and the findings {', '.join(CATALOGUE)}"
        )
    topic, row = TOPICS[name], RECIPES[name]
    lines = [f"{row.name}: {row.title}", ""]
    lines += [textwrap.indent(topic.formula, "    "), ""]
    if topic.example is not None:
        lines += [topic.example(), ""]
    lines += ["Pitfalls"]
    lines += [textwrap.fill(text, 96, initial_indent="  - ", subsequent_indent="    ") for text in topic.pitfalls]
    options = ", ".join(options_of(row)) or "none"
    lines += ["", f"Knowledge  {row.knowledge}", f"Cost       {row.cost} for each example and restart"]
    lines += [f"Options    {options}", f"Source     {row.source}"]
    return "\n".join(lines)


def _finding(rule: Rule) -> str:
    parts = [("Meaning", rule.meaning), ("Remedy", rule.remedy)]
    lines = [f"{rule.code}: {rule.title}"]
    for title, text in parts:
        lines += ["", title, textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="  ")]
    lines += ["", f'Set it aside with a reason:  [audit.ignore]  {rule.code} = "why"  in signstep.toml']
    return "\n".join(lines)


def _fgsm_example() -> str:
    gradient = torch.tensor([[3.0, -0.1, 0.0, -2.0]])
    x = torch.tensor([[0.2, 0.5, 0.7, 0.9]])
    stepped = fgsm(lambda u: -(u * gradient).sum(1, keepdim=True), x, torch.ones(1), eps=0.05, outputs="logits")
    g, radius = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([0.1])
    lines = [
        "Worked examples (computed now)",
        f"  x = {_row(x)}, gradient = {_row(gradient)}, eps = 0.05, box [0, 1]",
        f"  FGSM gives {_row(stepped)}: a zero gradient coordinate does not move.",
        "",
        "  The same question in other norms: maximise g.d for g = (2, -1, 0.5), length of d at most 0.1",
    ]
    for name in ("linf", "l2", "l1"):
        step = NORMS[name].steepest(g, radius)
        lines.append(f"  {name:<4}  d = {_row(step, 4)}  gain {float((g * step).sum()):.4f}")
    w, b, point, eps = torch.tensor([[1.5, -2.0, 0.5]]), 0.2, torch.tensor([[0.3, 0.1, 0.6]]), 0.1
    adversarial = fgsm(lambda u: u @ w.T + b, point, torch.ones(1), eps=eps, box=None, outputs="logits")
    attained = torch.nn.functional.softplus(-(adversarial @ w.T + b)).item()
    closed = torch.nn.functional.softplus(eps * w.abs().sum() - (point @ w.T + b)).item()
    lines += [
        "",
        "  Logistic regression has the worst loss in closed form, softplus(eps*|w|_1 - y*(w.x + b)):",
        f"  closed form {closed:.6f}, attained by FGSM {attained:.6f}",
    ]
    return "\n".join(lines)


def _row(values: torch.Tensor, digits: int = 3) -> str:
    return "(" + ", ".join(f"{value:.{digits}g}" for value in values.flatten().tolist()) + ")"


TOPICS: dict[str, Topic] = {
    "fgsm": Topic(
        "x_adv = clip(x + eps * sign(gradient of the loss at x), box)\n\n"
        "The exact answer to: which change of at most eps in every coordinate raises the *linearised* loss\n"
        "most? In L2 the answer is eps*g/|g|, in L1 all of eps on the largest |g|; with a box, the length\n"
        "that clipped coordinates cannot use goes to the others (step-then-clip wastes it).",
        (
            "It never proves robustness: one linear step. A model that survives FGSM may fall to PGD entirely.",
            "The gradient of float32 cross-entropy rounds to zero on confident examples; Signstep searches on the "
            "log-odds, which have the same direction and do not saturate (--loss plain-ce shows the difference).",
            "eps and the box are in raw input units. A model that wants normalised inputs gets them inside "
            "(--mean, --std).",
            "On a model trained with FGSM from the clean point, accuracy at FGSM points can exceed clean accuracy: "
            "label leaking and catastrophic overfitting, not robustness. Look at PGD beside it.",
            "A single step rarely reaches a given target class; use an iterated attack for targets.",
            "Success is not monotone in eps: a larger step can overshoot.",
        ),
        _fgsm_example,
    ),
    "fgsm-rs": Topic(
        "d = uniform in the ball;  x_adv = P(x + d + step * eps * sign(gradient at x + d)),  step = 1.25",
        (
            "Made for training, where it avoids label leaking; as an attack it is rarely stronger than FGSM.",
            "Audits project onto ball and box; the training recipe leaves the start unclamped, which is not the same.",
        ),
    ),
    "bim": Topic(
        "x_0 = x;  x_(t+1) = P(x_t + alpha * sign(gradient at x_t)),  alpha = eps / steps",
        (
            "eps is the total change, not the change of each step.",
            "Without a random start it follows the gradient at x, which a masked model may have spoiled: try pgd.",
        ),
    ),
    "mi-fgsm": Topic(
        "g_(t+1) = decay * g_t + gradient / |gradient|_1;  x_(t+1) = P(x_t + alpha * sign(g_(t+1)))",
        (
            "The gradient is divided by its L1 length before it is added, not replaced by its sign.",
            "Its use is transfer to other models; against the model itself PGD is usually as strong.",
        ),
    ),
    "pgd": Topic(
        "x_0 = x + uniform in the ball;  x_(t+1) = P(x_t + alpha * sign(gradient at x_t)),  alpha = 2.5 * eps / steps",
        (
            "eps is the total change, alpha the change of each step; P projects onto ball, box and mask.",
            "A fooled example leaves at once; the last iterate is scored. More steps and restarts can only find more: "
            "one restart overstates robustness by several points on published models.",
            "Weaker than FGSM on some model? Then step size, projection, mode or loss is wrong, or the gradients "
            "are masked.",
        ),
    ),
    "random-sign": Topic(
        "x_adv = clip(x + eps * random signs, box)",
        (
            "A control, not an attack: what noise of the same size does. If it fools as often as a gradient attack, "
            "the gradient is worth nothing.",
        ),
    ),
}
