"""What `signstep explain` prints: formula, worked example, pitfalls, sources; the examples are computed, not quoted."""

import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch

from signstep.api import fgsm
from signstep.attacks.recipe import Recipe, defaults_of, options_of
from signstep.attacks.recipes import RECIPES, canonical
from signstep.auditing.findings import CATALOGUE, FINDINGS, Rule
from signstep.auditing.ladder import LADDERS, Ladder, ladder
from signstep.diagnosing.battery import TESTS
from signstep.diagnosing.test import Test
from signstep.diagnosing.view import View
from signstep.diagnosing.views import VIEWS
from signstep.domains import DOMAINS
from signstep.engine.norms import NORMS
from signstep.errors import InputError, LoadError
from signstep.importing import is_spec
from signstep.model.declaration import Model


@dataclass(frozen=True)
class Topic:
    """One entry: what it is, what each option does and the pitfalls, kept as a text file beside the attack."""

    formula: str
    options: dict[str, str]
    pitfalls: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Topic":
        """The text above the lines "Options" and "Pitfalls", and the items of the lists below them."""
        above, _, pitfalls = text.partition("\nPitfalls\n")
        formula, _, options = above.partition("\nOptions\n")
        named = (item.partition(": ") for item in _items(options))
        return cls(formula.strip("\n"), {name: told for name, _, told in named}, _items(pitfalls))


def _items(text: str) -> tuple[str, ...]:
    """The items of a list, each on one line."""
    items = [" ".join(item.split()) for item in ("\n" + text).split("\n- ")]
    return tuple(item for item in items if item)


def topic_of(name: str) -> Topic | None:
    """The page of a recipe, read when it is asked for; None where there is none.

    It lies in the package of the function that makes the attack, as NAME.txt, or FUNCTION.txt by that function's name.
    """
    row = RECIPES.get(name)
    module = sys.modules.get(getattr(row.build, "__module__", "")) if row is not None else None
    if row is None or module is None:
        return None
    package = module.__name__ if hasattr(module, "__path__") else module.__package__
    folder = files(package) if package else Path(module.__file__ or "").parent
    for file in (f"{name.rpartition(':')[2]}.txt", f"{getattr(row.build, '__name__', '')}.txt"):
        page = folder.joinpath(file)
        try:
            if page.is_file():
                return Topic.read(page.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"the page {page} of recipe {name} cannot be read ({error})", remedy="mend it") from error
    return None


def explain(name: str) -> str:
    """The text for a recipe, a ladder, a finding, a test of `diagnose` or one of its views.

    Raises:
        InputError: nothing is known under that name.
    """
    if (found := FINDINGS.get(name.upper())) is not None:
        return _finding(found.rule)
    if name.lower().partition("@")[0] in {preset.partition("@")[0] for preset in LADDERS}:
        return _ladder(ladder(name))
    if (test := TESTS.get(name.lower())) is not None:
        return _of_test(test)
    if (view := VIEWS.get(name.lower())) is not None:
        return _of_view(view)
    owner = next((one for one in DOMAINS.values() if name.lower() in one.recipes), None)
    if owner is not None:
        return _of_domain(owner.rows[name.lower()], owner.name)
    name = canonical(name)
    if name not in RECIPES and not is_spec(name):
        raise InputError(
            f"nothing is known about {name!r}",
            remedy=f"topics are {', '.join(RECIPES)}, the ladders {', '.join(LADDERS)} "
            f"the tests of diagnose {', '.join(TESTS.own)}, its views {', '.join(VIEWS.own)} "
            f"and the findings {', '.join(CATALOGUE)}",
        )
    row = RECIPES.find(name)
    topic = topic_of(name)
    lines = [f"{row.name}: {row.title}", ""]
    if topic is None:
        topic = Topic("(a recipe of your own without a page; put NAME.txt beside its function)", {}, ())
    lines += [textwrap.indent(topic.formula, "    "), ""]
    lines += _told(row, topic)
    if name in _EXAMPLES:
        lines += [_EXAMPLES[name](), ""]
    lines += ["Pitfalls"] if topic.pitfalls else []
    lines += [textwrap.fill(text, 96, initial_indent="  - ", subsequent_indent="    ") for text in topic.pitfalls]
    lines += [""] if topic.pitfalls else []
    lines += [f"Knowledge  {row.knowledge}", f"Cost       {row.cost} for each example and restart"]
    lines += [f"Source     {row.source}"]
    return "\n".join(lines)


def _told(row: Recipe, topic: Topic) -> list[str]:
    """What each option does, with its default."""
    defaults = defaults_of(row)
    if not defaults:
        return ["Options    none", ""]
    lines, wide = ["Options"], max(map(len, defaults)) + 2
    for name, default in defaults.items():
        told = topic.options.get(name, "not described")
        told = told if default is None else f"{told} ({default})"
        lines += textwrap.wrap(told, 96, initial_indent=f"  {name:<{wide}}", subsequent_indent=" " * (wide + 2))
    return [*lines, ""]


def _of_domain(row: Recipe, domain: str) -> str:
    lines = [
        f"{row.name}: {row.title}",
        "",
        f"For --domain {domain} alone: signstep audit --domain {domain} --attack {row.name}",
        "",
    ]
    lines += [f"Knowledge  {row.knowledge}", f"Cost       {row.cost} for each example"]
    return "\n".join([*lines, f"Options    {', '.join(options_of(row)) or 'none'}", f"Source     {row.source}"])


def _of_view(view: View) -> str:
    lines = [f"{view.id}: {view.question}", "", *_page(view.id, view.run)]
    lines += [f"Shown with  signstep diagnose --show {view.id}, or signstep audit --diagnose --show {view.id}"]
    for word, text in {"Cost": view.cost, "Source": view.paper}.items():
        lines += textwrap.wrap(text, 85, initial_indent=f"{word:<12}", subsequent_indent=" " * 12)
    return "\n".join(lines)


def _page(name: str, run: Callable[..., object]) -> list[str]:
    """The page NAME.txt beside the function: its formula, how to read it, pitfalls; nothing where there is none."""
    lines: list[str] = []
    package = sys.modules[run.__module__].__package__
    page = files(package).joinpath(f"{name}.txt") if package else Path()
    if page.is_file():
        formula, _, rest = page.read_text(encoding="utf-8").partition("\nHow to read it\n")
        lines += [textwrap.indent(formula.strip("\n"), "    "), ""]
        reading, _, pitfalls = rest.partition("\nPitfalls\n")
        for title, items in (("How to read it", _items(reading)), ("Pitfalls", _items(pitfalls))):
            lines += [title] if items else []
            lines += [textwrap.fill(text, 96, initial_indent="  - ", subsequent_indent="    ") for text in items]
            lines += [""] if items else []
    return lines


def _of_test(test: Test) -> str:
    lines = [f"{test.id}: {test.question}", "", *_page(test.id, test.run)]
    told = {
        "Measured": test.statistic,
        "Fires": test.threshold,
        "Causes": ", ".join(test.causes),
        "Cures": test.cures,
        "Cost": test.cost,
        "Source": test.paper,
    }
    for word, text in told.items():
        lines += textwrap.wrap(text, 85, initial_indent=f"{word:<11}", subsequent_indent=" " * 11)
    return "\n".join(lines)


def _ladder(preset: Ladder) -> str:
    lines = [f"{preset.name}: {preset.about}", "", "Rungs, each for the examples that are still standing"]
    lines += [f"  {number}. {rung}" for number, rung in enumerate(preset.rungs, 1)]
    lines += ["", *(textwrap.wrap(_RULE, 96))]
    return "\n".join(lines)


_RULE = (
    "A rung with near<=R is for examples whose best margin so far is at most R times their margin untouched; "
    "start=best goes on from the best point found. Every decision about an example depends on that example alone. The "
    "meaning of a preset never changes under its name. Whatever it leaves standing is an upper bound: no attack proves "
    "robustness."
)


def _finding(rule: Rule) -> str:
    parts = [("Meaning", rule.meaning), ("Remedy", rule.remedy)]
    lines = [f"{rule.code}: {rule.title}"]
    for title, text in parts:
        lines += ["", title, textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="  ")]
    lines += ["", f'Set it aside with a reason:  [audit.ignore]  {rule.code} = "why"  in signstep.toml']
    return "\n".join(lines)


def _fgsm_example() -> str:
    gradient = torch.tensor([[3.0, -0.1, 0.0, -2.0]], dtype=torch.float32, device="cpu")
    x = torch.tensor([[0.2, 0.5, 0.7, 0.9]], dtype=torch.float32, device="cpu")
    stepped = fgsm(
        Model(lambda u: -(u * gradient).sum(1, keepdim=True), outputs="logits"),
        x,
        torch.ones(1, dtype=torch.float32, device="cpu"),
        eps=0.05,
    )
    g, radius = (
        torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float32, device="cpu"),
        torch.tensor([0.1], dtype=torch.float32, device="cpu"),
    )
    lines = [
        "Worked examples (computed now)",
        f"  x = {_row(x)}, gradient = {_row(gradient)}, eps = 0.05, box [0, 1]",
        f"  FGSM gives {_row(stepped)}: a zero gradient coordinate does not move.",
        "",
        "  The same question in other norms: maximise g.d for g = (2, -1, 0.5), length of d at most 0.1",
    ]
    for name in ("linf", "l2", "l1"):
        step = NORMS[name].steepest(g, radius)
        lines.append(f"  {name:<4}  d = {_row(step, 4)}  gain {float((g * step).sum()):.4f}")
    w, b, point, eps = (
        torch.tensor([[1.5, -2.0, 0.5]], dtype=torch.float32, device="cpu"),
        0.2,
        torch.tensor([[0.3, 0.1, 0.6]], dtype=torch.float32, device="cpu"),
        0.1,
    )
    adversarial = fgsm(
        Model(lambda u: u @ w.T + b, outputs="logits"),
        point,
        torch.ones(1, dtype=torch.float32, device="cpu"),
        eps=eps,
        box=None,
    )
    attained = torch.nn.functional.softplus(-(adversarial @ w.T + b)).item()
    closed = torch.nn.functional.softplus(eps * w.abs().sum() - (point @ w.T + b)).item()
    lines += [
        "",
        "  Logistic regression has the worst loss in closed form, softplus(eps*|w|_1 - y*(w.x + b)):",
        f"  closed form {closed:.6f}, attained by FGSM {attained:.6f}",
    ]
    return "\n".join(lines)


def _row(values: torch.Tensor, digits: int = 3) -> str:
    return "(" + ", ".join(f"{value:.{digits}g}" for value in values.flatten().tolist()) + ")"


# Computed when they are shown, not quoted.
_EXAMPLES: dict[str, Callable[[], str]] = {"fgsm": _fgsm_example}
