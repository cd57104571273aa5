"""Under which heading help shows an option; those of no heading are the command's own, and come first."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from signstep.cli.groups import (
    BatchOptions,
    DataOptions,
    DetectorOptions,
    MachineOptions,
    ModelOptions,
    ReadingOptions,
    ScaleOptions,
    SearchOptions,
    ThreatOptions,
)

OWN = "Options"


def _names(*groups: Any) -> tuple[str, ...]:
    return tuple(part.name for group in groups for part in fields(group))


PANELS: dict[str, tuple[str, ...]] = {
    "The model": (*_names(ModelOptions, ReadingOptions), "domain", "schema", "endpoint", "max_requests", "dry_run"),
    "The data": (*_names(DataOptions, BatchOptions), "ignore_column", "test"),
    "What may change": (*_names(ThreatOptions), "budget"),
    "The attack": (
        *("attack", "recipe", "recipe_", "ladder", "set", "surrogate", "victim", "ensemble"),
        *_names(SearchOptions),
        "gradient_path",
        *(
            "curve",
            "curve_attack",
            "bounds",
            "transfer_to",
            "examples",
            "trained",
            "sigma",
            "alpha",
            "draws",
            "choosing",
        ),
    ),
    "The detectors": (*_names(DetectorOptions), "by_class", "other"),
    "Gates": ("fail_under", "baseline", "diagnose", "fail_on"),
    "The machine": (*_names(MachineOptions), *_names(ScaleOptions), "shard"),
    "Output": ("show", "out", "format_", "json", "save_points", "section", "finding", "render", "log_to"),
}
"""Names of the parameters of commands, by heading."""

_HEADING = {name: heading for heading, names in PANELS.items() for name in names}


def in_panels(options: Iterable[Any], *, least: int = 9) -> dict[str, list[Any]]:
    """Options by heading, in the order in which headings are shown; all under one where there are few.

    Args:
        options: of a command, as click knows them.
        least: from how many options on headings help.
    """
    known = list(options)
    if len(known) < least:
        return {OWN: known}
    found: dict[str, list[Any]] = {OWN: [], **{heading: [] for heading in PANELS}}
    for option in known:
        found[_HEADING.get(option.name, OWN)].append(option)
    order = {name: place for place, name in enumerate(_HEADING)}
    for heading in PANELS:
        found[heading].sort(key=lambda option: order[option.name])
    return {heading: rows for heading, rows in found.items() if rows}
