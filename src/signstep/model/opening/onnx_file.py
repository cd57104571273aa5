"""``FILE.onnx``: with gradients where our own conversion of the graph agrees with ONNX Runtime, else asked."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from signstep.errors import InputError
from signstep.io.files import refuse_unwritable
from signstep.model.declaration import Callee, Model
from signstep.model.opening.hashing import files_hash
from signstep.model.opening.onnx_network import converted
from signstep.model.opening.onnx_reading import read
from signstep.model.opening.onnx_said import Unconverted
from signstep.model.opening.opener import Opener, Wanted
from signstep.model.shapes import Shape, fits, refuse_shape
from signstep.model.victims.session import Session, library

COMPARED = 64
"""Inputs on which a conversion must agree with ONNX Runtime."""
AGREES = 1e-4
"""How far they may differ: this share of the largest score, or this much where all are below 1."""

_UNKNOWN_SIZE = 32  # of a side that the file leaves open, where the data says nothing either
_PIECE, _FEW = 16, 3  # rows at once, and with a gradient
_NO_SCORES = "its first output of numbers has labels alone; a classifier of skl2onnx has scores with zipmap=False"


def opened(wanted: Wanted) -> Model:
    """The row's model.

    Raises:
        InputError: it has several inputs, or no such output, or takes inputs of another shape.
        LoadError: it is damaged, reaches outside of its folder, or claims sizes that it cannot have.
        MissingExtraError: onnxruntime is not installed.
    """
    path = wanted.path
    refuse_unwritable(path, "the name of the model")
    unknown = set(wanted.args) - {"output"}
    if unknown:
        raise InputError(
            f"{wanted.spec} takes no argument {min(unknown)!r}",
            remedy="the name of the scores is given as output, nothing else",
        )
    library()
    graph, files = read(path)
    session = Session.of(path, output=wanted.args.get("output"))
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in session.shape[1:])
    last = _is_last(shape)
    taken = (shape[2], *shape[:2]) if last else shape
    if wanted.shape is not None:
        refuse_shape(taken, wanted.shape)
    network, notes = _network(graph, session, taken, wanted.shape, last=last)
    if len(session.others) > 1:
        notes.append(f"of its outputs {', '.join(session.others)} {session.output} is read; output=NAME names another")
    if last:
        notes.append("it takes channels last: images are put in that order")
    hashes = {"weights": files_hash([path, *files])}
    return Model(network, shape=taken, name=f"{path.name} (ONNX)", hashes=hashes, notes=notes)


class ChannelsLast(nn.Module):
    """A network of inputs (R, H, W, C), for images (R, C, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """From (R, C, H, W)."""
        return self.network(x.permute(0, 2, 3, 1).contiguous())


@dataclass(frozen=True, eq=False)
class AskedChannelsLast:
    """The same for what is asked and not differentiated."""

    victim: Callee
    gradients: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """From (R, C, H, W)."""
        found: Tensor = self.victim(x.permute(0, 2, 3, 1).contiguous())
        return found


class InPieces(nn.Module):
    """A network that was exported for a number of rows, called with others: in pieces, the last one filled up."""

    def __init__(self, network: nn.Module, rows: int) -> None:
        super().__init__()
        self.network, self.rows = network, rows

    def forward(self, x: Tensor) -> Tensor:
        """From (R, ...)."""
        missing = -len(x) % self.rows
        filled = torch.cat([x, x[-1:].detach().expand(missing, *x.shape[1:])]) if missing else x
        return torch.cat([self.network(piece) for piece in torch.split(filled, self.rows)])[: len(x)]


def _network(
    graph: Any, session: Session, taken: tuple[int | None, ...], data: Shape, *, last: bool
) -> tuple[Callee, list[str]]:
    """The graph as a module, if that agrees with ONNX Runtime, else a model that asks it; and what is to be said."""
    asked: Callee = session.victim(_PIECE if last else None)
    asked = AskedChannelsLast(asked) if last else asked
    try:
        try:
            made: nn.Module = converted(graph, session.given, session.output)
        except Unconverted as error:
            raise Unconverted(f"there is no conversion of {error}") from error
        made = ChannelsLast(made) if last else made
        found, apart = _agreeing(made, asked, session.rows, _tried(taken, data))
    except Unconverted as error:
        labels = session.session.get_outputs()[session.others.index(session.output)].type == "tensor(int64)"
        said = f"it gives no gradients ({error}): it is asked through ONNX Runtime"
        return asked, [said, *((_NO_SCORES,) if labels else ())]
    return found, [f"converted to torch: on {COMPARED} inputs it differs from ONNX Runtime by {apart:.1e} at most"]


def _agreeing(made: nn.Module, asked: Callee, rows: int | None, shape: tuple[int, ...]) -> tuple[nn.Module, float]:
    """The module, perhaps called in pieces, and how far it is from ONNX Runtime.

    Raises:
        Unconverted: too far, or it fails.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(COMPARED, *shape, generator=generator, dtype=torch.float32, device="cpu")
    try:
        wanted = asked(x)
    except Exception as error:
        raise Unconverted(f"ONNX Runtime cannot run it on inputs of shape {shape}") from error
    if not wanted.is_floating_point():
        raise Unconverted("it answers with labels")
    *pieces, few = torch.split(x, [_PIECE] * (COMPARED // _PIECE - 1) + [_PIECE - _FEW, _FEW])
    reason = ""
    for network in (made, *(() if rows is None else (InPieces(made, rows),))):
        try:
            found = torch.cat([*(_scores(network, piece) for piece in pieces), _differentiated(network, few)])
        except Unconverted:
            raise
        except Exception as error:
            where = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
            reason = f"its conversion fails{where} ({type(error).__name__})"
            continue
        apart = _apart(found, wanted)
        if apart <= AGREES * max(1.0, float(wanted.abs().max())):
            return network, apart
        reason = f"its conversion differs from ONNX Runtime by {apart:.1e}"
    raise Unconverted(reason)


@torch.no_grad()
def _scores(network: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = network(x)
    return found


def _differentiated(network: nn.Module, x: Tensor) -> Tensor:
    """Scores of a few inputs, which a gradient was asked of.

    Raises:
        Unconverted: there is none.
    """
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        found: Tensor = network(leaf)
        gradient = torch.autograd.grad(found.sum(), leaf, allow_unused=True)[0] if found.requires_grad else None
    if gradient is None:
        raise Unconverted("its output does not follow from its input by differentiable steps")
    return found.detach()


def _apart(found: Tensor, wanted: Tensor) -> float:
    if found.shape != wanted.shape:
        return math.inf
    return float(torch.nan_to_num((found.double() - wanted.double()).abs(), nan=math.inf).max())


def _tried(taken: tuple[int | None, ...], data: Shape) -> tuple[int, ...]:
    """The shape of inputs to compare on: the data's, where the file leaves it open."""
    if data is not None and fits(taken, data) and None not in data:
        return tuple(size for size in data if size is not None)
    if taken and taken[0] is None and len(taken) == 3:
        taken = (3, *taken[1:])
    return tuple(_UNKNOWN_SIZE if size is None else size for size in taken)


def _is_last(shape: tuple[int | None, ...]) -> bool:
    """Whether images come as (H, W, C), as TensorFlow has them."""
    return len(shape) == 3 and shape[2] in (1, 3) and all(size is None or size > 4 for size in shape[:2])


ROW = Opener(
    "onnx",
    "an ONNX graph, with gradients where our conversion agrees with ONNX Runtime",
    "FILE.onnx",
    opened,
    suffixes=(".onnx",),
    args="output=NAME of the scores, where the file has several outputs",
    extra="onnx",
)
