"""What a sample says: bounds against their closed forms and simulation, and a draw that nobody can foresee."""

import random
import secrets

import pytest
import torch
from forger import OWN, Forged

from signstep.cli import main
from signstep.engine.statistics import exact_lower, exact_upper


@pytest.mark.parametrize("trials", [1, 5, 60, 1000])
def test_none_of_n_has_a_closed_form(trials: int) -> None:
    assert exact_upper(0, trials) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
    assert exact_lower(trials, trials) == pytest.approx(0.05 ** (1 / trials), rel=1e-9)
    assert exact_upper(trials, trials) == 1.0
    assert exact_lower(0, trials) == 0.0


def test_none_of_sixty_is_at_most_4_9_per_cent() -> None:
    assert f"{100 * exact_upper(0, 60):.1f}" == "4.9"


@pytest.mark.parametrize(("successes", "trials"), [(1, 10), (7, 60), (30, 31)])
def test_bounds_are_those_of_the_binomial(successes: int, trials: int) -> None:
    scipy = pytest.importorskip("scipy.stats", reason="scipy is of the development extra")
    assert exact_upper(successes, trials) == pytest.approx(scipy.beta.ppf(0.95, successes + 1, trials - successes))
    assert exact_lower(successes, trials) == pytest.approx(scipy.beta.ppf(0.05, successes, trials - successes + 1))


def test_the_bound_covers_as_often_as_it_says() -> None:
    """Of samples from a stack with 8 % false ones, at most 5 % have a bound below that."""
    chance = random.Random(0)
    under = sum(exact_upper(sum(chance.random() < 0.08 for _ in range(40)), 40) < 0.08 for _ in range(2000))
    assert under / 2000 < 0.06


def test_the_sample_is_drawn_by_the_system(
    forged: Forged, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by a seed that the report's maker could know: neither torch's, Python's nor the record's."""
    drawn: list[list[int]] = []

    class Watched(secrets.SystemRandom):
        def sample(self, population, k, *, counts=None):  # type: ignore[no-untyped-def]
            drawn.append(super().sample(population, k, counts=counts))
            return drawn[-1]

    monkeypatch.setattr(secrets, "SystemRandom", Watched)
    report = str(forged.write())
    for _ in range(2):
        torch.manual_seed(0)
        random.seed(0)
        assert main(["verify", report, *OWN, "--again", "8"]) == 0
    said = capsys.readouterr().out
    assert "0 of 8 drawn of 27 that held fell, so at most 31.2 % of the held are false (95 %)" in said
    assert len(drawn) == 6
    assert drawn[0] != drawn[3]
