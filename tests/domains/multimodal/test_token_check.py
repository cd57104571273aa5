"""The checker of substituted texts notices each way of breaking the threat, one by one."""

import pytest
import torch
from small_pairs import TEXTS, words
from torch import Tensor

from signstep.domains.multimodal import CHECKERS, choices_of, ids_of
from signstep.domains.multimodal.check import check, check_choices
from signstep.errors import InputError

NOT = 17


def _pair() -> tuple[Tensor, Tensor]:
    ids = ids_of(words(), TEXTS)
    offered = torch.stack([(ids + shift - 2) % 14 + 2 for shift in (1, 2)], 2)
    offered[ids == 0] = -1
    before = choices_of(ids, offered)
    return before, before.clone()


def _choose(x: Tensor, row: int, place: int, slot: int) -> None:
    x[row, place, 0] = 0
    x[row, place, 0, slot] = 1


def test_allowed_substitutions_pass_and_are_counted() -> None:
    before, after = _pair()
    _choose(after, 0, 0, 1)
    _choose(after, 0, 3, 2)
    _choose(after, 1, 1, 1)
    found = check_choices(before, after, 2, {0, 1}, typed=lambda ids: words().encode(words().decode(ids)))
    assert found.ok.all()
    assert found.size.tolist() == [2, 1, 0, 0, 0, 0]
    assert found.tolerance == 0


@pytest.mark.parametrize("broken", ["budget", "two words", "no word", "half", "hole", "list", "protected out", "nan"])
def test_each_broken_rule_is_seen(broken: str) -> None:
    before, after = _pair()
    protected = {0, 1}
    if broken == "budget":
        for place in range(3):
            _choose(after, 0, place, 1)
    elif broken == "two words":
        after[0, 0, 0, 1] = 1
    elif broken == "no word":
        after[0, 0, 0] = 0
    elif broken == "half":
        after[0, 0, 0] = torch.tensor([0.5, 0.5, 0.0])
    elif broken == "hole":
        before[0, 0, 1, 2] = after[0, 0, 1, 2] = -1
        _choose(after, 0, 0, 2)
    elif broken == "list":
        after[0, 0, 1, 1] = 9
        _choose(after, 0, 0, 1)
    elif broken == "protected out":
        protected = {0, 1, int(before[0, 0, 1, 0])}
        _choose(after, 0, 0, 1)
    elif broken == "nan":
        after[0, 0, 0, 0] = torch.nan
    found = check_choices(before, after, 2, protected)
    assert found.ok.tolist() == [False] + [True] * 5


def test_a_protected_word_may_not_come_in() -> None:
    before, after = _pair()
    _choose(after, 0, 0, 1)
    assert not check_choices(before, after, 2, {int(before[0, 0, 1, 1])}).ok[0]


def test_saved_points_are_checked_by_the_terms_of_the_record() -> None:
    before, after = _pair()
    _choose(after, 2, 0, 1)
    _choose(after, 2, 1, 1)
    terms = {"domain_terms": {"texts": {"text": {"eps": 1.0, "protected": [0, 1]}}}}
    assert CHECKERS["substitutions"] is check
    assert check(terms, before, after).ok.tolist() == [True, True, False, True, True, True]
    with pytest.raises(InputError, match="names no text"):
        check({"domain_terms": {"texts": {}}}, before, after)
    with pytest.raises(InputError, match="pass equal"):
        check_choices(before, after[:2], 1, [])
