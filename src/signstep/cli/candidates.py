"""What is compared: networks as they are, and networks times training recipes, from the texts of the command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from signstep.engine.untouched import Mode
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening import open_model, parse_args, spelled
from signstep.model.opening.table import opener_of
from signstep.train.recipes import TrainingRecipe
from signstep.train.settings import Settings
from signstep.train.variants import variant


@dataclass(frozen=True)
class Network:
    """A network by its name, as often as it is asked for: each time with the same first weights.

    Attributes:
        name: for people.
        spec: what `signstep.open` takes.
        args: for it.
        weights: a file, or None.
    """

    name: str
    spec: str
    args: tuple[str, ...] = ()
    weights: Path | None = None

    def load(self, *, trust: bool = False, mode: Mode = "eval") -> Model:
        """Make it, in the mode in which it is read."""
        return open_model(self.spec, weights=self.weights, args=parse_args(self.args), trust=trust, mode=mode)


@dataclass(frozen=True)
class Candidate:
    """One row of the comparison.

    Attributes:
        name: of the row.
        network: what is audited, or trained first.
        recipe: None where it is taken as it is.
        settings: of training.
    """

    name: str
    network: Network
    recipe: TrainingRecipe | None
    settings: Settings

    @property
    def folder(self) -> str:
        """Its name as the name of a folder."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-.") or "candidate"


def network_of(text: str) -> Network:
    """From NAME=MODEL:OPTION=VALUE,...@WEIGHTS; all but the model may be left out.

    Raises:
        InputError: not written so.

    >>> network_of("wide=nets:net:width=32@w.pt")
    Network(name='wide', spec='nets:net', args=('width=32',), weights=PosixPath('w.pt'))
    """
    name, spec = named(text)
    found = spelled(spec)
    if opener_of(found.spec) is None:
        raise InputError(
            Arg("model", text),
            "is not NAME=MODULE:FACTORY, perhaps with :OPTION=VALUE,... and @WEIGHTS",
            remedy="write wide=nets:net:width=32@wide.safetensors, say, or NAME=FILE.onnx or NAME=hf:FOLDER",
        )
    return Network(name, found.spec, found.args, found.weights)


def named(text: str) -> tuple[str, str]:
    """Name and rest of NAME=REST; without a name the text is its own. A colon before the sign makes it no name."""
    name, equals, rest = text.partition("=")
    if equals and name and rest and not set(name) & set(":/@"):
        return name.strip(), rest.strip()
    return text.strip(), text.strip()


def candidates_of(
    models: Sequence[str], recipes: Sequence[str], settings: Settings, default: str | None
) -> tuple[Candidate, ...]:
    """Every network with every recipe; without recipes every network as it is.

    Args:
        models: texts of ``--model``.
        recipes: texts of ``--recipe``: NAME=RECIPE:OPTION=VALUE,... with options of the recipe and of the loop.
        settings: what holds where a recipe says nothing.
        default: the network where none is named.

    Raises:
        InputError: a text cannot be read, or a name comes twice.
    """
    networks = [network_of(text) for text in models or ([default] if default else [])]
    if not recipes:
        found = [Candidate(network.name, network, None, settings) for network in networks]
    else:
        found = []
        for network in networks:
            for text in recipes:
                name, spec = named(text)
                whole = name if len(networks) == 1 else f"{network.name}, {name}"
                whole = network.name if len(recipes) == 1 and len(networks) > 1 else whole
                found.append(Candidate(whole, network, *variant(spec, settings)))
    folders: dict[str, str] = {}
    for candidate in found:
        if candidate.folder.lower() in folders:
            raise InputError(
                f"the names {folders[candidate.folder.lower()]!r} and {candidate.name!r} are the same as folders",
                remedy="write NAME=... with a name of its own for each",
            )
        folders[candidate.folder.lower()] = candidate.name
    return tuple(found)
