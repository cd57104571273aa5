"""Attack on A, on B, on both: what is left alone is left alone bit for bit, and what moved is told."""

import pytest
import torch
from small_pairs import TEXTS, images, pair, words
from torch import Tensor, nn

import signstep as ss
from signstep.auditing.run import audit
from signstep.domains.multimodal import (
    Channel,
    Crossover,
    Victim,
    Witness,
    crossover,
    ids_of,
    on,
    substitutions,
    text_input,
    tokens_of,
)
from signstep.domains.multimodal.branches import embeddings, moved
from signstep.engine.threat import ThreatModel
from signstep.errors import InputError, ModelError

BRANCHES = {"seen": "see", "said": "read", "fused": "both"}


def _things(rows: int = 24) -> tuple[Victim, dict[str, Tensor], Tensor, dict[str, ThreatModel]]:
    tokenizer = words()
    model = pair(tokenizer.size)
    ids = ids_of(tokenizer, [TEXTS[row % len(TEXTS)] for row in range(rows)])
    text = text_input(model, "text", ids, tokenizer, "substitutions:1", embedding="read")
    assert text.threat is not None
    victim = Victim(model, [Channel("image", "image"), text.channel])
    inputs = {"image": images(rows), **text.inputs}
    with torch.no_grad():
        y = victim(**inputs).argmax(1)
    return victim, inputs, y, {"image": ss.linf("8/255"), "text": text.threat}


def test_an_attack_on_one_input_leaves_the_other_as_it_is() -> None:
    victim, inputs, y, threats = _things()
    for spec in ("random-sign", "fgsm", "pgd:steps=4", "pgd:steps=3,restarts=2", "mi-fgsm:steps=4", "apgd:steps=6"):
        for name, other in (("image", "text"), ("text", "image")):
            outcome = ss.attack(victim, inputs, y, threat=threats, recipe=on(spec, [name]))
            assert isinstance(outcome.x, dict)
            assert torch.equal(outcome.x[other], inputs[other]), (spec, name)
            assert bool(outcome.verified.all()), (spec, name)
            assert not torch.equal(outcome.x[name], inputs[name]), (spec, name)
            assert isinstance(outcome.distance, dict)
            assert float(outcome.distance[other].max()) == 0


def test_the_joint_attack_stays_in_both_sets() -> None:
    victim, inputs, y, threats = _things()
    outcome = ss.attack(victim, inputs, y, threat=threats, recipe=on("pgd:steps=6", ["image", "text"]))
    assert isinstance(outcome.x, dict)
    assert float((outcome.x["image"] - inputs["image"]).abs().max()) <= 8 / 255 + 1e-6
    assert int((tokens_of(outcome.x["text"]) != tokens_of(inputs["text"])).sum(1).max()) <= 1
    assert bool(outcome.verified.all())


@pytest.mark.kernels
def test_rows_do_not_depend_on_their_batch() -> None:
    victim, inputs, y, threats = _things(8)
    attack = on("pgd:steps=4", ["image", "text"])
    whole = ss.attack(victim, inputs, y, threat=threats, recipe=attack)
    assert isinstance(whole.x, dict)
    for row in (0, 5):
        alone = {name: part[row : row + 1] for name, part in inputs.items()}
        single = ss.attack(victim, alone, y[row : row + 1], threat=threats, recipe=attack)
        assert isinstance(single.x, dict)
        assert torch.equal(tokens_of(single.x["text"]), tokens_of(whole.x["text"][row : row + 1]))
        assert torch.allclose(single.x["image"], whole.x["image"][row : row + 1], atol=1e-6)


def _table() -> Crossover:
    victim, inputs, y, threats = _things()
    return crossover(
        victim,
        inputs,
        y,
        threats,
        attacks={"random": "random-sign", "pgd": "pgd:steps=5"},
        branches=BRANCHES,
        batch_size=10,
    )


def test_the_table_says_which_branch_moved() -> None:
    table = _table()
    assert [(row.attack, row.inputs) for row in table.rows] == [
        (attack, inputs) for inputs in ("image", "text", "image + text") for attack in ("random", "pgd")
    ]
    image, text, both = (table.row("pgd", inputs) for inputs in ("image", "text", "image + text"))
    assert image.moves["said"] == text.moves["seen"] == (0.0, 0.0)
    for row in (image, text, both):
        assert row.moves["fused"][0] > 0
        assert row.drop is not None
        assert row.drop > 0
    assert image.moves["seen"][0] > 0
    assert text.moves["said"][0] > 0
    assert both.fooled >= max(table.row("random", inputs).fooled for inputs in ("image", "text"))
    assert image.right == table.result.clean_right == 24
    assert "image + text" in str(table)
    assert len(str(table).splitlines()) == 7
    with pytest.raises(KeyError, match="no fgsm on image"):
        table.row("fgsm", "image")


def test_what_the_witness_saw_is_what_a_second_look_gives() -> None:
    victim, inputs, y, threats = _things()
    witness = Witness(victim, BRANCHES)
    attack = on("fgsm", ["text"], witness)
    outcome = ss.attack(victim, inputs, y, threat=threats, recipe=attack)
    assert isinstance(outcome.x, dict)
    point = {**inputs, **outcome.x}
    before, after = (embeddings(victim, part, BRANCHES) for part in (inputs, point))
    lengths, cosines = moved(before["fused"], after["fused"])
    told = witness.traces["fgsm on text"].moves["fused"]
    for place, found in enumerate((lengths, cosines)):
        assert sorted(pair[place] for pair in told.values()) == pytest.approx(sorted(found.tolist()))
    swapped = int((tokens_of(point["text"]) != tokens_of(inputs["text"])).sum())
    assert sum(witness.traces["fgsm on text"].swaps.values()) == swapped > 0


def test_moved_is_relative_to_the_untouched_output() -> None:
    before = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    after = torch.tensor([[9.0, 12.0], [4.0, -3.0], [3.0, 4.0], [0.0, 0.0]])
    lengths, cosines = moved(before, after)
    assert lengths.tolist() == pytest.approx([2.0, 2**0.5, 0.0, 0.0])
    assert cosines.tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_three_inputs_one_of_them_frozen() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            total = a.sum(1) - b.sum(1) + c.sum(1)
            return torch.stack([total, -total], 1)

    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(40, 5, generator=generator) for name in "abc"}
    table = crossover(Sum(), inputs, None, {"a": ss.linf(0.1), "b": ss.linf(0.2)}, attacks=["fgsm"])
    total = inputs["a"].sum(1) - inputs["b"].sum(1) + inputs["c"].sum(1)
    up = (total > 0).unsqueeze(1)
    reach = {
        "a": torch.where(up, inputs["a"].clamp_max(0.1), -(1 - inputs["a"]).clamp_max(0.1)).sum(1),
        "b": torch.where(up, (1 - inputs["b"]).clamp_max(0.2), -inputs["b"].clamp_max(0.2)).sum(1),
    }
    for name, gain in reach.items():
        assert table.row("fgsm", name).fooled == int((gain.abs() > total.abs()).sum()), (
            "FGSM is exact for a linear model"
        )
    both = (reach["a"] + reach["b"]).abs() > total.abs()
    assert table.row("fgsm", "a + b").fooled == int(both.sum())


def test_a_linear_text_model_is_fooled_by_exactly_the_substitutions_that_can_fool_it() -> None:
    tokenizer = words()
    value = torch.linspace(-1, 1.1, tokenizer.size)

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Embedding(tokenizer.size, 1, _weight=value.unsqueeze(1))

        def forward(self, text: Tensor) -> Tensor:
            total = (self.inner(text).squeeze(2) * (text != 0)).sum(1)
            return torch.stack([-total, total], 1)

    ids = ids_of(tokenizer, TEXTS)
    text = text_input(Bag(), "text", ids, tokenizer, "substitutions:2", nearest=20)
    total = (value[ids] * (ids != 0)).sum(1)
    y = (total > 0).long()
    table = crossover(Victim(Bag(), [text.channel]), text.inputs, y, {"text": _declared(text.threat)}, attacks=["fgsm"])
    fooled = 0
    for row in range(len(ids)):
        free = value[ids[row][ids[row] != 0]]
        gains = (free - value[2]) if y[row] else (value[-1] - free)
        fooled += int(gains.sort(descending=True).values[:2].sum() > total[row].abs())
    assert table.row("fgsm", "text").fooled == fooled


def _declared(threat: ThreatModel | None) -> ThreatModel:
    assert threat is not None
    return threat


def test_what_does_not_fit_is_one_sentence() -> None:
    victim, inputs, y, threats = _things(6)
    with pytest.raises(InputError, match="different numbers of rows"):
        crossover(victim, {**inputs, "image": inputs["image"][:3]}, y, threats)
    with pytest.raises(InputError, match="threats name nothing"):
        crossover(victim, inputs, y, {})
    with pytest.raises(InputError, match=r"threats name \['sound'\]"):
        crossover(victim, inputs, y, {"sound": ss.linf(0.1)})
    with pytest.raises(InputError, match="square is not a gradient attack"):
        on("square", ["image"])
    with pytest.raises(InputError, match="'sound' is not attacked"):
        ss.attack(victim, inputs, y, threat=threats, recipe=on("fgsm", ["sound"]))
    with pytest.raises(InputError, match="pass x as a dict"):
        ss.attack(nn.Linear(2, 2), torch.rand(3, 2), threat=ss.linf(0.1), recipe=on("fgsm", ["image"]))
    with pytest.raises(ModelError, match="the model has no module 'ears'"):
        crossover(victim, inputs, y, threats, branches={"heard": "ears"}, attacks=["fgsm"])


def test_shards_find_what_the_whole_finds() -> None:
    victim, inputs, y, threats = _things(12)
    attacks = [on("pgd:steps=3", ["text"])]

    def verdicts(shard: tuple[int, int] | None) -> str:
        return audit(
            victim, [(inputs, y)], threat=threats, attacks=attacks, curve=False, run=ss.Run(shard=shard)
        ).per_example.verdicts["pgd:steps=3 on text"]

    assert verdicts((0, 2)) == verdicts(None)[::2]
    assert verdicts((1, 2)) == verdicts(None)[1::2]
    assert substitutions(1, words()).kind == "substitutions"
