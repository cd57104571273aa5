"""Laws of what is shown beside the verdict: curvature, layers, ranks, effects, attention, and where a change can be."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import signstep as ss
from signstep.auditing.pairwise import compare_all
from signstep.auditing.ranks import chance, spearman
from signstep.auditing.sections import Chart, Line, Section
from signstep.diagnosing.bench import Bench
from signstep.diagnosing.landscape.bounds import above, below
from signstep.diagnosing.landscape.curvature import largest
from signstep.diagnosing.stain.attention import entropy, variation
from signstep.diagnosing.stain.effect import effect
from signstep.diagnosing.stain.moved import moved
from signstep.diagnosing.stain.stain import CROSSED
from signstep.diagnosing.stain.taken import taken
from signstep.diagnosing.views import VIEWS, shown
from signstep.engine.keys import Key
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError
from signstep.explain import explain
from signstep.model.declaration import Model
from signstep.networks.vit import vit
from signstep.report.section import parts

sys.path.insert(0, str(Path(__file__).parent))
from specimens import NET, SIDE, Specimen, Through, data

pytestmark = pytest.mark.filterwarnings("ignore::signstep.SignstepWarning")
SEED = torch.Generator().manual_seed(0)


def seeded(make: type[nn.Module], *args: object, **named: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make(*args, **named).eval()


# Layers: from below <= exact <= from above.

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (seeded(nn.Linear, 7, 5), (7,)),
    "tokens": (seeded(nn.Linear, 4, 6), (3, 4)),
    "conv": (seeded(nn.Conv2d, 2, 3, 3, padding=1), (2, 5, 5)),
    "strided": (seeded(nn.Conv2d, 2, 4, 3, stride=2, padding=1), (2, 6, 6)),
    "patches": (seeded(nn.Conv2d, 1, 4, 2, stride=2), (1, 6, 6)),
    "gaps": (seeded(nn.Conv2d, 1, 3, 2, stride=3), (1, 7, 7)),
    "dilated": (seeded(nn.Conv2d, 1, 2, 3, dilation=2, padding=2), (1, 6, 6)),
    "groups": (seeded(nn.Conv2d, 4, 4, 3, groups=2, padding=1), (4, 4, 4)),
    "circular": (seeded(nn.Conv2d, 1, 2, 3, padding=1, padding_mode="circular"), (1, 5, 5)),
    "reflect": (seeded(nn.Conv2d, 1, 2, 3, padding=1, padding_mode="reflect"), (1, 5, 5)),
    "replicate": (seeded(nn.Conv2d, 1, 2, 3, padding=2, padding_mode="replicate"), (1, 4, 4)),
    "sound": (seeded(nn.Conv1d, 2, 3, 4, stride=2), (2, 9)),
    "average": (nn.AvgPool2d(2), (1, 4, 4)),
    "overlapping": (nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), (1, 4, 4)),
}


def exact(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """The largest singular value of the layer's matrix, written down column by column."""
    eye = torch.eye(math.prod(shape)).reshape(-1, *shape)
    with torch.no_grad():
        matrix = (layer(eye) - layer(torch.zeros_like(eye))).flatten(1)
    return float(torch.linalg.matrix_norm(matrix.double(), 2))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_stretches_as_much_as_found_and_no_more_than_proved(name: str) -> None:
    layer, shape = LAYERS[name]
    least, most, true = below(layer, shape), above(layer, shape), exact(layer, shape)
    assert least is not None
    assert most is not None
    assert least <= true * (1 + 1e-5) <= most * (1 + 1e-4)
    assert least >= 0.8 * true
    assert most <= 4 * true


@pytest.mark.parametrize(
    "layer",
    [
        *(nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU(), nn.LeakyReLU(0.2)),
        *(nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.Flatten(), nn.Softmax(1), nn.Mish(), nn.Hardtanh()),
        *(seeded(nn.BatchNorm2d, 2), seeded(nn.LayerNorm, [2, 4, 4])),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_no_pair_of_inputs_is_torn_further_apart_than_proved(layer: nn.Module) -> None:
    most = above(layer, (2, 4, 4))
    assert most is not None
    for size in (1e-3, 1.0, 10.0):
        x = 3 * torch.randn(64, 2, 4, 4, generator=SEED, dtype=torch.float64)
        z = x + size * torch.randn(x.shape, generator=SEED, dtype=torch.float64)
        layer = layer.double()
        with torch.no_grad():
            far = (layer(x) - layer(z)).flatten(1).norm(dim=1) / (x - z).flatten(1).norm(dim=1)
        assert float(far.max()) <= most


def test_attention_has_no_finite_constant_and_what_is_unknown_is_not_stated() -> None:
    assert above(nn.MultiheadAttention(4, 2), (3, 4)) == math.inf
    assert above(nn.GRU(2, 2), (3, 2)) is None
    assert below(nn.ReLU(), (3,)) is None


# Curvature.


class Bowl(nn.Module):
    """Two scores, whose difference is a quadratic form with a known Hessian."""

    def __init__(self) -> None:
        super().__init__()
        half = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
        self.form = nn.Parameter(half + half.T)

    def forward(self, x: Tensor) -> Tensor:
        value = (x @ self.form * x).sum(1) / 2
        return torch.stack([value, torch.zeros_like(value)], 1)


class Blunt(torch.autograd.Function):
    """The identity, which can be differentiated only once."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient


@pytest.mark.parametrize("once", [False, True], ids=["twice", "once"])
def test_the_largest_curvature_is_that_of_the_hessian(once: bool) -> None:
    """The oracle is the eigenvalues of the matrix; the loss is the margin, which is the form itself."""
    bowl = Bowl()

    def asked(net: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = net(Blunt.apply(x) if once else x)  # type: ignore[no-untyped-call]
        return out

    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = Through(asked, bowl.double())
    bench = Bench(Model.of(model), x, model(x).argmax(1), ss.linf(0.1), ss.Search(loss="margin"), "pgd")
    bench.look()
    wanted = float(torch.linalg.eigvalsh(bowl.form.detach()).abs().max())
    with bench.asking(torch.arange(5)) as question:
        d = question.region.vertex(Key(0).draws(question.problem.ids, x.device))
        found, how = largest(bench, question, d, Key(0))
    assert ("gradients" in how) is once
    assert float(found.max()) <= wanted * 1.01
    assert float(found.min()) >= 0.7 * wanted


# Ranks and effects.


def test_ranks_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randint(0, 6, (30,), generator=generator).double()
        b = a + 3 * torch.randn(30, generator=generator, dtype=torch.float64)
        assert spearman(a, b) == pytest.approx(float(stats.spearmanr(a.numpy(), b.numpy()).statistic))
        assert chance(a, b) == pytest.approx(float(stats.spearmanr(a.numpy(), b.numpy()).pvalue), abs=0.05)
    assert spearman([1, 1, 1], [1, 2, 3]) is None
    assert chance([1, 1, 1], [1, 2, 3]) == 1.0


def test_an_effect_is_more_only_where_it_is_more() -> None:
    noise = torch.rand(40, generator=torch.Generator().manual_seed(0)) + 1
    twice, same = effect(2 * noise, noise), effect(noise.roll(1), noise)
    assert twice.more
    assert twice.times == pytest.approx(2)
    assert not same.more
    assert not effect(noise, 2 * noise).more
    assert not effect(torch.zeros(4), torch.zeros(4)).more


# Attention.


class Attending(nn.Module):
    """One layer of attention over rows of pixels, in one of the ways in which it is written."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.inside = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = F.linear(x.squeeze(1), self.inside.in_proj_weight, self.inside.in_proj_bias).chunk(3, 2)
        q, k, v = (part.reshape(*part.shape[:2], 2, 2).transpose(1, 2) for part in (q, k, v))
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "module":
            mixed = self.inside(x.squeeze(1), x.squeeze(1), x.squeeze(1), need_weights=False)[0]
        else:
            q, k, v = self.weights(x)
            mixed = F.scaled_dot_product_attention(q, k, v) if self.way == "fused" else (
                torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(2), -1) @ v
            )  # fmt: skip
        out: Tensor = self.head(mixed.flatten(1))
        return out


@pytest.mark.parametrize("way", ["module", "fused", "written out"])
def test_attention_maps_are_seen_however_they_are_computed(way: str) -> None:
    net = seeded(Attending, way)
    assert isinstance(net, Attending)
    x, y = data(6)
    bench = Bench(Model.of(net), x, y, ss.linf(0.1), ss.Search(), "pgd")
    bench.look()
    q, k, _ = net.weights(x)
    wanted = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(2), -1).double().detach()
    with bench.asking(torch.arange(6)) as question:
        found = taken(bench, question, x, Key(0)).maps
    assert len(found) == 1
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-6)
    assert not nn.modules.module._global_forward_hooks


def test_variation_and_entropy_are_those_of_the_formulas() -> None:
    even, sharp = torch.full((1, 1, 2, 2), 0.5).double(), torch.eye(2).double().reshape(1, 1, 2, 2)
    assert float(variation(even, sharp)) == pytest.approx(0.5)
    assert float(entropy(even)) == pytest.approx(math.log(2))
    assert float(entropy(sharp)) == 0.0


# Where a change can be.


def conv() -> nn.Sequential:
    return seeded(nn.Sequential, nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
                  nn.Flatten(), nn.Linear(64, 3))  # type: ignore[return-value]  # fmt: skip


def corner() -> ThreatModel:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    return ss.linf(0.3, mask=mask)


def test_a_change_stays_within_its_receptive_field() -> None:
    """One pixel in the corner: 2 by 2 places after one convolution of 3 by 3, 3 by 3 after two."""
    x, _ = data(6)
    net = conv()
    bench = Bench(Model.of(net), x, net(x).argmax(1), corner(), ss.Search(), "pgd:steps=3")
    bench.look()
    seen = moved(bench)
    assert isinstance(seen.point, Tensor)
    assert isinstance(seen.x, Tensor)
    for name, side in (("0", 2), ("2", 3)):
        wanted = torch.zeros(4, 4, dtype=torch.bool)
        wanted[:side, :side] = True
        changed = (seen.attacked.outside[name] - seen.clean.outside[name]).abs().sum(1) > 0
        moves = (seen.point - seen.x).flatten(1).abs().sum(1) > 0
        assert bool(moves.any())
        assert torch.equal(seen.reach[name].any(1)[moves], wanted.expand(int(moves.sum()), 4, 4))
        assert not bool((changed & ~wanted).any())


# The views.


@pytest.mark.parametrize("name", list(VIEWS.own))
def test_a_view_is_drawn_has_a_page_and_finite_measures(name: str) -> None:
    bench = Specimen(NET, "pgd:steps=4", data=lambda: data(12)).bench()
    bench.allowed = None
    made = shown(bench, name)
    assert not made.sections[0].text[0].startswith("Not shown") if made.sections[0].text else made.sections[0].chart
    assert made.measures
    assert all(math.isfinite(value) for value in made.measures.values())
    for part in parts(made.sections):
        assert part.title
        assert "<script" not in str(part.chart)
    page = explain(name)
    for word in (VIEWS[name].question, "How to read it", "Pitfalls", "Cost", "Source", f"--show {name}"):
        assert word in page


@pytest.mark.parametrize("name", list(VIEWS.own))
def test_what_cannot_be_shown_says_why(name: str) -> None:
    x, y = data(6)
    bench = Bench(Model.of(lambda u: NET(u).argmax(1)), x, y, ss.linf(0.1), ss.Search(), "hop-skip-jump:queries=20")
    bench.look()
    bench.named = bench.run(bench.attack)
    made = shown(bench, name)
    assert made.sections[0].text[0].startswith("Not shown: ")
    assert made.measures == {}


def test_noise_does_to_a_linear_network_what_an_attack_of_noise_does() -> None:
    """A null result is printed as one: the attack is noise."""
    bench = Specimen(NET, "random-sign", data=lambda: data(12)).bench()
    bench.allowed = None
    assert any("Null result" in line for line in shown(bench, "stain").sections[0].text)
    bench = Specimen(NET, "pgd:steps=4", data=lambda: data(12)).bench()
    bench.allowed = None
    assert not any("Null result" in line for line in shown(bench, "stain").sections[0].text)


def test_a_transformer_shows_attention_before_and_after_and_states_no_product() -> None:
    x, _ = data(12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = vit(channels=1, size=4, classes=3, patch=2, width=8, depth=1, heads=2).eval()
    d = ss.diagnose(net, (x, net(x).argmax(1)), threat=ss.linf(0.1), attack="pgd:steps=3", show=["stain", "layers"])
    titles = [section.title for section in d.sections]
    assert {"What the attack does to attention", "Attention before the attack", "Attention after the attack"} < set(
        titles
    )
    assert "attention, largest effect" in d.measures
    assert not any(name.startswith("product") for name in d.measures)
    assert d.cost.shown > 0
    assert d.cost.tests <= d.cost.allowed


class Pictured(nn.Module):
    """A picture with a text, whose layers meet in the last ones; text may be read in the light of the picture."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.eye, self.words = nn.Linear(SIDE * SIDE, 6), nn.Linear(8, 6)
        self.reading, self.answer, self.looks = nn.Linear(6, 6), nn.Linear(12, 3), looks

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        seen = torch.tanh(self.eye(image.flatten(1)))
        said = torch.tanh(self.words(text))
        read = torch.tanh(self.reading(said + seen if self.looks else said))
        out: Tensor = self.answer(torch.cat([seen, read], 1))
        return out


@pytest.mark.parametrize("looks", [False, True])
def test_what_one_input_does_to_the_layers_of_the_other_is_told(looks: bool) -> None:
    """Where only the image moves, layers of the text that do not look at it stand still to the last bit; and back."""
    net = seeded(Pictured, looks=looks)
    x, _ = data(12)
    inputs = {"image": x, "text": torch.rand(12, 8, generator=torch.Generator().manual_seed(2))}
    threat = {"image": ss.linf(0.2), "text": ss.linf(0.2)}
    bench = Bench(Model.of(net), inputs, net(**inputs).argmax(1), threat, ss.Search(), "pgd:steps=4")
    bench.look()
    bench.named = bench.run(bench.attack)
    section = next(one for one in shown(bench, "stain").sections if one.title == CROSSED)
    assert section.header == (
        "layer", "image alone", "image alone, times noise", "text alone", "text alone, times noise"
    )  # fmt: skip
    image, text = ({row[0]: float(row[place]) for row in section.rows} for place in (1, 3))
    assert image["eye"] > 0
    assert image["words"] == text["eye"] == 0
    assert text["words"] > 0
    assert (image["reading"] > 0) is looks
    assert text["reading"] > 0
    assert image["answer"] > 0
    assert text["answer"] > 0
    (said,) = [line for line in section.text if line.startswith("image alone")]
    assert "of 4 layers more than noise in it does" in said
    times = {row[0]: row[2] for row in section.rows}
    assert (times["reading"] == "-") is not looks


def test_compare_puts_measures_side_by_side() -> None:
    x, y = data(9)
    results: dict[str, ss.Result] = {}
    first = Specimen(NET, "random-sign", data=lambda: (x, y)).diagnosed()
    for name, scale in (("small", 0.5), ("middle", 1.0), ("large", 2.0)):
        net = Through(lambda inner, u, scale=scale: scale * inner(u))  # type: ignore[misc]
        audit = ss.audit(net, (x, y), threat=ss.linf(0.12), attacks=["fgsm"], curve=False)
        bench = Specimen(net, "fgsm", data=lambda: (x, y)).bench()
        bench.allowed = None
        own = {"measures": shown(bench, "gradients").measures, "model": audit.model}
        results[name] = ss.Diagnosis(**{**vars(first), **own}).attach(audit)
    rows = {row[0]: row[1:] for row in compare_all(results).measured()}
    assert [cell.split()[0] for cell in rows["gradient size"]] == list(results)
    assert any("over 3 results" in cell for cell in rows["gradient size and robust accuracy, rank correlation"])
    assert "gradient size" in str(compare_all(results))
    assert compare_all(results).plain()["results"]["small"]["measures"]
    assert "Measured beside" in compare_all(results).markdown()


def test_a_map_has_rows_of_one_length_and_shows_signs() -> None:
    chart = Chart(
        "cells", "Map", "a map", "x", "y", (Line("0", (0.0, 1.0), (1.0, -2.0)), Line("1", (0.0, 1.0), (None, 0.5)))
    )
    drawn = str(parts([Section("Map", chart=chart)])[0].chart)
    assert drawn.count("<rect") == 3
    assert 'class="block t1"' in drawn
    assert "darkest 2" in drawn
    with pytest.raises(InputError, match="different x"):
        Chart("cells", "Map", "a map", "x", "y", (Line("0", (0.0,), (1.0,)), Line("1", (2.0,), (1.0,))))
