"""What the papers say about each recipe, read from the table; and what no recipe may do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import signstep as ss
from signstep.data.digits import digits
from signstep.errors import InputError, ModelError, ThreatError
from signstep.model.layout import ChannelsLast
from signstep.train import TRAINING_RECIPES, Memory, TrainingRecipe, adversarial_loss, training_recipe
from signstep.train.craft import ball, craft, started
from signstep.train.deployed import Deployed
from signstep.train.draws import BatchDraws
from signstep.train.loss import losses
from signstep.train.objectives import OBJECTIVES, Batch

EPS = 0.1
THREAT = ss.linf(EPS)
ALL = list(TRAINING_RECIPES)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits("train")
    return x[:200], y[:200]


@pytest.fixture
def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def crafted(
    recipe: TrainingRecipe, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: ss.ThreatModel = THREAT
) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    loss: Callable[[Tensor], Tensor] = lambda outputs: F.cross_entropy(outputs, y, reduction="sum")  # noqa: E731
    return craft(recipe, net, loss, ball(x, threat), BatchDraws(len(x), x.device, generator))


def loss_of(name: str, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, memory: Memory | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return adversarial_loss(
        net, x, y, name, threat=THREAT, memory=memory or Memory(), ids=torch.arange(len(x)), generator=generator
    )


@pytest.mark.parametrize("name", ALL)
def test_the_passes_are_those_of_the_table(name: str, net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:16], data[1][:16]
    bounds = 2 if TRAINING_RECIPES[name].objective == "bounded" else 0  # do not come by the model's own forward
    rows = {"forward": 0, "backward": 0}

    def watch(_: nn.Module, given: tuple[Tensor], outputs: object) -> None:
        if not isinstance(outputs, Tensor):
            return  # bounds trace the network once
        rows["forward"] += len(given[0])
        if outputs.requires_grad:
            count = lambda _: rows.__setitem__("backward", rows["backward"] + len(outputs))  # noqa: E731
            outputs.register_hook(count)  # type: ignore[no-untyped-call]

    net.register_forward_hook(watch)
    generator = torch.Generator().manual_seed(1)
    adversarial_loss(
        net, x, y, name, threat=THREAT, memory=Memory(), ids=torch.arange(16), generator=generator
    ).backward()  # type: ignore[no-untyped-call]
    forwards, backwards = TRAINING_RECIPES[name].passes
    assert rows["forward"] == 16 * (forwards - bounds)
    # The second derivative of gradalign passes through the weights, not through the outputs' hook, once for each point.
    assert (
        rows["backward"] in (16 * backwards, 16 * (backwards - 2))
        if name == "gradalign"
        else (rows["backward"] == 16 * (backwards - bounds))
    )


@pytest.mark.parametrize("name", [name for name in ALL if name != "free"])
def test_no_weight_has_a_gradient_before_the_callers_backward(
    name: str, net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    loss = loss_of(name, net, *data)
    assert all(part.grad is None for part in net.parameters())
    assert all(part.requires_grad for part in net.parameters())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is not None for part in net.parameters())


@pytest.mark.parametrize("name", ["fgsm", "fgsm-rs", "n-fgsm"])
def test_the_inner_attack_costs_one_forward_and_one_backward_to_the_input(
    name: str, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    weight = torch.randn(64, 100, requires_grad=True)

    def net(u: Tensor) -> Tensor:  # no module: the counter's own hooks on modules do not bear `autograd.grad`
        return u.flatten(1) @ weight

    with FlopCounterMode(display=False) as forward:
        net(x)
    with FlopCounterMode(display=False) as whole:
        crafted(TRAINING_RECIPES[name], net, x, torch.zeros_like(y))
    # Weight gradients of this layer would make it three times the forward pass.
    assert whole.get_total_flops() == 2 * forward.get_total_flops()


def test_fgsm_is_the_step_of_an_attack(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    d = crafted(TRAINING_RECIPES["fgsm"], net, x, y)
    assert torch.allclose(x + d, ss.fgsm(net, x, y, eps=EPS), atol=1e-6)


def test_the_start_of_fgsm_rs_leaves_the_box_and_its_end_does_not(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    start = started(TRAINING_RECIPES["fgsm-rs"], ball(x, THREAT), BatchDraws(len(x), x.device))
    assert start is not None
    assert float((x + start).min()) < -0.09
    assert float(start.abs().max()) <= EPS
    d = crafted(TRAINING_RECIPES["fgsm-rs"], net, x, y)
    assert float(d.abs().max()) <= EPS * (1 + 1e-6)
    assert float((x + d).min()) >= 0


def test_n_fgsm_is_not_clipped(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    d = crafted(TRAINING_RECIPES["n-fgsm"], net, x, y)
    assert 2.8 * EPS < float(d.abs().max()) <= 3 * EPS * (1 + 1e-6)
    assert float((x + d).min()) < 0


def test_pgd_stays_inside_all_the_way(data: tuple[Tensor, Tensor], net: nn.Module) -> None:
    x, y = data
    seen = []

    def watched(u: Tensor) -> Tensor:
        seen.append(u.detach())
        outputs: Tensor = net(u)
        return outputs

    loss_of("pgd-at", watched, x, y)
    assert len(seen) == 11
    for u in seen:
        assert float((u - x).abs().max()) <= EPS * (1 + 1e-5)
        assert 0 <= float(u.min()) <= float(u.max()) <= 1


def test_trades_starts_at_small_normal_noise(data: tuple[Tensor, Tensor]) -> None:
    start = started(TRAINING_RECIPES["trades"], ball(data[0], THREAT), BatchDraws(200, data[0].device))
    assert start is not None
    assert float(start.std()) == pytest.approx(0.001, rel=0.05)
    assert float(start.abs().max()) > 0.003  # no uniform draw of this deviation goes so far


def test_trades_attacks_in_evaluation_mode_and_puts_modes_back(data: tuple[Tensor, Tensor]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10), nn.BatchNorm1d(10))
    net.train()
    net[3].eval()
    loss_of("trades", net, *data)
    assert [part.training for part in net] == [True, True, True, False]
    assert int(net[1].num_batches_tracked) == 2  # type: ignore[arg-type]  # the clean and the attacked batch
    loss_of("pgd-at", net, *data)
    assert int(net[1].num_batches_tracked) == 2 + 11  # type: ignore[arg-type]


def test_memory_of_known_size_recalls_the_same() -> None:
    fresh, ids = torch.rand(4, 3), torch.tensor([5, 0, 2, 9])
    grown, known = Memory(), Memory(12)
    for memory in (grown, known):
        assert torch.equal(memory.recall(ids, fresh)[0], fresh)
        memory.keep(ids[:2], fresh[:2] + 1, fresh[:2] + 2)
    for one, other in zip(grown.recall(ids, fresh), known.recall(ids, fresh), strict=True):
        assert torch.equal(one, other)
    assert known.prior is not None
    assert len(known.prior) == 12


def test_free_gives_weights_and_perturbation_their_gradients_in_one_backward(
    net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    memory = Memory()
    loss_of("free", net, x, y, memory).backward()  # type: ignore[no-untyped-call]
    carried = memory.carried
    assert carried is not None
    assert carried.grad is not None
    assert all(part.grad is not None for part in net.parameters())
    wanted = (EPS * carried.grad.sign()).clamp(-x, 1 - x)
    loss_of("free", net, x, y, memory)
    assert memory.carried is not None
    assert torch.allclose(memory.carried.detach(), wanted, atol=1e-6)


def test_a_prior_is_remembered_for_its_own_example(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data[0][:20], data[1][:20]
    memory = Memory()
    options = {"threat": THREAT, "memory": memory}
    adversarial_loss(net, x[:10], y[:10], "fgsm-pgi", ids=torch.arange(10), **options)  # type: ignore[arg-type]
    assert memory.prior is not None
    first = memory.prior[3].clone()
    adversarial_loss(net, x[10:], y[10:], "fgsm-pgi", ids=torch.arange(10, 20), **options)  # type: ignore[arg-type]
    assert torch.equal(memory.prior[3], first)
    stored, _ = memory.recall(torch.tensor([3]), torch.full_like(x[:1], 7.0))
    assert torch.equal(stored[0], first)
    memory.forget()
    assert float(memory.recall(torch.tensor([3]), torch.full_like(x[:1], 7.0))[0].min()) == 7.0


def test_gradalign_punishes_gradients_that_part(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    straight = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))  # of two classes: the gradient's direction is one
    for net, parts in ((straight, False), (nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), Sharp()), True)):
        plain = loss_of("gradalign:weight=0", net, x, y % 2)
        more = loss_of("gradalign:weight=1", net, x, y % 2)
        assert (float((more - plain).detach()) > 1e-3) is parts


def test_the_bounded_loss_is_a_mixture_and_no_point_of_the_ball_exceeds_the_bounds_share(
    net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    whole, half = loss_of("mtl-ibp:weight=1", net, x, y), loss_of("mtl-ibp:weight=0.5", net, x, y)
    one_step = loss_of("fgsm-rs:step=1", net, x, y)
    assert torch.isclose(half, (one_step + whole) / 2)
    for recipe in ("fgsm", "pgd:steps=20"):
        crafted_ = ss.attack(net, x, y, threat=THREAT, recipe=recipe).x
        assert isinstance(crafted_, Tensor)
        assert float(F.cross_entropy(net(crafted_), y).detach()) <= float(whole.detach())
    clean = F.cross_entropy(net(x), y)
    assert torch.isclose(loss_of("ibp", net, x, y), (clean + whole) / 2)


@pytest.mark.parametrize(
    "name",
    [
        "natural",
        "n-fgsm",
        "fgsm-mixed",
        "trades",
        "free",
        "gradalign",
        "fgsm-pgi",
        "mtl-ibp:weight=0.3",
        "ibp",
        "ibp:weight=1",
    ],
)
def test_the_losses_told_of_rows_are_what_the_weights_follow(
    name: str, net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    recipe = training_recipe(name)
    told: list[Tensor] = []
    draws = BatchDraws(len(x), x.device, torch.Generator().manual_seed(1))
    batch = Batch(net, x, y, recipe, ball(x, THREAT), draws, *losses(0.0, None), Memory(), tell=told.append)
    loss = OBJECTIVES[recipe.objective](batch)
    assert len(told) == 1
    assert told[0].shape == (len(x),)
    assert not told[0].requires_grad
    assert torch.isclose(told[0].mean(), loss, rtol=1e-5)
    assert told[0].std() > 0


def test_bounds_alone_keep_running_statistics_and_take_no_smoothing(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10)).train()
    before = model[2].running_mean.clone()  # type: ignore[operator]
    plain = loss_of("ibp:weight=1", model, x, y)
    assert not torch.equal(before, model[2].running_mean)  # type: ignore[arg-type]
    smooth = adversarial_loss(model, x, y, "ibp:weight=1", threat=THREAT, smoothing=0.2)
    assert torch.isclose(plain, smooth)


def test_bounds_see_through_a_normalisation_and_through_compiled_code(
    net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data
    outside = Deployed(ss.Model(net, mean=0.3, std=0.5))
    first = nn.Linear(64, 32)
    inside = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(32, 10))
    inside.load_state_dict(net.state_dict())
    with torch.no_grad():
        first.bias.sub_((first.weight * 0.6).sum(1))
        first.weight.mul_(2)
    assert torch.isclose(loss_of("ibp", outside, x, y), loss_of("ibp", inside, x, y), rtol=1e-4)
    compiled: Any = torch.compile(net, backend="eager")
    for around in (
        compiled,
        ChannelsLast(net),
        ChannelsLast(compiled),
        torch.compile(ChannelsLast(net), backend="eager"),
    ):
        assert torch.isclose(loss_of("ibp", around, x, y), loss_of("ibp", net, x, y))
    with pytest.raises(InputError, match=r"pass the nn\.Module itself"):
        loss_of("ibp", net.forward, x, y)


def test_a_network_that_bounds_cannot_go_through_is_told_of_recipes_without_them(data: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softshrink())
    with pytest.raises(ModelError, match=r"Softshrink .*; or pass a recipe without bounds, such as n-fgsm"):
        loss_of("mtl-ibp", model, *data)


class Sharp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(40 * x)[:, :2]


@pytest.mark.parametrize("threat", [ss.l2(0.5), ss.l1(3), ss.threat_model("pixel", 0.2)], ids=["l2", "l1", "pixel"])
@pytest.mark.parametrize("name", ALL)
def test_every_recipe_takes_every_norm(
    name: str, threat: ss.ThreatModel, net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    x, y = data[0][:8], data[1][:8]
    loss = adversarial_loss(net, x, y, name, threat=threat, memory=Memory(), ids=torch.arange(8))
    assert bool(torch.isfinite(loss))
    if TRAINING_RECIPES[name].objective == "adversarial" and TRAINING_RECIPES[name].clip:
        d = crafted(TRAINING_RECIPES[name], net, x, y, threat)
        assert bool((threat.norm.length(d) <= float(threat.eps) * (1 + 1e-4)).all())  # type: ignore[arg-type]


def test_a_mask_holds_for_noise_too(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :4] = True
    for name in ("n-fgsm", "pgd-at", "random-sign"):
        d = crafted(TRAINING_RECIPES[name], net, x, y, ss.linf(EPS, mask=mask))
        assert float(d[:, :, 4:].abs().max()) == 0
        assert float(d[:, :, :4].abs().max()) > 0


def test_the_region_without_checks_is_that_with_them(data: tuple[Tensor, Tensor]) -> None:
    x = data[0]
    mask = torch.rand(1, 8, 8) > 0.5
    for threat in (THREAT, ss.l2(0.5, mask=mask), ss.linf(EPS, box=(torch.zeros(1, 8, 8), None))):
        checked, quick = ball(x, threat, share=0.5), ball(x, threat, share=0.5, check=False)
        d = torch.randn(x.shape)
        assert torch.equal(checked.project(d), quick.project(d))


def test_embeddings_keep_their_graph() -> None:
    table, head = nn.Embedding(20, 8), nn.Linear(8, 3)
    x, y = table(torch.randint(20, (6, 5))), torch.randint(3, (6,))
    threat = ss.threat_model("token", 0.1, box=None)
    adversarial_loss(lambda e: head(e.mean(1)), x, y, "fgsm", threat=threat).backward()  # type: ignore[no-untyped-call]
    assert table.weight.grad is not None
    assert float(table.weight.grad.abs().sum()) > 0


def test_another_loss_can_be_given(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    rowwise = lambda z, y: F.multi_margin_loss(z, y, reduction="none")  # noqa: E731
    assert float(adversarial_loss(net, x, y, "fgsm", threat=THREAT, criterion=rowwise).detach()) > 0
    with pytest.raises(InputError, match="one loss for each row"):
        adversarial_loss(net, x, y, "fgsm", threat=THREAT, criterion=F.multi_margin_loss)


def test_trades_adds_up_over_positions(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    many: Callable[[Tensor], Tensor] = lambda u: net(u).unsqueeze(2).expand(-1, -1, 4)  # noqa: E731
    whole: Callable[[Tensor, Tensor], Tensor] = lambda z, y: F.cross_entropy(z, y, reduction="none")  # noqa: E731
    first: Callable[[Tensor, Tensor], Tensor] = lambda z, y: whole(z[..., 0], y)  # noqa: E731
    gaps = []
    for model, criterion in ((net, whole), (many, first)):
        with_gap, without = (
            adversarial_loss(
                model,
                x,
                y,
                f"trades:weight={weight}",
                threat=THREAT,
                criterion=criterion,
                generator=torch.Generator().manual_seed(1),
            )
            for weight in (6, 0)
        )
        gaps.append(float(with_gap.detach() - without.detach()))
    assert gaps[0] > 0
    assert gaps[1] == pytest.approx(4 * gaps[0], rel=1e-3)


def test_options_are_read() -> None:
    assert training_recipe("pgd-at:steps=7,step=0.3").steps == 7
    assert training_recipe("n-fgsm:clip=true").clip
    assert training_recipe(training_recipe("fgsm")).name == "fgsm"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("n-fgms", "did you mean 'n-fgsm'"),
        ("fgsm:stepp=1", "is no option"),
        ("fgsm:steps=many", "is not a number"),
        ("fgsm:steps=-1", "at least 0"),
        ("gradalign:steps=3", "pass steps=1"),
        ("mtl-ibp:weight=0", "above 0, up to 1"),
        ("ibp:weight=1.5", "above 0, up to 1"),
        ("ibp:fade=3", "above 0, up to 1"),
        ("n-fgsm:fade=0.5", "a factor for a weight"),
        ("trades:fade=-1", "a factor for a weight"),
        ("trades:fade=inf", "a factor for a weight"),
        ("trades:mode=both", "train or eval"),
        ("n-fgsm:clip=perhaps", "true or false"),
    ],
)
def test_wrong_recipes_are_told(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        training_recipe(spec)


def test_wrong_calls_are_told(net: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    with pytest.raises(InputError, match="pass memory="):
        adversarial_loss(net, x, y, "free", threat=THREAT)
    with pytest.raises(InputError, match="drop criterion="):
        adversarial_loss(net, x, y, "ibp", threat=THREAT, criterion=F.multi_margin_loss)
    with pytest.raises(InputError, match="run of known length"):
        adversarial_loss(net, x, y, "trades:fade=0.5", threat=THREAT)
    with pytest.raises(InputError, match="pass ids="):
        adversarial_loss(net, x, y, "fgsm-pgi", threat=THREAT, memory=Memory())
    with pytest.raises(InputError, match="needs a ball"):
        adversarial_loss(net, x, y, "fgsm", threat=ss.linf(None))
    with pytest.raises(ss.SignstepError, match="255"):
        adversarial_loss(net, x * 255, y, "fgsm", threat=THREAT)
    with pytest.raises(ThreatError):
        adversarial_loss(net, x, y, "fgsm", threat=ss.linf(torch.full((3,), 0.1)))


def test_the_table_says_what_it_does() -> None:
    assert TRAINING_RECIPES["n-fgsm"].projected.startswith("none")
    assert "start is left" in TRAINING_RECIPES["fgsm-rs"].projected
    assert TRAINING_RECIPES["pgd-at"].projected == "ball and box"
    assert [name for name, row in TRAINING_RECIPES.items() if not row.robust] == [
        "natural",
        "ibp",
        "noise",
        "random-sign",
    ]
    assert all(row.source and row.placed for row in TRAINING_RECIPES.values())
    assert TRAINING_RECIPES["fgsm"].cost == 5
