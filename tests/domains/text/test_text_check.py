"""The checker takes every text that the searches may make, and none besides; it knows nothing of how they are made."""

import random
from typing import Any

import pytest
import torch
from small_texts import ALL, OFFERS, TEXTS, threat

from signstep.domains.text.check import check_texts
from signstep.domains.text.codes import codes_of, texts_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.letters import INVISIBLE, KINDS, LOOK_ALIKES, TYPOS
from signstep.domains.text.words import fits, with_words, words_of
from signstep.errors import InputError

CORES = ("Claim", "cash", "film", "GREAT", "Good", "it's", "e-mail", "4free2", "no", "a", "na\u00efve", "\u4f60\u597d")


def judged(before: str, after: str, edits: Edits = ALL, words: int = 2, share: float = 0.0) -> tuple[bool, float]:
    width = max(len(before), len(after))
    found = check_texts(
        threat(words, edits, share).rules, float(words), codes_of([before], width), codes_of([after], width)
    )
    return bool(found.ok[0]), float(found.size[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("core", CORES)
def test_every_edit_is_one_changed_word(kind: str, core: str) -> None:
    edits = Edits((kind,), TYPOS, (), OFFERS)
    for new in edits.of(core):
        assert judged(f"so: '{core}', then", f"so: '{new}', then", edits) == (True, 1.0), (core, new)
        assert judged(f"{core}", new, edits, words=0) == (False, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_kind_makes_is_refused(kind: str) -> None:
    own = Edits((kind,), TYPOS, (), OFFERS)
    for other in set(KINDS) - {
        kind,
        "neighbours" if kind == "synonyms" else "synonyms" if kind == "neighbours" else "",
    }:
        for core in CORES:
            mine = set(own.of(core))
            for new in Edits((other,), TYPOS, (), OFFERS).of(core):
                assert judged(core, new, own)[0] == (new in mine)


@pytest.mark.parametrize("typo", TYPOS)
def test_each_typo_by_itself(typo: str) -> None:
    own = Edits(("typos",), (typo,))
    for core in ("claim", "Prizes", "keep", "aabb"):
        mine = set(own.of(core))
        assert mine or (core, typo) == ("keep", "swap")
        for new in Edits(("typos",), TYPOS).of(core):
            assert judged(core, new, own)[0] == (new in mine), (core, new)
        assert all(new[0] == core[0] and new[-1] == core[-1] for new in mine)


@pytest.mark.parametrize(
    "after",
    [
        "claim  your cash now!",  # white space
        "claim your cash now?",  # punctuation
        "claim your cash",  # a word less
        "claim your cash now! now",  # a word more
        "claim your prize now!",  # not on offer
        "claim your gash now!",  # the first letter
        "claim yuor caash nwo!",  # "now" is too short for a typo
        "clm your cash now!",  # two letters lost
        "Claim your cash now!",  # a capital
        "cl\u202eaim your cash now!",  # a mark that is not on the list
        "\u200bclaim your cash now!",  # a mark before the word
        "c\u200bl\u200baim your cash now!",  # two marks in one word
        "\u0441l\u0430im your cash now!",  # two letters that look alike in one word
        "claim your not now!",  # a kept word put in
        "claim your ca\ud800h now!",  # half a pair
    ],
)
def test_what_no_edit_makes_is_refused(after: str) -> None:
    assert judged("claim your cash now!", "claim your cash now!") == (True, 0.0)
    ok, size = judged("claim your cash now!", after)
    assert not ok
    assert size == float("inf")


def test_kept_words_stay_and_are_not_put_in() -> None:
    edits = Edits(
        ("synonyms", "typos"), TYPOS, ("http*", "*@*", "Cash", "gift"), {"cash": ("money",), "film": ("gift",)}
    )
    assert edits.of("CASH") == ()
    assert edits.of("https") == ()
    assert "gift" not in edits.of("film")
    assert not judged("http://x.org/abcd now", "http://x.org/abdc now", edits)[0]
    assert not judged("my cash", "my money", edits)[0]
    assert not judged("a film", "a gift", edits)[0]
    assert judged("a movie", "a mvoie", edits)[0]


@pytest.mark.parametrize(
    ("pattern", "word", "found"),
    [
        ("not", "NOT", True),
        ("not", "note", False),
        ("*", "", True),
        ("a*b*c", "aXbXbc", True),
        ("a*b*c", "aXcXb", False),
        ("ab*ba", "aba", False),
        ("**x**", "yxy", True),
        ("*a*a*a*a*a*a*a*a*a*a*a*b", "a" * 400, False),
    ],
)
def test_patterns_mean_the_same_to_search_and_checker(pattern: str, word: str, found: bool) -> None:
    from signstep.domains.text.check import _stays

    assert fits(pattern, word) is found
    assert _stays(pattern, word) is found


def test_the_count_and_the_share_are_bounds() -> None:
    two = "cliam your caash now!"
    assert judged("claim your cash now!", two, words=2) == (True, 2.0)
    assert judged("claim your cash now!", two, words=1) == (False, 2.0)
    assert judged("claim your cash now!", two, words=2, share=0.5) == (True, 2.0)
    assert judged("claim your cash now!", two, words=2, share=0.49) == (False, 2.0)
    assert judged("claim your cash - now -", "cliam your caash - now -", share=0.4) == (False, 2.0)


def test_random_texts_of_the_set_are_taken_and_mutated_ones_are_not() -> None:
    draws = random.Random(0)
    taken = refused = 0
    for _ in range(300):
        text = draws.choice(TEXTS)
        words = words_of(text)
        places = [place for place, word in enumerate(words) if ALL.of(word.core)]
        chosen = draws.sample(places, min(2, len(places)))
        after = with_words(text, words, {place: draws.choice(ALL.of(words[place].core)) for place in chosen})
        assert judged(text, after) == (True, float(len(chosen)))
        taken += 1
        spot = draws.randrange(len(after))
        mutated = after[:spot] + "\u2620" + after[spot + 1 :]
        assert not judged(text, mutated)[0]
        refused += 1
    assert taken == refused == 300


@pytest.mark.parametrize(
    "row",
    [[97.5, 98.0, 0.0], [97.0, 0.0, 98.0], [97.0, float("nan"), 0.0], [97.0, -1.0, 0.0], [97.0, 0x110000, 0.0]],
)
def test_rows_that_are_no_text_are_refused(row: list[float]) -> None:
    before = codes_of(["ab"], 3)
    assert not bool(check_texts(threat().rules, 2.0, before, torch.tensor([row])).ok[0])
    with pytest.raises(InputError, match="no code points"):
        texts_of(torch.tensor([row]))


def test_texts_and_rows_are_the_same_thing() -> None:
    odd = ("\U0010ffff\U0001f600 a\u200bb", "x", "\u0430")
    assert tuple(texts_of(codes_of(odd, 9))) == odd
    with pytest.raises(InputError, match="has 5 characters"):
        codes_of(["abcde"], 4)


def test_the_tables_are_what_they_say() -> None:
    import unicodedata

    for letter, others in LOOK_ALIKES.items():
        for other in others:
            assert unicodedata.name(letter).startswith("LATIN")
            assert unicodedata.name(other).split()[0] in ("CYRILLIC", "GREEK")
            assert letter.isupper() == other.isupper()
            assert letter.islower() == other.islower()
    assert {unicodedata.category(mark) for mark in INVISIBLE} == {"Cf"}
    assert not any(mark.isspace() for mark in INVISIBLE)


def rules_of(**changes: Any) -> dict[str, Any]:
    return {**threat().rules, **changes}


def test_the_rules_of_a_record_are_what_is_checked() -> None:
    before, after = codes_of(["my cash"], 9), codes_of(["my money"], 9)
    assert bool(check_texts(rules_of(), 1.0, before, after).ok[0])
    assert not bool(check_texts(rules_of(offers={}), 1.0, before, after).ok[0])
    assert not bool(check_texts(rules_of(kinds=["typos"]), 1.0, before, after).ok[0])
    assert not bool(check_texts(rules_of(keep=["*ney"]), 1.0, before, after).ok[0])
    with pytest.raises(InputError, match="equal"):
        check_texts(rules_of(), 1.0, before, after[:, :5])
