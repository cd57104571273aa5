"""What the users of a model of several inputs want to know of an audit: the cross-over table, the words, the figure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section
from signstep.domains.language.tokenizers import Tokenizer, fitted
from signstep.domains.language.victim import Victim, tokens_of
from signstep.domains.multimodal.attacks import Witness
from signstep.domains.multimodal.crossover import FIXED, RECIPES, Crossover, crossed
from signstep.engine.untouched import untouched

_EXAMPLES = 6
_SWAPS = 8


@dataclass(frozen=True, eq=False)
class Teller:
    """Makes the sections of a result.

    Attributes:
        victim: the model behind its channels.
        witness: what was seen of the attacks.
        tokenizer: None where there is no text.
        texts: names of text inputs under substitution.
        remarks: to be said about the words.
    """

    victim: Victim
    witness: Witness
    tokenizer: Tokenizer | None
    texts: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def __call__(self, result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:
        """Cross-over, and for each substituted text what was typed."""
        table = crossed(result, self.witness)
        found = _crossing(table, result)
        if self.tokenizer is not None:
            found += [self._words(name, self.tokenizer, points) for name in self.texts]
        return tuple(found)

    def _words(self, name: str, tokenizer: Tokenizer, points: Mapping[str, Tensor]) -> Section:
        """Which words were put in, examples, and what the model says of the texts when they are typed."""
        swaps = sum((trace.swaps for attack, trace in self.witness.traces.items() if "random" not in attack), _none())
        spelled = [
            f"{tokenizer.decode([old])} -> {tokenizer.decode([new])} ({count})"
            for (old, new), count in sorted(swaps.items(), key=lambda item: (-item[1], item[0]))[:_SWAPS]
        ]
        text = [*self.remarks]
        if spelled:
            text.append(f"Substitutions that the attacks chose most often: {'; '.join(spelled)}.")
        if f"x_adv:{name}" not in points:
            return Section(f"Words of {name}", (*text, "No example was fooled, so there is nothing to type."))
        before, after = tokens_of(points[f"x:{name}"]), tokens_of(points[f"x_adv:{name}"])
        rows = (before != after).any(1).nonzero().squeeze(1)
        still = self._typed(name, tokenizer, points, after)
        text.append(
            f"Typed again: of {len(rows)} fooling examples whose text was changed, decoded to letters, tokenised anew "
            "and given to the model without any hook on its embedding, "
            f"{int(still[rows].sum())} give the same wrong answer."
        )
        shown = tuple(
            (
                tokenizer.decode(before[row].tolist()),
                tokenizer.decode(after[row].tolist()),
                self._beside(name, points, row),
            )
            for row in rows[:_EXAMPLES].tolist()
        )
        return Section(
            f"Words of {name}", tuple(text), ("text", "text that fools", "changed inputs") if shown else (), shown
        )

    @torch.no_grad()
    def _typed(self, name: str, tokenizer: Tokenizer, points: Mapping[str, Tensor], after: Tensor) -> Tensor:
        """Whether the model gives the recorded wrong answer to what is typed, (n,) bool."""
        typed = [fitted(tokenizer.encode(tokenizer.decode(row)), len(row), tokenizer.pad) for row in after.tolist()]
        fits = torch.tensor([len(row) == after.shape[1] for row in typed], dtype=torch.bool, device="cpu")
        ids = torch.tensor([row[: after.shape[1]] for row in typed], dtype=torch.int64, device="cpu")
        plain = [
            replace(channel, form="tokens") if channel.name == name else channel for channel in self.victim.channels
        ]
        inputs = {
            **{key.removeprefix("x:"): part for key, part in points.items() if key.startswith("x:")},
            **{key.removeprefix("x_adv:"): part for key, part in points.items() if key.startswith("x_adv:")},
            name: ids,
        }
        device = next((part.device for part in self.victim.parameters()), ids.device)
        bare = Victim(self.victim.model, plain, output=self.victim.output)
        with untouched(bare), torch.no_grad():
            scores = [
                bare(**{key: part[place].to(device) for key, part in inputs.items()}).cpu()
                for place in torch.split(torch.arange(len(ids), dtype=torch.int64, device="cpu"), 256)
            ]
        found = torch.cat(scores)
        answer = found.argmax(1) if found.ndim > 1 and found.shape[1] > 1 else (found.reshape(-1) > 0).long()
        return fits & (answer == points["answer_adv"])

    def _beside(self, name: str, points: Mapping[str, Tensor], row: int) -> str:
        """The inputs that the point changes."""
        changed = [
            key.removeprefix("x_adv:")
            for key, part in points.items()
            if key.startswith("x_adv:")
            and key != f"x_adv:{name}"
            and not torch.equal(part[row], points[f"x:{key[6:]}"][row])
        ]
        return ", ".join([name, *changed])


def _none() -> Counter[tuple[int, int]]:
    return Counter()


def _crossing(table: Crossover, result: Result) -> list[Section]:
    """Attack on A, on B, on both: the decision; and where branches are named, what moved inside."""
    used = {row.attack for row in table.rows}
    known = [f"{name} is {spec}" for name, spec in RECIPES.items() if name in used and name != spec]
    text = (
        "Each attack changes the inputs it names and leaves the others as they are. Fooled counts examples that were "
        "right untouched, with the 95 % Wilson interval. Margin lost: by how much the score of the right answer fell "
        "against the best other one, the median over the examples right untouched; an attack stops at the first point "
        "that fools, so more would be possible. 'random' looks at no gradient: what it fools, noise fools.",
        *([f"Recipes: {'; '.join(known)}. Of several steps the best point counts."] if known else []),
    )
    decision = Section("Cross-over", text, table.header[:FIXED], _cut(table, 0, FIXED), _chart(table, result))
    if not any(row.moves for row in table.rows):
        return [decision]
    inside = (
        "How far the outputs of the model's parts moved: relative length of the change, in brackets its cosine "
        "distance; medians over the examples right untouched. A branch whose input is left alone must read 0.",
    )
    header = (*table.header[:2], *table.header[FIXED:])
    return [decision, Section("Inside the model", inside, header, _cut(table, 0, 2, FIXED))]


def _cut(table: Crossover, start: int, stop: int, again: int | None = None) -> tuple[tuple[str, ...], ...]:
    """Columns ``start`` to ``stop`` of the table, and those from ``again`` on."""
    return tuple((*row[start:stop], *(() if again is None else row[again:])) for row in table.cells)


def _chart(table: Crossover, result: Result) -> Chart | None:
    """Accuracy under attack, a group of bars for each choice of inputs, beside the untouched accuracy."""
    groups = tuple(dict.fromkeys(row.inputs for row in table.rows))
    attacks = tuple(dict.fromkeys(row.attack for row in table.rows))
    shares = {(row.attack, row.inputs): row.accuracy for row in table.rows}
    if all(share is None for share in shares.values()):
        return None
    lines = tuple(
        Line(
            attack,
            tuple(map(float, range(len(groups)))),
            tuple(_percent(shares.get((attack, group))) for group in groups),
        )
        for attack in attacks
    )
    return Chart(
        "bars",
        "Accuracy under attack on each input and on all",
        f"Untouched {result.clean_accuracy:.1%} of {result.examples} examples are right. "
        + "; ".join(
            f"{row.attack} on {row.inputs} {row.accuracy:.1%}" for row in table.rows if row.accuracy is not None
        ),
        "attacked inputs",
        "right, % of all examples",
        lines,
        groups,
        (("untouched", 100 * result.clean_accuracy),),
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
