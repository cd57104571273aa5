"""An example is undetermined only where no attack of the audit could search it: neither by gradients nor by asking."""

import pytest
import torch
from torch import Tensor, nn

import signstep as ss
from signstep.attacks.recipes import RECIPES
from signstep.auditing.findings import examine
from written_down import written_down

ASKING = sorted(name for name, row in RECIPES.items() if row.needs in ("scores", "labels") and not row.images)
SHORT = {"square": "queries=30", "nes": "queries=40", "spsa": "queries=40", "hop-skip-jump": "queries=60"}


class Stepped(nn.Module):
    """Scores in steps: they can be asked for, and their gradient is zero everywhere."""

    def __init__(self, pixels: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(3, 12, generator=draw))
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        scores = x.flatten(1) @ self.weight.T
        return (scores * 2).round() / 2 + 0 * scores


def rows(pixels: bool, count: int = 30) -> Tensor:
    shape = (count, 3, 2, 2) if pixels else (count, 12)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def brief(name: str) -> str:
    return f"{name}:{written_down(SHORT, name, 'short options')}" if name in SHORT else name


@pytest.mark.parametrize("pixels", [False, True], ids=["vectors", "images"])
@pytest.mark.parametrize("name", ASKING)
def test_what_a_search_by_queries_has_met_is_never_undetermined(name: str, pixels: bool) -> None:
    model, x = Stepped(pixels), rows(pixels)
    threat = ss.l0(2) if RECIPES[name].norms == ("l0",) else ss.linf(0.02)
    result = ss.audit(
        model, (x, model(x).argmax(1)), threat=threat, attacks=["random-sign", "pgd:steps=3", brief(name)]
    )
    column = result.per_example.verdicts["pgd:steps=3"]
    assert set(column) <= {"u", "f"}
    assert "u" in column  # no gradient showed the way
    searched = result.per_example.verdicts[brief(name)]
    lost = [row for row, letters in enumerate(zip(column, searched, strict=True)) if set(letters) == {"u"}]
    assert [row for row, letter in enumerate(result.worst_case) if letter == "u"] == lost
    # Estimates of a gradient from scores are zero on a step as the gradient is: such a run has not searched.
    assert (len(lost) == 0) == (name not in ("nes", "spsa"))
    assert result.held + result.fooled + result.undetermined == result.clean_right == len(x)
    assert any(finding.code == "SS104" for finding in examine(result))  # and that is still said
    assert result.attack("pgd:steps=3").undetermined == column.count("u")


@pytest.mark.parametrize("surrogate", [False, True], ids=["own gradients", "surrogate"])
def test_a_control_settles_nothing_where_gradients_vanish(surrogate: bool) -> None:
    model, x = Stepped(pixels=False), rows(pixels=False)
    result = ss.audit(
        model,
        (x, model(x).argmax(1)),
        threat=ss.linf(0.02),
        attacks=["random-sign", "pgd:steps=3"],
        search=ss.Search(surrogate=model if surrogate else None),
    )
    assert result.held == 0
    assert result.undetermined == result.clean_right - result.fooled > 0


def test_on_a_ladder_a_rung_that_asks_settles_only_those_it_met() -> None:
    model, x = Stepped(pixels=False), rows(pixels=False)
    y = model(x).argmax(1)
    asked = ss.audit(model, (x, y), threat=ss.linf(0.02), ladder=["fgsm", "square:queries=30"], curve=False)
    assert asked.undetermined == 0
    assert asked.held > 0
    never = ss.audit(model, (x, y), threat=ss.linf(0.02), ladder=["fgsm", "square:queries=30 near<=1e-9"], curve=False)
    first, second = never.per_example.verdicts.values()
    unmet = [row for row, letters in enumerate(zip(first, second, strict=True)) if letters == ("u", "-")]
    assert unmet == [row for row, letter in enumerate(never.worst_case) if letter == "u"] != []


def test_a_query_search_that_meets_nan_alone_settles_nothing() -> None:
    def poisoned(x: Tensor) -> Tensor:
        scores = torch.stack([x.sum(1), 5 - x.sum(1)], 1)
        clean = (x == x.round(decimals=1)).all(1, keepdim=True)
        return torch.where(clean, scores, scores * float("nan"))

    x = torch.full((4, 5), 0.4)
    result = ss.audit(
        poisoned, (x, torch.tensor([1] * 4)), threat=ss.linf(0.03), attacks=["fgsm", "square:queries=20"], curve=False
    )
    assert result.undetermined == 4
