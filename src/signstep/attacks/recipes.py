"""The table of recipes, and the one place that turns "pgd:steps=50" into an attack."""

from collections.abc import Sequence

from signstep.attacks import gradient, minimal, search, transfer
from signstep.attacks.external import SPELLING, attack_of, row_of
from signstep.attacks.recipe import Recipe, built, options_of, parse_options
from signstep.engine.attack import Attack, Needs, with_oracle
from signstep.engine.oracles import Oracle
from signstep.engine.shaped import ShapedThreat
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.importing import is_spec, name_and_options
from signstep.messages import Arg
from signstep.registry import Registry

__all__ = ["RECIPES", "canonical", "defined_for", "needs_of", "options_of", "recipe", "split"]

RECIPES: Registry[Recipe] = Registry(
    "signstep.attacks",
    SPELLING,
    row_of,
    {row.name: row for row in (*gradient.ROWS, *transfer.ROWS, *minimal.ROWS, *search.ROWS)},
    argument="recipe",
)


def recipe(spec: "str | Attack", *, oracle: Oracle | None = None) -> Attack:
    """An attack from its name and options, such as "pgd", "pgd:steps=50,restarts=10" or "my_attacks:mine:steps=5".

    A name of somebody's own is "package.module:name", perhaps with options behind a second colon: a row, a function
    that makes an attack, or an attack. It is imported, from the current folder too, and the attack is called so.

    >>> recipe("pgd:steps=50,restarts=10").steps
    50

    Raises:
        InputError: no such recipe or option.
        LoadError: a module of somebody's own cannot be imported.
    """
    if not isinstance(spec, str):
        if not callable(spec) or not hasattr(spec, "name"):
            raise InputError(
                Arg("recipe", spec), remedy=f"pass the name of one ({', '.join(RECIPES)}) or an attack object"
            )
        return spec if oracle is None else with_oracle(spec, oracle)
    name, options = split(canonical(spec))
    if "," in name and "=" in name:
        raise InputError(
            Arg("recipe", spec),
            "has options behind a comma",
            remedy=f"write the first of them behind a colon: {spec.replace(',', ':', 1)}",
        )
    row = RECIPES.find(name)
    said = spec.removesuffix(options).rstrip(":") if options else spec
    given = parse_options(row, options, said)
    if name in RECIPES.own:
        return built(row, given, said, oracle)
    return attack_of(row, name, given, oracle)


def split(spec: str) -> tuple[str, str]:
    """The name of a recipe and its options, as text.

    >>> split("pgd:steps=50"), split("nets.attacks:mine"), split("nets.attacks:mine:steps=5,loss=ce")
    (('pgd', 'steps=50'), ('nets.attacks:mine', ''), ('nets.attacks:mine', 'steps=5,loss=ce'))
    """
    name, _, rest = spec.partition(":")
    return (name, rest) if name in RECIPES.own else name_and_options(spec)


def defined_for(row: Recipe, threats: Sequence[ThreatModel]) -> bool:
    """Whether a recipe can be run under these threats, one for each attacked input.

    Recipes for some norms, for balls alone or for one input say so in their row.
    """
    if (row.balls or row.smallest) and any(isinstance(threat, ShapedThreat) for threat in threats):
        return False
    return all(row.takes(threat.norm.name) for threat in threats) and not (row.smallest and len(threats) > 1)


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
    >>> canonical("FGSM"), canonical("PGD:steps=5"), canonical("PGD:mine")
    ('fgsm', 'pgd:steps=5', 'PGD:mine')
    """
    name, _, tail = spec.partition(":")
    if not is_spec(name_and_options(spec)[0]):  # what is somebody's own is spelled as Python spells it
        name = RECIPES.spelled(_ALIASES.get(name.lower(), name))
    else:
        name = _ALIASES.get(name, name)
    known, _, fixed = name.partition(":")
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
