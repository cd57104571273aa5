"""The set of substituted texts against slow exact solvers: step, projection, landing."""

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pairs import TEXTS, draws, words
from torch import Tensor

import signstep as ss
from signstep.domains.multimodal import choices_of, ids_of, offers, substitutions, tokens_of
from signstep.domains.multimodal.region import TokenRegion, best_changes
from signstep.errors import InputError, ThreatError

ROWS, PLACES, SLOTS = 4, 4, 3


def _choices(seed: int) -> Tensor:
    """Random offers over tokens 2.. with holes; place 0 of each row has none."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 18, (ROWS, PLACES), generator=generator)
    offered = (ids.unsqueeze(2) + torch.arange(1, SLOTS)) % 16 + 2
    offered[torch.rand(offered.shape, generator=generator) < 0.3] = -1
    offered[:, 0] = -1
    return choices_of(ids, offered)


def _region(x: Tensor, budget: float) -> TokenRegion:
    return TokenRegion.around(x, torch.full((len(x),), budget), words())


def _all_texts(x: Tensor, budget: int) -> list[tuple[int, ...]]:
    """Every allowed row of slots of a single row."""
    free = [[slot for slot in range(SLOTS) if x[place, 1, slot] >= 0] for place in range(PLACES)]
    return [slots for slots in product(*free) if sum(slot != 0 for slot in slots) <= budget]


def _slots(x: Tensor) -> Tensor:
    return x[:, :, 0].argmax(2)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), budget=st.integers(0, 4))
def test_the_first_step_is_the_best_of_all_texts(seed: int, budget: int) -> None:
    x = _choices(seed)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    region = _region(x, budget)
    step = region.steepest(region.restrict(gradient))
    point = region.land(step)
    for row in range(ROWS):
        gains = {
            slots: sum(float(gradient[row, p, 0, s]) for p, s in enumerate(slots))
            for slots in _all_texts(x[row], budget)
        }
        got = gains[tuple(_slots(point)[row].tolist())]
        assert got == pytest.approx(max(gains.values()), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), budget=st.integers(1, 4), changes=st.integers(1, 3))
def test_a_later_step_is_the_best_of_all_texts_within_its_changes(seed: int, budget: int, changes: int) -> None:
    x = _choices(seed)
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))
    region = _region(x, budget)
    d = region.sample(draws(ROWS, str(seed)))
    here = _slots(region.land(d))
    step = region.step(d, gradient, torch.full((ROWS,), float(changes)))
    there = _slots(region.land(d + step))
    for row in range(ROWS):
        reach = [
            slots
            for slots in _all_texts(x[row], budget)
            if sum(a != b for a, b in zip(slots, here[row].tolist(), strict=True)) <= changes
        ]
        gains = {slots: sum(float(gradient[row, p, 0, s]) for p, s in enumerate(slots)) for slots in reach}
        assert gains[tuple(there[row].tolist())] == pytest.approx(max(gains.values()), abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), budget=st.integers(0, 4))
def test_projection_gives_the_nearest_text(seed: int, budget: int) -> None:
    x = _choices(seed)
    d = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) * 0.8
    d[:, :, 1] = 0
    region = _region(x, budget)
    found = _slots(region.land(d))
    onto = region.project(d)
    for row in range(ROWS):

        def distance(slots: tuple[int, ...], row: int = row) -> float:
            chosen = torch.nn.functional.one_hot(torch.tensor(slots), SLOTS).float()
            return float((x[row, :, 0] + d[row, :, 0] - chosen).square().sum())

        best = min(distance(slots) for slots in _all_texts(x[row], budget))
        assert distance(tuple(found[row].tolist())) == pytest.approx(best, abs=1e-4)
    assert torch.equal(region.project(onto), onto)


def test_nothing_is_changed_for_nothing() -> None:
    here = torch.tensor([[0, 1, 0]])
    gain = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [0.0, -1.0]]])
    assert torch.equal(best_changes(gain, here, torch.tensor([3]), torch.tensor([3])), here)


@pytest.mark.parametrize("budget", [0, 1, 2, 3])
def test_random_starts_stay_within_the_budget_and_the_control_uses_all_of_it(budget: int) -> None:
    ids = ids_of(words(), TEXTS)
    table = offers(words(), torch.randn(words().size, 5), nearest=4)
    region = _region(table.choices(ids), budget)
    for name in ("a", "b", "c"):
        start = tokens_of(region.land(region.sample(draws(len(ids), name))))
        control = tokens_of(region.land(region.vertex(draws(len(ids), name))))
        assert int((start != ids).sum(1).max()) <= budget
        assert (control != ids).sum(1).tolist() == [budget] * len(ids)


def test_a_budget_scaled_down_is_a_smaller_whole_number() -> None:
    ids = ids_of(words(), TEXTS)
    x = offers(words(), torch.randn(words().size, 5), nearest=4).choices(ids)
    region = _region(x, 3).resized(torch.full((len(ids),), 1.9))
    point = tokens_of(region.land(region.vertex(draws(len(ids)))))
    assert (point != ids).sum(1).tolist() == [1] * len(ids)


class _Joining:
    """Reads "dog cat" as one word: a pair of tokens that cannot be typed next to each other."""

    size, pad, unknown, special = 18, 0, 1, frozenset({0, 1})

    def encode(self, text: str) -> list[int]:
        return words().encode(text.replace("dog cat", "bird"))

    def decode(self, ids: Any) -> str:
        return words().decode(ids)


def test_what_typing_would_undo_is_not_offered_as_a_point() -> None:
    dog, cat, a, small = (words().encode(word)[0] for word in ("dog", "cat", "a", "small"))
    ids = torch.tensor([[a, small]])
    x = choices_of(ids, torch.tensor([[[dog], [cat]]]))
    gradient = torch.zeros_like(x)
    gradient[:, :, 0, 1] = 1
    whole = _region(x, 2)
    assert tokens_of(whole.land(whole.steepest(gradient))).tolist() == [[dog, cat]]
    joining = TokenRegion.around(x, torch.tensor([2.0]), _Joining())
    point = joining.land(joining.steepest(gradient))
    assert tokens_of(point).tolist() == [[dog, small]]
    threat = substitutions(2, _Joining())
    assert bool(threat.checked(x, point).ok.all())
    assert not bool(threat.checked(x, whole.land(whole.steepest(gradient))).ok.any())


def test_the_nearest_words_are_offered_and_protected_ones_never() -> None:
    tokenizer = words()
    weight = torch.zeros(tokenizer.size, 2)
    angles = torch.linspace(0, 1.5, tokenizer.size)
    weight[:, 0], weight[:, 1] = angles.cos(), angles.sin()
    dog = tokenizer.encode("dog")[0]
    near = offers(tokenizer, weight, nearest=2)
    assert sorted(near.table[dog].tolist()) == [dog - 1, dog + 1]
    kept = offers(tokenizer, weight, nearest=2, protected=["cat", "not"])
    cat = tokenizer.encode("cat")[0]
    assert kept.table[cat].tolist() == [-1, -1]
    assert not bool((kept.table == cat).any())
    assert kept.table[0].tolist() == [-1, -1], "padding is never replaced"
    grouped = offers(tokenizer, weight, nearest=3, groups=[["black", "white"]])
    black, white = tokenizer.encode("black white")
    assert grouped.table[black].tolist() == [white, -1, -1]
    assert int((grouped.table >= 0).sum()) == 2


def test_wrong_budgets_words_and_texts_are_one_sentence() -> None:
    with pytest.raises(ThreatError, match="whole number of substitutions"):
        substitutions(1.5, words())
    with pytest.raises(ThreatError, match="'wolf'"):
        offers(words(), torch.randn(words().size, 4), protected=["wolf"], groups=[["wolf", "dog"]])
    with pytest.raises(ThreatError, match="pass the choices of"):
        ss.attack(lambda text: text, {"text": torch.rand(2, 3)}, threat={"text": substitutions(1, words())})
    x = offers(words(), torch.randn(words().size, 4)).choices(ids_of(words(), TEXTS))
    x[0, 0, 0] = x[0, 0, 0].roll(1)
    with pytest.raises(InputError, match="already has substitutions"):
        substitutions(1, words()).around(x)
    with pytest.raises(InputError, match=r"text 1: the vocabulary has no 'wolf'; correct the word"):
        ids_of(words(), ["a dog", "a wolf"])
    with pytest.raises(InputError, match=r"text 0: the text has 4 tokens, the model takes 3; shorten it"):
        ids_of(words(), ["there is a dog"], 3)
