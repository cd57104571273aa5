"""Laws of the searches: inside the set, alike in any batch, monotone in the budget, never below the true minimum."""

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
import torch
from small_texts import ALL, OFFERS, TEXTS, asked, bag_model, bert, bert_tokenizer, counted, rows, threat
from torch import Tensor

import signstep as ss
from signstep.auditing.merge import merge
from signstep.auditing.run import Run
from signstep.domains.language.spelling import speller, tokens_within
from signstep.domains.language.tokenizers import PretrainedTokenizer
from signstep.domains.text.attacks import RECIPES, HotFlip, RandomWords, WordSearch
from signstep.domains.text.codes import codes_of, texts_of
from signstep.domains.text.edits import Edits
from signstep.domains.text.gains import gains, pieces
from signstep.domains.text.letters import KINDS, TYPOS
from signstep.domains.text.reading import TextModel, TokenReader
from signstep.domains.text.walk import Walk
from signstep.domains.text.words import with_words, words_of
from signstep.errors import GradientError, InputError, ModelError, ThreatError

ATTACKS = (HotFlip(60), WordSearch(60), RandomWords(60))
IDS = [attack.name for attack in ATTACKS]


def run(model: TextModel, attack: Any, x: Tensor, y: Tensor, words: int = 2, edits: Edits = ALL) -> Any:
    return ss.attack(ss.Model(model), x, y, threat=threat(words, edits), recipe=attack)


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_allowed_and_judged_as_typed(attack: Any, kind: str) -> None:
    model, edits = bag_model(), Edits((kind,), TYPOS, ("not", "cash"), OFFERS)
    x, y = rows(model)
    outcome = run(model, attack, x, y, edits=edits)
    assert bool(outcome.verified.all())
    assert bool((outcome.distance <= 2).all())
    texts = texts_of(outcome.x)
    with torch.no_grad():
        again = model.reader.scores(texts).argmax(1)
    assert (again != y).tolist() == outcome.fooled.tolist()
    for before, after in zip(TEXTS, texts, strict=True):
        kept = [word.core for word in words_of(before) if word.core.lower() in ("not", "cash")]
        assert [word.core for word in words_of(after) if word.core.lower() in ("not", "cash")] == kept


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
def test_a_text_gets_the_same_in_any_batch(attack: Any) -> None:
    model = bag_model()
    x, y = rows(model)
    whole = run(model, attack, x, y)
    backwards = run(model, attack, x.flip(0), y.flip(0))
    for row in range(len(x)):
        alone = run(model, attack, x[row : row + 1], y[row : row + 1])
        for name in ("x", "fooled", "loss", "forwards", "backwards", "distance"):
            mine = getattr(alone, name)[0]
            assert torch.equal(mine, getattr(whole, name)[row]), (name, row)
            assert torch.equal(mine, getattr(backwards, name)[len(x) - 1 - row]), (name, row)
        for mine, all_ in zip(alone.health, whole.health, strict=True):
            assert int(mine[0]) == int(all_[row])


def test_bert_answers_a_text_alike_whatever_stands_beside_it() -> None:
    reader = bert_reader()
    texts = [*TEXTS, "win", "a b c d e f g h i j k l m n o p q r s t u v w x y z"]
    with torch.no_grad():
        whole = reader.scores(texts)
        for row, text in enumerate(texts):
            assert torch.equal(reader.scores([text])[0], whole[row])
            assert torch.equal(reader.scores([*texts[::-1], text])[-1], whole[row])


@pytest.mark.parametrize("attack", ATTACKS[:2], ids=IDS[:2])
def test_a_larger_budget_finds_what_a_smaller_finds(attack: Any) -> None:
    for seed in range(3):
        model = bag_model(seed)
        x, y = rows(model)
        before = torch.zeros(len(x), dtype=torch.bool)
        sizes = torch.full((len(x),), torch.inf)
        for words in (1, 2, 3):
            outcome = run(model, attack, x, y, words)
            assert bool((outcome.fooled | ~before).all())
            assert bool((outcome.smallest <= sizes).all())
            before, sizes = outcome.fooled, outcome.smallest


def fewest(model: TextModel, text: str, label: int, edits: Edits, most: int) -> int | None:
    """By trying every text."""
    words = words_of(text)
    options = {place: edits.of(word.core) for place, word in enumerate(words) if edits.of(word.core)}
    for size in range(1, most + 1):
        for places in combinations(options, size):
            texts = [
                with_words(text, words, dict(zip(places, chosen, strict=True)))
                for chosen in product(*(options[place] for place in places))
            ]
            if bool((model.reader.scores(texts).argmax(1) != label).any()):
                return size
    return None


@pytest.mark.parametrize("attack", ATTACKS[:2], ids=IDS[:2])
def test_the_smallest_number_is_one_that_trying_all_texts_confirms(attack: Any) -> None:
    found = 0
    for seed in range(4):
        model, edits = bag_model(seed), Edits(("synonyms",), (), (), OFFERS)
        x, y = rows(model)
        outcome = run(model, attack, x, y, 2, edits)
        for row, text in enumerate(TEXTS):
            with torch.no_grad():
                best = fewest(model, text, int(y[row]), edits, 2)
            # Such small sets are searched through: what can be found is found.
            assert (None if torch.isinf(outcome.smallest[row]) else int(outcome.smallest[row])) == best
            found += best is not None
    assert found


def test_a_wrong_text_takes_its_step_and_its_smallest_change_is_none() -> None:
    model = bag_model()
    x, y = rows(model)
    for attack in ATTACKS:
        outcome = run(model, attack, x, 1 - y)
        assert bool((outcome.distance > 0).all())
        if attack.name != "random-words":
            assert outcome.smallest.tolist() == [0.0] * len(x)


def test_nothing_may_change_and_nothing_is_asked() -> None:
    model = bag_model()
    x, y = rows(model)
    for attack in ATTACKS:
        outcome = run(model, attack, x, y, 2, Edits(("synonyms",)))
        assert torch.equal(outcome.x, x)
        assert outcome.forwards.tolist() == [1] * len(x)
        assert not bool(outcome.fooled.any())


@pytest.mark.parametrize("attack", [HotFlip(20), WordSearch(20), RandomWords(20)], ids=IDS)
@pytest.mark.parametrize("queries", [2, 3, 20])
def test_no_more_is_asked_than_may_be(attack: Any, queries: int) -> None:
    seen: list[str] = []

    def count(texts: list[str]) -> Tensor:
        seen.extend(texts)
        return torch.tensor([[3.0, -1.0]]).repeat(len(texts), 1)

    attack = replace(attack, queries=queries)
    model = bag_model() if attack.name == "hotflip" else asked(count)
    x, _ = rows(bag_model())
    y = torch.zeros(len(x), dtype=torch.int64)
    if attack.name == "hotflip":
        with torch.no_grad():
            y = model(x).argmax(1)
    outcome = run(model, attack, x, y)
    assert int(outcome.forwards.max()) <= queries + 1
    if attack.name != "hotflip":
        assert outcome.forwards.tolist() == [queries + 1] * len(x) or attack.name == "word-search"
        # Beside the two looks at the untouched texts, of which the second is at a few.
        assert sum(outcome.forwards.tolist()) <= len(seen) <= sum(outcome.forwards.tolist()) + 4 * len(x)


def test_the_very_strings_are_sent() -> None:
    seen: set[str] = set()

    def note(texts: list[str]) -> Tensor:
        seen.update(texts)
        return counted(texts)

    x, y = rows(asked())
    outcome = run(asked(note), WordSearch(80), x, y)
    assert bool(outcome.fooled.any())
    assert {text for text, hit in zip(texts_of(outcome.x), outcome.fooled.tolist(), strict=True) if hit} <= seen


def test_the_first_order_gain_is_the_derivative() -> None:
    """Against the loss itself, along the line from the old vectors to the new ones."""
    model = bag_model()
    reader = model.tokens
    assert reader is not None
    text, words = TEXTS[1], words_of(TEXTS[1])
    edits = Edits(("synonyms",), (), (), {"prize": ("cash", "film"), "free": ("good",)})
    with reader.leaning() as seen:
        scores = reader.scores([text])
        (slope,) = torch.autograd.grad(scores[0, 0] - scores[0, 1], [seen[0].leaf])
    import random

    walk = Walk.of(text, 2, edits, 99, random.Random(0), None)
    read = seen[0].read
    listed = gains(reader, walk, {}, words, read, slope[0, : len(read.ids)])
    assert [one.gain for one in listed] == sorted((one.gain for one in listed), reverse=True)
    assert {(one.place, one.core) for one in listed} == {(3, "cash"), (3, "film"), (2, "good")}
    weight = reader.embedding.weight.detach()
    for one in listed:
        (place,) = tokens_within(read, words[one.place].start, words[one.place].end)
        (new,) = pieces(reader, one.core, spaced=True)
        step = 1e-3 * (weight[new] - weight[read.ids[place]])
        ends = []
        for sign in (1, -1):
            moved = weight[torch.tensor(read.ids)].clone()
            moved[place] += sign * step
            with torch.no_grad():
                out = reader.network.decision(moved.mean(0).tanh())  # type: ignore[operator]
            ends.append(float(out[0] - out[1]))
        assert one.gain == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=1e-4)


def bert_reader(length: int = 24) -> TokenReader:
    plain = PretrainedTokenizer(bert_tokenizer(length))
    return TokenReader(bert(), speller(plain, length), plain.pad)


def test_hotflip_on_a_bert_with_pieces_of_words() -> None:
    model = TextModel(bert_reader())
    x, y = rows(model)
    outcome = run(model, HotFlip(40), x, y)
    assert bool(outcome.verified.all())
    assert int(outcome.backwards.sum()) > 0
    assert int(outcome.health.gradients.sum()) == int(outcome.backwards.sum())
    assert not any(handle for part in model.modules() for handle in part._forward_hooks)


def test_what_the_model_does_not_read_is_not_changed() -> None:
    model = bag_model(length=3)
    x, y = rows(model)
    for attack in ATTACKS:
        outcome = run(model, attack, x, y, 3)
        for before, after in zip(TEXTS, texts_of(outcome.x), strict=True):
            pairs = zip(words_of(before), words_of(after), strict=True)
            assert all(old.core == new.core for old, new in [pair for pair in pairs if pair[0].core][3:])


def test_models_without_gradients_are_refused_by_hotflip_alone() -> None:
    x, y = rows(asked())
    with pytest.raises(ModelError, match="hotflip needs gradients, and this model gives scores alone; use word-search"):
        run(asked(), HotFlip(), x, y)
    with pytest.raises(InputError, match="searches among texts"):
        ss.attack(torch.nn.Linear(4, 2), torch.rand(2, 4), threat=ss.linf(0.1), recipe=HotFlip())


def test_attacks_on_numbers_say_that_texts_are_none() -> None:
    model = bag_model()
    x, y = rows(model)
    with pytest.raises(GradientError, match=r"made of letters, which have no gradient; pass hotflip"):
        ss.attack(ss.Model(model), x, y, threat=threat(), recipe="fgsm")
    with pytest.raises(ThreatError, match="not moved by steps"):
        ss.attack(ss.Model(model), x, y, threat=threat(), recipe="random-sign")


def test_shards_join_to_the_whole_and_the_control_stands_beside() -> None:
    model = bag_model()
    x, y = rows(model)

    def audited(shard: tuple[int, int] | None) -> Any:
        return ss.audit(
            ss.Model(model), (x, y), threat=threat(), attacks=list(ATTACKS), curve=[1.0, 2.0], run=Run(shard=shard)
        )

    whole = audited(None)
    joined = merge([audited((0, 2)), audited((1, 2))])
    assert joined.per_example == whole.per_example
    assert joined.curves == whole.curves
    assert set(whole.curves) == {"hotflip", "word-search"}
    for points in whole.curves.values():
        assert [point.fooled for point in points] == sorted(point.fooled for point in points)
    assert [entry.name for entry in whole.attacks] == IDS


def test_the_seed_and_the_text_decide_what_is_drawn() -> None:
    model = bag_model()
    x, y = rows(model)
    seeds: list[Tensor] = []
    for seed in (0, 0, 1):
        found = ss.attack(ss.Model(model), x, y, threat=threat(), recipe=RandomWords(2), search=ss.Search(seed=seed)).x
        assert isinstance(found, Tensor)
        seeds.append(found)
    assert torch.equal(seeds[0], seeds[1])
    assert not torch.equal(seeds[0], seeds[2])


@pytest.mark.parametrize("name", RECIPES)
def test_options_are_checked(name: str) -> None:
    assert RECIPES[name].build().name == name
    with pytest.raises(InputError, match="queries=1; pass at least 2"):
        RECIPES[name].build(queries=1)


def test_a_random_model_is_judged_by_many_passes() -> None:
    x = codes_of(TEXTS, 60)
    model = bag_model()
    reader = model.tokens
    assert reader is not None
    reader.network.register_forward_hook(lambda _, __, out: out + 3 * torch.rand(len(out), 2))
    y = torch.zeros(len(x), dtype=torch.int64)
    found: Any = ss.attack(ss.Model(model), x, y, threat=threat(), recipe=WordSearch(20))
    assert found.passes == 32
    assert bool((found.fooled <= (found.smallest < torch.inf)).all())
