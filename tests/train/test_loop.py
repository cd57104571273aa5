"""The loop: the same seed gives the same weights, a collapse is called and cured, the best weights are delivered."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from signstep.data.digits import digits
from signstep.errors import InputError, ModelError
from signstep.networks.small import digits_cnn
from signstep.train import TRAINING_RECIPES, Moment, Settings, fit
from signstep.train.alarm import Event
from signstep.train.loop import _Loop
from signstep.train.objectives import OBJECTIVES, Batch
from signstep.train.prepare import most_held
from signstep.train.probe import Look
from signstep.train.recipes import training_recipe
from signstep.train.run import Run

THREAT = ss.linf(0.1)
QUICK = Settings(epochs=2, batch=64, check_every=3)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits("train")
    return x[:200], y[:200]


def fresh() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = (nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
        return nn.Sequential(*parts)


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize("name", list(TRAINING_RECIPES))
def test_the_same_seed_gives_the_same_weights(name: str, data: tuple[Tensor, Tensor]) -> None:
    settings = replace(QUICK, average=0.9, crop=1, flip=True, warm_up=0.2, smoothing=0.1)
    one, other = fresh(), fresh()
    fit(one, *data, threat=THREAT, recipe=name, settings=settings)
    torch.rand(5)  # the global state plays no part
    fit(other, *data, threat=THREAT, recipe=name, settings=settings)
    assert equal(one, other)
    third = fresh()
    fit(third, *data, threat=THREAT, recipe=name, settings=replace(settings, seed=1))
    assert not equal(one, third)


def test_the_process_is_left_as_it_was(data: tuple[Tensor, Tensor]) -> None:
    before = torch.get_rng_state()
    fit(fresh(), *data, threat=THREAT, settings=QUICK)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "settings",
    [
        replace(QUICK, optimiser="sgd", rate=0.1, schedule="cosine", weight_decay=1e-3),
        replace(QUICK, optimiser="adamw", schedule="constant"),
        replace(QUICK, optimiser=lambda weights: torch.optim.RMSprop(weights, 1e-3)),
        replace(QUICK, autocast="bfloat16"),
        replace(QUICK, validation=0.0, on_collapse="ignore"),
    ],
    ids=["sgd", "adamw", "own", "autocast", "no validation"],
)
def test_the_knobs_turn(settings: Settings, data: tuple[Tensor, Tensor]) -> None:
    model = fresh()
    trained = fit(model, *data, threat=THREAT, recipe="fgsm-rs", settings=settings)
    assert trained.steps == trained.total
    assert not equal(model, fresh())
    assert not model.training


def test_channels_last_changes_the_layout_and_little_else(data: tuple[Tensor, Tensor]) -> None:
    models = [digits_cnn(), digits_cnn()]
    models[1].load_state_dict(models[0].state_dict())
    for model, last in zip(models, (False, True), strict=True):
        fit(model, *data, threat=THREAT, settings=replace(QUICK, epochs=1, channels_last=last))
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-3)


@pytest.mark.kernels
@pytest.mark.parametrize("whose", ["asked for", "the model's own"])
def test_a_layer_that_overruns_in_channels_last_keeps_channels_first(whose: str, data: tuple[Tensor, Tensor]) -> None:
    """The smallest network whose training oneDNN's AVX2 kernels kill."""
    seen: list[bool] = []

    class Watched(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.is_contiguous() and self.weight.is_contiguous())
            return super().forward(x)

    model = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), Watched(4, 8, 1, 2), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    if whose == "the model's own":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = replace(QUICK, epochs=3, channels_last=whose == "asked for")
    trained = fit(model, *data, threat=THREAT, settings=settings)
    assert len(seen) > trained.steps
    assert all(seen)
    assert [note for note in trained.notes if "channels first" in note and "'1'" in note]


def test_training_makes_robust() -> None:
    x, y = digits("train")
    held, labels = digits("test")
    found = {}
    for recipe in ("natural", "n-fgsm"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        fit(model, x, y, threat=THREAT, recipe=recipe, settings=Settings(epochs=15))
        found[recipe] = int((~ss.attack(model, held, labels, threat=THREAT, recipe="pgd").fooled).sum())
    assert found["n-fgsm"] > found["natural"] + 50


def test_what_is_watched(data: tuple[Tensor, Tensor]) -> None:
    moments: list[Moment] = []
    trained = fit(fresh(), *data, threat=THREAT, settings=replace(QUICK, epochs=5, check_every=4), watch=moments.append)
    assert [moment.step for moment in moments] == list(range(1, trained.total + 1))
    assert [moment.reading.step for moment in moments if moment.reading] == [4, 8, 12, 15]
    assert trained.readings[-1].examples == 20
    assert 0 < trained.readings[-1].checking < 1
    assert trained.best is not None
    assert trained.best.robust == max(selection.robust for selection in trained.selections)
    assert "held-out rows stand against PGD" in trained.overfitting


def test_a_model_that_gave_up_is_named(data: tuple[Tensor, Tensor]) -> None:
    class Alike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias + 0 * x.flatten(1)[:, :10]

    trained = fit(Alike(), *data, threat=THREAT, settings=QUICK)
    assert "answers nearly everything alike" in trained.notes[0]
    assert "longer warm_up" in trained.notes[0]


def test_free_makes_as_many_steps_in_fewer_passes(data: tuple[Tensor, Tensor]) -> None:
    settings = replace(QUICK, epochs=16)
    assert fit(fresh(), *data, threat=THREAT, recipe="free", settings=settings).total == 16 * 3
    assert fit(fresh(), *data, threat=THREAT, recipe="free", settings=settings).readings[-1].epoch == 2


def _collapsing() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return digits_cnn(), *digits("train")


@pytest.mark.parametrize("action", ["stop", "recover"])
def test_a_forced_collapse_is_called_and_answered(action: str) -> None:
    """FGSM from the clean point at eps 0.3, as the recipe's title warns."""
    model, x, y = _collapsing()
    settings = Settings(epochs=14, rate=5e-3, on_collapse=action, check_every=10)  # type: ignore[arg-type]
    trained = fit(model, x, y, threat=ss.linf(0.3), recipe="fgsm", settings=settings)
    assert trained.events
    event = trained.events[0]
    called = next(reading for reading in trained.readings if reading.step == event.step)
    assert called.pgd < 0.5 * called.fgsm
    first = next(reading.step for reading in trained.readings if reading.pgd < 0.5 * reading.fgsm)
    assert event.step - first <= 200
    if action == "stop":
        assert trained.partial
        assert trained.steps == event.step
    else:
        assert (event.before, event.after) == ("fgsm", "n-fgsm")
        assert trained.finished_with.name in ("n-fgsm", "pgd-at")
        assert event.back_to is not None
        assert event.back_to < event.step
        assert trained.steps == trained.total
        assert trained.readings[-1].attempt == len(trained.events)
        assert trained.readings[-1].pgd >= called.pgd


@pytest.mark.parametrize(
    ("pgd", "looks"),
    [(1, [20, 25]), (13, [20, 25, 40, 45, 60, 65, 80]), (30, [20, 40, 60, 80])],
    ids=["collapse", "doubt", "healthy"],
)
def test_a_look_that_finds_them_parted_is_followed_by_another_soon(
    pgd: int, looks: list[int], data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Look(64, 0.9, 1.5, clean=60, fgsm=31, pgd=pgd, weight_cosine=0.5, input_cosine=0.5)
    monkeypatch.setattr("signstep.train.loop.look", lambda *_, **__: found)
    settings = Settings(epochs=40, batch=90, check_every=20, on_collapse="stop")
    trained = fit(fresh(), *data, threat=THREAT, recipe="fgsm", settings=settings)
    assert trained.total == 80
    assert [reading.step for reading in trained.readings] == looks
    assert [event.step for event in trained.events] == ([25] if pgd == 1 else [])


def test_in_the_warm_up_no_look_is_doubled(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    found = Look(64, 0.9, 1.5, clean=60, fgsm=31, pgd=13, weight_cosine=0.5, input_cosine=0.5)
    monkeypatch.setattr("signstep.train.loop.look", lambda *_, **__: found)
    settings = Settings(epochs=40, batch=90, check_every=20, on_collapse="stop", warm_up=0.7)
    trained = fit(fresh(), *data, threat=THREAT, recipe="fgsm", settings=settings)
    assert [reading.step for reading in trained.readings] == [20, 40, 60, 65, 80]


def test_what_is_ignored_is_recorded_once_and_looked_at_in_turn_alone(
    data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Look(64, 0.9, 1.5, clean=60, fgsm=31, pgd=1, weight_cosine=0.5, input_cosine=0.5)
    monkeypatch.setattr("signstep.train.loop.look", lambda *_, **__: found)
    settings = Settings(epochs=40, batch=90, check_every=20, on_collapse="ignore")
    trained = fit(fresh(), *data, threat=THREAT, recipe="fgsm", settings=settings)
    assert [reading.step for reading in trained.readings] == [20, 25, 40, 60, 80]
    assert [event.action for event in trained.events] == ["ignore"]
    assert trained.steps == trained.total == 80
    assert trained.last is not None
    assert trained.last.step == trained.total


def test_a_run_that_a_collapse_has_ended_stays_ended(
    data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Look(64, 0.9, 1.5, clean=60, fgsm=31, pgd=1, weight_cosine=0.5, input_cosine=0.5)
    monkeypatch.setattr("signstep.train.loop.look", lambda *_, **__: found)
    settings = Settings(epochs=40, batch=90, check_every=20, on_collapse="stop")
    ends = []
    for _ in range(2):
        model = fresh()
        trained = fit(model, *data, threat=THREAT, recipe="fgsm", settings=settings, folder=tmp_path)
        assert trained.partial
        ends.append((model, trained.steps))
    assert ends[0][1] == ends[1][1] == 25
    assert equal(ends[0][0], ends[1][0])


def test_focus_hears_the_loss_of_each_row(data: tuple[Tensor, Tensor]) -> None:
    settings = Settings(epochs=3, batch=50, optimiser="sgd", rate=1e-12, focus=1.0)
    run = Run(digits_cnn(), *data, THREAT, training_recipe("natural"), settings)
    for _ in range(run.order.batches):
        run.advance()
    x, y = run.rows.take(torch.arange(len(run.rows)))
    with torch.no_grad():
        wanted = F.cross_entropy(run.model(x), y, reduction="none")
    assert torch.allclose(run.order.state()["losses"], wanted, atol=1e-5)
    assert wanted.std() > 0


def test_focus_goes_back_with_a_recovery(data: tuple[Tensor, Tensor]) -> None:
    settings = Settings(epochs=6, batch=20, focus=1.0)
    run = Run(fresh(), *data, THREAT, training_recipe("fgsm-rs"), settings)
    for _ in range(2 * run.order.batches + 3):
        run.advance()
    run.healthy = run.snapshot()
    visits = range(run.visit, 3 * run.order.batches)
    before = [run.order(visit) for visit in visits]
    for _ in range(2 * run.order.batches):
        run.advance()
    run.cure(training_recipe("n-fgsm"))
    assert all(torch.equal(run.order(visit), rows) for visit, rows in zip(visits, before, strict=True))
    assert torch.equal(run.order.state()["losses"], run.healthy["order"]["losses"])


@pytest.mark.parametrize("compiled", [False, "eager"])
def test_bounds_and_their_layout_go_together(compiled: bool | str, data: tuple[Tensor, Tensor]) -> None:
    models = [digits_cnn(), digits_cnn()]
    models[1].load_state_dict(models[0].state_dict())
    for model, last in zip(models, (False, True), strict=True):
        fit(
            model,
            *data,
            threat=THREAT,
            recipe="mtl-ibp",
            settings=replace(QUICK, epochs=1, channels_last=last, compile=compiled),
            mean=0.3,
            std=0.5,
        )
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_augmentation_ends_where_it_is_told_to(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []

    def watched(batch: Batch) -> Tensor:
        moved.append(batch.frame is not None)
        return batch.learnt(batch.model(batch.x), batch.y)

    monkeypatch.setitem(OBJECTIVES, "clean", watched)
    settings = Settings(epochs=5, batch=90, crop=1, augment=0.6)
    fit(fresh(), *data, threat=THREAT, recipe="natural", settings=settings)
    assert moved == [True] * 6 + [False] * 4


def test_a_weight_fades_from_where_eps_is_whole(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(batch: Batch) -> Tensor:
        seen.append(batch.recipe.weight)
        return batch.learnt(batch.model(batch.x), batch.y)

    monkeypatch.setitem(OBJECTIVES, "bounded", watched)
    settings = Settings(epochs=5, batch=90, warm_up=0.4)
    trained = fit(fresh(), *data, threat=THREAT, recipe="mtl-ibp:weight=0.5,fade=0.1", settings=settings)
    assert trained.total == 10
    wanted = [0.5, 0.5, 0.5, 0.5, 0.5, 0.425, 0.35, 0.275, 0.2, 0.125]  # on the way to 0.05, which no step has
    assert seen == pytest.approx(wanted)


def test_eps_has_to_become_whole() -> None:
    with pytest.raises(InputError, match="add up to at most 1"):
        Settings(hold=0.7, warm_up=0.6)


def test_eps_is_held_back_before_it_rises() -> None:
    settings = Settings(hold=0.2, warm_up=0.4)
    assert [round(settings.share(step, 10), 6) for step in range(10)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert [Settings(hold=0.3).share(step, 10) for step in range(5)] == [0, 0, 0, 1, 1]
    assert Settings().share(0, 10) == 1


def test_a_long_gradient_is_shortened(data: tuple[Tensor, Tensor]) -> None:
    settings = Settings(epochs=1, batch=200, optimiser="sgd", momentum=0.0, schedule="constant", rate=1.0)
    moved = []
    for most in (0.0, 0.01):
        model = fresh()
        before = torch.cat([part.detach().flatten() for part in model.parameters()])
        fit(model, *data, threat=THREAT, settings=replace(settings, max_norm=most))
        moved.append(float((torch.cat([part.detach().flatten() for part in model.parameters()]) - before).norm()))
    assert moved[0] > 0.1
    assert moved[1] == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_what_is_delivered(data: tuple[Tensor, Tensor]) -> None:
    models = [fresh(), fresh()]
    for model, average in zip(models, (0.0, 0.9), strict=True):
        settings = replace(QUICK, average=average, validation=0.0, on_collapse="ignore")
        fit(model, *data, threat=THREAT, settings=settings)
    assert not equal(*models)


def test_training_stops_where_it_is_asked_to(data: tuple[Tensor, Tensor]) -> None:
    asked = iter([False, False, True])
    trained = fit(fresh(), *data, threat=THREAT, settings=QUICK, watch=lambda _: next(asked))
    assert (trained.steps, trained.partial) == (3, True)


def test_a_loss_that_is_no_number_ends_in_one_sentence(data: tuple[Tensor, Tensor]) -> None:
    model = fresh()
    settings = replace(QUICK, optimiser="sgd", rate=1e30, epochs=5)
    with pytest.raises(ModelError, match=r"the loss became (nan|inf) at step \d+ of 15 .* pass a smaller rate"):
        fit(model, *data, threat=THREAT, recipe="natural", settings=settings)


def test_memory_that_runs_out_ends_in_one_sentence(data: tuple[Tensor, Tensor]) -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = fresh(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            if self.training and self.calls == 5:
                raise MemoryError
            outputs: Tensor = self.inner(x)
            return outputs

    with pytest.raises(ModelError, match="memory ran out at step 2 of 6 with batch=64; pass a smaller batch"):
        fit(Hungry(), *data, threat=THREAT, settings=replace(QUICK, check_every=99))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"smoothing": 1.0}, "smoothing=1.0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"schedule": "steps"}, "schedule='steps'"),
        ({"optimiser": "lion"}, "optimiser='lion'"),
        ({"check_every": 0}, "check_every=0"),
        ({"validation": 0.0}, "on_collapse='ignore'"),
        ({"crop": 9}, "crop=9"),
        ({"augment": 0.0}, r"augment=0\.0; pass a share"),
        ({"augment": 0.5}, r"augment=0\.5 moves nothing; pass crop or flip too"),
        ({"focus": 1.0, "epochs": 1}, r"focus=1, epochs=1: .* pass epochs=2 or more"),
        ({"focus": -1.0}, r"focus=-1\.0; pass a power above 0"),
        ({"focus": float("nan")}, "focus=nan"),
    ],
)
def test_wrong_settings_are_told(changes: dict[str, object], words: str, data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=words):
        fit(fresh(), *data, threat=THREAT, settings=replace(QUICK, **changes))  # type: ignore[arg-type]


def test_wrong_data_is_told(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    for arguments in ((x.long(), y), (x, y[:5]), (x[:4], y[:4])):
        with pytest.raises(InputError, match=r"pass|needs"):
            fit(fresh(), *arguments, threat=THREAT)
    with pytest.raises(InputError, match="pass one number"):
        fit(fresh(), x, y, threat=ss.linf(torch.full((200,), 0.1)))


def test_a_cure_that_begins_anew_raises_eps_by_and_by(data: tuple[Tensor, Tensor]) -> None:
    """At the full eps a network that has hardly been trained gives up; one that has gets no second warm-up."""
    run = Run(fresh(), *data, THREAT, training_recipe("fgsm"), replace(QUICK, epochs=20))
    assert run.share(0) == 1.0
    assert run.warm == 0
    run.events.append(Event(40, ("x",), "recover", 2, "fgsm", "n-fgsm"))
    left = run.total - 2
    assert run.share(2) == pytest.approx(1 / (0.4 * left))
    assert run.share(1 + round(0.4 * left)) == pytest.approx(1.0, abs=0.02)
    assert run.share(run.total - 1) == 1.0
    assert run.warm == pytest.approx(2 + 0.4 * left)
    assert run.threat_of(3).eps == pytest.approx(0.1 / (0.4 * left))
    run.events.append(Event(60, ("x",), "recover", 40, "n-fgsm", "pgd-at"))
    assert run.share(41) == 1.0


def test_an_accelerator_looks_at_more_rows_as_often() -> None:
    x, y = torch.rand(4000, 1, 8, 8), torch.randint(10, (4000,))
    run = Run(fresh(), x, y, THREAT, training_recipe("n-fgsm"), replace(QUICK, epochs=200, validation=0.5))
    here = _Loop(run, run.recipe, None, 30.0, None)
    run.device = torch.device("cuda")
    there = _Loop(run, run.recipe, None, 30.0, None)
    assert (here.alarm_rows, here.choice_rows, there.alarm_rows) == (64, 256, 256)
    # Batches of 64 rows cost a card what 256 would.
    assert here.alarm_every == there.alarm_every
    assert (most_held(torch.device("cpu")), most_held(torch.device("cuda"))) == (256, 1024)


@pytest.mark.parametrize(("best", "now", "step"), [((900, 1024), 19, 0), ((1, 2), 9, 7)])
def test_validations_of_other_numbers_of_rows_are_compared_by_shares(
    best: tuple[int, int], now: int, step: int, data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(fresh(), *data, THREAT, training_recipe("n-fgsm"), QUICK)
    loop = _Loop(run, run.recipe, None, 30.0, None)
    assert loop.choice_rows == 20
    monkeypatch.setattr("signstep.train.loop.robust_rows", lambda *_, **__: now)
    run.best = {"selection": {"step": 7, "robust": best[0], "rows": best[1]}, "weights": {}}
    loop._choose()
    assert run.best["selection"]["step"] == step
