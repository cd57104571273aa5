"""A policy in an audit: the record, its laws, its shards, and forgeries of it."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.checks import Check
from signstep.auditing.checksums import write_sums
from signstep.auditing.detection import Detection, counts, missed, roc, standing, told
from signstep.auditing.evidence import Evidence
from signstep.auditing.recount import recount
from signstep.auditing.redetected import detected_again
from signstep.detectors import Way

# Short ways, of each kind one.
WAYS = (Way("sum", "apgd:steps=8"), Way("features", "apgd:steps=4"), Way("max", "square:queries=20"))
THREAT = ss.linf(0.25)


def rows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (count, 6) in the unit cube and on which side of a plane they lie."""
    x = torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, :3].sum(1) > x[:, 3:].sum(1)).long()


@cache
def net() -> nn.Module:
    """A network that knows the plane, with features of its own."""
    first, second = nn.Linear(6, 6), nn.Linear(6, 2)
    with torch.no_grad():
        first.weight.copy_(torch.eye(6))
        first.bias.zero_()
        second.weight.copy_(torch.tensor([[-1.0, -1, -1, 1, 1, 1], [1, 1, 1, -1, -1, -1]]))
        second.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), second).eval()


@cache
def policy() -> ss.Policy:
    """Two detectors."""
    clean = rows(400, seed=1)
    made = [ss.detectors.fit(name, net(), clean) for name in ("lid:k=10", "mahalanobis:pooled=true")]
    return ss.Policy(detectors=made, reject=0.04, review=0.06)


def audited(**more: Any) -> ss.Result:
    """An audit of 30 examples."""
    run = ss.Run(policy=policy(), ways=WAYS, **more)
    return ss.audit(net(), rows(30, seed=2), threat=THREAT, attacks=["fgsm", "pgd:steps=5"], run=run)


@cache
def whole() -> ss.Result:
    """The same, once."""
    return audited()


def found() -> Detection:
    """Its part about detectors."""
    detection = whole().detection
    assert detection is not None
    return detection


def test_p_values_are_the_detectors_and_verdicts_are_untouched() -> None:
    """The plain figures are those of an audit without detectors; p-values those of the detectors themselves."""
    x, y = rows(30, seed=2)
    plain = ss.audit(net(), (x, y), threat=THREAT, attacks=["fgsm", "pgd:steps=5"])
    assert plain.per_example.verdicts == whole().per_example.verdicts
    assert plain.detection is None
    assert whole().notes == plain.notes
    for judge, detector in zip(found().detectors, policy().detectors, strict=True):
        assert judge.clean == pytest.approx(detector.p_values(x).tolist())
    outcome = ss.attack(net(), x, y, threat=THREAT, recipe="fgsm")
    assert isinstance(outcome.x, Tensor)
    said = policy().decide(outcome.x).p_value[outcome.fooled].tolist()
    assert [p for p in found().attacked("fgsm") if p is not None] == pytest.approx(said)
    assert [found().flagged(p) for p in found().clean()] == policy().flags(x).tolist()


def test_counts_follow_from_p_values_and_letters() -> None:
    """One slow count of each figure; one who knows is never below one who does not."""
    result, detection = whole(), found()
    clean, verdicts = result.per_example.clean, result.per_example.verdicts
    x, y = rows(30, seed=2)
    left = standing(detection, clean, verdicts)
    right, flags = net()(x).argmax(1) == y, policy().flags(x)
    assert (left.served, left.refused) == (int((right & ~flags).sum()), int((right & flags).sum()))
    assert left.fallen == result.fooled
    assert left.knowing <= left.plain <= left.served
    assert left.evaded >= left.missed == sum(missed(detection, clean, verdicts))
    assert left.evaded > 0
    together, *each = counts(detection, clean, verdicts)
    assert together.asked == pytest.approx(0.1)
    assert [one.asked for one in each] == pytest.approx([0.05, 0.05])
    assert together.alarms == int(flags.sum())
    assert together.found["fgsm"][1] == result.attack("fgsm").fooled
    (section,) = told(detection, clean, verdicts)
    assert len(section.rows) == 3
    assert section.chart is not None
    assert str(left.knowing) in section.text[0]
    assert "Detectors:" in str(result)


def test_record_survives_json_and_shards() -> None:
    """Round trip and merge are exact; records of an older schema have no detectors."""
    result = whole()
    assert ss.Result.from_json(result.to_json()) == result
    shards = [audited(shard=(place, 3)) for place in range(3)]
    assert ss.merge(shards).detection == result.detection
    runs = [audited(shard=range(12)), audited(shard=range(12, 30))]
    assert ss.merge(runs).detection == result.detection
    other = replace(shards[1], detection=replace(found(), reject=0.05))
    with pytest.raises(ss.SignstepError, match="differ in the policy"):
        ss.merge([shards[0], other, shards[2]])
    assert recount(result).state == "ok"


def test_without_detectors_it_is_the_plain_audit() -> None:
    """A policy of none: whoever knows of nothing finds what the plain attacks find, and nobody is refused."""
    run = ss.Run(policy=ss.Policy(detectors=[], reject=0.1))
    result = ss.audit(net(), rows(30, seed=2), threat=THREAT, attacks=["fgsm", "pgd:steps=5"], run=run)
    assert result.detection is not None
    left = standing(result.detection, result.per_example.clean, result.per_example.verdicts)
    assert left.evaded == left.missed == left.fallen == result.fooled
    assert (left.refused, left.denied) == (0, 0)
    assert recount(result).state == "ok"
    assert ss.Result.from_json(result.to_json()) == result


def test_roc_is_counted() -> None:
    """From nothing to everything, rising, and a perfect detector's goes along the edge."""
    x, y = roc([0.5, 0.6, 0.7], [0.1, 0.2, None])
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (0.0, 1.0) in set(zip(x, y, strict=True))
    assert list(x) == sorted(x)


def _flip(text: str, place: int, letter: str) -> str:
    return text[:place] + letter + text[place + 1 :]


def _lied(result: ss.Result, **change: Any) -> ss.Result:
    assert result.detection is not None
    return replace(result, detection=replace(result.detection, **change))


def _judged(result: ss.Result, **change: Any) -> ss.Result:
    assert result.detection is not None
    first, *rest = result.detection.detectors
    return _lied(result, detectors=(replace(first, **change), *rest))


def _few(result: ss.Result, rows: int) -> ss.Result:
    """As if each detector had been calibrated on so few rows, and flagged nothing."""
    assert result.detection is not None
    few = tuple(
        replace(
            one,
            rows=rows,
            clean=(1.0,) * len(one.clean),
            attacked={name: tuple(p and 1.0 for p in column) for name, column in one.attacked.items()},
        )
        for one in result.detection.detectors
    )
    clean, fell = (
        result.per_example.clean,
        missed(replace(result.detection, detectors=few), result.per_example.clean, result.per_example.verdicts),
    )
    evaded = "".join("-" if c == "w" else "f" if hit else "h" for c, hit in zip(clean, fell, strict=True))
    denied = "".join("-" if c == "w" else "h" for c in clean)
    return _lied(result, detectors=few, evaded=evaded, denied=denied, ways={"plain": sum(fell)})


def test_few_rows_are_a_lie_at_these_rates_alone() -> None:
    """The forgery above adds up but for what the rows can carry."""
    assert recount(_few(whole(), 400)).holds
    assert "carry no rate" in str(recount(_few(whole(), 9)))


def test_verify_knows_detectors_of_another_model(tmp_path: Path) -> None:
    """A record whose detectors were calibrated with a model that is easier on them, under its own name."""

    def checked(result: ss.Result) -> tuple[bool, bool]:
        result.save(tmp_path / "result.json")
        found = ss.verify(tmp_path, net(), rows(30, seed=2), threat=THREAT)
        (check,) = (check for check in found.checks if check.name == "detectors")
        return check.holds, check.complete

    def of(**digests: str) -> ss.Result:
        return _lied(
            whole(), detectors=tuple(replace(one, digests={**one.digests, **digests}) for one in found().detectors)
        )

    assert checked(whole()) == (True, True)
    assert checked(of(model="0" * 64)) == (False, True)
    assert checked(of(preprocessing="0" * 64)) == (True, False)


@pytest.mark.parametrize(
    "lie",
    [
        lambda r: _lied(r, evaded=r.detection.evaded.replace("f", "h")),
        lambda r: _lied(r, evaded=r.detection.evaded[1:]),
        lambda r: _lied(r, denied=_flip(r.detection.denied, r.detection.denied.index("-"), "h")),
        lambda r: _lied(r, reject=0.5),
        lambda r: _lied(r, reject=-0.01),
        lambda r: _lied(r, rule="hope"),
        lambda r: _lied(r, ways={}),
        lambda r: _judged(r, clean=r.detection.detectors[0].clean[1:]),
        lambda r: _judged(r, clean=(0.123456789, *r.detection.detectors[0].clean[1:])),
        lambda r: _judged(r, rows=0),
        lambda r: _few(r, 9),  # no rate that was asked for can be promised by so few
        lambda r: _lied(r, reject=1e-6, review=r.detection.rate - 1e-6),
        lambda r: _judged(r, digests={**r.detection.detectors[0].digests, "model": "0" * 64}),
        lambda r: _judged(r, digests={**r.detection.detectors[0].digests, "preprocessing": "0" * 64}),
        lambda r: _judged(r, digests={}),
        lambda r: _judged(r, attacked={}),
        lambda r: _judged(
            r, attacked={name: (None,) * len(column) for name, column in r.detection.detectors[0].attacked.items()}
        ),
    ],
)
def test_forged_detection_does_not_add_up(lie: Any) -> None:
    """Letters, p-values, rates and verdicts are one account."""
    assert recount(lie(whole())).state != "ok"


@pytest.mark.parametrize(
    ("search", "run", "said"),
    [
        (ss.Search(target="random"), {}, "no meaning beside a policy"),
        (None, {"policy": "squeeze"}, "pass an ss.Policy"),
    ],
)
def test_what_a_policy_has_no_place_in(search: Any, run: dict[str, Any], said: str) -> None:
    """One sentence, before anything is attacked."""
    with pytest.raises(ss.SignstepError, match=said):
        ss.audit(net(), rows(4, 0), threat=THREAT, search=search, run=ss.Run(**{"policy": policy(), **run}))


def test_another_model_is_refused() -> None:
    """A rate holds for the model it was calibrated with."""
    with pytest.raises(ss.SignstepError, match="another model"):
        ss.audit(nn.Linear(6, 2), rows(4, 0), threat=THREAT, run=ss.Run(policy=policy()))


def _reported(result: ss.Result, evidence: Evidence, folder: Path) -> Path:
    """A report's folder, as far as `verify` in Python looks at it."""
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(result.to_json(), encoding="utf-8")
    evidence.save(folder / "adversarial.safetensors")
    (folder / "signstep.toml").write_text("[audit]\n", encoding="utf-8")
    write_sums(folder)
    return folder


def _detection_of(folder: Path, using: ss.Policy | None, **more: Any) -> Check:
    done = ss.verify(folder, net(), rows(30, seed=2), threat=THREAT, policy=using, **more)
    (check,) = (one for one in done.checks if one.name == "detection")
    others = [one for one in done.checks if not one.holds and one.name not in ("detection", "files")]
    assert not others, others
    assert done.holds == check.holds
    assert done.complete == check.complete
    said = [line.partition(" = ")[0] for line in done.unprovable]
    assert ("detection.detectors[].clean[]" in said) == (check.state != "ok")
    assert "detection.evaded" in said
    return check


def test_verify_asks_the_verifiers_own_detectors(tmp_path: Path) -> None:
    """Open without them; fitted anew or not, in other batches, the same p-values; others, and a forged p, are found."""
    evidence = Evidence()
    result = audited(evidence=evidence)
    folder = _reported(result, evidence, tmp_path / "r")
    assert _detection_of(folder, None).state == "open"
    again = ss.Policy(
        detectors=[ss.detectors.fit(one, net(), rows(400, seed=1)) for one in ("lid:k=10", "mahalanobis:pooled=true")],
        reject=0.04,
        review=0.06,
    )
    check = _detection_of(folder, again)
    assert check.state == "ok", check
    assert f"30 examples untouched and of {result.fooled} of" in check.seen
    moved = [ss.detectors.fit(one, net(), rows(400, seed=3)) for one in ("lid:k=10", "mahalanobis:pooled=true")]
    for detectors, rates, said in (
        (again.detectors, (0.06, 0.04), "reject is 0.04 in the record, 0.06 here"),
        (again.detectors[::-1], (0.04, 0.06), "detector is 'lid:k=10' in the record, 'mahalanobis:pooled=true' here"),
        (again.detectors[:1], (0.04, 0.06), "detectors is 2 in the record, 1 here"),
        (moved, (0.04, 0.06), "in the record"),
    ):
        check = _detection_of(folder, ss.Policy(detectors=detectors, reject=rates[0], review=rates[1]))
        assert (check.state, said in check.seen) == ("FAIL", True), check
    plain = ss.audit(net(), rows(30, seed=2), threat=THREAT, attacks=["fgsm"], run=ss.Run(evidence=Evidence()))
    with pytest.raises(ss.SignstepError, match="another model"):
        ss.verify(folder, nn.Sequential(nn.Linear(6, 2)), rows(30, seed=2), threat=THREAT, policy=again)
    with pytest.raises(ss.SignstepError, match="needs the model"):
        ss.verify(folder, policy=again)
    assert detected_again(
        plain, {}, [rows(30, seed=2)], model=ss.Model(net()), policy=again, device=torch.device("cpu")
    ).seen.startswith("the record has no detectors")


def test_a_forged_p_value_is_found_by_who_has_the_detectors(tmp_path: Path) -> None:
    """A neighbouring share of the calibration rows, which adds up with everything else, of a clean row or a point."""
    evidence = Evidence()
    result = audited(evidence=evidence)
    assert result.detection is not None
    points = evidence.tensors()
    judge = result.detection.detectors[0]
    step = 7 / (judge.rows + 1)
    place = next(k for k, p in enumerate(judge.clean) if 0.3 < p < 0.8)
    row, name = next(
        (row, result.attacks[number].name)
        for row, number in zip(points["row"].tolist(), points["attack"].tolist(), strict=True)
        if 0.3 < (judge.attacked[result.attacks[number].name][row] or 0) < 0.8
    )
    column = judge.attacked[name]
    point = (*column[:row], (column[row] or 0) + step, *column[row + 1 :])
    for lie, said in (
        (_judged(result, clean=(*judge.clean[:place], judge.clean[place] + step, *judge.clean[place + 1 :])), "lid"),
        (_judged(result, attacked={**judge.attacked, name: point}), "attacked: example"),
    ):
        assert recount(lie).state == "ok"
        folder = _reported(lie, evidence, tmp_path / "r")
        assert _detection_of(folder, None).state == "open"
        check = _detection_of(folder, policy())
        assert (check.state, said in check.seen) == ("FAIL", True), check


def test_points_that_were_not_kept_leave_detectors_open(tmp_path: Path) -> None:
    """What nobody saved nobody can ask about."""
    evidence = Evidence(limit=200)
    result = audited(evidence=evidence)
    folder = _reported(result, evidence, tmp_path / "r")
    assert 0 < len(evidence) < result.fooled
    check = _detection_of(folder, policy())
    assert (check.state, f"{result.fooled - len(evidence)} fooled examples have none" in check.seen) == ("open", True)
