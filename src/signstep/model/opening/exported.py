"""A model from a ``torch.export`` program (.pt2), which is a program: only for files that the user trusts."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from signstep.errors import LoadError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening.hashing import file_hash
from signstep.model.opening.opener import Opener, Wanted


def opened(wanted: Wanted) -> Model:
    """The row's model."""
    network = load_exported(wanted.path, trust=wanted.trust)
    return Model(
        network,
        name=f"exported program {wanted.path}",
        hashes={"weights": file_hash(wanted.path)},
        notes=("its mode was fixed when it was exported",),
    )


class ExportedModel(nn.Module):
    """An exported program as a module whose mode can be set, without effect: the mode was fixed at export."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        for module in self.modules():
            module.training = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the program."""
        output: Tensor = self.program(*inputs)
        return output

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Do nothing: a graph module refuses to change its mode."""
        return self


def load_exported(path: Path, *, trust: bool) -> ExportedModel:
    """Load a program, if it is trusted and takes batches of any size.

    Raises:
        LoadError: If it is not trusted, cannot be read, or was exported for one batch size.
    """
    if not path.is_file():
        raise LoadError(f"the program {path} does not exist", remedy="check the path")
    if not trust:
        raise LoadError(
            f"{path} is an exported program, and loading one can run code",
            remedy=("pass", Arg("trust", True), "if you trust it"),
        )
    try:
        program = torch.export.load(path)
        module = program.module()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a program runs code as it is read, and that may exit
        raise LoadError(
            f"{path} cannot be loaded as an exported program ({type(error).__name__})",
            remedy="export it again with torch.export.save under this version of PyTorch",
        ) from error
    rows = _batch_sizes(program)
    if any(isinstance(size, int) for size in rows):
        raise LoadError(
            f"{path} was exported for batches of exactly {rows[0]} row(s), and attacks change the batch size",
            remedy="export it again with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)",
        )
    return ExportedModel(module)


def _batch_sizes(program: torch.export.ExportedProgram) -> list[int | torch.SymInt]:
    """First dimension of each input: a number where it is fixed, a symbol where it is free."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [values.get(str(name)) for name in program.graph_signature.user_inputs]
    return [value.shape[0] for value in inputs if isinstance(value, Tensor) and value.ndim]


ROW = Opener("exported", "a program of torch.export", "FILE.pt2", opened, suffixes=(".pt2",))
