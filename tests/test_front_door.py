"""What a newcomer meets first: help at once, names that are nearly right, an output that is the answer alone."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

import signstep as ss
import signstep_entry
from signstep.auditing.ladder import LADDERS, ladder
from signstep.auditing.stated_terms import claims
from signstep.cli import app, main
from signstep.cli.option_names import in_options, options_by_argument
from signstep.cli.panels import PANELS, in_panels
from signstep.domains import DOMAINS, IMAGES, domain
from signstep.engine.norms import BY_NAME, NORMS, norm
from signstep.engine.threat import parse_threat
from signstep.errors import InputError, SignstepError
from signstep.messages import Arg
from signstep.registry import nearest
from signstep.train.recipes import TRAINING_RECIPES, training_recipe

GROUP: Any = typer.main.get_command(app)
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in signstep_entry.PAGES.glob("*.txt")}
COMMANDS = list(GROUP.commands)


# Help and version, without torch.


def test_help_and_version_import_no_torch() -> None:
    asked = [["--version"], ["-h"], ["--help"], [], *([name, flag] for name in COMMANDS for flag in ("-h", "--help"))]
    code = (
        "import json, sys\nfrom signstep_entry import main\n"
        f"codes = [main(words) for words in json.loads({json.dumps(json.dumps(asked))})]\n"
        "assert 'torch' not in sys.modules and 'typer' not in sys.modules and 'signstep' not in sys.modules\n"
        "sys.stderr.write(json.dumps(codes))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == [0, 0, 0, 2, *([0] * 2 * len(COMMANDS))]
    assert f"signstep {ss.__version__}\n" in done.stdout
    for name in COMMANDS:
        assert done.stdout.count(PAGES[name]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_help_that_cannot_be_printed_is_one_sentence() -> None:
    code = "import sys; from signstep_entry import main; sys.exit(main(['-h']))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: help cannot be printed")


@pytest.mark.parametrize("name", ["signstep", *COMMANDS])
def test_help_fits_80_columns_and_has_no_colour(name: str) -> None:
    lines = PAGES[name].splitlines()
    assert lines[0].startswith("Usage: signstep")
    assert max(map(len, lines)) <= 80
    assert PAGES[name].isascii()
    assert "\x1b" not in PAGES[name]
    assert any(line.lstrip().startswith("-h, --help") for line in lines)


def test_every_command_and_no_other_has_a_page() -> None:
    assert set(PAGES) == {"start", "signstep", *COMMANDS}


def test_every_option_stands_on_its_page_once() -> None:
    for name, command in GROUP.commands.items():
        for option in command.params:
            for text in (text for text in option.opts if text.startswith("--") and text != "--help"):
                row = rf"^  {text}(?: <\w+>| / --[\w-]+)?(?:  |$)"
                assert len(re.findall(row, PAGES[name], re.MULTILINE)) == 1, (name, text)


def test_options_stand_under_headings() -> None:
    known = {option.name for command in GROUP.commands.values() for option in command.params}
    listed = [name for names in PANELS.values() for name in names]
    assert set(listed) <= known
    audit = in_panels([part for part in GROUP.commands["audit"].params if part.name != "help"])
    assert list(audit) == list(PANELS)
    assert sum(map(len, audit.values())) == len(
        [part for part in GROUP.commands["audit"].params if part.name != "help"]
    )
    for heading in audit:
        assert f"\n{heading}:\n" in PAGES["audit"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["-h"], "signstep"),
        (["--config", "x.toml", "audit", "--model", "m:f", "-h"], "audit"),
        (["--cap=names=3", "--debug", "train", "--help"], "train"),
        (["audit", "--", "-h"], None),
        (["nothing", "-h"], None),
        (["audit"], None),
        (["--", "-h"], None),
        ([], "start"),
    ],
)
def test_words_that_ask_for_a_page(words: list[str], name: str | None) -> None:
    assert signstep_entry.page_of(words) == (None if name is None else PAGES[name].rstrip("\n"))


def test_signstep_alone_names_the_main_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == signstep_entry.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("signstep audit --model mynet:build") == 2
    assert len(PAGES["start"].splitlines()) < 20
    named = re.findall(r"^  signstep (\w+)", PAGES["start"], re.MULTILINE)
    assert set(named) <= set(COMMANDS)


# Names that are nearly right.


def _ladder(name: str) -> str:
    return ladder(name).name.partition("@")[0]


TABLES: list[tuple[str, Any, list[str]]] = [
    ("recipes", lambda name: ss.recipe(name).name, list(ss.RECIPES.own)),
    ("norms", lambda name: norm(name).name, list(NORMS.own)),
    ("ladders", _ladder, [name.partition("@")[0] for name in LADDERS]),
    ("domains", lambda name: domain(name).name, [IMAGES.name, *DOMAINS.own]),
    ("training recipes", lambda name: training_recipe(name).name, list(TRAINING_RECIPES.own)),
]


@pytest.mark.parametrize(("find", "names"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_letters_may_be_large_or_small(find: Any, names: list[str]) -> None:
    for name in names:
        assert find(name.upper()) == find(name)


@pytest.mark.parametrize(("find", "names"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_a_slip_is_answered_with_what_was_meant(find: Any, names: list[str]) -> None:
    for name in (name for name in names if len(name) > 4):
        slip = name[0] + name[2] + name[1] + name[3:]  # two letters the wrong way round
        if slip == name:
            continue
        with pytest.raises(SignstepError, match=r"[Dd]id you mean '") as caught:
            find(slip)
        meant = str(caught.value).rpartition("'")[0].rpartition("'")[2]
        assert sorted(meant.partition("@")[0]) == sorted(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_slip_in_an_option_is_answered_too(command: str) -> None:
    for option in GROUP.commands[command].params:
        for flag in (text for text in option.opts if text.startswith("--") and len(text) > 5 and text != "--help"):
            slip = f"{flag[:3]}{flag[4]}{flag[3]}{flag[5:]}"
            if slip == flag:
                continue
            with pytest.raises(Exception, match=f"^No such option: {slip}; did you mean {flag}[?]$"):
                GROUP.commands[command].make_context(command, [slip])


def test_what_other_tools_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    for words, meant in (
        (["audit", "--eps", "8/255"], "; pass --threat linf:8/255"),
        (["attack", "--attack", "pgd"], "; pass --recipe"),
        (["audit", "--checkpoint", "x.pt"], "; pass --weights"),
        (["audit", "mynet:build"], "mynet:build stands behind no option; write --model mynet:build, say"),
        (["audit", "--limit", "abc"], "--limit 'abc' is not a whole number"),
        (["audit", "--eot=0"], "--eot '0' is not a whole number of at least 1"),
        (["audit", "--fail-under", "x"], "--fail-under 'x' is not a number"),
        (["audti"], "Did you mean 'audit'?"),
        (["explain", "pdg"], "did you mean 'pgd'?"),
        (["audit", "--domain", "imgae"], "is not one of image, tabular"),
    ):
        assert main(words) == 2
        assert meant in capsys.readouterr().err


def test_one_that_is_nothing_like_any_is_told_all() -> None:
    assert nearest("?!", ss.RECIPES) is None
    with pytest.raises(InputError, match=r"is not one of random-sign, fgsm, .*; pass one of these"):
        ss.recipe("?!")


# What is blamed is what was typed.


def test_the_option_that_was_typed_is_blamed() -> None:
    audit = GROUP.commands["audit"]
    wrong = InputError(Arg("recipe", "pgdd"), "is not known", remedy=("drop", Arg("recipe")))
    for flag in ("--attack", "--ladder", "--curve-attack"):
        for words in ([flag, "fgsm,pgdd"], [f"{flag}=pgdd"]):
            text = in_options(wrong, options_by_argument(audit, ["audit", "--attack", "fgsm", *words]))
            assert text.startswith(f"{flag} pgdd is not known")
    assert in_options(wrong, options_by_argument(audit)).startswith("--attack pgdd")
    size = InputError(Arg("eps", 8), "is too much", remedy=("pass", Arg("eps", None)))
    typed = options_by_argument(audit, ["audit", "--threat=token:8"])
    assert in_options(size, typed) == "--threat token:8 is too much; pass --threat token:none"
    assert in_options(size, options_by_argument(audit)) == "--threat NORM:8 is too much; pass --threat NORM:none"


def test_an_option_with_two_names_is_blamed_by_the_one_typed() -> None:
    class Twice:
        opts = ("-l", "--limit", "--at-most")
        params: tuple[Any, ...] = ()

    command = type("Command", (), {"params": [Twice]})
    wrong = InputError(Arg("limit", 0), "is none")
    assert in_options(wrong, options_by_argument(command, ["--at-most", "0"])) == "--at-most 0 is none"
    assert in_options(wrong, options_by_argument(command, ["--limit=0"])) == "--limit 0 is none"


def test_a_threat_is_printed_as_it_was_typed() -> None:
    for name in ("token", "atom", "pixel", "linf", "l2"):
        threat = parse_threat(f"{name}:0.05")
        assert str(threat).startswith(f"{name} eps=0.05")
        assert threat == ss.threat_model(BY_NAME[name], 0.05)
    assert parse_threat("token:0.5") == parse_threat("atom:0.5") == parse_threat("grouped(-1):0.5")
    assert str(parse_threat("grouped(-1):0.5")).startswith("grouped(-1) eps=0.5")


@pytest.mark.parametrize("name", [name for name, norm in BY_NAME.items() if isinstance(norm, ss.Grouped)])
def test_a_record_under_a_name_that_was_typed_agrees_with_itself(name: str) -> None:
    threat = parse_threat(f"{name}:0.1")
    record = ss.audit(lambda x: x.flatten(1), _batch(), threat=threat, attacks=["fgsm"], curve=False)
    assert record.terms["threat"].startswith(f"{name} eps=0.1")
    assert claims(record).holds, claims(record)
    other = replace(record, terms={**record.terms, "threat": record.terms["threat"].replace(name, "linf")})
    assert not claims(other).holds


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linspace(0.2, 0.8, 24).reshape(4, 3, 2), torch.tensor([5, 5, 5, 5])


# The answer, and nothing else.

NOISY = """
import atexit, os, subprocess, sys, warnings
from torch import nn
print("on import")
if os.environ.get("ALONE"):
    atexit.register(print, "at exit")

class Net(nn.Linear):
    def forward(self, x):
        print("in forward")
        return super().forward(x)

def net():
    print("in factory")
    if os.environ.get("ALONE"):
        os.write(1, b"below python\\n")
        subprocess.run([sys.executable, "-c", "print('a process')"], check=True)
    warnings.warn("a warning")
    return Net(4, 3)
"""


@pytest.fixture(name="place")
def noisy_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noisynets.py").write_text(NOISY)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", x=rng.random((8, 4), dtype=np.float32), y=rng.integers(0, 3, 8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "noisynets", raising=False)
    return tmp_path


WORDS = "audit --model noisynets:net --data set.npz --threat linf:0.1 --attack fgsm"


@pytest.mark.usefixtures("place")
def test_one_json_document_and_nothing_else() -> None:
    code = "import sys; from signstep_entry import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "40", "FORCE_COLOR": "1", "ALONE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *WORDS.split(), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 8
    for text in ("on import", "in factory", "below python", "a process", "in forward", "at exit", "a warning"):
        assert text in done.stderr


@pytest.mark.usefixtures("place")
def test_in_a_program_standard_output_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warnings.filters", [])
        assert main([*WORDS.split(), "--json"]) == 0
    print("mine")
    said = capsys.readouterr()
    record, _, rest = said.out.rpartition("}\n")
    assert json.loads(record + "}")["examples"] == 8
    assert rest == "mine\n"
    assert "in factory" in said.err


def _untimed(line: str) -> str:
    """A line of the table without its last column, the seconds."""
    return line.rpartition("  ")[0] if line.startswith("fgsm ") else line


@pytest.mark.usefixtures("place")
def test_quiet_leaves_the_answer_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warnings.filters", [])
        assert main(["--quiet", *WORDS.split()]) == 0
        quiet = capsys.readouterr()
        assert main(WORDS.split()) == 0
        loud = capsys.readouterr()
    answers = [[line for line in said.out.splitlines() if " s, signstep " not in line] for said in (loud, quiet)]
    assert [_untimed(line) for line in answers[0]] == [_untimed(line) for line in answers[1]]
    assert "report: " in loud.err
    assert "report: " not in quiet.err
    assert "model: noisynets:net" in loud.err
    assert "model: " not in quiet.err
    assert "SS301" in loud.err
    assert "SS301" in quiet.err
    assert "warning: UserWarning: a warning" in quiet.err
    assert main([*WORDS.split(), "--quiet", "--fail-under", "2"]) == 2
    assert "--fail-under 2.0" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
def test_no_terminal_no_colour_and_no_column_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("warnings.filters", [])
        assert main(WORDS.split()) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    header = next(line for line in said.out.splitlines() if line.startswith("attack "))
    assert header.split()[0] == "attack"
    assert header.rstrip().endswith("seconds")
    assert "report: signstep-report/index.html" in said.err.splitlines()


def test_list_says_the_same_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in told["recipes"]} >= set(ss.RECIPES.own)
    assert {row["name"] for row in told["ladders"]} == set(LADDERS)
    assert {row["name"] for row in told["domains"]} >= {IMAGES.name, *DOMAINS.own}
    assert told["losses"]["multiclass"][0] == "ce"
    assert next(row for row in told["recipes"] if row["name"] == "pgd")["options"]["restarts"] == 1


# What can be said before anything is loaded is said then.


@pytest.mark.parametrize(
    "more",
    [
        "--threat linf",
        "--threat lnif:0.1",
        "--threat linf:x",
        "--attack pgdd",
        "--attack pgd:step=1,restart=2",
        "--ladder standrad@1",
        "--ladder fgsm,pgdd",
        "--curve a,b",
        "--curve-attack pgdd",
        "--loss cee",
        "--task clas",
        "--engine fats",
        "--weights missing.pt",
        "--classes missing.txt",
        "--out set.npz",
        "--data sett.npz",
        "--goal far",
        "--mean x --std 1",
        "--resize 9",
        "--baseline missing.json",
    ],
)
def test_nothing_is_loaded_for_what_cannot_be(more: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "noisynets.py").write_text("raise SystemExit('loaded')\n")
    words = WORDS.replace(" --attack fgsm", "").split()
    assert main([*words, *more.split()]) == 2
    said = capsys.readouterr().err
    assert "loaded" not in said
    assert said.count("\n") == 1
    assert not (place / "signstep-report").exists()


def test_a_curve_of_none_is_no_curve() -> None:
    x, y = torch.rand(4, 3), torch.zeros(4, dtype=torch.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
    records = [ss.audit(net, (x, y), threat=ss.linf(0.1), attacks=["fgsm"], curve=curve) for curve in (None, False)]
    assert [record.curves for record in records] == [{}, {}]


@pytest.mark.parametrize(
    ("own", "given"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
    ids=["nothing said", "a policy", "a count"],
)
def test_idle_threads_sleep_soon_unless_told_otherwise(
    own: dict[str, str], given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, own.get(name, ""))
        if name not in own:
            monkeypatch.delenv(name)
    monkeypatch.setattr("signstep.cli.main", lambda _: 0)
    assert signstep_entry.main(["audit"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == given
