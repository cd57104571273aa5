"""A small report, and the means of a forger who has its whole folder: record, points, configuration, page and sums."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from signstep.attacks.recipes import recipe
from signstep.auditing.checksums import write_sums
from signstep.auditing.evidence import write_points
from signstep.auditing.figures import median_distance, nearest_quartiles, passes_quartiles
from signstep.auditing.record import worst_case
from signstep.auditing.result import Result
from signstep.cli import main
from signstep.cli.report_config import report_config
from signstep.engine.passes import Setting
from signstep.report import write_report

ROWS = 60
MODEL = ["--model", "forgednets:net", "--weights", "net.safetensors"]
OWN, IMAGES = [*MODEL, "--data", "flat.npz"], [*MODEL, "--data", "set.npz"]
RUNGS = "apgd:loss=ce,steps=5,apgd:loss=dlr,targets=2,steps=5,square:queries=40"
ATTACKS = "random-sign,fgsm,pgd:steps=4,restarts=2,fmn:steps=6"


def workplace(folder: Path) -> Path:
    """A model, its weights and data: what the person who verifies has."""
    (folder / "forgednets.py").write_text(
        "from torch import nn\n\n\ndef net(width=4):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, width))\n"
    )
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    weights = {"1.weight": weight - weight.mean(1, keepdim=True), "1.bias": torch.zeros(4)}
    save_file(weights, folder / "net.safetensors")
    x = torch.randint(0, 256, (ROWS, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    y = (x.flatten(1).float() / 255 @ weights["1.weight"].T).argmax(1)
    y[:6] = (y[:6] + 1) % 4
    np.savez(folder / "set.npz", x=x.numpy().astype(np.uint8), y=y.numpy())
    np.savez(folder / "flat.npz", x=x.flatten(1).float().div(255).numpy(), y=y.numpy())
    return folder


@dataclass
class Forged:
    """A copy of a report, taken apart; `write` puts it together again so that everything fits that can be made to."""

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)
    points: dict[str, Tensor] = field(default_factory=dict)
    config: str = ""
    after: list[Callable[[Path], object]] = field(default_factory=list)
    resum: bool = True

    @classmethod
    def of(cls, report: Path, folder: Path) -> "Forged":
        shutil.copytree(report, folder)
        record = json.loads((folder / "result.json").read_text())
        points = load_file(folder / "adversarial.safetensors")
        return cls(folder, record, points, (folder / "signstep.toml").read_text())

    @property
    def examples(self) -> dict[str, Any]:
        return self.record["per_example"]  # type: ignore[no-any-return]

    def attack(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.record["attacks"] if entry["name"].startswith(name))

    def letters(self, name: str, change: Mapping[int, str]) -> None:
        """Other letters in a column: of an attack, or "clean"."""
        table = self.examples if name == "clean" else self.examples["verdicts"]
        column = list(table[name])
        for row, letter in change.items():
            column[row] = letter
        table[name] = "".join(column)

    def rename(self, old: str, new: str) -> None:
        """An attack under another name, wherever it stands."""
        text = json.dumps(self.record).replace(f'"{old}"', f'"{new}"')
        self.record, self.config = json.loads(text), self.config.replace(old, new)

    def drop(self, rows: list[int]) -> None:
        """Examples left out, everywhere."""
        kept = [row for row in range(self.record["examples"]) if row not in rows]
        place = {row: number for number, row in enumerate(kept)}
        self.record["per_example"] = _only(self.examples, kept)
        stays = [k for k, row in enumerate(self.points["row"].tolist()) if row in place]
        self.points = {name: part[stays] for name, part in self.points.items()}
        self.points["row"] = torch.tensor([place[row] for row in self.points["row"].tolist()], dtype=torch.int64)
        if not stays:
            self.points = {}
        self.record["examples"] = len(kept)
        if self.record["knob"] is not None:
            self.record["knob"] = None

    def count(self) -> None:
        """Every figure made to follow from letters and numbers."""
        examples, attacks = self.examples, self.record["attacks"]
        clean, whole = examples["clean"], len(examples["clean"])
        for entry in attacks:
            name = entry["name"]
            column, spent = examples["verdicts"][name], examples["passes"][name]
            for word, letter in (("fooled", "f"), ("held", "h"), ("undetermined", "u")):
                entry[word] = sum(a == "r" and b == letter for a, b in zip(clean, column, strict=True))
            entry["entered"] = len(column) - column.count("-")
            entry["queries"] = passes_quartiles(spent, column)
            entry["forwards"] = sum(spent) / whole
            entry["distance"] = median_distance(examples["distances"][name])
            if name in examples["nearest"]:
                entry["nearest"] = nearest_quartiles(examples["nearest"][name], clean, column)
            if entry["right_after"] is not None:
                said = examples["answers"][name]
                entry["right_after"] = sum(a == b for a, b in zip(said, examples["labels"], strict=True))
        made = Result.from_json(json.dumps({**self.record, "held": 0, "undetermined": 0}))
        letters = worst_case(made.per_example, made.attacks)
        self.record["clean_right"] = clean.count("r")
        self.record["held"], self.record["undetermined"] = letters.count("h"), letters.count("u")
        self._curves(made)

    def _curves(self, made: Result) -> None:
        from signstep.auditing.figures import fooled_within

        clean, smallest = made.per_example.clean, made.per_example.smallest_eps
        for name, points in self.record["curves"].items():
            for point in points:
                if name == "fgsm":
                    pairs = zip(clean, smallest, strict=True)
                    point["fooled"] = sum(c == "r" and s is not None and s <= point["eps"] for c, s in pairs)
                elif name in made.per_example.nearest:
                    point["fooled"] = fooled_within(made.per_example.nearest[name], clean, point["eps"])
                else:
                    point["fooled"] = min(point["fooled"], clean.count("r"))

    def hold(self, row: int) -> None:
        """An example that fell declared to have held, so that nothing contradicts it."""
        examples = self.examples
        for entry in self.record["attacks"]:
            name = entry["name"]
            held = max(
                spent
                for spent, letter in zip(examples["passes"][name], examples["verdicts"][name], strict=True)
                if letter != "-"
            )
            self.letters(name, {row: "h"})
            examples["passes"][name][row] = held
            examples["distances"][name][row] = None
            examples["answers"][name][row] = examples["labels"][row]
            if name in examples["nearest"]:
                examples["nearest"][name][row] = None
        examples["smallest_eps"][row] = None
        self.still(row)
        if not self.points:
            return
        keep = self.points["row"] != row
        self.points = {name: part[keep] for name, part in self.points.items()} if bool(keep.any()) else {}

    def still(self, row: int) -> None:
        """No example asked at several sizes, where that was this one."""
        if self.record["knob"] is not None and self.record["knob"]["row"] == row:
            self.record["knob"] = None

    def paid(self) -> None:
        """What the whole plan costs, of attacks that nobody fell to."""
        for entry in self.record["attacks"]:
            plan = recipe(entry["name"]).passes(Setting(ways=3))  # type: ignore[attr-defined]
            if plan.backwards is not None:
                entry["backwards"], entry["gradients"] = float(plan.backwards), self.record["examples"] * plan.gradients
                entry["coordinates"] = 12 * entry["gradients"]

    def write(self) -> Path:
        """Write it, with page, checklist, pictures and sums to match."""
        (self.folder / "result.json").write_text(json.dumps(self.record))
        (self.folder / "signstep.toml").write_text(self.config)
        kept = self.folder / "adversarial.safetensors"
        kept.unlink(missing_ok=True)
        if self.points:
            write_points({name: part.contiguous() for name, part in self.points.items()}, kept)
        try:
            result = Result.load(self.folder / "result.json")
            write_report(result, self.folder, points=self.points, ignore=report_config(self.folder)[0].ignore)
        except Exception:  # what no reader takes has no page
            (self.folder / "index.html").touch()
        for change in self.after:
            change(self.folder)
        if self.resum:
            write_sums(self.folder)
        return self.folder


def _only(part: Any, kept: list[int]) -> Any:
    if isinstance(part, dict):
        return {name: _only(inner, kept) for name, inner in part.items()}
    if isinstance(part, str):
        return "".join(part[row] for row in kept) if part else ""  # bounds that were not taken
    return [part[row] for row in kept] if part else []


def audited(folder: Path, *words: str) -> Path:
    """A report of the workplace, which is the current folder."""
    assert main(["audit", "--threat", "linf:12/255", "--out", str(folder), *words]) == 0
    return folder
