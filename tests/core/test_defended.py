"""The attacker who knows: laws of attacks through defences, and of the records that name them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import labels, mlp, rand
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.checksums import write_sums
from signstep.auditing.merge import merge
from signstep.engine.keys import Key
from signstep.errors import InputError
from signstep.report import write_report

NET = mlp(64, 5, seed=4, dtype=torch.float32, scale=2.5)
X = rand(10, 1, 8, 8, dtype=torch.float32)
Y = labels(NET, X)
THREAT = ss.linf(0.03)
STRAIGHT = ss.Search(gradient_path="straight")
CHAINS: dict[str, list[Any]] = {
    "jpeg": ["jpeg:quality=60"],
    "bits": ["bit-depth:bits=2"],
    "blur": ["gaussian-blur:sigma=0.6"],
    "noise": ["uniform-noise:radius=0.1"],
    "several": ["bit-depth:bits=3", "resize-pad:shrink=0.2"],
    "own": [ss.defences.custom(lambda x: (x * 4).round() / 4, name="four")],
}
# Of the dear ones not every chain.
RECIPES = {
    "fgsm": ("bits", "several"),
    "pgd:steps=3": tuple(CHAINS),
    "square:queries=20": ("bits", "noise"),
    "ddn:steps=4": ("bits", "noise"),
}


def attacked(model: Any, recipe: str, **more: Any) -> ss.Outcome:
    threat = ss.l2(0.4) if recipe.startswith("ddn") else THREAT
    return ss.attack(model, X, Y, threat=threat, recipe=recipe, **more)


@pytest.mark.parametrize("recipe", RECIPES)
def test_who_knows_is_never_worse_off_example_by_example(recipe: str) -> None:
    more = 0
    for chain in RECIPES[recipe]:
        guarded = ss.defend(NET, CHAINS[chain])
        aware, unaware = attacked(guarded, recipe), attacked(guarded, recipe, search=STRAIGHT)
        assert bool((aware.fooled | ~unaware.fooled).all())
        assert any("does not know of the defence" in note for note in unaware.notes)
        more += int(aware.fooled.sum() - unaware.fooled.sum())
    assert more > 0  # it is worth something to know


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_empty_chain_is_the_plain_attack_bit_for_bit(recipe: str) -> None:
    plain, empty = attacked(NET, recipe), attacked(ss.defend(NET, []), recipe)
    straight = attacked(ss.defend(NET, []), recipe, search=STRAIGHT)
    for other in (empty, straight):
        assert torch.equal(plain.x, other.x)  # type: ignore[arg-type]
        assert torch.equal(plain.fooled, other.fooled)
        assert torch.equal(plain.forwards, other.forwards)
    assert any("changes nothing" in note for note in straight.notes)


def test_the_verdict_is_that_of_the_real_defence_in_front_of_the_real_model() -> None:
    for name in ("jpeg", "bits", "own"):
        guarded = ss.defend(NET, CHAINS[name])
        outcome = attacked(guarded, "pgd:steps=4")
        assert isinstance(outcome.x, Tensor)
        with torch.no_grad():
            said = NET(guarded.transform(outcome.x, Key(0).draws(torch.arange(10), X.device))).argmax(1)  # type: ignore[misc]
        assert torch.equal(outcome.fooled, said != Y)
        assert torch.equal(outcome.answer, said)
        assert torch.equal(guarded(outcome.x).argmax(1), said)
    random = ss.defend(NET, CHAINS["noise"])
    outcome = attacked(random, "pgd:steps=4")
    assert isinstance(outcome.x, Tensor)
    fresh = [NET(random.transform(outcome.x, Key(9, (n,)).draws(torch.arange(10), X.device))) for n in range(64)]  # type: ignore[misc]
    share = torch.stack([part.argmax(1) != Y for part in fresh]).double().mean(0)
    sure = (share < 0.2) | (share > 0.8)
    assert torch.equal(outcome.fooled[sure], share[sure] > 0.5)
    assert outcome.passes == 32


def test_rounding_and_drawing_hide_little_from_one_who_knows() -> None:
    """The undefended model falls; behind two bits the unaware attacker finds less, and the aware one most of it."""
    plain = attacked(NET, "pgd:steps=20").fooled.sum()
    guarded = ss.defend(NET, ["bit-depth:bits=4"])
    aware = attacked(guarded, "pgd:steps=20").fooled.sum()
    assert int(aware) >= int(plain) - 1


class Stepping(nn.Module):
    """One pixel decides, by a threshold that has no slope; the stand-in leads the wrong way, the identity the right."""

    def forward(self, x: Tensor) -> Tensor:
        first = x.flatten(1)[:, :1]
        return torch.cat([0.5 - first, first - 0.5], 1)


def test_of_several_ways_one_success_is_enough() -> None:
    x, y = torch.full((3, 1, 2, 2), 0.49), torch.zeros(3, dtype=torch.int64)
    wrong_way = ss.defences.custom(lambda u: u, lambda u: 1 - u, name="led astray")
    outcome = ss.attack(ss.defend(Stepping(), [wrong_way]), x, y, threat=ss.linf(0.02), recipe="pgd:steps=3")
    assert bool(outcome.fooled.all())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signstep.defences.chain.Chain.ways", ("soft",))
        alone = ss.attack(ss.defend(Stepping(), [wrong_way]), x, y, threat=ss.linf(0.02), recipe="fgsm")
    assert not bool(alone.fooled.any())


def test_rows_are_independent_of_their_batch() -> None:
    guarded = ss.defend(NET, ["bit-depth:bits=3", "uniform-noise:radius=0.05"])
    whole = attacked(guarded, "pgd:steps=3")
    for row in (0, 7):
        piece = slice(row, row + 1)
        alone = ss.attack(guarded, X[piece], Y[piece], threat=THREAT, recipe="pgd:steps=3")
        assert bool(alone.fooled[0]) == bool(whole.fooled[row])
        assert int(alone.forwards[0]) == int(whole.forwards[row])


def audited(model: Any, **more: Any) -> ss.Result:
    given: dict[str, Any] = {"attacks": ["pgd:steps=3"], "curve": False, **more}
    return ss.audit(model, [(X, Y)], threat=THREAT, **given)


def test_a_record_names_the_chain_its_box_and_versions_and_shards_merge(tmp_path: Path) -> None:
    guarded = ss.defend(NET, ["jpeg:quality=60", "bit-depth:bits=4"])
    whole = audited(guarded)
    stated = whole.terms["defences"]
    assert stated["chain"] == ["jpeg:quality=60", "bit-depth:bits=4"]
    assert stated["box"] == [0.0, 1.0]
    assert stated["path"] == "aware"
    assert {"pillow", "libjpeg-turbo"} <= set(stated["versions"]) or {"pillow", "libjpeg"} <= set(stated["versions"])
    assert ss.Result.load(whole.save(tmp_path / "result.json")) == whole
    assert "behind  jpeg:quality=60 then bit-depth:bits=4; attacks knew of it" in str(whole)
    assert "ATTACKS DID NOT KNOW" in str(audited(guarded, search=STRAIGHT))
    assert "behind " not in str(audited(NET))
    assert "defences" not in audited(NET).terms
    shards = [audited(guarded, run=ss.Run(shard=(part, 2))) for part in range(2)]
    merged = merge(shards)
    assert merged.per_example == whole.per_example
    # Ways add up to what fell, and show what an unaware attacker had found.
    for one in (whole, merged):
        counts = one.terms["ways"]["pgd:steps=3"]
        assert sum(counts.values()) == one.attacks[0].fooled
        assert counts["straight"] == audited(guarded, search=STRAIGHT).attacks[0].fooled
    other = audited(ss.defend(NET, ["jpeg:quality=61", "bit-depth:bits=4"]), run=ss.Run(shard=(1, 2)))
    with pytest.raises(InputError, match="terms: "):
        merge([shards[0], other])


def test_an_aware_audit_is_never_above_an_unaware_one_and_curves_follow() -> None:
    guarded = ss.defend(NET, ["bit-depth:bits=2"])
    attacks = ["random-sign", "fgsm", "pgd:steps=4", "square:queries=10"]
    aware = audited(guarded, attacks=attacks, curve=True)
    unaware = audited(guarded, attacks=attacks, curve=True, search=STRAIGHT)
    assert aware.robust_accuracy <= unaware.robust_accuracy
    for one, other in zip(aware.attacks, unaware.attacks, strict=True):
        assert one.fooled >= other.fooled
    assert aware.terms["defences"]["path"] == "aware"
    assert unaware.terms["defences"]["path"] == "straight"


def reported(folder: Path, result: ss.Result, points: dict[str, Tensor]) -> Path:
    from signstep.auditing.evidence import write_points

    folder.mkdir()
    result.save(folder / "result.json")
    write_points(points, folder / "adversarial.safetensors")
    write_report(result, folder, points=points)
    write_sums(folder)
    return folder


@pytest.mark.parametrize("chain", [["bit-depth:bits=3"], ["uniform-noise:radius=0.1"]], ids=["exact", "random"])
def test_verify_scores_again_through_the_verifiers_own_defence_alone(tmp_path: Path, chain: list[str]) -> None:
    from signstep.auditing.evidence import Evidence

    guarded, evidence = ss.defend(NET, chain), Evidence(limit=2**20)
    result = audited(guarded, run=ss.Run(evidence=evidence))
    folder = reported(tmp_path / "report", result, evidence.tensors())

    def states(model: Any) -> dict[str, str]:
        found = ss.verify(folder, model, [(X, Y)], threat=THREAT, again=4)
        return {check.name: check.state for check in found.checks}

    own = states(guarded)
    assert own.pop("files") == "FAIL"  # a folder that no command wrote has no configuration
    assert own["answers"] == own["untouched answers"] == "ok"
    assert own["again"] in ("ok", "open")
    assert "FAIL" not in own.values()
    # The report's words build nothing: without a defence of one's own these stay open, with another they fail.
    assert states(NET)["answers"] == states(NET)["untouched answers"] == "open"
    assert states(ss.defend(NET, ["bit-depth:bits=7"]))["answers"] == "FAIL"
    forged = {**result.terms, "defences": {**result.terms["defences"], "chain": ["median-blur:size=3"]}}
    other = reported(tmp_path / "forged", replace(result, terms=forged), evidence.tensors())
    assert {check.name: check.state for check in ss.verify(other).checks}["terms"] == "FAIL"
    counts = {name: {"straight": sum(ways.values()) + 1} for name, ways in result.terms["ways"].items()}
    more = replace(result, terms={**result.terms, "ways": counts})
    other = reported(tmp_path / "counted", more, evidence.tensors())
    assert {check.name: check.state for check in ss.verify(other).checks}["terms"] == "FAIL"


def test_verbs_without_a_verdict_refuse_to_be_unaware() -> None:
    guarded = ss.defend(NET, ["bit-depth:bits=3"])
    with pytest.raises(InputError, match="gradient_path"):
        ss.fgsm(guarded, X, Y, eps=0.03, search=STRAIGHT)
    with pytest.raises(InputError, match="pass aware or straight"):
        ss.Search(gradient_path="blind")  # type: ignore[arg-type]
    moved = ss.fgsm(guarded, X, Y, eps=0.03)  # through the stand-in
    assert float((moved - X).abs().amax(1).max()) == pytest.approx(0.03, abs=1e-6)


NETS = """
import torch
from torch import nn

import signstep as ss


def halves():
    return ss.defences.custom(lambda x: (x * 2).round() / 2, name="defendednets:halves")


def net():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, -1.0, 0.5, 2.0], [-2.0, 3.0, 1.0, -1.0]]))
        layer.bias.zero_()
    return layer


def points():
    x = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
    return [(x, net()(x).argmax(1))]
"""


def test_the_command_defends_attacks_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstep.cli import main

    (tmp_path / "defendednets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--model", "defendednets:net", "--data", "defendednets:points"]
    chain = ["--defend", "bit-depth:bits=2", "--defend", "uniform-noise:radius=0.01"]
    words = ["audit", *own, "--threat", "linf:0.15", "--attack", "pgd:steps=3", "--curve", "none"]
    assert main([*words, *chain, "--out", "aware"]) == 0
    result = ss.Result.load("aware/result.json")
    assert result.terms["defences"]["chain"] == ["bit-depth:bits=2", "uniform-noise:radius=0.01"]
    assert main([*words, *chain, "--out", "unaware", "--gradient-path", "straight"]) == 0
    assert ss.Result.load("unaware/result.json").robust_accuracy >= result.robust_accuracy
    for folder, said in (("aware", "attacks knew of it"), ("unaware", "ATTACKS DID NOT KNOW OF IT")):
        page = (tmp_path / folder / "index.html").read_text(encoding="utf-8")
        assert f"<dt>Behind</dt><dd>bit-depth:bits=2 then uniform-noise:radius=0.01; {said}" in page
    capsys.readouterr()
    assert main(["verify", "aware", *own, *chain]) in (0, 4)
    assert "FAIL" not in (said := capsys.readouterr().out)
    assert "ok    untouched answers" in said
    assert main(["verify", "aware", *own]) == 4  # what the verifier did not name is not put in front
    assert main(["verify", "aware", *own, "--defend", "bit-depth:bits=2"]) == 1
    assert "through bit-depth:bits=2 here" in " ".join(capsys.readouterr().out.split())
    for spec, text in (("jpeg:quality=0", "pass a quality from 1 to 100"), ("jpg", "did you mean 'jpeg'?")):
        assert main([*words, "--defend", spec]) == 2
        assert text in " ".join(capsys.readouterr().err.split())
    assert main(["audit", "--domain", "tabular", "--defend", "bit-depth"]) == 2
    assert "--defend" in capsys.readouterr().err
    # A function of one's own is imported where a person types it, and for no report.
    assert main([*words, "--defend", "defendednets:halves", "--out", "own"]) == 0
    assert ss.Result.load("own/result.json").terms["defences"]["chain"] == ["defendednets:halves"]
    capsys.readouterr()
    assert main(["verify", "own", *own, "--defend", "defendednets:halves"]) in (0, 4)
    assert "ok    untouched answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: x[..., 1:], "let it keep"),
        (lambda x: x + 1, r"outside of \[0, 1\]; let it keep the range"),
        (lambda x: torch.where(x > 0.5, torch.nan, x), "outside of"),
    ],
)
def test_a_defence_that_changes_shape_or_range_ends_every_verb_in_one_sentence(wrong: Any, said: str) -> None:
    """An audit, an attack, a row of the cost table, and the vote: nothing is measured behind it."""
    chain = [ss.defences.custom(wrong, name="wrong")]
    guarded = ss.defend(NET, chain)
    x, y = X[:4], Y[:4]
    threat = ss.linf(0.05)
    verbs: list[Callable[[], object]] = [
        lambda: ss.audit(guarded, (x, y), threat=threat, attacks=["fgsm"]),
        lambda: ss.attack(guarded, x, y, threat=threat, recipe="fgsm"),
        lambda: ss.defences.table(NET, (x, y), threat=threat, rows=chain, attacks=["fgsm"]),
    ]
    if "the range" not in said:  # noise leads inputs out of it before a defence sees them
        verbs.append(lambda: ss.smooth(guarded, 0.1).certify((x, y), n=20))
    for verb in verbs:
        with pytest.raises(ss.SignstepError, match=said) as caught:
            verb()
        assert "\n" not in str(caught.value)
