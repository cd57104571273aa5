"""Whether the attacks that a record names are attacks of this version, and spent what their plans let them spend."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from signstep.attacks.recipes import RECIPES, canonical, recipe, split
from signstep.auditing.checks import Book, Check
from signstep.auditing.counterexamples import ExactSearch, without_search
from signstep.auditing.ladder import LADDERS, Rung
from signstep.auditing.record import EXACT_SEARCH, NOT_RUN, AttackResult
from signstep.auditing.result import Result
from signstep.auditing.run import rung_names
from signstep.auditing.tally import Facts
from signstep.certify.methods import OPEN
from signstep.engine.eot import Eot
from signstep.engine.oracles import Autograd
from signstep.engine.passes import Setting
from signstep.errors import InputError
from signstep.importing import is_spec
from signstep.registry import typed_only

_AGAIN = re.compile(r" #\d+$")


def ladder(result: Result) -> Check:
    """Whether a preset's name stands over that preset's rungs."""
    names = without_search(result.attacks)
    if result.ladder == "":
        return Check("ladder", True, "none: every attack was run on all examples")
    if result.ladder == "custom":
        return Check("ladder", True, f"{len(names)} rungs of one's own")
    known = LADDERS.get(result.ladder)
    if known is None:
        return Check("ladder", False, f"{result.ladder} is no preset of this version")
    same = names == rung_names(known.rungs)
    return Check("ladder", same, f"the rungs are {'' if same else 'not '}those of {result.ladder}")


def passes(result: Result, own: Mapping[str, Any] | None = None, there: Sequence[int] | None = None) -> Check:
    """Whether each example spent on each attack what the attack's plan allows.

    An example that fell may have spent less than the whole plan, one that held may not; and an attack's steps, needs
    and source are those of the recipe it is called by.

    Args:
        result: a record whose columns are consistent (`recount`).
        own: attack objects by name, for attacks that are no recipes.
        there: of each example, the classes beside its own that the model has for it (a logit of minus infinity is an
            absent class), where the model was asked. Attacks that are led to classes leave absent ones out.
    """
    book, unknown = Book(), []
    if result.examples == 0 or any(
        len(table.get(entry.name, ())) != result.examples
        for entry in result.attacks
        for table in (result.per_example.verdicts, result.per_example.passes)
    ):
        return Check("passes", False, "there is not one number for each example and attack")
    for entry in result.attacks:
        if own is None and "domain" in result.terms and not _is_recipe(entry.name):
            unknown.append(entry.name)
            continue
        attack = ExactSearch() if entry.name == EXACT_SEARCH else (own or {}).get(entry.name)
        if attack is None and (foreign := _foreign(entry.name)) is not None:
            unknown.append(f"{entry.name}, whose {foreign} is somebody's own (pass it with --attack, if you trust it)")
            continue
        attack = attack or _recipe(entry.name, result, book)
        if attack is None:
            continue
        facts = Facts.of(attack)
        for word, stated, known in (
            ("steps", entry.steps, facts.steps),
            ("needs", entry.needs, facts.needs),
            ("source", entry.source, facts.source),
        ):
            book.need(stated == known, f"{entry.name}: {word} {stated!r}, the recipe's are {known!r}")
        if _left_out(result, entry) and not _undefined(attack, result):
            unknown.append(f"{entry.name} (not run, by the record's own word)")
            continue
        past = "defences" in result.terms  # several ways, of which one may be enough
        if past or not hasattr(attack, "passes") or result.terms.get("gradients_from") != "the model":
            unknown.append(entry.name)
            continue
        if not _spent(result, entry, attack, there, book):
            unknown.append(f"{entry.name} with classes that may be absent, which the model alone can tell")
    if unknown and not book.wrong:
        return Check("passes", True, f"no plan is known of {', '.join(unknown)}", complete=False)
    return book.check("passes", "each example spent what the plans of the attacks allow")


def _left_out(result: Result, entry: AttackResult) -> bool:
    """Whether a rung was run on nobody, though examples were standing that it was meant for."""
    if not result.ladder or entry.entered or " near<=" in entry.name:
        return False
    before = [part.name for part in result.attacks]
    columns = [result.per_example.verdicts[name] for name in before[: before.index(entry.name)]]
    return any(
        clean == "r" and spared == OPEN and all(column[row] != "f" for column in columns)
        for row, (clean, spared) in enumerate(zip(result.per_example.clean, result.spared, strict=True))
    )


def _undefined(attack: Any, result: Result) -> bool:
    """Whether a recipe says in its table that it is for other norms."""
    row = RECIPES.get(attack.name)
    return row is not None and bool(row.norms) and result.terms.get("norm") not in row.norms


def _is_recipe(name: str) -> bool:
    return _base(name) in RECIPES and " on " not in name


def _base(name: str) -> str:
    """What a record calls an attack, without options, the rule of a rung and the number of a repetition."""
    return split(canonical(name.partition(" ")[0]))[0]


def _foreign(name: str) -> str | None:
    """The "module:name" of an attack that nobody has typed here: a record's word imports nothing."""
    base = _base(name)
    with typed_only():
        return base if is_spec(base) and base not in RECIPES else None


def _recipe(name: str, result: Result, book: Book) -> Any:
    """The attack that a name stands for."""
    try:
        rung = Rung.of(_AGAIN.sub("", name))
        assert isinstance(rung.recipe, str)
        if canonical(rung.recipe) != rung.recipe:
            raise InputError("it is written otherwise", remedy=f"write {canonical(rung.recipe)}")
        eot = result.terms.get("eot")
        oracle = Eot(eot, inner=Autograd()) if isinstance(eot, int) and eot > 1 else None
        with typed_only():
            return recipe(rung.recipe, oracle=oracle)
    except InputError as error:
        book.wrong.append(f"{name} is no recipe of this version ({error})")
        return None


def _setting(result: Result) -> Setting:
    terms = result.terms
    classes = terms.get("classes")
    led = terms.get("task") == "multiclass" and terms.get("goal") == "untargeted"
    led = led and terms.get("outputs_form") != "labels" and isinstance(classes, int)
    return Setting(classes - 1 if led else 0, bool(terms.get("random_model")), terms.get("engine") == "exact")  # type: ignore[operator]


def _spent(result: Result, entry: AttackResult, attack: Any, there: Sequence[int] | None, book: Book) -> bool:
    """Note what no plan allows; whether all could be said."""
    examples, name, setting = result.per_example, entry.name, _setting(result)
    whole_plan = attack.passes(setting)
    fewest = attack.passes(setting._replace(there=0))
    counts: Sequence[int | None] = [None] * result.examples if there is None else there
    plans = [attack.passes(setting._replace(there=count)) for count in counts]
    certain = True
    # Of an audit that ended early, what is undetermined may have been cut short; what held never was.
    whole = "h" if result.partial else "hu"
    columns = zip(examples.verdicts[name], examples.passes[name], plans, strict=True)
    for row, (letter, spent, plan) in enumerate(columns):
        if letter == NOT_RUN:
            continue
        least = plan.whole if letter in whole else plan.first if letter == "f" else 1
        if there is None and fewest.whole <= spent < least:
            certain = False
        elif not least <= spent <= plan.most:
            what = {"f": "fell", "h": "held", "u": "is undetermined"}[letter]
            book.wrong.append(f"{name}: example {row} {what} after {spent} passes, the plan has {least} to {plan.most}")
    verdicts = examples.verdicts[name]
    for word, stated, per in (
        ("backward passes", round(entry.backwards * result.examples), [plan.backwards for plan in plans]),
        ("gradients", entry.gradients, [plan.gradients for plan in plans]),
    ):
        known = [each for each in per if each is not None]
        if len(known) < len(per):
            continue
        stayed = sum(each for each, letter in zip(known, verdicts, strict=True) if letter in "hu")
        entered = sum(each for each, letter in zip(known, verdicts, strict=True) if letter != NOT_RUN)
        least, most = (0 if result.partial or not certain else stayed), entered
        book.need(least <= stated <= most, f"{name}: {stated} {word}, the plan has {least} to {most}")
    looks = whole_plan.gradients is None or whole_plan.gradients > 0
    if not result.partial:
        book.need(
            (entry.gradients > 0) == (entry.steps > 0 and looks and entry.entered > 0),
            f"{name}: {entry.gradients} gradients were looked at in {entry.steps} steps",
        )
    return certain
