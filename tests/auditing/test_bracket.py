"""Bounds beside attacks: both ends of robust accuracy, in the record, the table and whatever is done with a record."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.bracket import Bounds
from signstep.auditing.evidence import Evidence
from signstep.auditing.merge import merge
from signstep.certify.proving import Prover
from signstep.errors import InputError
from signstep.networks.vit import vit
from signstep.verifying import verify

EPS = 0.04


X = torch.rand((60, 6), generator=torch.Generator().manual_seed(1))


def net() -> nn.Module:
    """Three classes, each with some of the examples, and bounds of every kind at EPS."""
    generator = torch.Generator().manual_seed(0)
    last = nn.Linear(12, 3)
    layers = [nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), last]
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.7)
                layer.bias.zero_()
        model = nn.Sequential(nn.Flatten(), *layers)
        last.bias.copy_(-model(X).mean(0))
    return model


MODEL = net()
Y = MODEL(X).argmax(1)
Y[:5] = (Y[:5] + 1) % 3


def audited(bounds: str | Bounds | None = "crown", model: Any = MODEL, **changed: Any) -> ss.Result:
    given: dict[str, Any] = {"threat": ss.linf(EPS), "ladder": ["fgsm", "pgd:steps=5"], "curve": False} | changed
    run = given.pop("run", ss.Run())
    return ss.audit(model, (X, Y), **given, run=replace(run, bounds=bounds))


@pytest.mark.parametrize("plan", [{}, {"ladder": None, "attacks": ["fgsm", "pgd:steps=5", "fmn:steps=5"]}])
def test_what_is_proved_is_not_attacked_and_the_figures_stay(plan: dict[str, Any]) -> None:
    with_, all_, without = audited(**plan), audited("crown:attack_all=true", **plan), audited(None, **plan)
    assert with_.worst_case == all_.worst_case == without.worst_case
    assert with_.per_example.bounds == all_.per_example.bounds
    assert 5 < (with_.certified or 0) < with_.held < with_.clean_right
    for letter, clean, worst in zip(with_.per_example.bounds, with_.per_example.clean, with_.worst_case, strict=True):
        assert letter == "-" or (clean == "r" and worst == "h")
    for entry in with_.attacks:
        column = with_.per_example.verdicts[entry.name]
        pairs = list(zip(column, with_.per_example.bounds, strict=True))
        assert all(letter == "-" for letter, proved in pairs if proved != "-")
        alone = zip(without.per_example.verdicts[entry.name], with_.per_example.bounds, strict=True)
        assert [a for a, proved in pairs if proved == "-"] == [a for a, proved in alone if proved == "-"]
    assert with_.open == with_.held - (with_.certified or 0)
    assert without.certified is None
    assert without.certified_accuracy is None
    assert without.bracket == ""
    assert "bounds" not in without.terms
    assert with_.terms["bounds"] == {"method": "crown", "attack_all": False, "seconds": 60.0, "curve": True}


def test_what_an_attack_was_spared_stands_in_its_row_as_robust(tmp_path: Path) -> None:
    from signstep.report import write_report

    with_, without = audited(ladder=None, attacks=["fgsm"]), audited(None, ladder=None, attacks=["fgsm"])
    assert with_.attacks[0].held < with_.held
    assert [with_.left_by(entry) for entry in with_.attacks] == [entry.held for entry in without.attacks]
    row = [next(line for line in str(made).splitlines() if line.startswith("fgsm ")) for made in (with_, without)]
    assert row[0].split()[1:6] == row[1].split()[1:6]  # fooled, and robust accuracy
    write_report(with_, tmp_path, points={})
    page = " ".join((tmp_path / "index.html").read_text(encoding="utf-8").split())
    said = f"({with_.held} of {with_.examples})"
    assert page.count(said) == 2  # the row of the attack and that of all combined


def test_verify_proves_the_first_examples_where_there_are_more(tmp_path: Path) -> None:
    first = audited(ladder=None, attacks=["fgsm"], limit=20)
    assert first.examples == 20
    assert state(report(tmp_path / "first", first))[0] == "ok"


def test_both_ends_stand_in_one_line_of_the_table_and_on_the_page(tmp_path: Path) -> None:
    from signstep.report import write_report

    result = audited()
    low, high = 100 * (result.certified_accuracy or 0), 100 * result.robust_accuracy
    line = f"robust accuracy in [{low:.1f} % (CROWN), {high:.1f} % (custom)]; {result.open} of 60 open"
    assert result.bracket == line
    assert line[1:] in " ".join(str(result).split())
    tmp_path.joinpath("report").mkdir()
    write_report(result, tmp_path / "report", points={})
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Proved robust, lower bound" in page
    assert line[1:] in " ".join(page.split())


def test_a_dearer_method_proves_more_and_attacks_never_fool_it() -> None:
    found = [audited(f"{method}:attack_all=true") for method in ("interval", "crown-ibp", "crown", "alpha")]
    counts = [result.certified or 0 for result in found]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert all(not result.contradictions for result in found)
    for before, after in pairwise(found):
        pairs = zip(before.per_example.bounds, after.per_example.bounds, strict=True)
        assert all(a == b for a, b in pairs if a != "-")


def test_the_record_survives_json_merging_and_batches(tmp_path: Path) -> None:
    whole = audited()
    assert ss.Result.load(whole.save(tmp_path / "result.json")) == whole
    shards = [audited(run=ss.Run(shard=(part, 3))) for part in range(3)]
    merged = merge(shards)
    assert merged.per_example.bounds == whole.per_example.bounds
    assert merged.bracket == whole.bracket
    pieces = [(X[start : start + 7], Y[start : start + 7]) for start in range(0, 60, 7)]
    small = ss.audit(
        MODEL, pieces, threat=ss.linf(EPS), ladder=["fgsm", "pgd:steps=5"], curve=False, run=ss.Run(bounds="crown")
    )
    assert small.per_example == whole.per_example
    with pytest.raises(InputError, match="terms: bounds"):
        merge([shards[0], audited("alpha", run=ss.Run(shard=(1, 3))), shards[2]])


def test_compare_says_how_many_were_proved() -> None:
    less, more = audited("interval"), audited("crown")
    assert f"Proved: {less.certified} -> {more.certified}." in str(ss.compare(less, more))
    assert "Proved" not in str(ss.compare(less, audited(None)))


def report(folder: Path, result: ss.Result) -> Path:
    from signstep.auditing.checksums import write_sums
    from signstep.report import write_report

    folder.mkdir()
    result.save(folder / "result.json")
    write_report(result, folder, points={})
    write_sums(folder)
    return folder


def state(folder: Path, model: Any = MODEL, name: str = "bounds", **more: Any) -> tuple[str, str]:
    given: dict[str, Any] = {"threat": ss.linf(EPS)} if model is not None else {}
    data = None if model is None else (X, Y)
    checks = {check.name: check for check in verify(folder, model, data, **given, **more).checks}
    return checks[name].state, str(checks[name])


def test_verify_proves_again_and_finds_what_is_not_so(tmp_path: Path) -> None:
    result = audited("crown:attack_all=true")
    folder = report(tmp_path / "honest", result)
    assert state(folder)[0] == "ok"
    assert state(folder, None)[0] == "open"
    assert state(folder, again=100, name="again")[0] == "ok"
    for row in (result.per_example.bounds.index("-", 5), result.per_example.bounds.index("c")):
        letters = list(result.per_example.bounds)
        letters[row] = "c" if letters[row] == "-" else "-"
        other = replace(result, per_example=replace(result.per_example, bounds="".join(letters)))
        assert state(report(tmp_path / f"forged{row}", other))[0] == "FAIL"
    assert state(report(tmp_path / "spared", audited()), again=100, name="again")[0] == "ok"


@pytest.mark.parametrize("plan", [{"ladder": ["random-sign"]}, {"ladder": None, "attacks": ["random-sign"]}])
def test_what_exact_search_finds_lowers_the_upper_end_and_stands_as_evidence(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("scipy", reason="exact search needs SciPy: pip install 'signstep[exact]'")
    kept = Evidence()
    result, weak = audited("exact", **plan, run=ss.Run(evidence=kept)), audited("crown", **plan)
    entry = result.attack("exact-search")
    assert entry.fooled > 3  # also what another attack fools, where each meets all
    assert result.open == 0
    assert result.certified_accuracy == result.robust_accuracy < weak.robust_accuracy
    assert "and exact search)" in result.bracket
    rows = zip(result.per_example.verdicts["exact-search"], result.per_example.clean, strict=True)
    named = [row for row, (letter, clean) in enumerate(rows) if letter == "f" and clean == "r"]
    assert set(named) <= set(kept.rows())
    found = kept.tensors()
    ours = torch.tensor([row in named for row in kept.rows()])
    assert bool((MODEL(found["x_adv"][ours]).argmax(1) != found["y"][ours]).all())
    assert float((found["x_adv"] - found["x"]).abs().max()) <= EPS * (1 + 1e-6)
    pieces = [(X[start : start + 9], Y[start : start + 9]) for start in range(0, 60, 9)]
    small = ss.audit(MODEL, pieces, threat=ss.linf(EPS), curve=False, run=ss.Run(bounds="exact"), **plan)
    assert small.per_example == result.per_example
    folder = tmp_path / "report"
    folder.mkdir()
    result.save(folder / "result.json")
    kept.save(folder / "adversarial.safetensors")
    checks = {check.name: check for check in verify(folder, MODEL, (X, Y), threat=ss.linf(EPS), again=100).checks}
    bad = [str(check) for name, check in checks.items() if check.state == "FAIL" and name != "files"]
    assert not bad
    assert all(checks[name].state == "ok" for name in ("ladder", "passes", "bounds", "again"))


def test_the_curve_has_a_lower_end_too(tmp_path: Path) -> None:
    from signstep.report.curve import series

    result = audited(curve=True)
    counts = [count for _, count in result.proved_curve]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > (result.certified or 0) > counts[-1]
    assert dict(result.proved_curve)[EPS] == result.certified
    # What an audit of each size would prove, or a little more: what holds in a ball holds in a smaller one.
    for eps, count in result.proved_curve[::3]:
        alone = audited(threat=ss.linf(eps))
        assert count >= (alone.certified or 0) - 1
        assert count <= result.clean_right - max(point.fooled for point in result.curve if point.eps == eps)
        assert count <= alone.held
    line = series(result)[-1]
    assert (line.name, line.role) == ("proved (CROWN)", "proved")
    assert all(low <= high for _, _, low, high in line.points)
    assert audited("crown:curve=false", curve=True).per_example.proved_eps == ()
    assert ss.Result.load(result.save(tmp_path / "result.json")) == result
    merged = merge([audited(curve=True, run=ss.Run(shard=(part, 2))) for part in range(2)])
    assert merged.per_example.proved_eps == result.per_example.proved_eps
    assert state(report(tmp_path / "honest", result))[0] == "ok"
    for change in (lambda size: None if size else EPS, lambda size: size and size * 2):
        sizes = list(result.per_example.proved_eps)
        row = next(row for row, letter in enumerate(result.per_example.bounds) if letter != "-" and sizes[row] == EPS)
        sizes[row] = change(sizes[row])
        forged = replace(result, per_example=replace(result.per_example, proved_eps=tuple(sizes)))
        checks = verify(report(tmp_path / f"forged{sizes[row]}", forged), MODEL, (X, Y), threat=ss.linf(EPS)).checks
        assert {check.name for check in checks if check.state == "FAIL"} & {"bounds", "counts"}
    early = [None if size is None else size / 2 for size in result.per_example.proved_eps]
    broken = replace(result, per_example=replace(result.per_example, smallest_eps=tuple(early)))
    assert broken.contradictions


class Wrong(Prover):
    """A prover that proves whatever it is asked."""

    def prove(self, region: Any, y: Tensor, tolerance: float) -> str:  # noqa: ARG002
        return "c" * len(y)


def test_proved_and_fooled_at_once_is_said_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("signstep.auditing.bracket.Prover", Wrong)
    result = audited("crown:attack_all=true")
    fooled = [row for row, letter in enumerate(result.worst_case) if letter in "fw"]
    assert list(result.contradictions) == fooled
    assert "CONTRADICTION" in str(result)
    monkeypatch.undo()
    assert state(report(tmp_path / "wrong", result))[0] == "FAIL"


def test_the_command_ends_with_status_3_and_keeps_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstep.cli import main

    monkeypatch.chdir(tmp_path)
    words = ["audit", "--model", "signstep.networks.small:digits_cnn", "--data", "digits", "--limit", "8"]
    words += ["--threat", "linf:0.1", "--attack", "fgsm", "--curve", "none", "--predicted-labels"]
    assert main([*words, "--bounds", "interval"]) == 0
    assert "Robust accuracy in [" in capsys.readouterr().out
    monkeypatch.setattr("signstep.auditing.bracket.Prover", Wrong)
    assert main([*words, "--bounds", "crown:attack_all=true", "--threat", "linf:0.4"]) == 3
    assert "proved robust and fooled all the same" in capsys.readouterr().err
    plain = json.loads((tmp_path / "signstep-report" / "result.json").read_text(encoding="utf-8"))
    assert plain["per_example"]["bounds"] == "cccccccc"
    assert "f" in plain["per_example"]["verdicts"]["fgsm"]
    assert (tmp_path / "signstep-report" / "adversarial.safetensors").is_file()
    assert main([*words, "--bounds", "crwn"]) == 2
    assert "--bounds crwn is not one of interval" in " ".join(capsys.readouterr().err.split())


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x)[:, :3]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (MODEL.forward, "is a method, and bounds go through layers"),
        (nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, 3)), ""),
        (ss.Model(MODEL, transform=ss.transforms.Noise(0.01)), "the model is random"),
        (Squared(), "product of two intervals"),
        (nn.Sequential(MODEL, nn.Softmax(1)), "scores of one class"),
    ],
)
def test_where_there_are_no_bounds_the_audit_says_so_and_goes_on(model: Any, reason: str) -> None:
    result = audited(model=model)
    said = [note for note in result.notes if note.startswith("no bounds were taken")]
    assert bool(said) == bool(reason)
    assert all(reason in note for note in said)
    assert bool(result.per_example.bounds) == (not reason)
    assert result.examples == 60
    assert result.terms.get("bounds") is None or not reason


def test_of_a_transformer_the_layer_is_named() -> None:
    x, model = torch.rand(2, 1, 8, 8), vit()
    result = ss.audit(
        model, (x, model(x).argmax(1)), threat=ss.linf(0.01), attacks=["fgsm"], curve=False, run=ss.Run(bounds="crown")
    )
    (note,) = [note for note in result.notes if note.startswith("no bounds were taken")]
    assert "no interval goes through" in note


def test_options_of_bounds_are_read_or_named() -> None:
    assert Bounds.of("exact:seconds=2.5,attack_all=true") == Bounds("exact", attack_all=True, seconds=2.5)
    assert Bounds.of(None) is None
    for wrong, said in (
        ("milp", "is not one of interval, crown-ibp, crown, alpha, exact"),
        ("exact:seconds=soon", "seconds=soon"),
        ("exact:minutes=1", "minutes=1"),
        ("crown:attack_all=perhaps", "attack_all=perhaps"),
        ("exact:seconds=0", "seconds"),
    ):
        with pytest.raises(InputError, match=said):
            Bounds.of(wrong)
