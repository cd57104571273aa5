"""A result scored again from its files: what is true holds, and one changed number or pixel is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing import rescore
from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.engine.threat import ThreatModel
from signstep.errors import LoadError
from signstep.model.predictor import Predictor


def network() -> nn.Module:
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(12, 4)
    with torch.no_grad():
        layer.weight.copy_(weight - weight.mean(1, keepdim=True))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def data() -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 256, (50, 3, 2, 2), generator=torch.Generator().manual_seed(1)).float() / 255
    y = network()(x).argmax(1)
    y[:5] = (y[:5] + 1) % 4
    return x, y


MASK = torch.tensor([[True, False], [True, True]])
THREATS = [
    ss.linf("16/255"),
    ss.linf("16/255", grid=255),
    ss.l2(0.3),
    ss.l1(0.8, mask=MASK),
    ss.threat_model("pixel", 0.1, mask=MASK),
    ss.l0(3, mask=MASK),
    ss.l0(1, axes=(0,), grid=255),
    ss.linf(torch.linspace(0.02, 0.1, 50)),
    ss.linf(0.1, box=(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))),
]


def made(threat: ThreatModel = THREATS[0]) -> tuple[Result, dict[str, Tensor]]:
    evidence = Evidence()
    x, y = data()
    result = ss.audit(network(), [(x[:30], y[:30]), (x[30:], y[30:])], threat=threat, run=ss.Run(evidence=evidence))
    return Result.from_json(result.to_json()), evidence.tensors()


def all_checks(result: Result, points: dict[str, Tensor]) -> list[rescore.Check]:
    return [
        rescore.recount(result),
        rescore.allowed(result, points),
        rescore.answers(result, points, Predictor(network()), "auto"),
        rescore.inputs(points, [data()]),
    ]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_what_an_audit_wrote_holds(threat: ThreatModel) -> None:
    result, points = made(threat)
    assert len(points["row"]) == result.fooled > 0
    assert [str(check) for check in all_checks(result, points) if not check.holds] == []


def other(result: Result, attack: int, **changes: object) -> Result:
    entries = list(result.attacks)
    entries[attack] = replace(entries[attack], **changes)  # type: ignore[arg-type]
    return replace(result, attacks=tuple(entries))


NUMBERS: dict[str, Callable[[Result], Result]] = {
    "clean_right": lambda r: replace(r, clean_right=r.clean_right + 1),
    "held": lambda r: replace(r, held=r.held + 1),
    "undetermined": lambda r: replace(r, undetermined=1),
    "examples": lambda r: replace(r, examples=r.examples + 1),
    "an attack's fooled": lambda r: other(r, 1, fooled=r.attacks[1].fooled - 1),
    "a letter": lambda r: replace(r, per_example=replace(r.per_example, clean="w" + r.per_example.clean[1:-1] + "w")),
    "an answer": lambda r: replace(
        r,
        per_example=replace(
            r.per_example,
            answers={**r.per_example.answers, "clean": (9, *r.per_example.answers["clean"][1:-1], 9)},
        ),
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_changed_number_is_found(name: str) -> None:
    result, _ = made()
    assert not rescore.recount(NUMBERS[name](result)).holds


def changed(points: dict[str, Tensor], name: str, value: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    part = points[name].clone()
    part[0] = value(part[0])
    return {**points, name: part}


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_one_changed_pixel_is_found(threat: ThreatModel) -> None:
    result, points = made(threat)

    def shifted(row: Tensor) -> Tensor:
        # Of a threat that counts one more than it allows.
        flat = row.clone().flatten()
        few = flat[: 4 if threat.norm.name.startswith("l0") else 1]
        few += torch.where(few < 0.5, 0.9, -0.9)
        return flat.reshape(row.shape)

    assert not rescore.allowed(result, changed(points, "x_adv", shifted)).holds
    assert not rescore.inputs(changed(points, "x", shifted), [data()]).holds


def test_changed_labels_answers_and_harmless_points_are_found() -> None:
    result, points = made()
    predictor = Predictor(network())
    for name in ("y", "answer", "answer_adv"):
        assert not rescore.answers(result, changed(points, name, lambda part: (part + 1) % 4), predictor, "auto").holds
    clean = {**points, "x_adv": points["x"]}
    assert not rescore.answers(result, clean, predictor, "auto").holds
    held = result.worst_case.index("h")
    moved = changed(points, "row", lambda _: torch.tensor(held))
    assert not rescore.answers(result, moved, predictor, "auto").holds


def test_another_model_is_found() -> None:
    result, points = made()
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert not rescore.answers(result, points, Predictor(model), "auto").holds


def test_points_that_were_not_saved_are_counted() -> None:
    result, points = made()
    fewer = {name: part[:3] for name, part in points.items()}
    check = rescore.answers(result, fewer, Predictor(network()), "auto")
    assert check.holds
    assert f"{result.fooled - 3} were not saved" in check.seen


def test_hashes_of_what_went_in() -> None:
    result = replace(made()[0], hashes={"weights": "a", "data": "b"})
    assert rescore.hashes(result, {"weights": "a", "data": "b"}).holds
    assert not rescore.hashes(result, {"weights": "x", "data": "b"}).holds
    assert "not looked at: weights" in rescore.hashes(result, {"data": "b"}).seen
    assert "not recorded: code" in rescore.hashes(result, {"weights": "a", "data": "b", "code": "c"}).seen


def test_sums_find_changed_and_missing_files(tmp_path: Path) -> None:
    for name in ("result.json", "signstep.toml", "pictures/01.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    rescore.write_sums(tmp_path)
    assert rescore.check_sums(tmp_path).holds
    assert (tmp_path / "SHA256SUMS").read_text().splitlines()[0].endswith("  pictures/01.png")
    (tmp_path / "result.json").write_text("other")
    assert "result.json was changed" in rescore.check_sums(tmp_path).seen
    (tmp_path / "result.json").unlink()
    assert "result.json is missing" in rescore.check_sums(tmp_path).seen
    (tmp_path / "SHA256SUMS").write_text("")
    assert "result.json is not listed" in rescore.check_sums(tmp_path).seen
    with pytest.raises(LoadError, match="pass the folder of a report"):
        rescore.check_sums(tmp_path / "pictures")
