"""The papers' attacks: each a few lines over the one loop, and one row of one table."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from signstep.core.attack import GradientAttack
from signstep.core.moves import chain, momentum, steepest
from signstep.core.oracles import Autograd, Oracle
from signstep.errors import InputError


def fgsm(*, oracle: Oracle | None = None) -> GradientAttack:
    """One steepest step of the whole radius from the clean input (Goodfellow, Shlens & Szegedy 2014, section 4)."""
    return GradientAttack("fgsm", steepest(1.0), steps=1, oracle=oracle or Autograd())


def fgsm_rs(*, step: float = 1.25, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:
    """A uniform start, one step of ``step * eps``, projection (Wong, Rice & Kolter 2020, algorithm 3)."""
    return GradientAttack("fgsm-rs", steepest(step), 1, "uniform", restarts, oracle or Autograd())


def bim(*, steps: int = 10, step: float | None = None, oracle: Oracle | None = None) -> GradientAttack:
    """Iterated FGSM from the clean input, steps of ``eps / steps`` (Kurakin, Goodfellow & Bengio 2016, section 2.2)."""
    return GradientAttack("bim", steepest(_step(step, 1.0, steps)), steps, oracle=oracle or Autograd())


def mi_fgsm(
    *, steps: int = 10, step: float | None = None, decay: float = 1.0, oracle: Oracle | None = None
) -> GradientAttack:
    """BIM along a memory of gradients, each divided by its L1 length (Dong et al. 2018, algorithm 1)."""
    move = chain(momentum(decay), steepest(_step(step, 1.0, steps)))
    return GradientAttack("mi-fgsm", move, steps, oracle=oracle or Autograd())


def pgd(
    *, steps: int = 20, step: float | None = None, restarts: int = 1, oracle: Oracle | None = None
) -> GradientAttack:
    """Projected steepest ascent from uniform starts, steps of ``2.5 * eps / steps`` (Madry et al. 2018, sec. 2.1)."""
    return GradientAttack("pgd", steepest(_step(step, 2.5, steps)), steps, "uniform", restarts, oracle or Autograd())


def random_sign(*, restarts: int = 1, oracle: Oracle | None = None) -> GradientAttack:  # noqa: ARG001
    """A random corner of the ball, no gradient: the control that every attack must beat."""
    return GradientAttack("random-sign", steepest(1.0), 0, "vertex", restarts)


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        name: as on the command line.
        build: makes the attack; its keyword arguments are the recipe's options.
        title: in words.
        source: the paper.
        knowledge: what the attacker must have.
        cost: passes for each example and restart, with the verdict.
    """

    name: str
    build: Callable[..., GradientAttack]
    title: str
    source: str
    knowledge: str
    cost: str


_WHITE_BOX = "gradients of the model (or of a surrogate: transfer)"

RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        Recipe("random-sign", random_sign, "random corner of the ball", "control", "none", "1 forward"),
        Recipe(
            "fgsm",
            fgsm,
            "fast gradient sign method; FGM in other norms",
            "Goodfellow, Shlens & Szegedy 2014 (arXiv:1412.6572), section 4",
            _WHITE_BOX,
            "2 forwards, 1 backward",
        ),
        Recipe(
            "fgsm-rs",
            fgsm_rs,
            "FGSM from a uniform random start",
            "Wong, Rice & Kolter 2020 (arXiv:2001.03994), algorithm 3",
            _WHITE_BOX,
            "2 forwards, 1 backward",
        ),
        Recipe(
            "bim",
            bim,
            "basic iterative method (I-FGSM)",
            "Kurakin, Goodfellow & Bengio 2016 (arXiv:1607.02533), section 2.2",
            _WHITE_BOX,
            "steps + 1 forwards, steps backwards",
        ),
        Recipe(
            "mi-fgsm",
            mi_fgsm,
            "momentum iterative FGSM",
            "Dong et al. 2018 (arXiv:1710.06081), algorithm 1",
            _WHITE_BOX,
            "steps + 1 forwards, steps backwards",
        ),
        Recipe(
            "pgd",
            pgd,
            "projected gradient descent",
            "Madry et al. 2018 (arXiv:1706.06083), section 2.1",
            _WHITE_BOX,
            "steps + 1 forwards, steps backwards",
        ),
    )
}


def recipe(spec: "str | GradientAttack", *, oracle: Oracle | None = None) -> GradientAttack:
    """An attack from its name and options, such as "pgd" or "pgd:steps=50,restarts=10".

    >>> recipe("pgd:steps=50,restarts=10").restarts
    10

    Raises:
        InputError: no such recipe or option.
    """
    if isinstance(spec, GradientAttack):
        return spec if oracle is None else replace(spec, oracle=oracle)
    if not isinstance(spec, str):
        raise InputError(f"recipe={spec!r}; pass the name of one ({', '.join(RECIPES)}) or an attack object")
    name, _, tail = spec.partition(":")
    row = RECIPES.get(_ALIASES.get(name, name))
    if row is None:
        raise InputError(f"recipe={name!r} is not one of {', '.join(RECIPES)}")
    options: dict[str, float | int] = {}
    for item in filter(None, tail.split(",")):
        option, equals, value = item.partition("=")
        if not equals or option not in options_of(row):
            known = ", ".join(options_of(row)) or "none"
            raise InputError(f"recipe {name!r} has no option {item!r}; its options are {known}, written name=number")
        options[option.strip()] = _number(option, value)
    return row.build(**options, oracle=oracle)


def canonical(spec: str) -> str:
    """A recipe's name and options with other names for it replaced.

    >>> canonical("i-fgsm:steps=5")
    'bim:steps=5'
    """
    name, colon, tail = spec.partition(":")
    return f"{_ALIASES.get(name, name)}{colon}{tail}"


def options_of(row: Recipe) -> tuple[str, ...]:
    """The options that a recipe takes on the command line."""
    defaults = row.build.__kwdefaults__ or {}
    return tuple(name for name in defaults if name != "oracle")


def _number(option: str, value: str) -> float | int:
    try:
        return int(value) if option in ("steps", "restarts") else float(value)
    except ValueError as error:
        kind = "a whole number" if option in ("steps", "restarts") else "a number"
        raise InputError(f"{option}={value!r} is not {kind}") from error


def _step(step: float | None, whole: float, steps: int) -> float:
    if steps < 1:
        raise InputError(f"steps={steps}; pass at least 1")
    return whole / steps if step is None else step


# Other names under which people look for them.
_ALIASES = {
    "fgm": "fgsm",
    "i-fgsm": "bim",
    "ifgsm": "bim",
    "mifgsm": "mi-fgsm",
    "ffgsm": "fgsm-rs",
}
