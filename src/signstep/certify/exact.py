"""Exact search: the network as a mixed-integer program, with a switch for each rectifier that may be on or off.

Where few are open, the least margin over the whole box is found, or it is shown that none is too small.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signstep.certify.linear.crown import Bounded
from signstep.certify.linear.lines import Lines
from signstep.errors import MissingExtraError

# Numbers in the expressions of one layer; and switches, above which no search ends in a minute.
LARGEST, MOST = 2**25, 4000


@dataclass(frozen=True)
class Searched:
    """Whether every margin is above what was asked for; if not, perhaps an input at which one is not.

    Attributes:
        proved: whether it is shown.
        point: such an input in the model's units, (...); None where none was found in time.
    """

    proved: bool
    point: Tensor | None = None


def need_solver() -> Any:
    """``scipy.optimize``, whose solver is HiGHS.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy import optimize
    except ImportError as error:
        raise MissingExtraError("scipy", "exact") from error
    return optimize


@torch.no_grad()
def searched(bounded: Bounded, ways: Tensor, shift: Tensor, enough: float, seconds: float) -> Searched | None:
    """Whether ways @ v + shift is above ``enough`` on the whole box, v being the last step's outputs.

    Each open rectifier z = max(x, s x) between the ends l < 0 < u is four inequalities with a switch a in {0, 1}:
    z >= x, z >= s x, z <= s x + (1 - s) u a, z <= x - (1 - s) l (1 - a). All other numbers are linear in these and the
    inputs. The solver works to tolerances of 1e-6 to 1e-7: ``enough`` must leave room for what that makes of a margin.

    Source: Tjeng, Xiao & Tedrake (2019), "Evaluating robustness of neural networks with mixed integer programming".

    Args:
        bounded: the example, with its bounds.
        ways: coefficients (S, D), one program each.
        shift: (S,).
        enough: what a margin must exceed.
        seconds: for all programs together.

    Returns:
        None where the network is too large, or has a part that is no rectifier.
    """
    optimize = need_solver()
    built = _Program.of(bounded)
    if built is None:
        return None
    until = time.monotonic() + seconds
    for way, constant in zip(ways.cpu().numpy(), shift.cpu().numpy(), strict=True):
        goal, offset = built.goal(way)
        left = until - time.monotonic()
        if left <= 0:
            return Searched(proved=False)
        # A margin that is small enough, or none: the first that is found ends the search.
        small = optimize.LinearConstraint(goal, -np.inf, enough - offset - constant)
        said = optimize.milp(
            goal,
            integrality=built.whole,
            bounds=optimize.Bounds(built.least, built.most),
            constraints=[*built.constraints(optimize), small],
            options={"time_limit": left, "mip_rel_gap": 1e9},
        )
        if said.status == 2:  # no such point
            continue
        if said.x is None:
            return Searched(proved=False)
        inputs = torch.from_numpy(said.x[: built.inputs]).view(bounded.ball.centre.shape)
        return Searched(proved=False, point=inputs.to(shift.device))
    return Searched(proved=True)


@dataclass(frozen=True)
class _Program:
    """The network in inequalities: rows @ v <= ends over inputs, outputs of open rectifiers, and switches."""

    rows: Any
    ends: Any
    least: Any
    most: Any
    whole: Any
    inputs: int
    expression: Any
    constant: Any

    @classmethod
    def of(cls, bounded: Bounded) -> "_Program | None":
        from scipy import sparse

        low, high = bounded.ball.box.low.flatten(), bounded.ball.box.high.flatten()
        inputs = len(low)
        opened: dict[int, Tensor] = {}
        for place, lines in bounded.lines.items():
            if not isinstance(lines, Lines) or lines.free is None:
                return None
            opened[place] = lines.free.flatten().nonzero().squeeze(1)
        switches = sum(map(len, opened.values()))
        count = inputs + switches
        widest = max(part.centre.numel() for part in bounded.intervals)
        if widest * count > LARGEST or switches > MOST or bounded.program.stops:
            return None
        found: list[tuple[Tensor, Tensor]] = []
        parts, ends = [], []
        least, most = [low.cpu().numpy()], [high.cpu().numpy()]
        next_ = inputs
        for place, step in enumerate(bounded.program.steps):
            if step.kind == "given":
                found.append((torch.eye(inputs, count, dtype=low.dtype, device=low.device), torch.zeros_like(low)))
                continue
            if step.kind == "affine":
                found.append(_mapped(step, [found[source] for source in step.sources]))
                continue
            lines = bounded.lines[place]
            assert isinstance(lines, Lines)
            before, constant = found[step.sources[0]]
            index, slope = opened[place], lines.least
            box = bounded.intervals[step.sources[0]]
            l_, u = box.low.flatten()[index], box.high.flatten()[index]
            own = torch.arange(next_, next_ + len(index), dtype=torch.int64, device=low.device)
            next_ += len(index)
            kept = lines.low_slope.flatten()
            after, moved = before * kept.unsqueeze(1), constant * kept
            after[index], moved[index] = 0.0, 0.0
            after[index, own] = 1.0
            found.append((after, moved))
            here = sparse.csr_matrix(before[index].cpu().numpy())
            numbers = own.cpu().numpy()
            span = np.arange(len(index))
            z = sparse.csr_matrix((np.ones(len(index)), (span, numbers)), shape=(len(index), count))
            rest = (1 - slope) * np.ones(len(index))
            c, low_, high_ = constant[index].cpu().numpy(), l_.cpu().numpy(), u.cpu().numpy()

            def switch(values: Any, span: Any = span, numbers: Any = numbers, size: int = len(index)) -> Any:
                return sparse.csr_matrix((values, (span, numbers - inputs)), shape=(size, switches))

            none = sparse.csr_matrix((len(index), switches))
            parts += [
                sparse.hstack([here - z, none]),
                sparse.hstack([slope * here - z, none]),
                sparse.hstack([z - slope * here, switch(-rest * high_)]),
                sparse.hstack([z - here, switch(-rest * low_)]),
            ]
            ends += [-c, -slope * c, slope * c, c - rest * low_]
            least.append(np.minimum(slope * low_, 0))
            most.append(high_)
        expression, constant = found[-1]
        rows = sparse.vstack(parts).tocsr() if parts else sparse.csr_matrix((0, count + switches))
        return cls(
            rows,
            np.concatenate(ends) if ends else np.empty(0),
            np.concatenate([*least, np.zeros(switches)]),
            np.concatenate([*most, np.ones(switches)]),
            np.concatenate([np.zeros(count), np.ones(switches)]),
            inputs,
            expression.cpu().numpy(),
            constant.cpu().numpy(),
        )

    def goal(self, way: Any) -> tuple[Any, float]:
        """A linear function of the outputs in terms of the program's numbers."""
        switches = len(self.whole) - self.expression.shape[1]
        return np.concatenate([way @ self.expression, np.zeros(switches)]), float(way @ self.constant)

    def constraints(self, optimize: Any) -> list[Any]:
        """The inequalities, where there are any."""
        return [optimize.LinearConstraint(self.rows, -np.inf, self.ends)] if len(self.ends) else []


def _mapped(step: Any, sources: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The expressions of an affine step's outputs."""
    function, shapes = step.function, step.inputs
    columns = [before.T.reshape(-1, 1, *shape) for (before, _), shape in zip(sources, shapes, strict=True)]
    constants = [constant.view(1, *shape) for (_, constant), shape in zip(sources, shapes, strict=True)]
    offset = step.offset.flatten()
    moved = torch.func.vmap(function)(*columns).flatten(1) - offset
    return moved.T.contiguous(), function(*constants).flatten()
