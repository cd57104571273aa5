"""From a request to an audit of a table, and from a table to a schema."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.data.tables import refuse_unknown
from signstep.domains.case import Case, Request
from signstep.domains.own_attacks import named_in
from signstep.domains.tabular.cells import read_cells
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.example import example
from signstep.domains.tabular.forms import TabularNet
from signstep.domains.tabular.infer import infer_schema
from signstep.domains.tabular.opening import Given, given_model
from signstep.domains.tabular.query import RECIPES
from signstep.domains.tabular.records import Records, read_records
from signstep.domains.tabular.schema import Schema
from signstep.domains.tabular.schema_file import read_schema, schema_text
from signstep.domains.tabular.summary import Teller
from signstep.domains.tabular.threat import tabular_threat
from signstep.engine.threat import Eps
from signstep.errors import InputError, ThreatError
from signstep.io.files import expanded
from signstep.messages import Arg, Blank
from signstep.model.declaration import Model

_WITH_GRADIENTS: tuple[Any, ...] = ("random-sign", "fgsm", "mi-fgsm", "pgd", "coordinate-search:queries=200")
_BY_QUERIES: tuple[Any, ...] = ("random-direction:queries=100", "coordinate-search:queries=500")
_ASKED = {True: 200, False: 100}  # records whose cheapest flip is looked for, with and without gradients


def case(request: Request) -> Case:
    """The audit of a table; without model, data and schema that of scikit-learn's breast cancer records.

    Raises:
        InputError: one of the three is missing, or the threat is no size.
        LoadError: a file, or a row without skip_bad, cannot be used.
        MissingExtraError: the example needs scikit-learn.
    """
    missing = [name for name in ("model", "data", "schema") if getattr(request, name) is None]
    if len(missing) == 3:
        return _example(request)
    if missing == ["schema"]:
        raise InputError(
            "no schema says what the columns mean",
            remedy=(
                f"write a first one with 'signstep schema --domain tabular --data {request.data} > "
                "schema.toml', correct it, and pass",
                Arg("schema", "schema.toml"),
            ),
        )
    if missing:
        first, *rest = (Arg(name, python=name) for name in missing)
        raise InputError(
            *(first, *(part for other in rest for part in ("and", other))),
            "is missing" if len(missing) == 1 else "are missing",
            remedy=("pass", Arg("model"), ",", Arg("data"), "and", Arg("schema"), ", or none of them for the example"),
        )
    assert request.data is not None
    assert request.schema is not None
    schema = read_schema(request.schema)
    if request.label_column is not None:
        schema = _with_target(schema, request.label_column)
    cells = read_cells(request.data)
    if request.ignore:
        refuse_unknown(request.ignore, list(cells.columns))
        schema = replace(schema, ignore=(*schema.ignore, *request.ignore), _numbers={})
    records = read_records(cells, schema, skip_bad=request.skip_bad, labelled=schema.target.column in cells.columns)
    model = given_model(request, schema)
    hashes = model.hashes | {"data": _sha256(Path(request.data)), "schema": _sha256(Path(request.schema))}
    if records.labels is None:
        note = f"the table has no column {schema.target.column!r}: the model's own decisions count as right"
        records = replace(records, notes=(*records.notes, note))
    return _case(request, schema, records, replace(model, hashes=hashes), f"{request.data}")


def infer(request: Request) -> str:
    """A first schema for the data of the request, as TOML.

    Raises:
        InputError: no data, or a column that cannot be told.
    """
    if request.data is None:
        raise InputError(
            "a schema is inferred from data", remedy=("pass", Arg("data", Blank("FILE")), ".csv or FILE.parquet")
        )
    return schema_text(infer_schema(read_cells(request.data), request.label_column, request.ignore))


def _example(request: Request) -> Case:
    schema, records, net = example()
    given = Given(net, "30-16-2 network trained on the other records", (), True, {})
    made = _case(request, schema, records, given, "scikit-learn's breast cancer table, every fifth record")
    opening = (
        "No model, data and schema given: auditing a small network that reads scikit-learn's breast cancer records.",
        "Your own: signstep schema --domain tabular --data FILE.csv > schema.toml, then --model, --data, --schema.",
    )
    return replace(made, opening=opening)


def _case(request: Request, schema: Schema, records: Records, given: Given, data: str) -> Case:
    if request.limit is not None:
        records = _first(records, request.limit)
    layout = Layout(schema)
    x = layout.widen(torch.from_numpy(records.values))
    y = None if records.labels is None else torch.from_numpy(records.labels)
    gradients = isinstance(given.model, TabularNet)
    return Case(
        domain="tabular",
        model=Model(given.model, name=given.description, classes=schema.target.classes),
        batches=_batches(x, y, request.rows),
        threat=tabular_threat(schema, _size(request.threat)),
        data=data,
        summary=Teller(schema, records, given.model, gradients, _ASKED[gradients]),
        attacks=_WITH_GRADIENTS if gradients else _BY_QUERIES,
        named=named_in(RECIPES),
        curve=gradients,
        notes=(*records.notes, *given.notes),
        hashes=given.hashes,
        search=request.search,
        total=len(records),
        terms={"schema": schema.plain(), "columns": list(layout.names), "bad_rows": records.bad},
    )


def _batches(x: Tensor, y: Tensor | None, size: int) -> list[tuple[Tensor, Tensor | None]]:
    starts = range(0, len(x), size)
    return [(x[start : start + size], None if y is None else y[start : start + size]) for start in starts]


def _first(records: Records, limit: int) -> Records:
    if limit < 1:
        raise InputError(Arg("limit", limit), remedy="pass the number of records to audit, at least 1")
    return replace(
        records,
        values=records.values[:limit],
        labels=None if records.labels is None else records.labels[:limit],
        groups={name: members[:limit] for name, members in records.groups.items()},
        names=records.names[:limit],
    )


def _size(threat: str | None) -> Eps:
    """The eps of "budget:0.5" or "0.5"; 1 without."""
    if threat is None:
        return 1.0
    name, colon, eps = threat.rpartition(":")
    if colon and name != "budget":
        raise ThreatError(
            f"threat {threat!r}: a table has budgets for each feature, in the schema",
            remedy="pass budget:0.5 for half of them",
        )
    return eps


def _with_target(schema: Schema, column: str) -> Schema:
    return replace(schema, target=replace(schema.target, column=column), _numbers={})


def _sha256(path: Path) -> str:
    return hashlib.sha256(expanded(path).read_bytes()).hexdigest()
