"""Models that take wide rows: the searched row becomes what the user's model takes, inside the question."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.schema import Form, Schema
from signstep.errors import InputError, MissingExtraError, ModelError
from signstep.messages import Key
from signstep.model.victims.estimator import from_sklearn


class TabularNet(nn.Module):
    """A torch module behind the encoding of a schema: "encoded" or "wide"."""

    def __init__(self, net: nn.Module, schema: Schema) -> None:
        super().__init__()
        if schema.form not in ("encoded", "wide"):
            raise InputError(
                Key("input", schema.form),
                "has no gradient for categories, and the model is a torch module",
                remedy="write encoded or wide",
                where="[model]",
            )
        self.net = net
        self._layout, self._standard = Layout(schema), schema.form == "encoded"

    def forward(self, wide: Tensor) -> Tensor:
        """What the net says of wide rows (R, width), in its own precision."""
        inputs = self._layout.standardise(wide) if self._standard else wide
        own = next(self.net.parameters(), None)
        scores: Tensor = self.net(inputs if own is None else inputs.to(own))
        return scores


@dataclass(frozen=True, eq=False)
class TabularEstimator:
    """A fitted scikit-learn classifier behind the encoding of a schema; no gradient passes.

    Attributes:
        ask: wide rows to scores.
        layout: of the schema.
        estimator: the classifier itself, for whoever reads it; None where it is not to be read.
    """

    ask: Callable[[Tensor], Tensor]
    layout: Layout
    estimator: Any = None

    def __call__(self, wide: Tensor) -> Tensor:
        """Log-probabilities (R, K), or what the estimator has instead, for wide rows."""
        return self.ask(wide.detach())


def estimator_model(estimator: Any, schema: Schema) -> TabularEstimator:
    """A fitted classifier, or a pipeline that ends in one, as a model of wide rows.

    Raises:
        InputError: it is not fitted, or its classes are not those of the schema.
    """
    layout = Layout(schema)
    known = [str(name) for name in getattr(estimator, "classes_", [])]
    order = _class_order(known, schema)
    victim = from_sklearn(_Fed(estimator, layout, schema.form))

    def ask(wide: Tensor) -> Tensor:
        try:
            scores = victim(wide)
        except (ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"the {type(estimator).__name__} refused records that the schema allows ({reason})",
                remedy="correct [model] input or the levels in the schema, or let the pipeline pass unknown categories",
            ) from error
        if scores.ndim == 2:
            return scores[:, order]
        return scores if order == sorted(order) else -scores

    return TabularEstimator(ask, layout, estimator)


class _Fed:
    """The estimator, given what it takes."""

    def __init__(self, estimator: Any, layout: Layout, form: Form) -> None:
        self._estimator, self._layout, self._form = estimator, layout, form
        self.classes_ = getattr(estimator, "classes_", None)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._estimator, name)
        return lambda x: method(self._inputs(torch.from_numpy(np.asarray(x))))

    def _inputs(self, wide: Tensor) -> Any:
        if self._form == "wide":
            return wide.numpy()
        if self._form == "encoded":
            return self._layout.standardise(wide).numpy()
        decoded = self._layout.narrow(wide).numpy()
        if self._form == "codes":
            return decoded
        columns = {
            feature.name: np.array(feature.levels, dtype=object)[decoded[:, number].astype(np.int64)]
            if feature.named
            else decoded[:, number]
            for number, feature in enumerate(self._layout.schema.features)
        }
        if self._form == "records":
            table = np.empty(decoded.shape, dtype=object)
            for number, column in enumerate(columns.values()):
                table[:, number] = column
            return table
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingExtraError("pandas", "tabular") from error
        return pandas.DataFrame(columns)


def _class_order(known: list[str], schema: Schema) -> list[int]:
    """For each class of the schema its position among the estimator's."""
    spelled = [name.removesuffix(".0") for name in known]
    wanted = [name.removesuffix(".0") for name in schema.target.classes]
    if known and sorted(spelled) != sorted(wanted):
        if spelled == [str(number) for number in range(len(wanted))]:
            return list(range(len(wanted)))
        raise InputError(
            f"the model knows the classes {', '.join(known)}, [target] names {', '.join(schema.target.classes)}",
            remedy="write the model's",
        )
    return [spelled.index(name) for name in wanted] if known else list(range(len(wanted)))
