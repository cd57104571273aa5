"""The transfer matrix: its cells are what crafting and scoring by hand give, and its page and record say the same."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import signstep as ss
from signstep.auditing.matrix import Cell, TransferMatrix
from signstep.cli import main
from signstep.data.digits import digits
from signstep.engine.counts import Count
from signstep.errors import InputError, LoadError, ThreatError
from signstep.report.heatmap import heat_page

X, Y = (part[:150] for part in digits("test"))
THREAT = ss.linf(0.1)


def trained(hidden: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        x, y = digits("train")
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x), y))
            optimizer.step()
    model.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    return {"a": trained(16, 0), "b": trained(32, 1), "c": trained(64, 2)}


@pytest.fixture(scope="module")
def matrix(nets: dict[str, nn.Module]) -> TransferMatrix:
    return ss.transfer({"a": nets["a"], "b": nets["b"]}, nets, (X, Y), threat=THREAT, recipe="mi-fgsm:steps=5")


def _right(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x).argmax(1) == Y
    return out


def test_the_diagonal_is_the_attack_itself(nets: dict[str, nn.Module], matrix: TransferMatrix) -> None:
    for name in ("a", "b"):
        outcome = ss.attack(nets[name], X, Y, threat=THREAT, recipe="mi-fgsm:steps=5")
        right = _right(nets[name], X)
        assert matrix.cell(name, name) == Cell(name, name, int((outcome.fooled & right).sum()), int(right.sum()), True)
        assert matrix.accuracy(name) == Count(int(right.sum()), 150)


def test_the_other_cells_are_the_attack_with_a_surrogate(nets: dict[str, nn.Module], matrix: TransferMatrix) -> None:
    """Crafted to the last step, without asking the victim."""
    for source, victim in (("a", "b"), ("b", "a"), ("a", "c"), ("b", "c")):
        outcome = ss.attack(
            nets[victim], X, Y, threat=THREAT, recipe="mi-fgsm:steps=5", search=ss.Search(surrogate=nets[source])
        )
        right = _right(nets[victim], X)
        assert matrix.cell(source, victim) == Cell(
            source, victim, int((outcome.fooled & right).sum()), int(right.sum())
        )
    both = ss.attack(
        nets["c"], X, Y, threat=THREAT, recipe="mi-fgsm:steps=5", search=ss.Search(surrogate=[nets["a"], nets["b"]])
    )
    right = _right(nets["c"], X)
    assert matrix.cell("all", "c").fooled == int((both.fooled & right).sum())
    assert matrix.cell("all", "a").fooled == matrix.cell("b", "a").fooled  # without the victim's own copy


def test_a_transfer_beats_the_control(matrix: TransferMatrix) -> None:
    for victim in matrix.victims:
        control = matrix.cell("random-sign", victim)
        for source in ("a", "b", "all"):
            assert matrix.cell(source, victim).fooled > 2 * control.fooled
            assert matrix.cell(source, victim).success.interval[0] > control.success.interval[1]


def test_rows_at_a_time_and_loader_do_not_matter(nets: dict[str, nn.Module], matrix: TransferMatrix) -> None:
    cut = [(X[start : start + 41], Y[start : start + 41]) for start in range(0, 150, 41)]
    again = ss.transfer({"a": nets["a"], "b": nets["b"]}, nets, cut, threat=THREAT, recipe="mi-fgsm:steps=5", rows=17)
    assert again.cells == matrix.cells
    assert again.clean == matrix.clean
    assert again.examples == 150


def test_draws_belong_to_the_example(nets: dict[str, nn.Module]) -> None:
    one, other = (
        ss.transfer(
            {"a": nets["a"]},
            {"c": nets["c"]},
            (X, Y),
            threat=THREAT,
            recipe=spec,
            rows=rows,
            search=ss.Search(seed=seed),
        )
        for spec, seed, rows in (("di-fgsm:steps=4,prob=1", 0, 150), (ss.recipe("di-fgsm:steps=4,prob=1"), 0, 20))
    )
    assert one.cells == other.cells


def test_targets(nets: dict[str, nn.Module]) -> None:
    matrix = ss.transfer(
        {"a": nets["a"]}, nets, (X, Y), threat=ss.linf(0.25), recipe="bim:steps=8", search=ss.Search(target="next")
    )
    point = ss.attack(
        nets["c"],
        X,
        Y,
        target="next",
        threat=ss.linf(0.25),
        recipe="bim:steps=8",
        search=ss.Search(surrogate=nets["a"]),
    ).x
    assert isinstance(point, Tensor)
    right = _right(nets["c"], X)
    with torch.no_grad():
        reached = nets["c"](point).argmax(1) == (Y + 1) % 10
    assert matrix.cell("a", "c").fooled == int((reached & right).sum()) > 0
    assert matrix.cell("a", "c").right == int(right.sum())


def test_no_room_to_change_is_no_success(nets: dict[str, nn.Module]) -> None:
    """What a victim gets wrong by itself is nobody's success."""
    matrix = ss.transfer({"a": nets["a"]}, {"c": nets["c"]}, (X, Y), threat=ss.linf(0.0))
    assert [cell.fooled for cell in matrix.cells] == [0, 0]
    assert matrix.clean["c"] < 150


def test_the_record_survives_json(matrix: TransferMatrix, tmp_path: Path) -> None:
    assert TransferMatrix.from_json(matrix.to_json()) == matrix
    matrix.save(tmp_path / "transfer.json")
    assert TransferMatrix.load(tmp_path / "transfer.json") == matrix
    assert json.loads(matrix.to_json())["format"] == 1
    for text in ("{}", "[]", "nonsense", matrix.to_json().replace('"format": 1', '"format": 2')):
        with pytest.raises(LoadError):
            TransferMatrix.from_json(text)
    with pytest.raises(LoadError, match="cannot be read"):
        TransferMatrix.load(tmp_path / "missing.json")
    with pytest.raises(KeyError):
        matrix.cell("a", "z")


def test_table_and_page_show_every_count(matrix: TransferMatrix) -> None:
    page, text = heat_page(matrix), str(matrix)
    for cell in matrix.cells:
        assert f"{cell.fooled}/{cell.right}" in text
        assert f"{cell.fooled}\u00a0of\u00a0{cell.right}" in page
    assert page.count('class="n own"') == 2
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    heats = [float(heat) for heat in re.findall(r"--heat: ([\d.]+)", page)]
    assert len(heats) == len(matrix.cells) + len(matrix.victims)
    assert max(heats) <= 0.55
    assert sorted(set(re.findall(r'<th scope="row">([^<]*)</th>', page))) == sorted(
        [*matrix.sources, "right untouched"]
    )


def test_names_cannot_write_html(nets: dict[str, nn.Module]) -> None:
    matrix = ss.transfer({"<b>x": nets["a"]}, {"c": nets["c"]}, (X[:9], Y[:9]), threat=THREAT, recipe="fgsm")
    assert "<b>x" not in heat_page(matrix)
    assert "&lt;b&gt;x" in heat_page(matrix)


def test_what_makes_no_sense_is_said(nets: dict[str, nn.Module]) -> None:
    one = {"a": nets["a"]}
    with pytest.raises(InputError, match="surrogates is empty"):
        ss.transfer({}, one, (X, Y), threat=THREAT)
    with pytest.raises(InputError, match="victims is empty"):
        ss.transfer(one, {}, (X, Y), threat=THREAT)
    with pytest.raises(InputError, match="rows of the matrix"):
        ss.transfer({"all": nets["a"]}, one, (X, Y), threat=THREAT)
    with pytest.raises(InputError, match="two names"):
        ss.transfer({"a": nets["a"], "b": nets["a"]}, one, (X, Y), threat=THREAT)
    with pytest.raises(InputError, match="no labels"):
        ss.transfer(one, one, (X, None), threat=THREAT)
    with pytest.raises(InputError, match="no examples"):
        ss.transfer(one, one, [], threat=THREAT)
    with pytest.raises(InputError, match="asks the model itself"):
        ss.transfer(one, one, (X, Y), threat=THREAT, recipe="random-sign")
    with pytest.raises(InputError, match="cannot be called"):
        ss.transfer({"a": 3}, one, (X, Y), threat=THREAT)  # type: ignore[dict-item]


def test_models_of_other_classes_are_refused(nets: dict[str, nn.Module]) -> None:
    five = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    for surrogates, victims in (({"a": nets["a"]}, {"five": five}), ({"a": nets["a"], "five": five}, {"a": nets["a"]})):
        with pytest.raises(InputError, match="five has 5 outputs and a has 10; a transfer needs models of the same"):
            ss.transfer(surrogates, victims, (X, Y), threat=THREAT)


def test_a_source_without_gradients_is_named(nets: dict[str, nn.Module]) -> None:
    rounded = nn.Sequential(_Rounding(), nets["a"])
    matrix = ss.transfer({"rounded": rounded}, {"c": nets["c"]}, (X, Y), threat=THREAT)
    assert len(matrix.notes) == 1
    assert "rounded: no gradient could be used on" in matrix.notes[0]
    assert matrix.notes[0] in str(matrix)
    assert matrix.notes[0] in heat_page(matrix)
    with pytest.raises(ThreatError, match="each example"):
        ss.transfer({"a": nets["a"]}, nets, (X, Y), threat=ss.linf(torch.full((150,), 0.1)))


class _Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.round()


def test_models_are_left_as_they_were(nets: dict[str, nn.Module]) -> None:
    before = torch.get_rng_state()
    nets["a"].train()
    ss.transfer({"a": nets["a"]}, {"c": nets["c"]}, (X[:9], Y[:9]), threat=THREAT)
    assert nets["a"].training
    nets["a"].eval()
    assert all(part.grad is None for net in nets.values() for part in net.parameters())
    assert torch.equal(torch.get_rng_state(), before)


NETS = """
import torch
from torch import nn

def make(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def one():
    return make(0)

def two():
    return make(1)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "transfer_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _command(*more: str) -> list[str]:
    models = ["--surrogate", "one=transfer_nets:one", "--victim", "one=transfer_nets:one"]
    rest = ["--victim", "two=transfer_nets:two", "--data", "digits", "--limit", "60", "--threat", "linf:0.1"]
    return ["transfer", *models, *rest, "--attack", "mi-fgsm:steps=3", "--out", "out", *more]


def test_the_command_writes_page_table_and_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_command()) == 0
    printed = capsys.readouterr().out
    assert sorted(path.name for path in (here / "out").iterdir()) == ["index.html", "transfer.json", "transfer.txt"]
    matrix = TransferMatrix.load(here / "out" / "transfer.json")
    assert printed.strip() == str(matrix) == (here / "out" / "transfer.txt").read_text(encoding="utf-8").strip()
    assert matrix.cell("one", "one").white_box
    assert not matrix.cell("one", "two").white_box
    assert matrix.examples == 60
    assert (here / "out" / "index.html").read_text(encoding="utf-8") == heat_page(matrix)
    assert main(_command("--batch-size", "7")) == 0
    assert TransferMatrix.load(here / "out" / "transfer.json").cells == matrix.cells


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--surrogate", "one"], "NAME=SPEC"),
        (["--victim", "two=transfer_nets:one"], "given twice"),
        (["--attack", "random-sign"], "asks the model itself"),
        (["--attack", "mi-fgsmm"], "mi-fgsmm"),
        (["--goal", "least-likely"], "least-likely"),
        (["--threat", "linf"], "norm:eps"),
        (["--surrogate", "all=transfer_nets:two"], "rows of the matrix"),
    ],
)
def test_wrong_use_ends_with_two(here: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main(_command(*more)) == 2
    assert message in capsys.readouterr().err
    assert not (here / "out").exists()


def test_models_and_data_are_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transfer", "--threat", "linf:0.1", "--data", "digits"]) == 2
    assert "--surrogate NAME=SPEC" in capsys.readouterr().err
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    assert main([*_command()[:-1], "full"]) == 2
    assert (here / "full" / "mine.txt").exists()
