"""Models of the transformers library run unchanged, and so does any other with an embedding."""

from pathlib import Path

import pytest
import torch
from small_pairs import TEXTS, bert, clip, images, pair, pieces, words
from torch import Tensor, nn

import signstep as ss
from signstep.domains.multimodal import (
    Channel,
    TokenArguments,
    Victim,
    ids_of,
    pair_scores,
    substitute,
    text_input,
    tokens_of,
)
from signstep.errors import GradientError, InputError, ModelError, ThreatError

pytest.importorskip("transformers", reason="needs the extra multimodal")


def _unhooked(model: nn.Module) -> bool:
    return not any(module._forward_hooks for module in model.modules())


def _scores(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    return scores


def test_bert_is_fooled_by_words_and_the_typed_text_fools_it_too(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path)
    model = bert(tokenizer.size)
    ids = ids_of(tokenizer, TEXTS)
    y = _scores(model, ids).argmax(1)
    kept = {name: part.clone() for name, part in model.state_dict().items()}
    found = substitute(model, TEXTS, y, tokenizer, substitutions=2, protected=["not"])
    control = substitute(model, TEXTS, y, tokenizer, substitutions=2, protected=["not"], recipe="random-sign")
    assert int(found.fooled.sum()) > int(control.fooled.sum())
    for row, text in enumerate(found.after):
        again = torch.tensor([tokenizer.encode(text)])
        assert bool(_scores(model, again).argmax(1) != y[row]) == bool(found.fooled[row])
        assert len(found.changed[row]) <= 2
        assert ("not" in text.split()) == ("not" in TEXTS[row].split())
    assert _unhooked(model)
    assert all(torch.equal(part, kept[name]) for name, part in model.state_dict().items())


def test_one_gradient_gives_the_first_order_gain_of_every_substitution(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path)
    model = bert(tokenizer.size)
    ids = ids_of(tokenizer, TEXTS[:2])
    text = text_input(model, "text", ids, tokenizer, "substitutions:1", argument="input_ids", mask="attention_mask")
    assert text.channel.embedding == "bert.embeddings.word_embeddings"
    victim = Victim(model, [text.channel])
    x = text.inputs["text"].requires_grad_()
    (gradient,) = torch.autograd.grad(victim(text=x)[:, 0].sum(), x)
    vectors = model.get_submodule(text.channel.embedding)
    assert isinstance(vectors, nn.Embedding)
    place, slot = 2, 3
    token = int(x[0, place, 1, slot])
    base = vectors(ids).detach()
    size = 1e-3
    moved = base.clone()
    moved[0, place] += size * (vectors.weight[token] - base[0, place]).detach()

    def scored(found: Tensor) -> float:
        with torch.no_grad():
            return float(model(inputs_embeds=found, attention_mask=(ids != 0).long()).logits[0, 0])

    slope = (scored(moved) - scored(base)) / size
    assert float(gradient[0, place, 0, slot] - gradient[0, place, 0, 0]) == pytest.approx(slope, rel=0.05, abs=1e-3)
    assert torch.equal(victim(text=x.detach()), _scores(model, ids)), "untouched text gives the model's own scores"


def test_an_attack_on_the_embedding_leaves_special_tokens_and_padding_alone(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path)
    model = bert(tokenizer.size)
    ids = ids_of(tokenizer, TEXTS)
    text = text_input(model, "text", ids, tokenizer, "token:0.5", argument="input_ids", mask="attention_mask")
    assert text.threat is not None
    victim = Victim(model, [text.channel])
    y = _scores(model, ids).argmax(1)
    outcome = ss.attack(victim, text.inputs, y, threat={"text": text.threat}, recipe="fgsm")
    assert isinstance(outcome.x, dict)
    moved = (outcome.x["text"] - text.inputs["text"]).norm(dim=2)
    special = torch.isin(ids, torch.tensor(sorted(tokenizer.special)))
    assert bool((moved[special] == 0).all())
    assert torch.allclose(moved[~special], torch.tensor(0.5), atol=1e-4)
    assert bool(outcome.verified.all())
    assert _unhooked(model)


def test_clip_is_asked_about_each_pair_alone(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path)
    model = clip(tokenizer.size)
    ids, seen = ids_of(tokenizer, TEXTS), torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    text = text_input(
        model,
        "text",
        ids,
        tokenizer,
        "substitutions:2",
        argument="input_ids",
        mask="attention_mask",
        others={"pixel_values": seen},
    )
    assert text.threat is not None
    assert text.channel.embedding == "text_model.embeddings.token_embedding"
    channels = [Channel("image", "pixel_values"), text.channel]
    victim = Victim(model, channels, output=pair_scores(1.0))
    with torch.no_grad():
        every = victim(image=seen, **text.inputs)
        own = torch.cat(
            [victim(image=seen[row : row + 1], text=text.inputs["text"][row : row + 1]) for row in range(6)]
        )
    assert torch.allclose(every, own, atol=1e-5)
    y = every.argmax(1)
    outcome = ss.attack(
        victim,
        {"image": seen, **text.inputs},
        y,
        threat={"image": ss.linf("4/255"), "text": text.threat},
        recipe="pgd:steps=5",
    )
    assert bool(outcome.verified.all())
    assert isinstance(outcome.x, dict)
    assert int((tokens_of(outcome.x["text"]) != ids).sum(1).max()) <= 2


def test_the_hook_is_gone_after_an_error(tmp_path: Path) -> None:
    tokenizer = pieces(tmp_path)
    model = bert(tokenizer.size)
    text = text_input(model, "text", ids_of(tokenizer, TEXTS), tokenizer, "substitutions:1", argument="input_ids")
    victim = Victim(model, [text.channel, Channel("other", "position_ids")])
    with pytest.raises(RuntimeError, match="out of bounds"):
        victim(**text.inputs, other=torch.full((6, text.inputs["text"].shape[1]), 99))
    assert _unhooked(model)


def test_what_cannot_be_hooked_is_said() -> None:
    tokenizer = words()
    ids = ids_of(tokenizer, TEXTS)
    model = pair(tokenizer.size)
    with pytest.raises(ModelError, match=r"has no nn\.Embedding 'nowhere'; name one of its own with embedding=: read"):
        text_input(model, "text", ids, tokenizer, "substitutions:1", embedding="nowhere")

    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Embedding(20, 3), nn.Embedding(20, 3)

        def forward(self, text: Tensor) -> Tensor:
            found: Tensor = self.used(text).sum(1)
            return found

    assert text_input(Elsewhere(), "text", ids, tokenizer, "substitutions:1").channel.embedding == "used"
    wrong = text_input(Elsewhere(), "text", ids, tokenizer, "substitutions:1", embedding="unused")
    with pytest.raises(ModelError, match="did not pass through the embedding 'unused'"):
        Victim(Elsewhere(), [wrong.channel])(**wrong.inputs)
    with pytest.raises(ModelError, match=r"pass through no nn\.Embedding"):
        text_input(nn.Linear(int(ids.shape[1]), 2), "input", ids.float(), tokenizer, "substitutions:1")
    with pytest.raises(ThreatError, match="whole number of substitutions"):
        text_input(model, "text", ids, tokenizer, "substitutions:two", embedding="read")
    with pytest.raises(ThreatError, match="protected and groups are for substitutions"):
        text_input(model, "text", ids, tokenizer, "token:1", embedding="read", protected=["dog"])
    victim = Victim(model, [Channel("image", "image"), Channel("text", "text", "tokens")])
    with pytest.raises(InputError, match="the input 'text' is missing"):
        victim(image=images(6))
    with pytest.raises(ModelError, match=r"reads logits_per_image, .*; pass a model that returns it"):
        pair_scores(0.0)(torch.zeros(2, 2))


def test_without_a_path_to_the_text_there_is_no_gradient() -> None:
    tokenizer = words()
    model = pair(tokenizer.size)

    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, text: Tensor) -> Tensor:
            found: Tensor = self.inner.both(self.inner.read(text).sum(1).detach())
            return found

    with pytest.raises(GradientError):
        substitute(Deaf(), TEXTS, torch.zeros(6, dtype=torch.int64), tokenizer, reads=TokenArguments("text", mask=""))
