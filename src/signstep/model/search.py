"""How the attacker searches: what verbs share, written once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from signstep.engine.ways import PATHS, GradientPath
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.twin import ENGINES, Engine

Rule: TypeAlias = Literal["random", "least-likely", "next"]
Target: TypeAlias = Tensor | Rule | None


@dataclass(frozen=True, eq=False)
class Search:
    """What an attacker chooses besides threat and recipe: ``ss.attack(..., search=ss.Search(loss="margin", eot=8))``.

    Attributes:
        target: lead to these classes (R,), or to "random", "least-likely" or "next" ones; None away from the label.
            Audits stream their data: there a rule, no tensor.
        loss: the loss to climb; None for the task's default, cross-entropy, searched in its log-odds form; or "margin",
            "dlr", ...
        surrogate: take gradients from this model, or the mean over these (transfer attack). A bare network is read
            like the model itself, an `ss.Model` as it declares.
        engine: "fast" searches on a twin of the model (BatchNorm folded, channels-last, bfloat16 where the hardware has
            it), "float32" on one in full precision; verdicts are the model's own all the same.
        eot: average each gradient over this many draws of the transform, or passes of a random model.
        budget: "normalised" to measure eps in the model's normalised coordinates, which results then name.
        seed: with the content of each example, all randomness.
        gradient_path: of a model behind defences (`ss.defend`): "aware" goes every way past them, and one success is
            enough; "straight" is the attacker who does not know of them: points of the undefended model, shown to the
            defended one. Verdicts are the defended model's in both cases.

    Raises:
        InputError: an option makes no sense.
    """

    target: Target = None
    loss: str | None = None
    surrogate: Model | Callee | Sequence[Model | Callee] | None = None
    engine: Engine = "exact"
    eot: int = 1
    budget: Literal["raw", "normalised"] = "raw"
    seed: int = 0
    gradient_path: GradientPath = "aware"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(Arg("engine", self.engine), remedy=f"pass one of {', '.join(ENGINES)}")
        if self.surrogate is not None and not self.surrogates:
            raise InputError(
                Arg("surrogate"), "is empty", remedy="pass a model or several, or None to attack the model itself"
            )
        if not isinstance(self.eot, int) or self.eot < 1:
            raise InputError(Arg("eot", self.eot), remedy="pass a whole number of draws, at least 1")
        if self.gradient_path not in PATHS:
            raise InputError(Arg("gradient_path", self.gradient_path), remedy=f"pass {' or '.join(PATHS)}")

    @property
    def surrogates(self) -> tuple[Model | Callee, ...]:
        """The models to take gradients from; empty for the model itself."""
        if self.surrogate is None:
            return ()
        several = isinstance(self.surrogate, (Sequence, nn.ModuleList))
        return tuple(self.surrogate) if several else (self.surrogate,)  # type: ignore[arg-type, return-value]

    def __repr__(self) -> str:
        said = [f"{part.name}={getattr(self, part.name)!r}" for part in fields(self) if self._says(part)]
        return f"Search({', '.join(said)})"

    def _says(self, part: Any) -> bool:
        value = getattr(self, part.name)
        return isinstance(value, Tensor) or (value is not part.default and value != part.default)


def search_of(search: Search | None, *, target: Target = None, engine: Engine | None = None) -> Search:
    """The search, with what the short form of a verb says of it.

    Raises:
        InputError: the short form and the search say the same thing.
    """
    if search is not None and not isinstance(search, Search):
        raise InputError(Arg("search", search), remedy="pass ss.Search(...)")
    found = search or Search()
    if target is not None:
        if found.target is not None:
            raise InputError(
                Arg("target"), "is given twice, to the verb and in", Arg("search"), remedy="drop one of the two"
            )
        found = replace(found, target=target)
    if engine is not None:
        if found.engine not in ("exact", engine):
            raise InputError(
                Arg("engine", engine), f"is given beside search= with engine {found.engine!r}", remedy="drop one"
            )
        found = replace(found, engine=engine)
    return found


def refuse(search: Search, verb: str, **reasons: str) -> None:
    """See that a search asks for nothing that a verb has no use for.

    Args:
        search: what was passed.
        verb: for the message.
        reasons: by field, why the verb has no use for it and what to do instead.

    Raises:
        InputError: it does; the message names the field and the reason.
    """
    plain = Search()
    for name, reason in reasons.items():
        value = getattr(search, name)
        if isinstance(value, Tensor) or value != getattr(plain, name):
            long = isinstance(value, (Tensor, nn.Module, Callable))  # type: ignore[arg-type]
            seen = Arg(name) if long else Arg(name, value)
            raise InputError(seen, f"has no meaning for {verb}: {reason}", remedy="leave it out")
