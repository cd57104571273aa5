"""Forgeries by somebody who has the whole folder, one a row: what is forged, and the check that names it."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forger import IMAGES, OWN, ROWS, RUNGS, Forged, audited

from signstep.attacks.recipes import recipe
from signstep.cli import main
from signstep.engine.passes import Setting

Forge = Callable[[Forged], object]


def verified(report: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    """Exit status, names of the checks that fail, and all that was said."""
    capsys.readouterr()
    status = main(["verify", str(report), *(IMAGES if report.name == "climbed" else OWN), *words])
    said = capsys.readouterr()
    return status, re.findall(r"^FAIL  ([^:]+):", said.out, re.MULTILINE), said.out + said.err


def fallen(forged: Forged) -> int:
    """An example that some attack fooled."""
    return int(forged.points["row"][0])


def everything_right(f: Forged) -> None:
    """100 % clean and robust, with nothing left that could contradict it."""
    for row in range(ROWS):
        f.hold(row)
    f.examples["clean"] = "r" * ROWS
    for name in f.examples["answers"]:
        f.examples["answers"][name] = list(f.examples["labels"])
    f.examples["smallest_eps"] = [None] * ROWS
    f.points = {}
    f.count()


def one_held(f: Forged) -> None:
    f.hold(fallen(f))
    f.count()


def all_held(f: Forged) -> None:
    for row in f.points["row"].tolist():
        f.hold(row)
    f.paid()
    f.count()
    for name in ("random-sign", "pgd"):
        for key in list(f.record["curves"]):
            if key.startswith(name):
                for point in f.record["curves"][key]:
                    point["fooled"] = 0


def wrong_made_right(f: Forged) -> None:
    """A wrong example whose answer is said to be its label."""
    row = f.examples["clean"].index("w")
    f.letters("clean", {row: "r"})
    f.examples["answers"]["clean"][row] = f.examples["labels"][row]
    f.hold(row)
    f.count()


def random_model(f: Forged) -> None:
    everything_right(f)
    f.record["terms"]["random_model"] = True
    for entry in f.record["attacks"]:
        f.examples["passes"][entry["name"]] = [count + 31 for count in f.examples["passes"][entry["name"]]]
    f.count()


def without(*names: str) -> Forge:
    def forge(f: Forged) -> None:
        for name in names:
            f.examples[name] = {} if name == "answers" else []

    return forge


def tensor(name: str, change: Callable[[Forged], torch.Tensor | None]) -> Forge:
    def forge(f: Forged) -> None:
        made = change(f)
        if made is None:
            del f.points[name]
        else:
            f.points[name] = made

    return forge


def term(name: str, value: object) -> Forge:
    return lambda f: f.record["terms"].update({name: value})


def numbers(**values: object) -> Forge:
    return lambda f: f.record["terms"]["threat_terms"].update(values)


def widened_eps(f: Forged) -> None:
    """The claim of a threat three times as large as the one that was attacked."""
    f.record["terms"].update(eps="36/255", eps_value=36 / 255, threat="linf eps=36/255, box=[0, 1]")
    f.record["terms"]["threat_terms"]["eps"] = 36 / 255
    sizes = [point["eps"] for point in f.record["curves"]["fgsm"]]
    f.config = f.config.replace("linf:12/255", "linf:36/255").replace('curve = "auto"', f"curve = {sizes}")
    for name in list(f.examples["nearest"]):
        for row, near in enumerate(f.examples["nearest"][name]):
            if near is not None and f.examples["verdicts"][name][row] == "h" and near < 36 / 255:
                f.examples["nearest"][name][row] = None
    f.count()


def widened_box(f: Forged) -> None:
    f.record["terms"].update(threat="linf eps=12/255, box=[-1, 2]", box_span=3.0)
    f.record["terms"]["threat_terms"].update(low=-1.0, high=2.0)
    f.config += 'box = "-1,2"\n'


def zeroed_curves(f: Forged) -> None:
    for points in f.record["curves"].values():
        for point in points:
            point["fooled"] = 0


def zeroed_with_sizes(f: Forged) -> None:
    zeroed_curves(f)
    f.examples["smallest_eps"] = [None if s else s for s in f.examples["smallest_eps"]]
    for name in list(f.examples["nearest"]):
        f.record["curves"].pop(name, None)


def shrunk(f: Forged) -> None:
    """Distances of a fifth, with the medians that follow."""
    for column in f.examples["distances"].values():
        column[:] = [None if length is None else length / 5 for length in column]
    for name, column in f.examples["nearest"].items():
        pairs = zip(column, f.examples["verdicts"][name], strict=True)
        column[:] = [length / 5 if length and letter == "f" else length for length, letter in pairs]
    f.count()


def luckiest(f: Forged) -> None:
    """The examples that held and few others."""
    held = [row for row in range(ROWS) if row not in f.points["row"].tolist() and f.examples["clean"][row] == "r"]
    f.drop([row for row in range(ROWS) if row not in held[1:]])
    f.record["data"] = f.record["data"].replace(f": {ROWS} examples", f": the first {len(held) - 1} of {ROWS} examples")
    f.count()
    for name, points in f.record["curves"].items():
        if name not in f.examples["nearest"] and name != "fgsm":
            for point in points:
                point["fooled"] = 0


def reordered(f: Forged) -> None:
    """The same examples, two of them exchanged."""
    order = [1, 0, *range(2, ROWS)]

    def turned(part: object) -> object:
        if isinstance(part, dict):
            return {name: turned(inner) for name, inner in part.items()}
        if not part:  # not asked for
            return part
        if isinstance(part, str):
            return "".join(part[row] for row in order)
        assert isinstance(part, list)
        return [part[row] for row in order]

    f.record["per_example"] = turned(f.examples)
    f.points["row"] = torch.tensor([order.index(row) for row in f.points["row"].tolist()])


def never_ran(f: Forged) -> None:
    """A ladder whose rungs cost 101 passes each."""
    for name, column in f.examples["verdicts"].items():
        f.examples["passes"][name] = [0 if letter == "-" else 101 for letter in column]
    f.count()


def cheaper(f: Forged) -> None:
    """What held is said to have cost one pass less."""
    name = f.attack("pgd")["name"]
    spent, column = f.examples["passes"][name], f.examples["verdicts"][name]
    spent[column.index("h")] -= 1
    f.count()


def entry(name: str, **values: object) -> Forge:
    return lambda f: f.attack(name).update(values)


def too_far(f: Forged) -> None:
    f.examples["distances"]["fgsm"][fallen(f)] = 0.5
    f.count()


def too_near(f: Forged) -> None:
    f.examples["nearest"]["fmn:steps=6"] = [0.001] * ROWS
    f.count()


def renamed(name: str, new: str) -> Forge:
    return lambda f: f.rename(f.attack(name)["name"], new)


def field(**values: object) -> Forge:
    return lambda f: f.record.update(values)


def file(change: Callable[[Path], object], *, resum: bool = True) -> Forge:
    def forge(f: Forged) -> None:
        f.after.append(change)
        f.resum = resum

    return forge


def sums(change: Callable[[str], str]) -> Forge:
    """Sums that are written, and then changed."""

    def forge(f: Forged) -> None:
        def write(folder: Path) -> None:
            from signstep.auditing.checksums import write_sums

            write_sums(folder)
            (folder / "SHA256SUMS").write_text(change((folder / "SHA256SUMS").read_text()))

        f.after.append(write)
        f.resum = False

    return forge


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def moved(f: Forged) -> torch.Tensor:
    part = f.points["row"].clone()
    part[0] = f.examples["verdicts"]["fgsm"].index("h")
    return part


def stretched(f: Forged) -> torch.Tensor:
    part = f.points["x_adv"].clone()
    part[0] = (part[0] + 0.3).clamp(0, 1)
    return part


def no_curves(f: Forged) -> None:
    """Nothing at other sizes, and the attack that would say so itself gone."""
    name = f.attack("fmn")["name"]
    for table in ("verdicts", "passes", "distances", "nearest", "answers"):
        f.examples[table].pop(name)
    f.record["attacks"] = [entry for entry in f.record["attacks"] if entry["name"] != name]
    f.config = f.config.replace(f",{name}", "")
    f.examples["smallest_eps"] = [None] * ROWS
    f.record["curves"] = {}
    f.points = {key: part[f.points["attack"] < 3] for key, part in f.points.items()}
    f.count()


def own_words(f: Forged) -> None:
    f.config = f.config.replace("linf:12/255", "linf:11/255")


def transfers(f: Forged) -> None:
    """Another model on which nothing transfers."""
    f.examples["transfers"]["b"] = dict.fromkeys(("clean", *f.examples["verdicts"]), "r" * ROWS)


FORGERIES: dict[str, tuple[Forge, str]] = {
    "every letter right and held": (everything_right, "untouched answers"),
    "a wrong answer declared right": (wrong_made_right, "untouched answers"),
    "a random model, so that nothing is asked": (random_model, "untouched answers"),
    "no labels": (without("labels"), "counts"),
    "no answers": (without("answers"), "counts"),
    "no labels and no answers": (without("labels", "answers"), "counts"),
    "another task, which has no answers": (
        lambda f: (without("labels", "answers")(f), term("task", "custom")(f)),
        "untouched answers",
    ),
    "labels predicted by the model": (term("labels", "predicted"), "counts"),
    "x_adv is x": (tensor("x_adv", lambda f: f.points["x"].clone()), "points"),
    "points without y": (tensor("y", lambda _: None), "points"),
    "points without x": (tensor("x", lambda _: None), "points"),
    "points without row": (tensor("row", lambda _: None), "points"),
    "a row that is no whole number": (tensor("row", lambda f: f.points["row"].float()), "points"),
    "a row too large": (tensor("row", lambda f: f.points["row"] + 10**9), "points"),
    "a y too short": (tensor("y", lambda f: f.points["y"][:1]), "points"),
    "an eps of the points' own": (tensor("eps", lambda f: torch.full((len(f.points["row"]),), 0.9)), "threat model"),
    "a box of the points' own": (tensor("high", lambda f: torch.full_like(f.points["x"], 2.0)), "threat model"),
    "a mask of the points' own": (
        tensor("mask", lambda f: torch.ones_like(f.points["x"], dtype=torch.bool)),
        "threat model",
    ),
    "a tensor that points do not have": (tensor("robust", lambda f: f.points["row"].clone()), "points"),
    "a point outside the ball": (tensor("x_adv", stretched), "threat model"),
    "NaN in a point": (tensor("x_adv", lambda f: f.points["x_adv"] * torch.nan), "points"),
    "a point of an example that held": (tensor("row", moved), "points"),
    "a point twice": (lambda f: f.points.update({n: torch.cat([p, p[:1]]) for n, p in f.points.items()}), "points"),
    "a point of another attack": (tensor("attack", lambda f: (f.points["attack"] + 1) % 4), "points"),
    "another answer at the points": (tensor("answer_adv", lambda f: (f.points["answer_adv"] + 1) % 4), "points"),
    "more confidence": (tensor("confidence_adv", lambda f: f.points["confidence_adv"] * 0 + 1), "answers"),
    "clean inputs that are not of the data": (
        lambda f: f.points.update(x=(f.points["x"] + 0.001).clamp(0, 1), x_adv=(f.points["x_adv"] + 0.001).clamp(0, 1)),
        "clean inputs",
    ),
    "another eps in one term": (term("eps_value", 24 / 255), "terms"),
    "another eps as a label": (term("eps", "24/255"), "terms"),
    "another eps in numbers": (numbers(eps=24 / 255), "terms"),
    "another threat in words": (term("threat", "linf eps=24/255, box=[0, 1]"), "terms"),
    "another norm": (term("norm", "l2"), "terms"),
    "another kind in numbers": (numbers(kind="l2"), "terms"),
    "another box in numbers": (numbers(low=-1.0), "terms"),
    "a grid in numbers": (numbers(grid=255), "terms"),
    "another span": (term("box_span", 2.0), "terms"),
    "another threat in the configuration": (own_words, "configuration"),
    "a widened box, everywhere": (widened_box, "threat"),
    "a huge tolerance": (term("tolerance", 0.5), "threat model"),
    "a missing term": (lambda f: f.record["terms"].pop("eot"), "terms"),
    "an invented term": (term("certified", True), "terms"),
    "another seed": (term("seed", 7), "configuration"),
    "another engine": (term("engine", "fast"), "configuration"),
    "gradients of a surrogate": (term("gradients_from", "surrogate"), "configuration"),
    "a transform that nobody knows": (
        lambda f: f.record["terms"].update(transform="jpeg", random_model=True),
        "configuration",
    ),
    "a targeted goal": (lambda f: f.record["terms"].update(goal="targeted", target="next"), "counts"),
    "a normalisation that was not": (
        lambda f: f.record["terms"]["input_space"].update(mean=[0.5], std=[0.5]),
        "configuration",
    ),
    "a mode that was not": (term("mode", "keep"), "configuration"),
    "a shard of a whole": (term("shard", [0, 2]), "configuration"),
    "fewer classes": (term("classes", 3), "counts"),
    "curves of zeros": (zeroed_curves, "counts"),
    "curves of zeros, with sizes to match": (zeroed_with_sizes, "counts"),
    "no curves": (no_curves, "threat"),
    "a quadrillion steps": (renamed("pgd", "pgd:steps=1000000000000000,restarts=2"), "passes"),
    "a million steps": (entry("pgd", steps=10**6), "passes"),
    "another paper": (entry("fgsm", source="Newton 1687"), "passes"),
    "it needs no gradients": (entry("pgd", needs="labels"), "passes"),
    "no gradients looked at": (entry("pgd", gradients=0, coordinates=0, dead_gradients=0), "passes"),
    "no backward passes": (entry("pgd", backwards=0.0), "passes"),
    "negative coordinates": (entry("pgd", coordinates=-1), "counts"),
    "more dead gradients than there are": (entry("pgd", dead_gradients=10**6), "counts"),
    "a share above one": (entry("pgd", zero=1.5), "counts"),
    "a renamed attack": (renamed("pgd", "pgd:steps=1000,restarts=2"), "passes"),
    "an invented attack": (renamed("pgd", "unbeatable"), "passes"),
    "an attack by another of its names": (renamed("fgsm", "fgm"), "passes"),
    "distances of a fifth": (shrunk, "threat model"),
    "a distance beyond eps": (too_far, "counts"),
    "invented name of the model": (field(model="ResNet-152, certified"), "names"),
    "invented name of the data": (field(data="ImageNet: 50000 examples of shape 3x224x224"), "names"),
    "names of classes that the data does not have": (field(classes=["a", "b", "c", "d"]), "names"),
    "the luckiest examples": (luckiest, "rows"),
    "two examples exchanged": (reordered, "rows"),
    "another id": (lambda f: f.examples["ids"].__setitem__(3, "0" * 16), "rows"),
    "passes that no plan has": (never_ran, "passes"),
    "one pass too few": (cheaper, "passes"),
    "a smallest change that is smaller": (too_near, "counts"),
    "no hashes": (field(hashes={}), "SHA-256"),
    "other hashes": (
        field(hashes={"weights": "0" * 64, "data": "0" * 64, "code": "0" * 64, "preprocessing": "0" * 64}),
        "SHA-256",
    ),
    "hashes that are none": (field(hashes={"weights": "unchanged"}), "counts"),
    "a preset that did not run": (field(ladder="standard@1"), "ladder"),
    "a preset that does not exist": (field(ladder="unbeatable@9"), "ladder"),
    "a count": (field(held=ROWS), "counts"),
    "examples that were not": (field(examples=10**6), "counts"),
    "no attack": (
        lambda f: (field(attacks=[])(f), f.examples.update(verdicts={}, passes={}, distances={}, nearest={})),
        "counts",
    ),
    "a negative time": (field(seconds=-1.0), "counts"),
    "attacks that took longer than all": (entry("pgd", seconds=10.0**6), "counts"),
    "no line for the page": (
        sums(lambda text: "".join(line for line in text.splitlines(True) if "index" not in line)),
        "files",
    ),
    "no lines": (sums(lambda _: ""), "files"),
    "no sums": (file(lambda folder: (folder / "SHA256SUMS").unlink(), resum=False), "files"),
    "a line for a file elsewhere": (sums(lambda text: f"{text}{'0' * 64}  ../../etc/passwd\n"), "files"),
    "a line that is none": (sums(lambda text: f"{text}{'x' * 5000}\n"), "files"),
    "a line twice": (sums(lambda text: text + text.splitlines(True)[0]), "files"),
    "a file more": (file(lambda folder: (folder / "notes.txt").write_text("trust me")), "files"),
    "a folder more": (file(lambda folder: (folder / "deep").mkdir(), resum=True), "files"),
    "a link": (file(lambda folder: (folder / "99.png").symlink_to("/etc/hostname")), "files"),
    "a pipe": (file(lambda folder: os.mkfifo(folder / "98.png"), resum=False), "files"),
    "a number on the page": (
        file(replaced("index.html", f"of&nbsp;{ROWS}" if False else f"of\xa0{ROWS}", "of\xa0999")),
        "page",
    ),
    "a name on the page": (file(replaced("index.html", "forgednets:net", "resnet:certified")), "page"),
    "a script on the page": (file(replaced("index.html", "</body>", "<script>alert(1)</script></body>")), "page"),
    "a line of the checklist": (file(replaced("checklist.md", "linf", "l2")), "page"),
    "no page": (file(lambda folder: (folder / "index.html").unlink()), "page"),
    "results of a model that is not here": (transfers, "counts"),
}


def test_a_rung_that_was_set_aside_leaves_the_answer_open(climbed: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    """A note is the record's own word: it excuses no rung that this version could run."""
    name = climbed.attack("square")["name"]
    rows = [row for row, letter in enumerate(climbed.examples["verdicts"][name]) if letter != "-"]
    climbed.letters(name, dict.fromkeys(rows, "-"))
    for row in rows:
        climbed.examples["passes"][name][row] = 0
        climbed.examples["distances"][name][row] = None
        climbed.examples["answers"][name][row] = climbed.examples["answers"]["clean"][row]
    climbed.record["notes"].append(f"rung {name} was not run: it is not defined for this threat")
    kept = climbed.points["attack"] != 2
    climbed.points = {key: part[kept] for key, part in climbed.points.items()}
    climbed.count()
    status, failed, said = verified(climbed.write(), capsys)
    assert (status, failed) == (4, []), said
    assert f"open  passes: no plan is known of {name} (not run, by the record's own word)" in said


def test_a_path_may_be_another_and_a_name_may_not(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    honest = dict(forged.record)
    names = {
        "forgednets:net with /some where/else/net.safetensors": True,
        "forgednets:net with net.safetensors": True,
        "certified/forgednets:net with net.safetensors": False,
        "forgednets:net with net.safetensors, certified": False,
        "forgednets:net": False,
    }
    for name, fine in names.items():
        forged.record = {**honest, "model": name, "data": honest["data"].replace("flat.npz", "/else/flat.npz")}
        _, failed, said = verified(forged.write(), capsys)
        assert ("names" not in failed) == fine, said


def test_there_are_enough() -> None:
    assert len(FORGERIES) >= 40


def test_an_honest_report_holds(forged: Forged, climbed: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    for report in (forged, climbed):
        status, failed, said = verified(report.write(), capsys, "--again", "100")
        assert (status, failed) == (0, []), said
        assert f"rows: {ROWS} of {ROWS} examples of the data (100.0 %)" in said


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_named(name: str, forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    forge, check = FORGERIES[name]
    forge(forged)
    status, failed, said = verified(forged.write(), capsys)
    assert status == 1, said
    assert check in failed, said


def never_led(f: Forged) -> None:
    """A targeted ladder that was run on one example, the others said to be where they should be led."""
    for attack in f.record["attacks"]:
        name = attack["name"]
        rows = [row for row, letter in enumerate(f.examples["verdicts"][name]) if letter != "-"]
        kept = next(row for row in rows if f.examples["verdicts"][name][row] == "h")
        f.letters(name, {row: "-" for row in rows if row != kept})
        for row in rows:
            if row != kept:
                f.examples["passes"][name][row], f.examples["distances"][name][row] = 0, None
                f.examples["answers"][name][row] = f.examples["answers"]["clean"][row]
        plan = recipe(name).passes(Setting())  # type: ignore[attr-defined]
        attack |= {"reached": 0, "backwards": (plan.backwards or 0) / ROWS, "gradients": plan.gradients or 0}
        attack |= {"coordinates": 12 * (plan.gradients or 0), "dead_gradients": 0}
    f.points = {}
    f.count()


def ruled(rule: str) -> Forge:
    """Targets by another rule than the examples were led by."""

    def forge(f: Forged) -> None:
        f.record["terms"]["target"] = rule
        f.config = f.config.replace('goal = "next"', f'goal = "{rule}"')

    return forge


def unreached(f: Forged) -> None:
    """An example that ended at its target said to have held, and its point left out."""
    row = int(f.points["row"][0])
    for name, column in f.examples["verdicts"].items():
        spent = f.examples["passes"][name]
        f.letters(name, {row: "h"})
        spent[row] = max(spent)
        f.examples["distances"][name][row] = None
        f.attack(name)["reached"] = f.examples["verdicts"][name].count("f")
        f.examples["answers"][name][row] = f.points["target"][0].item()
        assert column[row] == "f" or f.record["ladder"]
    f.points = {name: part[1:] for name, part in f.points.items()}
    f.count()


LED: dict[str, tuple[Forge, str]] = {
    "a targeted ladder that never ran": (never_led, "counts"),
    "targets by another rule: random": (ruled("random"), "targets"),
    "targets by another rule: least-likely": (ruled("least-likely"), "targets"),
    "at its target, and held": (unreached, "targets"),
    "a point of another target": (tensor("target", lambda f: (f.points["target"] + 1) % 4), "targets"),
}


@pytest.mark.parametrize("name", ["honest", *LED])
def test_targets_are_those_of_the_rule(
    name: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    report = audited(tmp_path / "led", *IMAGES, "--ladder", RUNGS, "--goal", "next")
    forged = Forged.of(report, tmp_path / "climbed")
    if name != "honest":
        LED[name][0](forged)
    status, failed, said = verified(forged.write(), capsys)
    if name == "honest":
        assert (status, failed) == (0, []), said
    else:
        assert status == 1, said
        assert LED[name][1] in failed, said


def any_protected(f: Forged) -> None:
    f.record["terms"]["domain_terms"]["texts"]["text"]["protected"] = []


def larger_budget(f: Forged) -> None:
    f.record["terms"]["domain_terms"]["schema"]["features"][0]["budget"] = "5 sd"


OF_A_DOMAIN: dict[str, tuple[str, Forge, str]] = {
    "a schema that allows more": ("tabular", larger_budget, "domain"),
    "words that may not be changed": ("multimodal", any_protected, "domain"),
    "another eps of several inputs": ("multimodal", term("eps", "64/255"), "threat"),
    "a size of several inputs": ("multimodal", term("eps_value", 0.25), "threat"),
    "a norm of several inputs": ("multimodal", term("norm", "l2"), "threat"),
    "a span of several inputs": ("multimodal", term("box_span", 1.0), "threat"),
    "a span of a table": ("tabular", term("box_span", 9.0), "threat"),
    "a mode of a domain": ("tabular", term("mode", "keep"), "domain"),
    "units of a domain": (
        "tabular",
        term("input_space", {"mean": [0.5], "std": [0.1], "inputs": "raw", "budget": "normalised"}),
        "domain",
    ),
    "labels of a domain": ("multimodal", term("labels", "predicted"), "untouched answers"),
    "a loss of a domain": ("tabular", term("loss", "dlr"), "untouched answers"),
}


@pytest.fixture(scope="module")
def examples_of_domains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("domains")
    words = ["--limit", "6", "--attack", "random-sign,fgsm", "--curve", "none"]
    for domain in ("tabular", "multimodal"):
        assert main(["audit", "--domain", domain, "--out", str(folder / domain), *words]) == 0
    return {domain: folder / domain for domain in ("tabular", "multimodal")}


@pytest.mark.parametrize("name", ["tabular", "multimodal", *OF_A_DOMAIN])
def test_the_terms_of_a_domain_are_the_verifiers(
    name: str, examples_of_domains: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domain, forge, check = OF_A_DOMAIN.get(name, (name, lambda _: None, ""))
    forged = Forged.of(examples_of_domains[domain], tmp_path / "report")
    forge(forged)
    capsys.readouterr()
    status = main(["verify", str(forged.write())])
    said = capsys.readouterr().out
    failed = re.findall(r"^FAIL  ([^:]+):", said, re.MULTILINE)
    assert (status, failed) == ((1, [check]) if check else (0, [])), said


@pytest.mark.parametrize("numbers", [[-1e308, 1e308], [0.0, 1.5e-323], [1e16, 1e16 + 2]])
def test_a_chart_of_any_numbers_is_drawn_or_refused(
    numbers: list[float], forged: Forged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = dict.fromkeys(("title", "description", "x_label", "y_label"), "t")
    lines = [{"name": "n", "x": numbers, "y": numbers}]
    chart = {**words, "kind": "lines", "categories": [], "limits": [], "lines": lines}
    forged.record["sections"] = [{"title": "t", "text": [], "header": [], "rows": [], "chart": chart}]
    status, failed, said = verified(forged.write(), capsys, "--render", str(tmp_path / "anew"))
    assert "Traceback" not in said
    assert (status, failed) == ((1, ["record"]) if max(numbers) > 1e300 else (0, [])), said


@pytest.mark.parametrize("name", ["ignore_label", "max_pixels", "limit", "grid", "mean", "model"])
def test_a_number_without_end_is_no_option(name: str, forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [line for line in forged.config.splitlines() if not line.startswith(f"{name} =")]
    forged.config = "\n".join([*kept, f"{name} = 0x{'f' * 100_000}\n"])
    status, failed, said = verified(forged.write(), capsys)
    assert (status, failed[0]) == (1, "configuration"), said
    assert "a whole number of 400000 bits, which no audit writes" in said


def test_how_the_model_was_asked_is_said(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Units of eps, normalisation and the like are the report's claims, which the answer repeats."""
    monkeypatch.chdir(honest)
    monkeypatch.delitem(sys.modules, "forgednets", raising=False)
    words = ["--mean", "0.5", "--std", "0.25", "--budget", "normalised", "--attack", "fgsm"]
    report = audited(tmp_path / "climbed", *IMAGES, *words)
    status, _, said = verified(report, capsys)
    assert status == 0, said
    assert "note  your model was asked as the report says that it was: mean = '0.5', std = '0.25'" in said
    assert "budget = 'normalised'" in said


@pytest.mark.parametrize("change", ["another", "more", "fewer"])
def test_pictures_are_those_of_the_record(change: str, climbed: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    def forge(folder: Path) -> None:
        if change == "another":
            (folder / "pictures" / "01.png").write_bytes((folder / "pictures" / "02.png").read_bytes())
        elif change == "more":
            (folder / "pictures" / "12.png").write_bytes(b"\x89PNG")
        else:
            (folder / "pictures" / "02.png").unlink()

    climbed.points = {name: part[:3] for name, part in climbed.points.items()}
    climbed.after.append(forge)
    status, failed, said = verified(climbed.write(), capsys)
    assert (status, failed) == (1, ["page"]), said


def test_a_ladder_that_never_ran(climbed: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    never_ran(climbed)
    status, failed, said = verified(climbed.write(), capsys)
    assert (status, failed) == (1, ["passes"]), said
    assert "after 101 passes, the plan has" in said


@pytest.mark.parametrize("forge", [one_held, all_held, widened_eps], ids=lambda forge: forge.__name__)
def test_what_nothing_contradicts_is_attacked_again(
    forge: Forge, forged: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(forged)
    report = forged.write()
    status, failed, said = verified(report, capsys)
    assert (status, failed) == (0, []), said
    status, failed, said = verified(report, capsys, "--again", str(ROWS))
    assert "not reproduced: " in said
    # One of many may be another machine's rounding; more are not.
    assert (status, failed) == ((4, []) if forge is one_held else (1, ["again"])), said


def test_points_that_are_missing_leave_the_answer_open(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    forged.points = {}
    status, failed, said = verified(forged.write(), capsys)
    assert (status, failed) == (4, []), said
    assert "open  points: none was saved of" in said


def test_the_first_examples_are_a_part_and_said_to_be(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    forged.drop(list(range(20, ROWS)))
    forged.record["data"] = forged.record["data"].replace(f": {ROWS} examples", f": the first 20 of {ROWS} examples")
    for entry_ in forged.record["attacks"]:
        entry_["gradients"] = entry_["gradients"] * 20 // ROWS
        entry_["coordinates"] = entry_["gradients"] * 12
        entry_["dead_gradients"] = 0
    forged.count()
    _, failed, said = verified(forged.write(), capsys)
    assert f"rows: 20 of {ROWS} examples of the data (33.3 %)" in said
    assert "rows" not in failed


def test_bare_json_of_an_enemy_fails_by_name(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(forged.record)
    texts = {
        "NaN": text.replace('"seconds": ', '"seconds": NaN, "old": ', 1),
        "infinite": text.replace('"seconds": ', '"seconds": 1e999, "old": ', 1),
        "wide": '{"schema": 4, "x": [' + "[]," * (10**6 + 1) + "0]}",
        "nested": '{"schema": ' + "[" * 10**5 + "]" * 10**5 + "}",
        "unclosed": "[" * 10**6,
        "twice": text.replace("{", '{"held": 60, ', 1),
        "huge": text.replace('"held": ', '"held": 1' + "0" * 400 + ', "x": ', 1),
        "endless": text.replace('"held": ', '"held": 1' + "0" * 5000 + ', "x": ', 1),
        "more": text.replace("{", '{"certified": true, ', 1),
        "less": json.dumps({name: part for name, part in forged.record.items() if name != "curves"}),
        "text": text.replace('"held": ', '"held": "', 1).replace(",", '",', 1),
        "flag": json.dumps({**forged.record, "held": True}),
        "number": json.dumps({**forged.record, "model": 3}),
        "list": json.dumps([forged.record]),
        "schema": json.dumps({**forged.record, "schema": 9}),
        "schema as text": json.dumps({**forged.record, "schema": "4"}),
        "schema as a flag": json.dumps({**forged.record, "schema": True}),
        "empty": "",
    }
    report = forged.write()
    for name, bad in texts.items():
        (report / "result.json").write_text(bad)
        status, failed, said = verified(report, capsys)
        assert status == 1, (name, said)
        assert "record" in failed, (name, said)
        assert "Traceback" not in said


def test_terms_of_any_type_fail_by_name(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is loaded under terms that are none, and nothing breaks on them."""
    hostile: list[object] = [[], {}, [[1]], {"x": {"y": []}}, -1, 0.5, "\u202e", None, True, 2**62]
    report = forged.write()
    names = ("threat_terms", "norm", "eps", "eps_value", "seed", "shard", "classes", "tolerance", "input_space", "task")
    for place, name in enumerate((*names, "domain", "loss", "domain_terms")):
        terms = {**forged.record["terms"], name: hostile[place % len(hostile)]}
        if terms[name] == forged.record["terms"].get(name):
            terms[name] = [1]
        (report / "result.json").write_text(json.dumps({**forged.record, "terms": terms}))
        status, failed, said = verified(report, capsys)
        assert status == 1, (name, terms[name], said)
        assert set(failed) & {"terms", "counts", "configuration"}, (name, terms[name], said)
        assert "Traceback" not in said, (name, terms[name], said)


def test_an_old_record_is_read_as_what_it_is(forged: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    forged.record["schema"] = 2
    for name in ("sections", "date", "gates", "knob", "detection", "diagnosis"):
        forged.record.pop(name, None)
    for name in ("bounds", "proved_eps"):
        del forged.examples[name]
    status, _, said = verified(forged.write(), capsys)
    assert status == 0, said
    assert "record: schema 2, which this version reads as 4, made by signstep" in said
