"""Training recipes in words: what the weights follow, what it costs, and what goes wrong."""

import textwrap

from signstep.train.recipes import OPTIONS, training_recipe

_SIGN = "the steepest unit step of the norm, sign(g) for L-infinity"

TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "natural": (
        "minimise J(x)",
        ("No defence: what the others are compared with. Robust accuracy near 0 at the usual eps is to be expected.",),
    ),
    "fgsm-mixed": (
        "minimise (J(x) + J(x + d)) / 2,  d = eps s(g(x))",
        (
            "The point is reached by one step from x, so it can be learnt instead of the ball: label leaking, and "
            "collapse at larger eps.",
            "Half of each batch is clean, so a step sees fewer attacked examples than with other recipes.",
        ),
    ),
    "fgsm": (
        "minimise J(x + d),  d = eps s(g(x))",
        (
            "Collapses at larger eps: FGSM accuracy rises to that of clean examples and PGD accuracy falls to 0. Kept "
            "as the warning it is; the alarm calls it and goes on with n-fgsm.",
        ),
    ),
    "fgsm-rs": (
        "minimise J(x + d),  d = P(n + 1.25 eps s(g(x + n))),  n uniform in the ball",
        (
            "The start is left as drawn, outside of the box where it falls there: clamped to the pixel range first, "
            "the same recipe collapses on MNIST at eps 0.3.",
            "Longer runs and larger eps still collapse; n-fgsm and gradalign were made for these.",
        ),
    ),
    "n-fgsm": (
        "minimise J(x + n + eps s(g(x + n))),  n uniform in 2 eps, nothing clipped",
        (
            "The points lie outside of ball and box, up to 3 eps away: a model with a saturating input layer or a "
            "normalisation by range sees values that it never meets in use.",
            "At a large eps a short run may give up at the start and answer everything alike: let eps rise with "
            "--warm-up.",
        ),
    ),
    "gradalign": (
        "minimise J(x + d) + weight mean(1 - cos(g(x), g(x + n))),  d = eps s(g(x)),  n uniform in the ball",
        (
            "Differentiates a gradient, so it costs about three times FGSM; the weight has to fit data and eps.",
            "Runs uncompiled under --compile.",
        ),
    ),
    "free": (
        "minimise J(x + d);  each backward pass also gives g(x + d), and d <- P(d + eps s(g))",
        ("Each batch is replayed, and epochs are divided by the replays: with few epochs the data is seen seldom.",),
    ),
    "fgsm-pgi": (
        "minimise J(x + d) + weight mean((f(x + d) - f(x + p))^2),  d = P(p + eps s(g(x + p))),  p led by a momentum "
        "over epochs",
        (
            "Keeps two tensors of the size of the training set; the first epochs are those of a uniform start.",
            "Not across several processes, which would each remember a part.",
        ),
    ),
    "mtl-ibp": (
        "minimise (1 - weight) J(x + d) + weight J(m),  d as in fgsm-rs with a step of eps,  m_k the largest z_k - z_y "
        "that interval bounds allow anywhere in the ball",
        (
            "The bounds hold for every point of the ball: there is no step to be learnt instead. ss.certified counts "
            "the rows that they hold for.",
            "They are loose at the start: hold eps back (--hold 0.05), let it rise slowly (--warm-up 0.4) with the "
            "rate at its top early (--peak 0.1) and --max-norm 10, or the network gives up and answers everything "
            "alike.",
            "A larger weight costs clean accuracy. At small eps on hard data intervals are too loose to gain by.",
            "Made for L-infinity: of another norm the box around the ball is bounded. For networks of layers that "
            "intervals go through: no attention, no code that branches on values.",
        ),
    ),
    "ibp": (
        "minimise (J(x) + J(m)) / 2,  m_k the largest z_k - z_y that interval bounds allow anywhere in the ball",
        (
            "Certified training: no attack at all, so there is no collapse to call. Costs clean accuracy, and needs "
            "the same slow start as mtl-ibp.",
        ),
    ),
    "pgd-at": (
        "minimise J(x + d),  d after so many steps  d <- P(d + step eps s(g(x + d)))",
        ("Costs steps + 1 times natural training; robust overfitting in long runs (compare best and last).",),
    ),
    "trades": (
        "minimise J(x) + weight KL(p(x) || p(x + d)),  d climbing the KL",
        (
            "The weight trades clean against robust accuracy: compare models at the same clean accuracy, or give both.",
            "The KL has no gradient at x itself, so the start has to be elsewhere.",
        ),
    ),
    "noise": (
        "minimise J(x + n),  n uniform in the ball",
        ("A control: what is gained over natural training owes nothing to gradients.",),
    ),
    "random-sign": (
        "minimise J(x + n),  n a random corner of the ball",
        ("A control: as large a change as FGSM's, in a direction that knows nothing of the model.",),
    ),
}


def explained(name: str) -> str:
    """The text for a training recipe.

    Raises:
        InputError: no such recipe.
    """
    row = training_recipe(name)
    formula, pitfalls = TEXTS.get(row.name, ("(a training recipe of your own, of which nothing is written here)", ()))
    lines = [f"{row.name}, a training recipe (signstep train --recipe {row.name})", row.title, ""]
    lines += [textwrap.fill(formula, 96, initial_indent="    ", subsequent_indent="    ")]
    if "s(" in formula:
        lines += [f"    s: {_SIGN}", "    g: gradient of J at a point;  P: projection onto ball and box"]
    lines += ["", "Pitfalls"] if pitfalls else []
    lines += [textwrap.fill(text, 96, initial_indent="  - ", subsequent_indent="    ") for text in pitfalls]
    options = ", ".join(f"{option}={getattr(row, option)}" for option in OPTIONS)
    lines += ["", f"Start      {row.placed}", f"Projection {row.projected}"]
    lines += [f"Passes     {row.passes[0]} forward and {row.passes[1]} backward for each step of the optimiser"]
    lines += [textwrap.fill(options, 96, initial_indent="Options    ", subsequent_indent=" " * 11)]
    lines += [f"Source     {row.source}"]
    return "\n".join(lines)
