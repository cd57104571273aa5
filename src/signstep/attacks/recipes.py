"""The table of recipes, and the one place that turns "pgd:steps=50" into an attack."""

from collections.abc import Sequence

from signstep.attacks import minimal, search
from signstep.attacks.gradient import fixed_budget
from signstep.attacks.recipe import Recipe, built, options_of
from signstep.attacks.transfer import transferable
from signstep.engine.attack import Attack, Needs, with_oracle
from signstep.engine.oracles import Oracle
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.messages import Arg

__all__ = ["RECIPES", "canonical", "defined_for", "needs_of", "options_of", "recipe"]

RECIPES: dict[str, Recipe] = {
    row.name: row for row in (*fixed_budget.ROWS, *transferable.ROWS, *minimal.ROWS, *search.ROWS)
}


def recipe(spec: "str | Attack", *, oracle: Oracle | None = None) -> Attack:
    """An attack from its name and options, such as "pgd" or "pgd:steps=50,restarts=10".

    >>> recipe("pgd:steps=50,restarts=10").steps
    50

    Raises:
        InputError: no such recipe or option.
    """
    if not isinstance(spec, str):
        if not callable(spec) or not hasattr(spec, "name"):
            raise InputError(
                Arg("recipe", spec), remedy=f"pass the name of one ({', '.join(RECIPES)}) or an attack object"
            )
        return spec if oracle is None else with_oracle(spec, oracle)
    name, _, tail = canonical(spec).partition(":")
    row = RECIPES.get(name)
    if row is None:
        raise InputError(Arg("recipe", spec.partition(":")[0]), f"is not one of {', '.join(RECIPES)}")
    return built(row, tail, spec.partition(":")[0], oracle)


def defined_for(row: Recipe, threats: Sequence[ThreatModel]) -> bool:
    """Whether a recipe can be run under these threats, one for each attacked input.

    Recipes for some norms, for balls alone or for one input say so in their row.
    """
    if (row.balls or row.smallest) and any(isinstance(threat, ShapedThreat) for threat in threats):
        return False
    return (not row.norms or {threat.norm.name for threat in threats} <= set(row.norms)) and not (
        row.smallest and len(threats) > 1
    )


def needs_of(attack: Attack) -> Needs:
    """What an attack asks of the model: as it says itself, else as the row of its recipe."""
    own: Needs | None = getattr(attack, "needs", None)
    if own is not None:
        return own
    row = RECIPES.get(attack.name)
    return row.needs if row is not None else "gradients" if attack.steps else "nothing"


def canonical(spec: str) -> str:
    """A recipe's name and options with other names for it replaced.

    >>> canonical("i-fgsm:steps=5")
    'bim:steps=5'
    >>> canonical("apgd-t:steps=50")
    'apgd:loss=dlr,targets=9,steps=50'
    """
    name, _, tail = spec.partition(":")
    known, _, fixed = _ALIASES.get(name, name).partition(":")
    options = ",".join(part for part in (fixed, tail) if part)
    return f"{known}:{options}" if options else known


# Other names under which people look for them.
_ALIASES = {
    "fgm": "fgsm",
    "i-fgsm": "bim",
    "ifgsm": "bim",
    "mifgsm": "mi-fgsm",
    "ffgsm": "fgsm-rs",
    "apgd-ce": "apgd:loss=ce",
    "apgd-dlr": "apgd:loss=dlr",
    "apgd-margin": "apgd:loss=margin",
    "apgd-t": "apgd:loss=dlr,targets=9",
}
