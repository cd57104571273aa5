"""Several results: Holm's rule, one against all, clean answers too, and pages that say what the numbers say."""

import random
import re
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import signstep as ss
from signstep.auditing.compare import holm
from signstep.auditing.pairwise import Training, compare_all
from signstep.auditing.result import Result
from signstep.errors import InputError
from signstep.report.scatter import scatter


def result(weight: float, bias: float = 0.0, rows: int = 80, seed: int = 0) -> Result:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(rows, 3, generator=generator), torch.arange(rows) % 2
    x[:, 0] = torch.where(y == 1, 0.75, 0.25) + 0.4 * (x[:, 0] - 0.5)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, -weight, 0], [1.0, weight, 0]]))
        model.bias.copy_(torch.tensor([0.5 + bias, -0.5 - bias]) * (1 + weight))
    return ss.audit(model, (x, y), threat=ss.linf(0.1), attacks=["fgsm"], curve=False)


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {"good": result(0.02), "poor | odd": result(3.0), "shifted": result(0.02, 0.2)}


def slow_holm(p_values: list[float]) -> list[float]:
    """By the definition: step down through the sorted list, rejecting at growing levels."""
    found = [1.0] * len(p_values)
    for place, p in enumerate(p_values):
        earlier = [q for other, q in enumerate(p_values) if (q, other) <= (p, place)]
        found[place] = min(1.0, max((len(p_values) - k) * q for k, q in enumerate(sorted(earlier))))
    return found


def test_holm_against_its_definition() -> None:
    draws = random.Random(0)
    for size in (1, 2, 5, 9):
        for _ in range(20):
            p_values = [round(draws.random() ** 3, 2) for _ in range(size)]
            assert list(holm(p_values)) == pytest.approx(slow_holm(p_values))
    assert holm([]) == ()


def test_pairs_are_adjusted_for_their_number(results: dict[str, Result]) -> None:
    everyone, one = compare_all(results), compare_all(results, against="good")
    assert [(pair.one, pair.other) for pair in everyone.pairs] == [
        ("good", "poor | odd"),
        ("good", "shifted"),
        ("poor | odd", "shifted"),
    ]
    assert [pair.other for pair in one.pairs] == ["poor | odd", "shifted"]
    for compared in (everyone, one):
        assert [pair.robust_p for pair in compared.pairs] == list(holm([p.found.p_value for p in compared.pairs]))
        assert [pair.clean_p for pair in compared.pairs] == list(
            holm([pair.found.clean_p_value for pair in compared.pairs])
        )
    assert one.pairs[0].robust_p <= everyone.pairs[0].robust_p
    assert "Holm for 3 pairs" in str(everyone)


def test_clean_answers_are_paired_too(results: dict[str, Result]) -> None:
    pair = compare_all(results, against="good").pairs[0].found
    before, after = results["good"].per_example.clean, results["poor | odd"].per_example.clean
    pairs = list(zip(before, after, strict=True))
    assert (pair.clean_lost, pair.clean_won) == (pairs.count(("r", "w")), pairs.count(("w", "r")))
    assert pair.clean_lost > 0
    assert pair.clean_p_value < 1


def test_pages_and_numbers_agree(results: dict[str, Result]) -> None:
    made = {"good": Training("n-fgsm", 12.5, 100, (2, 2), ("Collapse at step 5.",))}
    compared = compare_all(results, trainings=made, notes=("a note",))
    text, page, plain = str(compared), compared.markdown("compare.svg"), compared.plain()
    assert "good: Collapse at step 5." in text
    assert "a note" in page
    assert "poor \\| odd" in page
    assert "](compare.svg)" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {10}
    for name, found in results.items():
        assert plain["results"][name]["robust_accuracy"] == found.robust_accuracy
        assert f"{100 * found.robust_accuracy:.2f} %" in text
    assert plain["results"]["good"]["training_seconds"] == 12.5
    assert plain["pairs"][0]["p_holm"] == compared.pairs[0].robust_p


def test_the_chart_is_an_image_with_every_result(results: dict[str, Result]) -> None:
    chart = scatter({**results, "<b>": results["good"]})
    root = ElementTree.fromstring(chart)
    assert len(root.findall(".//{*}circle")) == 4
    assert "&lt;b&gt;" in chart
    for x, y in re.findall(r'<circle class="point" cx="([\d.]+)" cy="([\d.]+)"', chart):
        assert 60 <= float(x) <= 430
        assert 24 <= float(y) <= 350


def test_the_chart_stands_with_extreme_results() -> None:
    whole = result(0.0, rows=8)
    ElementTree.fromstring(scatter({"one": whole, "two": whole}))


def test_what_makes_no_sense_is_told(results: dict[str, Result]) -> None:
    with pytest.raises(InputError, match="pass two or more"):
        compare_all({"good": results["good"]})
    with pytest.raises(InputError, match="against='best' is none of the results"):
        compare_all(results, against="best")
    with pytest.raises(InputError, match="good and other have no example in common"):
        compare_all({"good": results["good"], "other": result(0.0, seed=5)})
