"""From a request to an audit of structures."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signstep.domains.atoms.bundled import weights_hash
from signstep.domains.atoms.example import example_structures
from signstep.domains.atoms.opening import potential_named
from signstep.domains.atoms.schema import TEMPLATE, Schema, read_schema
from signstep.domains.atoms.second_order import RECIPES
from signstep.domains.atoms.structures import Gathered, gather, need_ase, read_structures
from signstep.domains.atoms.summary import summary
from signstep.domains.atoms.surface import Surface
from signstep.domains.atoms.threat import AtomsThreat, atoms_threat
from signstep.domains.case import Case, Request
from signstep.domains.own_attacks import named_in
from signstep.engine.tasks import Objective
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Model
from signstep.model.opening import parse_args


def case(request: Request) -> Case:
    """An audit of structures: which of them rise by so much in energy when their atoms move by at most eps?

    Without model and data: ASE's EMT and adsorbates on copper.

    Raises:
        MissingExtraError: ASE is not installed.
        InputError: schema, structures or potential do not fit.
        LoadError: a file cannot be read.
    """
    need_ase()
    schema = _stated(request)
    potential = potential_named(schema.potential, schema.arguments, request.weights)
    reference = None if schema.reference is None else potential_named(schema.reference)
    names, unread, given = _structures(request)
    levels = schema.rise if schema.disagreement is None else schema.disagreement
    if isinstance(levels, tuple) and request.limit is not None and len(levels) > len(given):
        levels = levels[: len(given)]
    which = list(schema.which) if isinstance(schema.which, tuple) else schema.which
    kept = gather(given, potential, which=which, rise=levels, names=names, skip_bad=request.skip_bad)
    if reference is not None:
        gather([part.atoms for part in kept.structures], reference)  # it must know them as well
    surface = Surface(kept.structures, potential, schema.quiet, reference if schema.disagreement is not None else None)
    held, tags = tuple(part.freedom for part in kept.structures), tuple(part.tag for part in kept.structures)
    threat = atoms_threat(schema.norm, schema.eps, held, tags)
    return Case(
        domain="atoms",
        model=Model(
            surface,
            task=Objective(levels if isinstance(levels, float) else None),
            name=f"the {_quantity(schema)} by {potential.name}"
            + ("" if reference is None or schema.disagreement is None else f" and {reference.name}"),
        ),
        batches=_Rows(surface),
        threat=threat,
        data=_described(request, kept),
        summary=partial(summary, surface=surface, threat=threat, schema=schema, reference=reference, seed=request.seed),
        attacks=_attacks(schema, threat),
        named=named_in(RECIPES),
        opening=_opening(schema, threat, kept),
        notes=_notes(kept, unread),
        hashes=_hashes(request, schema),
        search=request.search,
        total=len(kept.structures),
        terms={
            **threat.plain().to_plain(),
            "potential": potential.name,
            "reference": None if reference is None else reference.name,
            "value": _quantity(schema),
            "levels": [part.rise for part in kept.structures],
            "names": [part.name for part in kept.structures],
            "formulas": [part.atoms.get_chemical_formula() for part in kept.structures],
            "units": {"length": "Angstrom", "energy": "eV"},
        },
    )


def infer(request: Request) -> str:  # noqa: ARG001
    """A schema to be edited; structures say of themselves what holds their atoms."""
    return TEMPLATE


class _Rows:
    """One structure after the other with its level, as often as somebody goes through."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface

    def __len__(self) -> int:
        return len(self._surface.structures)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, structure in enumerate(self._surface.structures):
            yield self._surface.rows([number]), torch.tensor([structure.rise], dtype=torch.float64, device="cpu")


def _stated(request: Request) -> Schema:
    """The schema, with what the command line says beside it."""
    schema = Schema() if request.schema is None else read_schema(request.schema)
    if request.schema is None and request.model is not None and request.model != "emt" and request.data is None:
        schema = replace(schema, reference="emt")  # the example's structures, and what they were relaxed in
    if request.model is not None:
        schema = replace(schema, potential=request.model)
    if request.model_args:
        schema = replace(schema, arguments=parse_args(request.model_args))
    if request.label_column is not None:
        raise InputError(Arg("label_column", request.label_column), "has no meaning for structures", remedy="drop it")
    if request.threat is not None:
        name, _, size = request.threat.partition(":")
        try:
            schema = replace(schema, norm=name, eps=float(size))  # type: ignore[arg-type]
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                Arg("threat", request.threat), remedy="write linf:0.05, atom:0.1 or l2:0.3, in Angstrom"
            ) from error
    return schema


def _structures(request: Request) -> tuple[list[str] | None, tuple[str, ...], list[Any]]:
    """Names, sentences about files that were left out, and the structures."""
    if request.data is None:
        given, names = example_structures()
        return names[: request.limit], (), given[: request.limit]
    given, unread = read_structures(request.data, skip_bad=request.skip_bad)
    return None, unread, given[: request.limit]


def _attacks(schema: Schema, threat: AtomsThreat) -> tuple[Any, ...]:
    always = ("random-sign", "fgsm", "second-order", "pgd")
    nearest = {"linf": ("fmn:steps=50,step=0.3",), "l2": ("ddn:steps=50,init=0.1",), "atom": ()}[schema.norm]
    return (*always[:3], *(nearest if threat.in_axes else ()), always[3])


def _quantity(schema: Schema) -> str:
    return "rise of the energy" if schema.disagreement is None else "disagreement of the energies"


def _described(request: Request, kept: Gathered) -> str:
    where = "example: adsorbates on copper" if request.data is None else Path(request.data).name
    return f"{where} ({len(kept.structures)} structures)"


def _opening(schema: Schema, threat: AtomsThreat, kept: Gathered) -> tuple[str, ...]:
    levels = sorted({part.rise for part in kept.structures if part.rise is not None})
    span = f"{levels[0]:g}" if len(levels) == 1 else f"{levels[0]:g} to {levels[-1]:g}"
    return (f"threat: {threat}", f"counted: a {_quantity(schema)} of at least {span} eV")


def _notes(kept: Gathered, unread: tuple[str, ...]) -> tuple[str, ...]:
    left = (*unread, *kept.skipped)
    if not left:
        return ()
    return (f"{len(left)} bad structures were left out; the first: {left[0]}",)


def _hashes(request: Request, schema: Schema) -> dict[str, str]:
    found = {}
    if schema.potential == "graph":
        found["weights"] = weights_hash(request.weights)
    if request.data is not None and Path(request.data).is_file():
        found["data"] = hashlib.sha256(Path(request.data).read_bytes()).hexdigest()
    if request.schema is not None:
        found["schema"] = hashlib.sha256(request.schema.read_bytes()).hexdigest()
    return found
