"""Nothing that a user or a file can name reaches a terminal, page, table or record as anything but visible text."""

import json
import os
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import signstep as ss
from signstep.auditing.compare import compare
from signstep.auditing.findings import examine
from signstep.auditing.matrix import Cell, TransferMatrix
from signstep.auditing.pairwise import compare_all
from signstep.auditing.result import Result
from signstep.cli import main, terminal
from signstep.errors import LoadError, SignstepError
from signstep.io.files import write_whole
from signstep.plain import isolated, markdown, one_line, plain, plain_json
from signstep.report.heatmap import heat_page
from signstep.report.markdown import checklist_markdown
from signstep.report.page import page
from signstep.report.pictures import gallery
from signstep.report.scatter import scatter
from signstep.testing import assert_robust

# ESC with a colour, BEL, backspace, CR, DEL, CSI as one character, marks of direction, no width, separators, a tag.
RAW = "\x1b\x07\x08\r\x7f\x9b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200d\u200f\u2028\u2029\ufeff"
RAW += "\x00\u061c\u2060\u3164\U000e0041"
FORGED = "\nok  everything held\n"
EVIL = f"e{RAW}[31m[bold]v[/bold][link=file:///x]i{FORGED}l {{task.total}} ``` %s"
# What a name in a file system, and a word of the shell, can hold.
NAME = EVIL.replace("/", "").replace("\x00", "")


def unseen(text: str) -> set[str]:
    """What of the hostile text is in a text as it is."""
    return set(text) & set(RAW) | ({FORGED} if FORGED in text or FORGED.replace("\n", "\r\n") in text else set())


def test_what_is_hidden_is_written_out() -> None:
    for letter in RAW:
        assert letter not in plain(f"a{letter}b")
        assert plain(f"a{letter}b")[1] == "\\"
    assert plain("naïve 猫 ñ é – → “x”\n\t\u00a0") == "naïve 猫 ñ é – → “x”\n\t\u00a0"
    assert one_line("a\nb\tc") == r"a\nb\tc"
    assert plain("\udcff\U000e0041") == r"\udcff\U000e0041"
    for made in (plain, one_line, markdown, isolated):
        assert not set(made(EVIL)) & set(RAW)
    assert plain(plain(EVIL)) == plain(EVIL)
    assert isolated(EVIL).splitlines()[0] == "````text"
    value = {EVIL: [EVIL, "\udcff"]}
    text = plain_json(json.dumps(value, ensure_ascii=False))
    assert not unseen(text)
    assert json.loads(text) == value
    assert tomllib.loads(plain(f'a = "{RAW[1:].replace(chr(0), "").replace(chr(127), "")}"'))["a"].startswith("\x07")


def test_an_error_says_everything_in_one_visible_line() -> None:
    for kind in (SignstepError, LoadError, ss.SignstepError):
        assert not unseen(str(kind(EVIL)))
        assert "\n" not in str(kind(EVIL))


def _leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all texts, and of all names of fields that the record's own classes do not fix; a few of long lists."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, (*place, name))
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value[:3]):
            yield from _leaves(part, (*place, number))


def _with(value: Any, place: tuple[Any, ...], text: str) -> Any:
    if not place:
        return text
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = _with(value[place[0]], place[1:], text)
    return copied


def _record() -> Result:
    """A record with something in every part that can hold text."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3).eval()
    x = torch.rand(12, 4, generator=torch.Generator().manual_seed(1))
    return ss.audit(
        ss.Model(model, classes=("a", "b", "c")),
        (x, model(x).argmax(1)),
        threat=ss.linf(0.2),
        attacks=("random-sign", "fgsm"),
        run=ss.Run(transfer_to={"other": torch.nn.Linear(4, 3).eval()}, hashes={"weights": "ab", "data": "cd"}),
    )


def _rendered(result: Result) -> dict[str, str]:
    findings = examine(result)
    pair = compare_all({EVIL: result, "b": result}, notes=(EVIL,))
    return {
        "table": str(result),
        "record": result.to_json(),
        "page": page(result, findings, gallery(result, None)),
        "checklist": checklist_markdown(result),
        "findings": "\n".join(map(str, findings)),
        "comparison": str(compare(result, result)),
        "several": str(pair),
        "several.md": pair.markdown("x.svg"),
    }


@pytest.mark.usefixtures("no_global_seed")
def test_every_text_of_a_record_on_every_rendering() -> None:
    sound = _record()
    plain_record = json.loads(sound.to_json())
    shown = 0
    for place in _leaves(plain_record):
        result = sound
        try:
            result = Result.from_json(json.dumps(_with(plain_record, place, EVIL)))
            texts = _rendered(result)
        except SignstepError as error:
            texts = {"error": str(error)}
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            assert place[-1] in _MEANT or place[0] == "per_example", place
            continue
        shown += 1
        for name, text in texts.items():
            assert not unseen(text), (place, name)
        if "record" in texts:
            assert Result.from_json(texts["record"]) == result
    assert shown >= 40


# Texts of a record that are numbers or words of ours, not names: where they are others the record is none.
_MEANT = ("clean", "verdicts", "name", "box_span", "target")


def test_every_name_of_a_transfer_on_every_rendering(tmp_path: Path) -> None:
    matrix = TransferMatrix(
        sources=(EVIL, "random-sign"),
        victims=(f"v{EVIL}",),
        cells=(Cell(EVIL, f"v{EVIL}", 1, 2), Cell("random-sign", f"v{EVIL}", 0, 2)),
        clean={f"v{EVIL}": 2},
        examples=3,
        terms={"recipe": EVIL, EVIL: EVIL},
        notes=(EVIL,),
        versions={"signstep": EVIL},
    )
    matrix.save(tmp_path / "m.json")
    for text in (str(matrix), heat_page(matrix), matrix.to_json(), (tmp_path / "m.json").read_text()):
        assert not unseen(text)
    assert TransferMatrix.load(tmp_path / "m.json") == matrix


def test_a_chart_and_any_text_that_is_written(tmp_path: Path) -> None:
    result = _record()
    write_whole(tmp_path / "a.svg", scatter({EVIL: result}))
    write_whole(tmp_path / "a.md", EVIL)
    assert not unseen((tmp_path / "a.svg").read_text())
    assert not set((tmp_path / "a.md").read_text()) & set(RAW)


def test_the_plugin_of_pytest() -> None:
    model = torch.nn.Linear(4, 3).eval()
    x = torch.rand(4, 4)
    with pytest.raises(AssertionError) as caught:
        assert_robust(
            ss.Model(model, classes=(EVIL, "b", "c"), name=EVIL),
            (x, torch.randint(3, (4,))),
            threat=ss.linf(0.4),
            at_least=1.0,
            attacks=("fgsm",),
            run=ss.Run(data=EVIL),
        )
    assert not unseen(str(caught.value))


MODULE = """
import warnings
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

def words():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))

def raises():
    raise ValueError(EVIL)

def leaves():
    raise SystemExit(EVIL)

def warns():
    warnings.warn(EVIL)
    return net()

class Raises(nn.Module):
    def forward(self, x):
        raise RuntimeError(EVIL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_nets.py").write_text(f"EVIL = {EVIL!a}\n{MODULE}")
    monkeypatch.setitem(sys.modules, "evil_nets", None)
    del sys.modules["evil_nets"]
    x = np.random.default_rng(0).random((6, 4), np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(6) % 2)
    return tmp_path


def _table(path: str, columns: list[str], labels: list[str]) -> str:
    quoted = [[f'"{cell}"' for cell in row] for row in (columns, *([*"1234", label] for label in labels))]
    Path(path).write_text("\n".join(map(",".join, quoted)), encoding="utf-8", newline="")
    return path


def _pictures(where: str, folder: str, name: str) -> str:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")
    for kind in (folder, "z"):
        Path(where, kind).mkdir(parents=True)
        image.new("L", (2, 2)).save(Path(where, kind, "1.png"))
    (Path(where, folder) / name).write_bytes(b"no image")
    return where


def _weights(path: str, **names: Any) -> str:
    save_file({NAME if name == "evil" else name: torch.zeros(2, 4) for name in names}, path)
    return path


def _named(path: str, text: str) -> str:
    Path(path).write_text(text, encoding="utf-8")
    return path


def _archive() -> str:
    with zipfile.ZipFile("names.npz", "w") as archive:
        archive.writestr(f"{NAME}.npy", b"\x93NUMPY\x01\x00")
    return "names.npz"


AUDIT = ["audit", "--threat", "linf:0.1", "--attack", "fgsm", "--curve", "none"]
NET = ["--model", "evil_nets:net", "--data", "data.npz"]
FIELDS: dict[str, Callable[[], list[str]]] = {
    "a column": lambda: [*AUDIT, *NET[:3], _table("t.csv", [*"abc", EVIL, "y"], ["0"]), "--label-column", "none"],
    "a column that is there": lambda: [
        *(*AUDIT, *NET[:3], _table("t.csv", [*"abc", NAME.replace("\n", ""), "y"], ["0", "1"]), "--label-column", "y")
    ],
    "labels": lambda: [
        *(*AUDIT, *NET[:3], _table("t.csv", [*"abcd", "y"], [NAME.replace("\n", ""), "b"]), "--label-column", "y")
    ],
    "a label among numbers": lambda: [
        *(*AUDIT, *NET[:3], _table("t.csv", [*"abcd", "y"], ["0", NAME.replace("\n", "")]), "--label-column", "y")
    ],
    "a class folder": lambda: [*AUDIT, *NET[:3], _pictures("images", NAME, "1.png")],
    "an image": lambda: [*AUDIT, *NET[:3], _pictures("images", "a", f"{NAME}.png")],
    "a file beside images": lambda: [*AUDIT, *NET[:3], _pictures("images", "a", f"n.{NAME}")],
    "a folder of data": lambda: [*AUDIT, *NET[:3], _pictures(NAME, "a", "n.odd")],
    "class names": lambda: [
        *(*AUDIT, *NET[:3], _table("t.csv", [*"abcd", "y"], ["q", "p"]), "--label-column", "y"),
        *("--classes", _named("names.txt", f"{NAME}\nq\n")),
    ],
    "an array": lambda: [*AUDIT, *NET[:3], _archive()],
    "tensors not in the model": lambda: [*AUDIT, *NET, "--weights", _weights("w.safetensors", evil=1)],
    "weights": lambda: [*AUDIT, *NET, "--weights", f"{NAME}.pt"],
    "data": lambda: [*AUDIT, *NET[:3], NAME],
    "a model": lambda: [*AUDIT, "--model", NAME, *NET[2:]],
    "a factory": lambda: [*AUDIT, "--model", f"evil_nets:{NAME}", *NET[2:]],
    "an argument": lambda: [*AUDIT, *NET, "--model-arg", f"a={NAME}"],
    "an argument's name": lambda: [*AUDIT, *NET, "--model-arg", NAME],
    "a threat": lambda: ["audit", *NET, "--threat", NAME],
    "an attack": lambda: ["audit", *NET, "--threat", "linf:1", "--attack", NAME],
    "a ladder": lambda: ["audit", *NET, "--threat", "linf:1", "--ladder", NAME],
    "a goal": lambda: [*AUDIT, *NET, "--goal", NAME],
    "a task": lambda: [*AUDIT, *NET, "--task", NAME],
    "a loss": lambda: [*AUDIT, *NET, "--loss", NAME],
    "an output": lambda: [*AUDIT, *NET, "--output", NAME],
    "a device": lambda: [*AUDIT, *NET, "--device", NAME],
    "a mean": lambda: [*AUDIT, *NET, "--mean", NAME],
    "a batch size": lambda: [*AUDIT, *NET, "--batch-size", NAME],
    "a seed": lambda: [*AUDIT, *NET, "--seed", NAME],
    "an option": lambda: [*AUDIT, *NET, f"--{NAME}"],
    "a command": lambda: [NAME],
    "a topic": lambda: ["explain", NAME],
    "the output": lambda: [*AUDIT, *NET, "--out", NAME],
    "another model": lambda: [*AUDIT, *NET, "--transfer-to", f"{NAME}=evil_nets:net"],
    "another model that is none": lambda: [*AUDIT, *NET, "--transfer-to", NAME],
    "a configuration": lambda: ["--config", NAME, *AUDIT, *NET],
    "a key of the configuration": lambda: [
        *("--config", _named("c.toml", f"[audit]\n{json.dumps(EVIL)} = 1\n"), *AUDIT, *NET)
    ],
    "a value of the configuration": lambda: [
        *("--config", _named("c.toml", f"[audit]\nloss = {json.dumps(NAME.replace(chr(0xE0041), ''))}\n"), *AUDIT, *NET)
    ],
    "a table of the configuration": lambda: ["--config", _named("c.toml", f"[{json.dumps(EVIL[:-30])}]\n")],
    "a cap": lambda: ["--cap", NAME, *AUDIT],
    "an exception of a factory": lambda: [*AUDIT, "--model", "evil_nets:raises", *NET[2:]],
    "an exit of a factory": lambda: [*AUDIT, "--model", "evil_nets:leaves", *NET[2:]],
    "a warning": lambda: [*AUDIT, "--model", "evil_nets:warns", *NET[2:]],
    "an exception of a model": lambda: [*AUDIT, "--model", "evil_nets:Raises", *NET[2:]],
    "the same with its traceback": lambda: ["--debug", *AUDIT, "--model", "evil_nets:Raises", *NET[2:]],
    "surrogates": lambda: [
        *("transfer", "--surrogate", f"{NAME.replace('=', '')}=evil_nets:net", "--victim", f"v{NAME}=evil_nets:net"),
        *("--data", "data.npz", "--threat", "linf:0.1", "--attack", "fgsm"),
    ],
    "candidates": lambda: [
        *("compare", "--model", f"{NAME.translate({ord(c): None for c in ':/@='})}=evil_nets:net"),
        *("--model", "b=evil_nets:net", "--data", "data.npz", "--threat", "linf:0.1", "--ladder", "quick@1"),
    ],
    "results": lambda: ["compare", NAME, f"b={NAME}"],
    "shards": lambda: ["merge", NAME, "b"],
    "a schema": lambda: ["schema", "--data", _table("t.csv", [*"abc", NAME.replace("\n", ""), "y"], ["0", "1"] * 9)],
    "a schema of series": lambda: ["schema", "--domain", "control", "--data", NAME],
    "a recipe": lambda: ["train", "--recipe", NAME],
    "a recipe's value": lambda: ["train", "--recipe", f"n-fgsm:noise={NAME}"],
    "attacked inputs": lambda: ["attack", *NET, "--threat", "linf:0.1", "--format", "npz", "--out", NAME],
    "a baseline": lambda: [*AUDIT, *NET, "--baseline", NAME],
    "a report": lambda: ["verify", NAME, "--model", NAME],
    "a report to sign": lambda: ["sign", NAME, "--key", NAME],
    "a format": lambda: ["attack", *NET, "--threat", "linf:0.1", "--format", NAME],
}


def _texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """What was written as text; the inputs of the test are not."""
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".html", ".md", ".svg", ".toml", ".txt", ".csv") or path.name == "SHA256SUMS":
            yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_that_a_person_or_a_file_sets(
    field: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux" and "folder" in field:
        pytest.skip("other systems keep no such names")
    words = FIELDS[field]()
    given = {path for path, _ in _texts(place)}
    wide = {"COLUMNS": "4000"}  # what usage says is not wrapped
    for name, value in wide.items():
        monkeypatch.setenv(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["signstep"])
        main(words)
    out, err = capsys.readouterr()
    assert not unseen(out), field
    assert not unseen(err), field
    assert out or err
    for path, text in _texts(place):
        if path not in given:
            assert not unseen(text), path
    for path in place.rglob("result.json"):
        assert Result.load(path).examples
    for path in place.rglob("signstep.toml"):
        tomllib.loads(path.read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems pass no such words")
@pytest.mark.parametrize("option", ["--model-arg", "--transfer-to", "--classes", "--weights", "--label-column"])
def test_words_that_are_not_utf8_are_refused_before_the_work(
    option: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"a=\xff")
    assert main([*AUDIT, *NET, option, odd]) == 2
    err = capsys.readouterr().err
    assert r"\udcff" in err
    assert "not UTF-8" in err
    assert not list(place.rglob("result.json"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such names")
def test_an_output_that_is_not_utf8_is_written_and_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(b"out\xff")
    assert main([*AUDIT, *NET, "--out", odd]) == 0
    assert r"report: out\udcff/index.html" in capsys.readouterr().err
    assert Result.load(place / odd / "result.json").examples == 6
    tomllib.loads((place / odd / "signstep.toml").read_text())


def test_a_device_without_values(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*AUDIT, *NET, "--device", "meta"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: x is on the meta device")
    assert not list(place.rglob("result.json"))


def test_words_beside_a_bar_are_no_markup_and_no_format(capsys: pytest.CaptureFixture[str]) -> None:
    console = terminal.aside()
    terminal.say(console, EVIL, "[red]a[/red] :warning:")
    err = capsys.readouterr().err
    assert not unseen(err)
    assert "[red]a[/red] :warning:" in err
    with terminal.bars(console) as shown:
        shown.add_task(one_line(EVIL), total=1)


def test_no_command_prints_but_through_the_terminal() -> None:
    folder = Path(terminal.__file__).parent
    for path in folder.glob("*.py"):
        if path.name == "terminal.py":
            continue
        text = path.read_text().replace(">>> print(", "")  # examples in docstrings
        for word in ("typer.echo(", "click.echo(", " print(", "Console(", "sys.stdout.write", "traceback.print"):
            assert word not in text, f"{path.name}: {word}"
