"""Ladders: survivors only, decisions that depend on the example alone, presets that never change under their names."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.recipe import defaults_of, parse_options
from signstep.attacks.recipes import RECIPES, canonical, needs_of, recipe
from signstep.auditing.findings import examine
from signstep.auditing.ladder import LADDERS, Rung, climb, ladder
from signstep.auditing.rescore import recount
from signstep.auditing.tally import Tally
from signstep.engine.keys import Key
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, VictimError
from signstep.explain import explain
from signstep.model.subject import Subject
from signstep.model.victims import from_numpy
from signstep.report.page import page
from signstep.report.pictures import gallery

RUNGS = ["smooth-pgd:steps=3", "square:queries=20,start=best near<=0.9", "pgd:steps=4", "apgd:loss=margin,steps=6"]


class RowNet(nn.Module):
    """No operation looks across rows, so that a row gets the same bits in every batch."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(12, 18, generator=random, dtype=torch.float64) * 0.9)
        self.second = nn.Parameter(torch.randn(4, 12, generator=random, dtype=torch.float64) * 0.6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu((x.flatten(1).unsqueeze(1) * self.first).sum(2))
        return (hidden.unsqueeze(1) * self.second).sum(2)


def _data(count: int = 48, seed: int = 1) -> tuple[nn.Module, Tensor, Tensor]:
    model = RowNet()
    x = torch.rand(count, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4  # some are wrong untouched
    return model, x, y


def _audit(x: Tensor, y: Tensor, batch: int = 48, rungs: list[str] | str | None = None, eps: float = 0.04) -> ss.Result:
    parts = [(x[start : start + batch], y[start : start + batch]) for start in range(0, len(x), batch)]
    return ss.audit(RowNet(), parts, threat=ss.linf(eps), ladder=RUNGS if rungs is None else rungs, curve=False)


def test_each_rung_takes_the_survivors_of_the_ones_before() -> None:
    _, x, y = _data()
    result = _audit(x, y)
    assert result.ladder == "custom"
    standing = [letter == "r" for letter in result.per_example.clean]
    for entry in result.attacks:
        column = result.per_example.verdicts[entry.name]
        assert all(letter == "-" for letter, alive in zip(column, standing, strict=True) if not alive)
        assert entry.entered == sum(letter != "-" for letter in column)
        standing = [alive and letter != "f" for letter, alive in zip(column, standing, strict=True)]
    assert result.held == sum(standing)
    assert 0 < result.held < result.clean_right
    assert sum(entry.fooled for entry in result.attacks) == result.fooled
    assert ss.Result.from_json(result.to_json()) == result


@pytest.mark.kernels
@pytest.mark.parametrize("batch", [1, 7, 20, 1000])
def test_the_batch_size_changes_nothing(batch: int) -> None:
    _, x, y = _data()
    whole, parts = _audit(x, y), _audit(x, y, batch)
    assert parts.per_example == whole.per_example
    assert [(a.fooled, a.forwards, a.backwards) for a in parts.attacks] == [
        (a.fooled, a.forwards, a.backwards) for a in whole.attacks
    ]


def test_the_order_changes_nothing() -> None:
    _, x, y = _data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    whole, shuffled = _audit(x, y), _audit(x[order], y[order], 11)
    for name, column in whole.per_example.verdicts.items():
        assert shuffled.per_example.verdicts[name] == "".join(column[row] for row in order.tolist())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shards_see_what_the_whole_sees(count: int) -> None:
    _, x, y = _data()
    whole = _audit(x, y)
    for number in range(count):
        part = ss.audit(
            RowNet(),
            [(x[start : start + 10], y[start : start + 10]) for start in range(0, len(x), 10)],
            threat=ss.linf(0.04),
            ladder=RUNGS,
            curve=False,
            run=ss.Run(shard=(number, count)),
        )
        assert part.per_example.ids == whole.per_example.ids[number::count]
        for name, column in whole.per_example.verdicts.items():
            assert part.per_example.verdicts[name] == column[number::count]


@pytest.mark.parametrize("shard", [(2, 2), (-1, 3), (0, 0)])
def test_a_shard_that_is_none(shard: tuple[int, int]) -> None:
    _, x, y = _data()
    with pytest.raises(InputError, match="shard"):
        ss.audit(RowNet(), (x, y), threat=ss.linf(0.04), ladder=RUNGS, run=ss.Run(shard=shard))


def test_near_sends_a_rung_where_the_margin_has_moved() -> None:
    model, x, y = _data()
    threat, key = ss.linf(0.02), Key(0)
    first, second = recipe("fgsm"), recipe("pgd:steps=3")
    subject = Subject.of(ss.Model(model))
    entered = {}
    for near in (0.3, 0.6, 5.0):
        tally = Tally(["one", "two"], (), ())
        with subject.opened():
            question = subject.ask(x, y, threat, key=key)
            climb(question, [("one", Rung("fgsm"), first), ("two", Rung("pgd", near), second)], key, tally)
            fgsm = question.run(first, key.fold("rung", 0, "fgsm"))
        assert question.wrong is not None
        two = tally.outcomes().get("two")
        ran = torch.zeros(len(x), dtype=torch.bool) if two is None else two.forwards > 0
        with torch.no_grad():
            clean, after = (model(u).gather(1, y[:, None])[:, 0] - _others(model(u), y) for u in (x, fgsm.x))
        wanted = ~question.wrong & ~fgsm.fooled & (after <= near * clean)
        assert torch.equal(ran, wanted)
        entered[near] = int(ran.sum())
    assert 0 < entered[0.3] < entered[0.6] < entered[5.0]


def _others(z: Tensor, y: Tensor) -> Tensor:
    return z.scatter(1, y[:, None], -torch.inf).amax(1)


def test_a_rung_goes_on_from_the_best_point_so_far() -> None:
    """From the best point one query that is not better leaves the point where it was."""
    model, x, y = _data()
    subject, key = Subject.of(ss.Model(model)), Key(0)
    rungs = [(name, Rung(name), recipe(name)) for name in ("pgd:steps=5", "square:queries=1,start=best")]
    tally = Tally([name for name, _, _ in rungs], (), ())
    with subject.opened():
        question = subject.ask(x, y, ss.linf(0.02), key=key)
        climb(question, rungs, key, tally)
    first, second = tally.outcomes().values()
    stayed = second.forwards > 0
    assert int(stayed.sum()) > 5
    assert isinstance(first.x, Tensor)
    assert isinstance(second.x, Tensor)
    assert torch.equal(second.x[stayed], first.x[stayed])


def test_the_same_recipe_twice_draws_anew() -> None:
    _, x, y = _data(200, seed=5)
    result = _audit(x, y, 200, ["fgsm-rs", "fgsm-rs", "fgsm-rs"], eps=0.03)
    assert [entry.name for entry in result.attacks] == ["fgsm-rs", "fgsm-rs #2", "fgsm-rs #3"]
    assert result.attacks[1].fooled > 0  # the same draws would find nothing the second time


def test_a_targeted_ladder() -> None:
    model, x, y = _data()
    result = ss.audit(model, (x, y), threat=ss.linf(0.1), ladder=RUNGS, curve=False, search=ss.Search(target="next"))
    reached = sum(entry.reached or 0 for entry in result.attacks)
    assert 0 < reached < len(x)
    with torch.no_grad():
        there = model(x).argmax(1) == (y + 1) % 4
    for entry in result.attacks:
        column = result.per_example.verdicts[entry.name]
        assert all(letter == "-" for letter, already in zip(column, there.tolist(), strict=True) if already)


def _spelt_out(rung: Rung) -> str:
    """The rung with every option, also those left at their defaults: these are part of a preset's meaning."""
    assert isinstance(rung.recipe, str)
    name, _, _ = canonical(rung.recipe).partition(":")
    row = RECIPES[name]
    given = parse_options(row, canonical(rung.recipe).partition(":")[2], name)
    options = {**defaults_of(row), **given}
    return f"{name} {' '.join(f'{option}={options[option]}' for option in sorted(options))} near={rung.near}"


def test_presets_keep_their_meaning() -> None:
    """A rung or a default changed under a published name is a defect: add a preset with the next number instead."""
    now = {name: [_spelt_out(rung) for rung in preset.rungs] for name, preset in LADDERS.items()}
    assert now == json.loads((Path(__file__).parent / "presets.json").read_text(encoding="utf-8"))


def test_names_without_a_version_are_the_latest() -> None:
    assert ladder("standard") is LADDERS["standard@2"]
    assert ladder("thorough") is LADDERS["thorough@2"]


@pytest.mark.parametrize("spec", ["strong", "standard@9", []])
def test_a_ladder_that_is_none(spec: str | list[str]) -> None:
    with pytest.raises(InputError, match="ladder"):
        ladder(spec)


@pytest.mark.parametrize("rung", ["pgd near<0.5", "pgd near<=0", "pgd far<=1", "pgd near<=x"])
def test_a_rung_that_is_none(rung: str) -> None:
    with pytest.raises(InputError, match="near<="):
        ladder([rung])


def test_attacks_or_ladder_not_both() -> None:
    _, x, y = _data()
    with pytest.raises(InputError, match="both"):
        ss.audit(RowNet(), (x, y), threat=ss.linf(0.04), ladder=RUNGS, attacks=["pgd"])


@pytest.mark.parametrize("name", list(LADDERS))
def test_every_preset_runs(name: str) -> None:
    """On few examples, most of which fall at once."""
    _, x, y = _data(6)
    result = _audit(x, y, rungs=name, eps=0.3)
    assert result.ladder == name
    assert len(result.attacks) == len(LADDERS[name].rungs)
    assert result.held < result.clean_right


def _stream(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(x), 5):
        yield x[start : start + 5], y[start : start + 5]


def test_a_limit_counts_examples_of_the_data_not_of_the_shard() -> None:
    _, x, y = _data()
    whole = ss.audit(RowNet(), _stream(x, y), threat=ss.linf(0.04), ladder=["fgsm"], curve=False, limit=23)
    parts = [
        ss.audit(
            RowNet(),
            _stream(x, y),
            threat=ss.linf(0.04),
            ladder=["fgsm"],
            curve=False,
            limit=23,
            run=ss.Run(shard=(k, 2)),
        )
        for k in range(2)
    ]
    assert whole.examples == 23
    assert [part.examples for part in parts] == [12, 11]
    assert parts[1].per_example.ids == whole.per_example.ids[1::2]


@pytest.mark.parametrize("threat", [ss.l1(0.5), ss.l2(0.3), parse_threat("pixel:0.2")], ids=str)
def test_a_preset_sets_rungs_aside_that_are_not_defined_for_the_norm(threat: ss.ThreatModel) -> None:
    _, x, y = _data(6)
    result = ss.audit(RowNet(), (x, y), threat=threat, ladder="standard@1", curve=False)
    square = [entry for entry in result.attacks if entry.name.startswith("square")]
    said = [note for note in result.notes if "not defined for this threat" in note]
    if threat.norm.name == "l2":
        assert not said
    else:
        assert len(said) == len(square) == 3
        assert all(entry.entered == 0 for entry in square)
    assert ss.Result.from_json(result.to_json()) == result


def test_rungs_of_ones_own_must_be_defined() -> None:
    _, x, y = _data(6)
    with pytest.raises(InputError, match="square"):
        ss.audit(RowNet(), (x, y), threat=ss.l1(0.1), ladder=["square:queries=5"], curve=False)


def _asked_only(fails_after: int | None = None) -> Callable[[Tensor], Tensor]:
    """A model without gradients, which stops answering after some calls."""
    net, calls = RowNet(), [0]

    def model(x: Tensor) -> Tensor:
        calls[0] += 1
        if fails_after is not None and calls[0] > fails_after:
            raise VictimError("the endpoint has gone")
        with torch.no_grad():
            out: Tensor = net(x)
        return out

    return model


def test_without_gradients_there_is_no_fgsm_curve_and_no_error() -> None:
    _, x, y = _data(20)
    rungs = ["square:queries=20", "hop-skip-jump:queries=60"]
    result = ss.audit(_asked_only(), (x, y), threat=ss.linf(0.05), attacks=rungs)
    assert set(result.curves) == {rungs[1]}
    assert all(eps is None for eps in result.per_example.smallest_eps)
    assert ss.Result.from_json(result.to_json()) == result


@pytest.mark.parametrize("calls", [25, 46, 47, 70])
def test_a_victim_that_dies_leaves_a_partial_result(calls: int) -> None:
    _, x, y = _data(20)
    batches = [(x[start : start + 5], y[start : start + 5]) for start in range(0, 20, 5)]
    result = ss.audit(_asked_only(calls), batches, threat=ss.linf(0.02), ladder=["square:queries=20"])
    assert result.partial
    assert 5 <= result.examples <= 20
    assert any("the endpoint has gone" in note for note in result.notes)
    assert ss.Result.from_json(result.to_json()) == result


def test_a_victim_that_was_dead_from_the_start_is_an_error() -> None:
    _, x, y = _data(20)
    with pytest.raises(VictimError, match="gone"):
        ss.audit(_asked_only(0), (x, y), threat=ss.linf(0.02), ladder=["square:queries=20"])


def test_a_declared_transform_is_part_of_the_terms() -> None:
    """Under noise that alone moves many answers, a verdict is a majority over draws, and the record says so."""
    _, x, y = _data(20)
    noise = ss.transforms.Noise(0.02)
    result = ss.audit(
        ss.Model(RowNet(), transform=noise),
        (x, y),
        threat=ss.linf(0.05),
        ladder=["pgd:steps=4"],
        curve=False,
        search=ss.Search(eot=3),
    )
    assert result.terms["transform"] == str(noise)
    assert result.terms["eot"] == 3
    assert result.terms["random_model"]
    assert 0 < result.fooled < 20
    plain = ss.audit(RowNet(), (x, y), threat=ss.linf(0.05), ladder=["pgd:steps=4"], curve=False)
    assert plain.terms["transform"] is None
    assert plain.terms["eot"] == 1
    assert result.attacks[0].backwards > 2 * plain.attacks[0].backwards


class Segmenter(nn.Module):
    """A class at every position."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3, 2, 1, 1, generator=random, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


def test_a_preset_sets_aside_what_the_task_has_no_place_for() -> None:
    _, x, _ = _data(8)
    model = Segmenter()
    with torch.no_grad():
        y = model(x).argmax(1)
    result = ss.audit(
        ss.Model(model, task="segmentation"), (x, y), threat=ss.linf(0.1), ladder="autoattack@1", curve=False
    )
    assert any(note.startswith("rung fab:targets=9,steps=100 was not run: ") for note in result.notes)
    assert result.held < result.clean_right
    assert "no published counterpart" in " ".join(str(result).split())


def _pathless() -> dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any]]]:
    """Models without a way back for gradients, each broken in its own manner, with what must be declared of it."""
    net = RowNet()

    def arrays(u: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scores: Tensor = net(torch.as_tensor(u)).softmax(1)
        return np.asarray(scores)

    quantised = lambda u: net((255 * u).round().to(torch.uint8).double() / 255)  # noqa: E731
    return {
        "detached": (lambda u: net(u.detach()), {}),
        "no_grad inside": (torch.no_grad()(net), {}),
        "inference_mode inside": (torch.inference_mode()(net), {}),
        "an integer stage": (quantised, {}),
        "whole-numbered logits": (lambda u: (100 * net(u)).round().int(), {"outputs": "logits"}),
        "numpy inside": (lambda u: net(torch.as_tensor(u.numpy())), {}),
        "numpy of a detached copy": (lambda u: net(torch.as_tensor(u.detach().numpy())), {}),
        "one-hot answers": (lambda u: nn.functional.one_hot(net(u).argmax(1), 4).double(), {"outputs": "logits"}),
        "a victim that takes arrays": (from_numpy(arrays), {}),
    }


# Hard answers fall to few queries or to none: Square's 5,000 would be spent on each.
_SLOW = {(preset, "one-hot answers") for preset in ("thorough@1", "thorough@2", "autoattack@1")}
# Presets that begin with a gradient; the control of objective@1 fells all of these before one is asked for.
_LED = [name for name in LADDERS if needs_of(recipe(LADDERS[name].rungs[0].recipe)) == "gradients"]


@pytest.mark.parametrize(
    ("preset", "how"), [(preset, how) for preset in _LED for how in _pathless() if (preset, how) not in _SLOW]
)
def test_a_preset_without_gradients_asks_says_so_and_draws_no_curve(preset: str, how: str) -> None:
    """Rungs that follow gradients are set aside, FGSM's curve with them; nothing is claimed of what was not run."""
    _, x, y = _data(8)
    model, declared = _pathless()[how]
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    attempt = partial(ss.audit, ss.Model(model, **declared), batches, threat=ss.linf(0.15), ladder=preset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ss.SignstepWarning)
        if not any(needs_of(recipe(rung.recipe)) == "scores" for rung in LADDERS[preset].rungs):
            with pytest.raises(InputError, match=r"no rung of the ladder could be run: rung .* attack a surrogate"):
                attempt()
            return
        result = attempt()
        shards = [attempt(run=ss.Run(shard=(i, 2))) for i in range(2)]
    led = [entry for entry in result.attacks if entry.needs == "gradients"]
    assert {entry.name for entry in led} == set(result.set_aside)
    assert not any(entry.entered for entry in led)
    assert result.fooled > 0 or how == "one-hot answers"
    assert result.curves == {}
    assert set(result.per_example.smallest_eps) == {None}
    assert result.no_curve.endswith("on the way?)")
    finding = next(finding for finding in examine(result) if finding.code == "SS114")
    assert finding.evidence.startswith(f"{len(led)} of {len(result.attacks)} rungs need gradients and were not run")
    said = " ".join(str(result).split())
    claimed = said[said.index("Rungs climbed: ") : said.index(" Under these terms")]
    assert not any(entry.name in claimed for entry in led)
    assert "FGSM at other sizes" not in said
    assert said.count("not run") >= len(led)
    shown = page(result, examine(result), gallery(result, None))
    assert "No curve was traced: the curve of FGSM over sizes was left out" in shown
    assert "White box" not in shown
    assert ss.Result.from_json(result.to_json()) == result
    assert recount(result).holds
    assert replace(ss.merge(shards), seconds=0, attacks=()) == replace(result, seconds=0, attacks=())


def test_a_model_that_answers_with_labels_alone_is_told_before_it_is_asked_for_all() -> None:
    """No preset but objective@1 has a rung for it; that is known after the first batch that has anybody standing."""
    model, x, y = _data(30)
    asked = []

    def answers(u: Tensor) -> Tensor:
        asked.append(len(u))
        said: Tensor = model(u).argmax(1)
        return said

    batches = [(x[start : start + 5], y[start : start + 5]) for start in range(0, 30, 5)]
    told = [name for name in LADDERS if all(needs_of(recipe(rung.recipe)) != "labels" for rung in LADDERS[name].rungs)]
    assert {*LADDERS} - {*told} == {"objective@1"}
    for preset in told:
        asked.clear()
        with pytest.raises(InputError, match="answers with labels alone; use hop-skip-jump"):
            ss.audit(answers, batches, threat=ss.linf(0.1), ladder=preset)
        assert len(asked) <= 4


def test_nobody_standing_is_no_refusal() -> None:
    """Where every answer is wrong untouched no rung meets anybody, also where a rung has no place for the threat."""
    model, x, _ = _data(6)
    with torch.no_grad():
        wrong = (model(x).argmax(1) + 1) % 4
    result = ss.audit(model, (x, wrong), threat=ss.l1(0.5), ladder="autoattack", curve=False)
    assert result.clean_right == 0
    assert list(result.set_aside) == ["square:queries=5000"]
    assert "SS114" not in [finding.code for finding in examine(result)]


def test_a_curve_that_was_asked_for_is_traced_without_gradients_too() -> None:
    _, x, y = _data(12)
    attacks = ["random-sign", "square:queries=20"]
    result = ss.audit(_asked_only(), (x, y), threat=ss.linf(0.1), attacks=attacks, curve=ss.Curve(True, attacks[1:]))
    assert set(result.curves) == {attacks[1]}
    counts = [point.fooled for point in result.curves[attacks[1]]]
    assert counts == sorted(counts)
    assert counts[-1] > 0
    # The control alone tells nothing; it is drawn beside FGSM only.
    assert ss.audit(_asked_only(), (x, y), threat=ss.linf(0.1), attacks=attacks).curves == {}


def test_a_preset_on_a_model_without_gradients_asks_it_instead() -> None:
    _, x, y = _data(16)
    result = ss.audit(_asked_only(), (x, y), threat=ss.linf(0.1), ladder="autoattack@1", curve=False)
    ran = {entry.name for entry in result.attacks if entry.entered}
    assert ran == {"square:queries=5000"}
    assert result.fooled > 0
    assert "can be set beside published ones" not in " ".join(str(result).split())


def test_each_reason_why_no_rung_could_be_run_is_given() -> None:
    """In L1 no rung of this preset asks for scores only: that Square is not defined there is half of the matter."""
    _, x, y = _data(16)
    with pytest.raises(InputError, match=r"(?=.*attack a surrogate).*square.* not defined for this threat") as caught:
        ss.audit(_asked_only(), (x, y), threat=ss.l1(1.0), ladder="standard@1", curve=False)
    assert "it follows gradients too" not in str(caught.value)


def test_an_error_of_every_rung_is_an_error() -> None:
    _, x, y = _data(16)
    with pytest.raises(InputError, match="no rung of the ladder could be run"):
        ss.audit(_asked_only(), (x, y), threat=ss.linf(0.1), ladder="quick@1", curve=False)


def test_the_curve_does_not_cost_the_batch_its_attacks() -> None:
    """The victim dies in the FGSM ray, after the rung has finished."""
    net, x, y = _data(10)
    calls = [0]

    def model(u: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > 9:
            raise VictimError("the endpoint has gone")
        out: Tensor = net(u)
        return out

    result = ss.audit(model, (x, y), threat=ss.linf(0.05), ladder=["pgd:steps=4"])
    assert result.partial
    assert result.examples == 10
    assert result.attacks[0].entered > 0
    assert any("curve ended early" in note for note in result.notes)


def test_another_models_end_does_not_cost_the_batch_its_attacks() -> None:
    _, x, y = _data(10)
    result = ss.audit(
        RowNet(),
        (x, y),
        threat=ss.linf(0.05),
        ladder=["pgd:steps=4"],
        curve=False,
        run=ss.Run(transfer_to={"api": _asked_only(0)}),
    )
    assert result.partial
    assert result.attacks[0].entered > 0
    assert any("api" in note for note in result.notes)


def test_a_shard_without_examples_says_so() -> None:
    _, x, y = _data(3)
    with pytest.raises(InputError, match="shard 4/5 has no examples"):
        ss.audit(RowNet(), (x, y), threat=ss.linf(0.05), ladder=["fgsm"], run=ss.Run(shard=(4, 5)))


@pytest.mark.parametrize("name", [*LADDERS, "standard"])
def test_presets_are_explained(name: str) -> None:
    text = explain(name)
    assert all(str(rung) in text for rung in ladder(name).rungs)


class FarClass(nn.Module):
    """Four classes that come half-way along the first numbers, and a fifth, farther off, that can be reached."""

    def forward(self, u: Tensor) -> Tensor:
        a, b = ((u - 0.5) / 0.1).reshape(-1, 2, 4).mean(2).unbind(1)
        near = (0.6 * a - 1).unsqueeze(1) - 0.01 * torch.arange(4)
        return torch.cat([torch.zeros_like(near[:, :1]), near, (1.6 * b - 1.5).unsqueeze(1)], 1)


def test_the_second_standard_leads_to_every_class() -> None:
    x, y = torch.full((3, 8), 0.5), torch.zeros(3, dtype=torch.long)
    held = [
        ss.audit(FarClass(), (x, y), threat=ss.linf(0.1), ladder=name, curve=False).held
        for name in ("standard@1", "standard@2")
    ]
    assert held == [3, 0]


@pytest.mark.parametrize(("one", "more"), [("standard@1", "standard@2"), ("standard@1", "thorough@1")])
def test_a_longer_preset_begins_with_the_shorter_one(one: str, more: str) -> None:
    """With the same rungs in the same places, and so the same draws: it never leaves more standing."""
    assert LADDERS[more].rungs[: len(LADDERS[one].rungs)] == LADDERS[one].rungs
