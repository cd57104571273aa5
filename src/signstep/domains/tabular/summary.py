"""What an audit of a table means to those whose records these are: flips by group, cheapest flips, slips, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from signstep.auditing.parts import spread
from signstep.auditing.result import Result
from signstep.auditing.sections import Chart, Line, Section, marked
from signstep.domains.tabular.beam import Effort
from signstep.domains.tabular.decide import Decider
from signstep.domains.tabular.directions import moves_of
from signstep.domains.tabular.encode import Layout
from signstep.domains.tabular.entry_errors import EntryErrors, entry_error_words, find_entry_errors
from signstep.domains.tabular.groups import Flips, apart, flips_by_group
from signstep.domains.tabular.reach import Set
from signstep.domains.tabular.records import Records
from signstep.domains.tabular.schema import Schema
from signstep.domains.tabular.sentences import change_cells, decision_words
from signstep.domains.tabular.smallest import Cheapest, cheapest_flips
from signstep.engine.statistics import quantile, wilson
from signstep.model.declaration import Callee

_SHOWN = 12
_POINTS = 40


@dataclass(frozen=True, eq=False)
class Teller:
    """Tells what was found.

    Attributes:
        schema: of the records.
        records: all records in the order of the stream.
        model: of wide rows.
        gradients: whether gradients pass through it.
        most: so many records at most are asked about their cheapest flip and their slips.
    """

    schema: Schema
    records: Records
    model: Callee
    gradients: bool
    most: int

    def __call__(self, result: Result, points: Mapping[str, Tensor]) -> tuple[Section, ...]:
        """The sections of the report."""
        layout = Layout(self.schema)
        first, step = spread(result.terms.get("shard"))
        index = np.arange(first, len(self.records), step)[: result.examples]
        decider = Decider(self.model, layout)
        decoded = torch.from_numpy(self.records.values[index])
        _, granted = decider(decoded)
        groups = {name: [members[row] for row in index] for name, members in self.records.groups.items()}
        flips = flips_by_group(result.worst_case, granted.tolist(), groups)
        chosen = decoded[: self.most]
        names = [self.records.names[row] for row in index[: self.most]]
        moves = moves_of(layout)
        began = decider.forwards
        cheapest = cheapest_flips(decider, moves, chosen, Effort(gradients=self.gradients))
        asked = decider.forwards
        slips = find_entry_errors(decider, Set.around(layout, moves, chosen, None))
        spent = (asked - began) / len(chosen), (decider.forwards - asked) / len(chosen)
        cheap = self._cheapest(cheapest, chosen, names, len(decoded), spent[0])
        slipped = self._slips(slips, chosen, cheapest.granted, names, spent[1])
        touched = self._touched(points, layout)
        one = self._one(points, layout, index)
        told = (one, self._brittle(flips, result), touched, cheap, slipped)
        return tuple(part for part in told if part is not None)

    def _one(self, points: Mapping[str, Tensor], layout: Layout, index: np.ndarray) -> Section | None:
        """The first record that was turned, feature by feature."""
        if "x" not in points or not len(points["x"]):
            return None
        place = int(points["row"].argmin())
        before, after = (layout.narrow(points[name][place : place + 1].double())[0] for name in ("x", "x_adv"))
        good = self.schema.target.good
        said = [self._said(granted=int(points[name][place]) == good) for name in ("answer", "answer_adv")]
        rows = tuple((name, marked(change)) for name, change in change_cells(self.schema, before, after))
        text = (
            f"{self.records.names[index[int(points['row'][place])]]}, the first that fell: {marked(' → '.join(said))}.",
            f"{len(self.schema.features) - len(rows)} features stay as they are.",
        )
        return Section("One record, before and after", text, ("feature", "before → after"), rows)

    def _said(self, *, granted: bool) -> str:
        return self.schema.target.granted if granted else self.schema.target.denied

    def _brittle(self, flips: Sequence[Flips], result: Result) -> Section:
        both = [one for one in flips if one.group == "all"]
        text = [
            f"Of {one.of} records rightly {self._said(granted=one.granted)}, {one.flipped} were turned within the "
            f"budgets: {one.share()} (95 % Wilson interval, per cent)."
            for one in both
            if one.of
        ]
        for first, second in apart(flips):
            text.append(
                f"{self._said(granted=first.granted)}: {first.group} {first.share()} and {second.group} "
                f"{second.share()} differ by more than sampling explains (the intervals do not overlap)."
            )
        text.append("Shares are lower bounds: a stronger attack can only turn more.")
        if result.partial:
            text.append("The audit was interrupted: shares are of the records seen until then.")
        rows = tuple(
            (one.group, self._said(granted=one.granted), str(one.of), str(one.flipped), one.share()) for one in flips
        )
        return Section(
            "How brittle the decisions are", tuple(text), ("group", "rightly", "records", "turned", "share, 95 %"), rows
        )

    def _touched(self, points: Mapping[str, Tensor], layout: Layout) -> Section | None:
        """Which features the points that fooled had changed."""
        if "x" not in points or not len(points["x"]):
            return None
        before, after = layout.narrow(points["x"].double()), layout.narrow(points["x_adv"].double())
        moved = (before != after).double()
        count = moved.sum(0)
        order = count.argsort(descending=True, stable=True).tolist()
        rows = tuple(
            (self.schema.features[number].called, f"{int(count[number])}", f"{count[number] / len(moved):.0%}")
            for number in order[:_SHOWN]
            if count[number]
        )
        text = (
            f"{len(moved)} records were turned; in each, {moved.sum(1).median():g} features differ (median). Attacks "
            "within budgets change whatever is free, so this tells what was touched, not what was needed.",
        )
        return Section("What the attacks changed", text, ("feature", "records", "share"), rows)

    def _cheapest(self, found: Cheapest, records: Tensor, names: Sequence[str], total: int, spent: float) -> Section:
        text = [] if len(records) == total else [f"Asked about the first {len(records)} of {total} records."]
        for kind in (False, True):
            costs = [float(cost) for cost, was in zip(found.cost, found.granted, strict=True) if bool(was) == kind]
            if not costs:
                continue
            middle = quantile(costs, 0.5)
            reached = sum(cost != float("inf") for cost in costs)
            half = "no flip for half of them" if middle in (None, float("inf")) else f"median cost {middle:.3g}"
            text.append(f"{self._said(granted=kind)}: a flip was found for {reached} of {len(costs)} records, {half}.")
        once = Counter(
            self.schema.features[number].called
            for row in found.found.nonzero().squeeze(1).tolist()
            for number in (found.records[row] != records[row]).nonzero().squeeze(1).tolist()
        )
        if once:
            text.append(
                "Most often part of a cheapest flip: " + ", ".join(f"{n} ({c})" for n, c in once.most_common(5))
            )
        text.append(
            "Budgets do not limit these changes; bounds, directions, fixed features and relations do. Every one was "
            f"put to the model: {spent:.0f} questions for each record."
        )
        text += _searched(found)
        if found.ended is not None:
            text.append(f"The search ended early: {found.ended}.")
        shown = [row for row in range(len(records)) if not found.granted[row]][:_SHOWN]
        shown += [row for row in range(len(records)) if found.granted[row]][: max(0, _SHOWN - len(shown)) or 3]
        rows = tuple(
            (
                names[row],
                self._said(granted=bool(found.granted[row])),
                self._flip_words(found, records, row),
                f"{float(found.cost[row]):.3g}" if bool(found.found[row]) else "-",
            )
            for row in shown
        )
        return Section(
            "The smallest change that turns the decision",
            tuple(text),
            ("record", "decision", "would be", "cost"),
            rows,
            self._chart(found),
        )

    def _flip_words(self, found: Cheapest, records: Tensor, row: int) -> str:
        if not bool(found.found[row]):
            return (
                "no change that is allowed turns it"
                if bool(found.whole[row])
                else "no change that is allowed was found"
            )
        said = decision_words(self.schema, records[row], found.records[row], granted=bool(found.granted[row]))
        if bool(found.whole[row]):
            return f"{said}; nothing does it for less"
        several = int((found.records[row] != records[row]).sum()) > 1
        return f"{said}; no single feature does it for less" if several and bool(found.alone[row]) else said

    def _chart(self, found: Cheapest) -> Chart | None:
        finite = found.cost[found.found]
        if len(finite) < 2:
            return None
        top = float(finite.quantile(0.95)) or 1.0
        levels = [top * place / _POINTS for place in range(_POINTS + 1)]
        lines = []
        for kind in (True, False):
            costs = found.cost[found.granted == kind]
            if len(costs):
                shares = tuple(100 * float((costs <= level).double().mean()) for level in levels)
                lines.append(Line(self._said(granted=kind), tuple(levels), shares))
        return Chart(
            "lines",
            "How much it takes to turn a decision",
            "The share of decisions that turn at a given cost or less, for each decision; a line that rises early "
            "means brittle decisions. Without a cost in the schema 1 is a standard deviation, a level or a category.",
            "cost of the change",
            "share of decisions that turn, %",
            tuple(lines),
        )

    def _slips(
        self, slips: EntryErrors, records: Tensor, granted: Tensor, names: Sequence[str], spent: float
    ) -> Section:
        rows_hit = {slip.row for slip in slips.turning}
        low, high = wilson(len(rows_hit), len(records))
        text = [
            f"{len(rows_hit)} of {len(records)} decisions ({len(rows_hit) / len(records):.0%}, 95 % interval "
            f"{100 * low:.0f} to {100 * high:.0f} %) would turn if one field were entered wrongly. Of "
            f"{sum(slips.tried)} such slips {len(slips.turning)} turn the decision.",
            f"Slips: a digit mistyped, left out or doubled, two digits exchanged, times or divided by ten, a sign left "
            f"out, another category. Those beyond a feature's bounds or against a relation count as refused by the "
            f"form. All were asked for: {spent:.0f} questions for each record.",
        ]
        fields = Counter(slip.feature for slip in {(slip.row, slip.feature): slip for slip in slips.turning}.values())
        if fields:
            named = [f"{self.schema.features[number].called} ({count})" for number, count in fields.most_common(5)]
            text.append(f"Fields whose slips turn most decisions: {', '.join(named)}.")
        table = []
        for row in sorted(rows_hit)[:_SHOWN]:
            slip = slips.smallest(row)
            assert slip is not None
            feature = self.schema.features[slip.feature]
            after = self._said(granted=not bool(granted[row]))
            was = self._said(granted=bool(granted[row]))
            told = entry_error_words(feature, float(records[row, slip.feature]), slip)
            table.append((names[row], was, f"{after} with {told}"))
        return Section("One wrong entry", tuple(text), ("record", "decision", "would be"), tuple(table))


def _searched(found: Cheapest) -> list[str]:
    """What of the cheaper changes is known not to turn the decision."""
    count, alone, whole = len(found.cost), int(found.alone.sum()), int(found.whole.sum())
    text = []
    if whole:
        text.append(f"For {whole} of {count} records all cheaper records were asked for: nothing does it for less.")
    if alone > whole:
        text.append(
            f"For {alone} of {count} records every feature was searched through alone, by every value or every point "
            "at which the model's answer can change: no single feature does it for less. That no change of several "
            "does is not shown."
        )
    if alone < count:
        text.append(
            f"For {count - alone} of {count} records some features were asked for alone at part of their values: that "
            "none of them does it for less is not shown."
        )
    return text
