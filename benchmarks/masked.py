"""How often `signstep diagnose` is right: models that hide behind their gradients, and healthy ones, from code.

Small networks for the built-in digits, trained on the spot; weights are kept in a folder of the temporary one.
Every family of masks belongs to one half (`masking/half_a.py`, `half_b.py`): thresholds are set on half A, half B is
scored once with what was set. A pair of model and attack counts as inflated where the attack leaves more than 2 points
more standing than the best attack known here: `standard`, the adaptive attack that the family brings (written by hand
by who knows the mask), and what the diagnosis itself found. The others are real.

With `--keep` each pair is a line of JSON in a file, written when it is done: what is in the file is not run again.

    python benchmarks/masked.py --half A --examples 60 --keep half_a.jsonl
    python benchmarks/masked.py --half B --examples 60 --keep half_b.jsonl
    python benchmarks/masked.py --half A --only "k-winners" --full
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import signstep as ss
from harness import machine, table
from masking import half_a, half_b
from masking.entry import Entry
from masking.networks import frozen
from signstep.data.digits import digits
from signstep.engine.statistics import wilson

HALVES = {"A": half_a.HALF, "B": half_b.HALF}
POINTS = 0.02


def entries(half: str, only: str | None) -> Iterator[Entry]:
    for family in HALVES[half]:
        for entry in family():
            if only is None or only in entry.key:
                yield entry


def standing(
    entry: Entry, model: Any, x: Tensor, y: Tensor, attacks: tuple[str, ...] | str, search: ss.Search
) -> Tensor:
    """Which examples stand, (N,)."""
    how: dict[str, Any] = {"ladder": attacks} if isinstance(attacks, str) else {"attacks": list(attacks)}
    result = ss.audit(model, (x, y), threat=ss.linf(entry.eps), curve=False, search=search, **how)
    return torch.tensor([letter in "hu" for letter in result.worst_case])


def scored(entry: Entry, x: Tensor, y: Tensor, full: bool) -> dict[str, Any]:
    """A pair, as plain values."""
    began = time.perf_counter()
    d = ss.diagnose(entry.model, (x, y), threat=ss.linf(entry.eps), attack=entry.attack, search=entry.search)
    seconds = time.perf_counter() - began
    if full:
        print(d, "\n")
    adapted = d.after
    if entry.family != "healthy":
        how = ss.Search(eot=entry.eot)
        if entry.twin is not None:
            how = replace(how, surrogate=ss.Model(frozen(entry.twin), outputs="logits"))
        adapted = int(standing(entry, entry.model, x, y, entry.adaptive, how).sum())
    best = min(d.after, adapted, d.after if d.standard is None else d.standard)
    plain = entry.plain
    return {
        "key": entry.key,
        "family": entry.family,
        "examples": d.examples,
        "inflated": d.before - best > POINTS * d.examples,
        "verdict": d.verdict.word,
        "before": d.before,
        "after": d.after,
        "standard": d.standard,
        "by hand": adapted,
        "unmasked": None if plain is None else int(standing(entry, plain, x, y, "standard", ss.Search()).sum()),
        "cause": d.causes[0].name if d.causes and d.verdict.word == "inflated" else "",
        "wanted": list(entry.causes),
        "cost": round(d.cost.tests / max(1, d.cost.standard), 2),
        "seconds": round(seconds, 1),
    }


def said(one: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    caused = "" if not one["inflated"] or not one["cause"] else "yes" if one["cause"] in one["wanted"] else "NO"
    truth = "inflated" if one["inflated"] else "real"
    numbers = ("" if one[name] is None else str(one[name]) for name in ("before", "after", "by hand", "unmasked"))
    return (one["key"], truth, one["verdict"], *numbers, one["cause"], caused, f"{one['cost']:.1f}",
            f"{one['seconds']:.0f}")  # fmt: skip


def share(hits: int, of: int) -> str:
    low, high = wilson(hits, of)
    return f"{hits} of {of} ({hits / max(1, of):.0%}, 95 % [{low:.0%}, {high:.0%}])"


def summary(found: Sequence[dict[str, Any]]) -> list[str]:
    """The goals of the collection, measured."""
    bad = [one for one in found if one["inflated"]]
    good = [one for one in found if not one["inflated"]]
    hit = [one for one in bad if one["verdict"] == "inflated"]
    caused = [one for one in hit if one["cause"] in one["wanted"]]
    kept = [one for one in hit if one["unmasked"] is not None]
    near = [one for one in kept if abs(one["after"] - one["unmasked"]) <= POINTS * one["examples"]]
    false = [one for one in good if one["verdict"] == "inflated"]
    unsure = sum(one["verdict"] == "undetermined" for one in good)
    families = len({one["family"] for one in bad})
    return [
        f"inflated found: {share(len(hit), len(bad))}, of {families} families",
        f"of these called undetermined: {sum(one['verdict'] == 'undetermined' for one in bad)}",
        f"false alarms: {share(len(false), len(good))}; undetermined among the real: {unsure}",
        f"cause right: {share(len(caused), len(hit))}",
        f"adapted number within 2 points of the unmasked model's: {share(len(near), len(kept))}",
        f"cost of tests and cures: at most {max((one['cost'] for one in found), default=0)} times standard",
    ]


def _read(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {one["key"]: one for one in map(json.loads, filter(str.strip, lines))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=sorted(HALVES), default="A")
    parser.add_argument("--examples", type=int, default=60, help="at most 128")
    parser.add_argument("--only", help="a part of family, name or attack")
    parser.add_argument("--full", action="store_true", help="print each diagnosis")
    parser.add_argument("--keep", type=Path, help="a file of results, a line of JSON each; what it has is not run")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y = digits("test")
    x, y = x[: asked.examples], y[: asked.examples]
    print(machine())
    known, found = _read(asked.keep), []
    for entry in entries(asked.half, asked.only):
        one = known.get(entry.key)
        if one is None:
            one = scored(entry, x, y, asked.full)
            if asked.keep is not None:
                with asked.keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
        found.append(one)
        print(" | ".join(said(one)), flush=True)
    header = ("pair", "truth", "verdict", "before", "after", "by hand", "unmasked", "cause", "right", "x standard", "s")
    print(f"\n{table(header, list(map(said, found)))}\n")
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
