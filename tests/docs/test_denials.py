"""What the pages deny is not there: each "not here" and "not yet" is compared with the tables of what is.

A denial that has gone stale costs a reader more than a missing sentence: who reads that an attack is not here does not
look for it. And what is rightly denied stands in `ABSENT`, which fails on the day that it is built.
"""

import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import signstep as ss
from signstep.attacks.recipes import _ALIASES
from signstep.auditing.ladder import LADDERS
from signstep.cli.app import app
from signstep.domains import DOMAINS
from signstep.engine.norms import NORMS
from signstep.engine.tasks import TASKS, TaskName
from signstep.train.recipes import TRAINING_RECIPES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def tables() -> dict[str, set[str]]:
    """Everything that has a name, by the table it stands in."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = {str(row.name or getattr(row.callback, "__name__", "")) for row in app.registered_commands}
    return {
        "recipes": {*ss.RECIPES, *_ALIASES},
        "training recipes": set(TRAINING_RECIPES),
        "ladders": {name.partition("@")[0] for name in LADDERS},
        "norms": set(NORMS),
        "tasks": {*TASKS, *TaskName.__args__},  # type: ignore[attr-defined]
        "domains": set(DOMAINS),
        "commands": commands,
        "public names": {*ss.__all__, *(name for name in dir(ss.transforms) if name[0].isupper())},
        "options of attack": {
            *inspect.signature(ss.attack).parameters,
            *(part.name for shared in (ss.Model, ss.Search, ss.Run) for part in fields(shared)),
        },
        "extras": set(project["optional-dependencies"]),
    }


# Words by which people speak of things that stand in the tables under another name.
MEANT = {
    r"carlini|\bc&w\b": ("recipes", "cw"),
    r"gradient-free|query-only|query attacks?|black-box|score-based": ("recipes", "square"),
    r"decision-based|boundary attacks? by labels": ("recipes", "hop-skip-jump"),
    r"smallest change|minimum-norm|minimal perturbation": ("recipes", "fmn"),
    r"\btraining\b": ("commands", "train"),
    r"certif|\bprovabl|interval bounds": ("public names", "certified"),
    r"\bpatch(?:es)?\b": ("public names", "patch"),
    r"\buniversal\b|one change for all": ("public names", "universal"),
    r"averag\w+ (?:over|of) (?:the|their|its) (?:randomness|draws)|\beot\b|expectation over": (
        "options of attack",
        "eot",
    ),
    r"cannot be differentiated|non-differentiable|\bbpda\b": ("public names", "bpda"),
    r"transfer attack|surrogate": ("options of attack", "surrogate"),
    r"tabular|records of tables|credit": ("domains", "tabular"),
    r"time series|sensors?\b|controllers?\b": ("domains", "control"),
    r"\batom|crystal|molecul|potentials?\b": ("domains", "atoms"),
    r"\btext\b|captions?\b|multimodal|several inputs": ("domains", "multimodal"),
    r"\bmulti-?label": ("tasks", "multilabel"),
    r"\bsegment": ("tasks", "segmentation"),
    r"\bregress": ("tasks", "regression"),
    r"\bshards?\b|sharding": ("commands", "merge"),
    r"\bdetectors?\b": ("commands", "detect"),
}

# Names that are words of the language too: they count where they are written as code.
ORDINARY = set(
    re.findall(
        r"\w+",
        """
    free noise natural square attack audit merge list explain verify compare train transfer schema report recipe
    universal patch control atoms tables images docs dev physical datasets certified quick standard thorough binary auto
    outcome result blur clip compose contrast brightness custom objective model loss seed mode mean std output outputs
    inputs budget target task threat engine transform transforms x y ids maximum grouped affine perspective maximise
    network name data run search curve section device evidence progress placement fit verification open
    shape notes policy ways executor out resume unit
        """,
    )
)

# Clauses that read like a denial and speak of something else, with what they speak of.
OF_OTHERS = {
    "One-logit and multilabel models are not supported": "what other tools do",
    "was not yet measured": "a figure of the reader's own",
    "A shard that is missing": "an error in what was passed",
}


class Absent(NamedTuple):
    """Something that is rightly denied: how pages say it, and how its name in a table would look."""

    said: str
    named: str
    why: str


ABSENT = (
    Absent(r"boundary attack of 2017", r"^boundary", "Brendel, Rauber & Bethge 2018; HopSkipJump is its successor"),
    Absent(r"poisoning", r"poison|backdoor", "attacks on training data"),
    Absent(r"extraction of models", r"extract|steal", "copying a model by queries"),
    Absent(r"\baudio\b", r"audio|speech", "a domain"),
    Absent(r"\bvideo\b", r"video", "a domain"),
    Absent(r"other frameworks", r"^(?:tensorflow|jax|keras)$", "models of TensorFlow or JAX as white boxes"),
    Absent(r"a general p\b", r"^lp$", "norms between those in the table"),
    Absent(r"embeddings", r"embed", "an attacked variable that is not the input"),
    Absent(r"changes of variables", r"reparam", "for any recipe; Carlini-Wagner has its own"),
)

_DENIES = re.compile(
    r"\bnot (?:here|there|built|handled|offered|supported|implemented|included|available)\b"
    r"|\b(?:not?|none|nothing|never|cannot)\b[^.;]*\byet\b|\byet to\b"
    r"|\b(?:does|do) not exist\b|\b(?:is|are) missing\b|\bnone of (?:this|these)\b|\blacks?\b|\bto come\b"
    r"|\b(?:has|have|is|are|offers?) no [\w-]+ (?:attack|recipe|norm|domain|command|certificate)s?\b",
    re.IGNORECASE,
)
# A heading or a sentence that ends in a colon may deny all that stands below it.
_DENIES_BELOW = re.compile(r"\bnot (?:there|here)\b|\bnot yet\b|\bcomes later\b|\bnone of this\b", re.IGNORECASE)
_SAYS_NO = re.compile(r"\b(?:no|not|none|nothing|neither|without)\b", re.IGNORECASE)


class Denial(NamedTuple):
    """A clause that denies something, where it stands."""

    page: str
    line: int
    text: str


def denials(page: Path) -> list[Denial]:
    name, found, below = str(page.relative_to(ROOT)), [], False
    for line, kind, text in _blocks(page.read_text(encoding="utf-8")):
        if kind == "heading":
            below = bool(_DENIES_BELOW.search(text))
            continue
        for offset, clause in _clauses(text):
            counts = _DENIES.search(clause) or (below and (kind == "row" or _SAYS_NO.search(clause)))
            if counts and not any(other in clause for other in OF_OTHERS):
                found.append(Denial(name, line + text.count("\n", 0, offset), " ".join(clause.split())))
        if text.rstrip().endswith(":") and _DENIES_BELOW.search(text):
            below = True
    return found


def _blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Paragraphs, items of lists and rows of tables with their first line; code is left out."""
    held: list[str] = []
    first, isolated = 1, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.lstrip().startswith(("```", "~~~"))
        starts = line.startswith(("#", "|")) or re.match(r"\s*(?:[-*]|\d+\.) ", line) is not None
        if held and (fence or starts or not line.strip()):
            kind = "heading" if held[0].startswith("#") else "row" if held[0].startswith("|") else "text"
            yield first, kind, "\n".join(held)
            held = []
        isolated ^= fence
        if isolated or fence or not line.strip():
            continue
        if not held:
            first = number
        held.append(line)


def _clauses(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for end in re.finditer(r"(?<=[.!?])\s+(?=[A-Z`*\[])|;\s", text):
        yield start, text[start : end.start()]
        start = end.end()
    yield start, text[start:]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def there(clause: str) -> list[tuple[str, str, str]]:
    """What a clause names that exists: the words, the name, the table."""
    known, found = tables(), []
    for absent in ABSENT:
        clause = re.sub(absent.said, " ", clause, flags=re.IGNORECASE)
    by_name = {_plain(name): (name, table) for table, names in known.items() for name in names}
    code = {_plain(word.partition(":")[0].removeprefix("ss.")) for word in re.findall(r"`([^`]+)`", clause)}
    words = [*re.findall(r"[A-Za-z][\w&-]*", re.sub(r"\]\([^)]*\)", "]", clause))]
    for word in words:
        if (hit := by_name.get(_plain(word))) and (hit[0].lower() not in ORDINARY or _plain(word) in code):
            found.append((word, *hit))
    for pattern, (table, name) in MEANT.items():
        if (spoken := re.search(pattern, clause, re.IGNORECASE)) and name in known[table]:
            found.append((spoken[0], name, table))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_denies_what_is_there(page: Path) -> None:
    wrong = [
        f"{denial.page}:{denial.line} denies {word!r}, which is {name!r} among the {table}: {denial.text}"
        for denial in denials(page)
        for word, name, table in there(denial.text)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_clauses_of_others_are_still_there() -> None:
    text = " ".join(" ".join(page.read_text(encoding="utf-8").split()) for page in PAGES)
    assert [clause for clause in OF_OTHERS if clause not in text] == []


@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: absent.said)
def test_what_is_denied_is_in_no_table(absent: Absent) -> None:
    """Fails on the day that it is built: then the pages named here are to be corrected."""
    said = [
        f"{denial.page}:{denial.line}"
        for page in PAGES
        for denial in denials(page)
        if re.search(absent.said, denial.text, re.IGNORECASE)
    ]
    built = [
        f"{name!r} among the {table}"
        for table, names in tables().items()
        for name in names
        if re.search(absent.named, name.lower())
    ]
    assert not built, f"{absent.said!r} ({absent.why}) is there as {built}; it is denied in {', '.join(said)}"
    assert said, f"no page denies {absent.said!r} any more; take it out of ABSENT"


def test_every_item_of_a_list_of_denials_is_known() -> None:
    """What follows "Not here:" and its like is one by one among what is known to be absent."""
    unknown = []
    for denial in (denial for page in PAGES for denial in denials(page)):
        listed = re.search(r"\b(?:Not here|Not handled|Not there yet): (.*)", denial.text)
        items = re.split(r", | and ", listed[1].rstrip(".")) if listed else []
        unknown += [
            f"{denial.page}:{denial.line} {item!r}"
            for item in items
            if not any(re.search(absent.said, item, re.IGNORECASE) for absent in ABSENT)
        ]
    assert not unknown, f"add to ABSENT, with how their names would look: {unknown}"


# How pages denied what was there, as they stood; and sentences that deny nothing.
STALE = {
    "Not here: SPSA, HopSkipJump, Carlini-Wagner.": {"spsa", "hop-skip-jump", "cw"},
    "Not here: its certification, detectors, defences, training, patches, audio, video.": {
        "certified",
        "detect",
        "detectors",
        "train",
        "patch",
        "defences",
    },
    "Signstep has no gradient-free attack yet.": {"square"},
    "Gradients are not averaged over their randomness yet.": {"eot"},
    "Not handled: defended pipelines that cannot be differentiated, poisoning, training.": {"bpda", "train"},
    "APGD-T and `free` are not there yet.": {"apgd-t", "free"},
    "The domain for tabular data does not exist.": {"tabular"},
    "## What is not there yet\n\nNo tabular constraints, no\ncertificates: nothing here proves it.": {
        "tabular",
        "certified",
    },
    "None of this is built:\n\n| later | how |\n|---|---|\n| universal changes | one row |": {"universal"},
    "Not here: poisoning.\n\nA row that is missing is an error. `fgsm` is here.": set(),
    "A code that does not exist is an error. Training has its own page.": set(),
}


@pytest.mark.parametrize("text", STALE)
def test_the_comparison_sees_what_has_gone_stale(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_denials.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    seen = denials(page)
    monkeypatch.undo()
    assert {name for denial in seen for _, name, _ in there(denial.text)} == STALE[text]
