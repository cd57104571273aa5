"""A wrong input space is found where one of the known ones is the truth, and nowhere else; looking changes nothing."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.findings import examine
from signstep.auditing.findings.specimens import healthy, result
from signstep.auditing.input_spaces import (
    AT_MOST,
    EXAMPLES,
    KNOWN,
    TABLE,
    TERM,
    Fit,
    KnownSpace,
    best,
    examples_of,
    fit_of,
    possible,
    sound,
)
from signstep.auditing.look import Look, others
from signstep.auditing.record import Record
from signstep.auditing.stated_terms import claims
from signstep.auditing.table import complete_ladder
from signstep.cli import main
from signstep.errors import SignstepWarning
from signstep.messages import UNSAID, Arg
from signstep.model.victims import from_numpy

CLASSES, SHAPES = 10, ((3, 32, 32), (3, 12, 12), (1, 10, 10))


class Levels(nn.Module):
    """Classes are levels of the mean of each channel, as a model learns them in the units that it is shown."""

    def __init__(self, shown: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 4.0])[: shown.shape[1]])
        places = torch.linspace(0.05, 0.95, CLASSES)
        self.levels = nn.Parameter(self._sum(shown).detach().quantile(places))

    def _sum(self, x: Tensor) -> Tensor:
        return (x.mean((2, 3)) * self.weight).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return -(self._sum(x)[:, None] - self.levels).square()


def pictures(shape: tuple[int, ...], count: int = 80, seed: int = 0) -> Tensor:
    """Of a colour each, with noise."""
    draw = torch.Generator().manual_seed(seed)
    return 0.9 * torch.rand(count, shape[0], 1, 1, generator=draw) + 0.1 * torch.rand(count, *shape, generator=draw)


def statistics(space: KnownSpace, low: float = 0.0, high: float = 1.0) -> tuple[Any, Any]:
    found = space.raw(low, high)
    return (None, None) if found is None else tuple(part if len(part) > 1 else part[0] for part in found)  # type: ignore[return-value]


def made_for(space: KnownSpace, shape: tuple[int, ...], declared: KnownSpace) -> tuple[nn.Module, Tensor, Tensor]:
    """A model that is right in one space, where the channels of another one are given: network, inputs, labels."""
    x = pictures(shape)
    mean, std = statistics(space if space.mean is not None else declared)
    shown = torch.tensor(mean).reshape(-1, 1, 1), torch.tensor(std).reshape(-1, 1, 1)
    seen = (x - shown[0]) / shown[1]
    seen = seen.flip(1) if space.flipped else seen
    network = Levels(seen)
    return network, x, network(seen).argmax(1)


def audited(network: Any, x: Tensor, y: Tensor | None, **options: Any) -> ss.Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SignstepWarning)
        return ss.audit(network, (x, y), threat=ss.linf(4 / 255), attacks=["fgsm"], curve=False, **options)


def pairs() -> Iterator[Any]:
    for shape in SHAPES:
        suiting = [space for space in TABLE if space.suits(shape)]
        for truth in suiting:
            for declared in suiting:
                if truth is declared or declared.flipped:
                    continue
                yield pytest.param(truth, declared, shape, id=f"{truth.name}-for-{declared.name}-{shape[0]}x{shape[1]}")


@pytest.mark.parametrize(("truth", "declared", "shape"), list(pairs()))
def test_each_space_is_found_where_it_is_the_truth(
    truth: KnownSpace, declared: KnownSpace, shape: tuple[int, ...]
) -> None:
    network, x, y = made_for(truth, shape, declared)
    mean, std = statistics(declared)
    found = audited(network, x, y, mean=mean, std=std)
    fit = fit_of(found)
    if found.clean_accuracy > 0.75:  # two spaces that are next to each other: nothing to be said
        assert fit is None
        return
    assert fit is not None
    assert (fit.space.name, fit.right) == (truth.name, EXAMPLES)
    assert "SS206" in [finding.code for finding in examine(found)]
    assert ("in the place of those declared" in str(fit.message(0.0, 1.0, stated=True))) is (
        truth.name not in ("unit", "bgr")
    )
    # What the finding says to pass makes the model right.
    if not truth.flipped:
        told = fit.message(0.0, 1.0)
        given = [part for part in told.cure if isinstance(part, Arg) and part.value is not UNSAID]
        passed: dict[str, Any] = {part.name: part.value for part in given}
        again = audited(network, x, y, **passed)
        assert again.clean_accuracy == 1.0
        assert fit_of(again) is None


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0)])
def test_statistics_are_in_the_units_of_the_box(low: float, high: float) -> None:
    truth = KNOWN["imagenet"]
    network, unit, y = made_for(truth, (3, 12, 12), truth)
    x = low + (high - low) * unit
    threat = ss.linf((high - low) * 4 / 255, box=(low, high))
    with pytest.warns(SignstepWarning, match="the mean and std of ImageNet"):
        found = ss.audit(network, (x, y), threat=threat, attacks=["fgsm"], curve=False)
    fit = fit_of(found)
    assert fit is not None
    assert fit.space is truth
    mean, std = statistics(truth, low, high)
    assert audited_in(threat, network, x, y, mean=mean, std=std).clean_accuracy == 1.0
    (finding,) = [finding for finding in examine(found) if finding.code == "SS206"]
    assert f"{round(mean[0], 6)}" in finding.evidence


def audited_in(threat: Any, network: Any, x: Tensor, y: Tensor, **options: Any) -> ss.Result:
    return ss.audit(network, (x, y), threat=threat, attacks=["fgsm"], curve=False, **options)


def small(seed: int, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(seed)
    side = (shape[1] - 1) // 2
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * side * side, CLASSES)
    )


@pytest.mark.parametrize("seed", range(15))
def test_a_model_that_is_declared_right_raises_no_alarm(seed: int) -> None:
    shape = SHAPES[seed % 3]
    suiting = [space for space in TABLE if space.suits(shape) and space.mean is not None and not space.flipped]
    mean, std = statistics(suiting[seed % len(suiting)])
    model, x = ss.Model(small(seed, shape), mean=mean, std=std), pictures(shape, seed=seed)
    y = model(x).argmax(1)
    wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < 0.3  # right in 7 of 10
    assert fit_of(audited(model, x, torch.where(wrong, (y + 1) % CLASSES, y))) is None


@pytest.mark.parametrize("seed", range(15))
def test_an_untrained_model_raises_no_alarm(seed: int) -> None:
    shape = SHAPES[seed % 3]
    x = pictures(shape, seed=seed)
    y = torch.randint(CLASSES, (len(x),), generator=torch.Generator().manual_seed(seed))
    found = audited(small(seed, shape), x, y)
    assert TERM in found.terms
    assert fit_of(found) is None


def test_one_answer_for_all_is_no_fit_however_the_data_is_sorted() -> None:
    assert best({"half": "r" * 64}, "w" * 64, [3] * 64) is None
    assert not possible("w" * 64, [3] * 64, 6)
    assert best({"half": "r" * 64}, "w" * 64, [3, 4] * 32) is not None


class Counting(nn.Module):
    """Counts the examples that it is asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.asked = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


def without_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Look, "begin", lambda _, question, *__: question)
    patch.setattr(Look, "add", lambda *_: None)


def test_it_costs_what_is_said_and_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 32, 32), KNOWN["unit"])
    model, alone = Counting(network), Counting(network)
    looked = audited(model, x, y)
    without_look(monkeypatch)
    plain = audited(alone, x, y)
    assert alone.asked < model.asked <= alone.asked + 2 * AT_MOST * EXAMPLES
    kept = {name: value for name, value in looked.terms.items() if name != TERM}
    attacks = [replace(entry, seconds=0.0) for entry in looked.attacks]
    assert kept == plain.terms
    assert attacks == [replace(entry, seconds=0.0) for entry in plain.attacks]
    assert looked.per_example == plain.per_example


def test_nobody_is_asked_where_nothing_could_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 12, 12), KNOWN["imagenet"])
    mean, std = statistics(KNOWN["imagenet"])
    model, alone = Counting(network), Counting(network)
    assert TERM not in audited(model, x, y, mean=mean, std=std).terms
    without_look(monkeypatch)
    audited(alone, x, y, mean=mean, std=std)
    assert model.asked == alone.asked


@pytest.mark.parametrize("size", [7, 64, 80])
def test_the_record_does_not_depend_on_the_batches(size: int) -> None:
    network, x, y = made_for(KNOWN["half"], (3, 12, 12), KNOWN["unit"])
    batches = [(x[at : at + size], y[at : at + size]) for at in range(0, len(x), size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SignstepWarning)
        cut = ss.audit(network, batches, threat=ss.linf(4 / 255), attacks=["fgsm"], curve=False)
    assert cut.terms[TERM] == audited(network, x, y).terms[TERM]


@pytest.mark.parametrize("space", ["half", "unit"])
def test_shards_merge_into_the_look_of_the_whole(space: str) -> None:
    network, x, y = made_for(KNOWN[space], (3, 12, 12), KNOWN[space])
    shards = [audited(network, x, y, run=ss.Run(shard=(place, 3))) for place in range(3)]
    whole = audited(network, x, y)
    assert ss.merge(shards).terms == whole.terms
    assert (TERM in whole.terms) is (space == "half")


def wrong(x: Tensor) -> Tensor:
    return torch.ones(len(x), CLASSES).index_fill(1, torch.tensor([0]), 2.0) + 0 * x.flatten(1).sum(1, keepdim=True)


def victim(network: nn.Module) -> Any:
    return from_numpy(lambda x: network(torch.from_numpy(x)).detach().numpy())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(victim, id="asked alone"),
        pytest.param(lambda net: ss.Model(net, transform=ss.transforms.Noise(0.01)), id="transform"),
    ],
)
def test_what_may_cost_or_is_declared_to_change_on_the_way_is_not_asked(model: Callable[[nn.Module], Any]) -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 12, 12), KNOWN["unit"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SignstepWarning)
        found = ss.audit(model(network), (x, y), threat=ss.linf(4 / 255), attacks=["random-sign"], curve=False)
    assert TERM not in found.terms


def test_other_inputs_and_tasks_are_left_alone() -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 12, 12), KNOWN["unit"])
    assert TERM not in audited(network, x, None).terms
    flat = nn.Sequential(nn.Unflatten(1, (3, 12, 12)), network)
    assert TERM not in audited(flat, x.flatten(1), y).terms
    tall = ss.Model(network, task=ss.Regression(0.1))
    assert TERM not in audited(tall, x, network(x).detach() + 1).terms
    with pytest.raises(AssertionError):
        assert TERM not in audited(network, x, y).terms


class Strict(nn.Module):
    """Refuses what is not in its units."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().amax()) > 1 or float(x.detach().amin()) < 0:
            raise ValueError("inputs in [0, 1] are wanted")
        return self.inner(x)  # type: ignore[no-any-return]


def test_a_model_that_refuses_other_inputs_is_not_made_for_them() -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 12, 12), KNOWN["unit"])
    found = audited(Strict(network), x, y)
    assert set(found.terms[TERM]["right"]["imagenet"]) == {"w"}
    assert fit_of(found) is None


def test_the_declared_space_is_not_tried_and_no_case_tries_more_than_six() -> None:
    for shape in SHAPES:
        for space in TABLE:
            if not space.suits(shape) or space.flipped:
                continue
            mean, std = statistics(space)
            tried = [other.name for other, _ in others(ss.Model(wrong, mean=mean, std=std), shape, (0.0, 1.0))]
            assert space.name not in tried
            assert len(tried) in range(3, AT_MOST + 1)
    assert len(list(others(ss.Model(wrong, mean=7.0, std=7.0), (3, 32, 32), (0.0, 1.0)))) == AT_MOST
    assert "unit" not in [space.name for space, _ in others(ss.Model(wrong), (3, 32, 32), (0.0, 1.0))]


def test_of_large_inputs_fewer_are_kept() -> None:
    assert [examples_of(numbers) for numbers in (64, 3 * 224 * 224, 3 * 1024 * 1024)] == [64, 64, 16]


def looked(right: object, rows: object = None, most: object = EXAMPLES) -> Record:
    clean = "w" * 80 + "r" * 20
    check = {"rows": list(range(EXAMPLES)) if rows is None else rows, "right": right, "most": most}
    made = result(clean, {"fgsm": "h" * 100}, **{TERM: check})
    return replace(made, per_example=replace(made.per_example, labels=tuple(place % 10 for place in range(100))))


def test_a_fit_keeps_a_figure_from_published_ones() -> None:
    of_papers: dict[str, Any] = {"task": "multiclass", "gradients_from": "the model", "shard": None}
    climbed = replace(healthy(**of_papers), ladder="autoattack@1")
    assert complete_ladder(climbed) is not None
    wrong_space = looked({"imagenet": "r" * EXAMPLES})
    terms = {**climbed.terms, TERM: wrong_space.terms[TERM]}
    assert complete_ladder(replace(wrong_space, ladder="autoattack@1", terms=terms)) is None


@pytest.mark.parametrize(
    "record",
    [
        looked({"imagenet": "r" * 3}),
        looked({"nonsense": "r" * EXAMPLES}),
        looked({"imagenet": "r" * EXAMPLES}, rows=[10**6] * EXAMPLES),
        looked({"imagenet": "r" * EXAMPLES}, rows=[0] * EXAMPLES),
        looked({"imagenet": "x" * EXAMPLES}),
        looked({}, rows=[]),
        looked([1]),
        looked({"imagenet": "r" * EXAMPLES}, most="many"),
    ],
)
def test_a_forged_term_is_no_fit_and_no_term(record: Record) -> None:
    assert fit_of(record) is None
    assert not sound(record)


def test_terms_of_an_audit_are_sound() -> None:
    network, x, y = made_for(KNOWN["imagenet"], (3, 12, 12), KNOWN["unit"])
    found = audited(network, x, y)
    assert claims(found).holds
    assert not claims(replace(found, terms={**found.terms, TERM: {"rows": []}})).holds


FACTORY = """
import torch
from torch import nn

class Levels(nn.Module):
    def forward(self, x):
        return -(x.mean((1, 2, 3))[:, None] - torch.linspace(-1.5, 1.5, 5)).square()

def net():
    return Levels()

class Data(list):
    bounds = (0.0, 1.0)

def loader():
    x = torch.linspace(0.26, 0.74, 60).reshape(-1, 1, 1, 1).expand(60, 3, 8, 8).contiguous()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shown = (x - mean[:, None, None]) / std[:, None, None]
    return Data([(x, net()(shown).argmax(1))])
"""


def test_the_command_line_says_so_before_the_attacks_and_after_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "colours.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["audit", "--model", "colours:net", "--data", "colours:loader", "--threat", "linf:4/255"]
    words += ["--attack", "fgsm", "--curve", "none"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(words) == 0
    said = capfd.readouterr().err.splitlines()
    told = "pass --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    warned = [place for place, line in enumerate(said) if "the model seems to want other inputs" in line]
    found = [place for place, line in enumerate(said) if line.startswith("SS206")]
    assert len(warned) == len(found) == 1
    assert warned < found
    assert said[warned[0]].endswith(told)
    assert said[found[0]].endswith(told)
    assert main([*words, "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]) == 0
    assert "SS206" not in capfd.readouterr().err


def test_the_chance_is_that_of_all_spaces_together() -> None:
    one = best({"half": "r" * 14 + "w" * 50}, "w" * 64, [place % 10 for place in range(64)])
    several = best(
        dict.fromkeys(("half", "imagenet"), "r" * 30 + "w" * 34), "w" * 64, [place % 10 for place in range(64)]
    )
    assert one is None  # 14 of 64 are 22 points, but no 20 more than one answer for all
    assert isinstance(several, Fit)
    assert several.chance == pytest.approx(2 * 2 * 0.5**30)
    assert several.space.name == "imagenet"  # the first of the table at a tie
