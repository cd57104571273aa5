"""Whole audits: the loop and the series, from the request to the record."""

from pathlib import Path

import pytest
import torch

from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.domains import Request, audit_case
from signstep.domains.control import CHECKERS, case
from signstep.errors import InputError, LoadError

LOOP = """
plant = "pendulum"
seconds = 3.0

[[sensor]]
name = "angle"
budget = 0.12
rate = 2.0
windows = [[0.0, 2.5]]

[[sensor]]
name = "angular velocity"
budget = 0.4
"""


def test_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "pendulum.toml"
    path.write_text(LOOP)
    made = case(Request(schema=path, limit=4))
    kept = Evidence()
    result = audit_case(made, run=Run(evidence=kept))
    assert (result.examples, result.clean_right) == (4, 4)
    assert result.attack("pgd:steps=20").fooled == 4
    assert result.attack("random-sign").fooled == 0
    assert all(entry.unverified == 0 for entry in result.attacks)
    assert [section.title for section in result.sections] == [
        "Smallest sensor error that causes failure",
        "Random error of the same size",
        "Trajectories",
    ]
    chart = result.sections[2].chart
    assert chart is not None
    assert [line.name for line in chart.lines] == ["adversarial", "random", "nominal"]
    values = [value for value in chart.lines[0].y if value is not None]
    assert abs(values[-1]) >= chart.limits[0][1] > max(map(abs, values[:-1]))
    assert max(abs(value or 0) for value in chart.lines[2].y) < chart.limits[0][1]
    assert Result.from_json(result.to_json()) == result
    points = kept.tensors()
    check = CHECKERS["sensors"]
    assert bool(check(result.terms, points["x:error"], points["x_adv:error"]).ok.all())
    assert not bool(check(result.terms, points["x:error"], 1.01 * points["x_adv:error"]).ok.any())
    late = points["x_adv:error"].clone()
    late[:, 55, 0] = 0.01
    assert not bool(check(result.terms, points["x:error"], late).ok.any())


def test_the_size_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "pendulum.toml"
    path.write_text(LOOP)
    made = case(Request(schema=path, limit=1, threat="budget:0.01"))
    result = audit_case(made, attacks=("fgsm",), curve=False)
    assert result.attack("fgsm").fooled == 0
    assert result.terms["domain_terms"]["eps"] == 0.01


def test_a_controller_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_controls.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from signstep.domains.control import ClosedLoop, Pendulum\n"
        "def gain():\n"
        "    net = nn.Linear(2, 1, bias=False)\n"
        "    net.weight.data = torch.tensor([[-12.0, -3.0]])\n"
        "    return net\n"
        "def loop():\n"
        "    return ClosedLoop(Pendulum(spread=(0.01, 0.01)), gain())\n"
    )
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "pendulum.toml"
    path.write_text(LOOP)
    made = case(Request(schema=path, limit=2, model="own_controls:gain"))
    result = audit_case(made, attacks=("fgsm",), curve=False)
    assert result.clean_right == 2
    assert "own_controls:gain" in result.model
    path.write_text(LOOP.replace('plant = "pendulum"\n', ""))
    made = case(Request(schema=path, limit=2, model="own_controls:loop"))
    starts = next(iter(made.batches))[0]
    assert isinstance(starts, dict)
    assert float(starts["start"].abs().max()) <= 0.01
    path.write_text(LOOP.replace('"pendulum"', '"cart-pole"'))
    with pytest.raises(InputError, match="own_controls:loop is a loop with the plant 'pendulum'"):
        case(Request(schema=path, model="own_controls:loop"))


def waves(folder: Path) -> Path:
    """Two kinds of waves in two channels, as the halves of a .ts data set."""
    generator = torch.Generator().manual_seed(0)
    for half, count in (("TRAIN", 20), ("TEST", 12)):
        lines = ["@dimensions 2", "@classLabel true slow fast", "@data"]
        for number in range(count):
            speed = 0.9 if number % 2 else 0.3
            wave = torch.sin(torch.arange(30) * speed) + 0.1 * torch.randn(2, 30, generator=generator)
            lines.append(
                ":".join(",".join(f"{v:.5f}" for v in row) for row in wave.tolist())
                + f":{['slow', 'fast'][number % 2]}"
            )
        (folder / f"waves_{half}.ts").write_text("\n".join(lines))
    return folder / "waves_TEST.ts"


def test_series(tmp_path: Path) -> None:
    data = waves(tmp_path)
    made = case(Request(data=str(data), threat="budget:3"))
    result = audit_case(made)
    assert result.clean_accuracy == 1.0
    assert result.attack("pgd:steps=20").fooled > result.attack("random-sign").fooled
    assert [section.title for section in result.sections] == ["By class", "Sensors", "One series"]
    turned = [row[-1] for row in result.sections[0].rows]
    assert sum(map(int, turned)) == result.fooled
    chart = result.sections[2].chart
    assert chart is not None
    before, after = chart.lines
    budget = max(part["budget"] for part in result.terms["domain_terms"]["sensors"])
    assert 0 < max(abs((a or 0) - (b or 0)) for a, b in zip(before.y, after.y, strict=True)) <= 3 * budget * 1.001
    assert Result.from_json(result.to_json()) == result


def test_a_schema_of_series(tmp_path: Path) -> None:
    data = waves(tmp_path)
    path = tmp_path / "waves.toml"
    path.write_text(
        'interval = 0.5\n[[sensor]]\nname = "left"\nunit = "V"\nbudget = 0.5\n[[sensor]]\nname = "right"\nbudget = 0\n'
    )
    made = case(Request(data=str(data), schema=path, limit=6))
    assert [(part["name"], part["budget"]) for part in made.terms["sensors"]] == [("left", 0.5), ("right", 0.0)]
    assert (made.terms["interval"], made.total) == (0.5, 6)
    path.write_text('[[sensor]]\nname = "left"\nbudget = 0.5\n[[sensor]]\nname = "right"\nbudget_std = 1\n')
    with pytest.raises(InputError, match="'budget_std', which is not known"):
        case(Request(data=str(data), schema=path))
    path.write_text('[[sensor]]\nname = "left"\nbudget = 0.5\n')
    with pytest.raises(InputError, match="'left', which is no column of the data; write one of channel 1, channel 2"):
        case(Request(data=str(data), schema=path))
    path.write_text('seconds = 2.0\n[[sensor]]\nname = "channel 1"\nbudget = 0.5\n')
    with pytest.raises(InputError, match="seconds = 2 belongs to a closed loop"):
        case(Request(data=str(data), schema=path))


def test_skipped_series_are_in_the_notes(tmp_path: Path) -> None:
    data = waves(tmp_path)
    data.write_text(data.read_text() + "\n1,2:3,4:slow\n")
    made = case(Request(data=str(data), skip_bad=True))
    assert made.total == 12
    assert any(note.startswith("1 series left out (--skip-bad)") for note in made.notes)


def test_halves_that_are_missing(tmp_path: Path) -> None:
    data = waves(tmp_path)
    (tmp_path / "waves_TRAIN.ts").unlink()
    with pytest.raises(InputError, match=r"there is no waves_TRAIN\.ts to train a model on; pass model="):
        case(Request(data=str(data)))
    (tmp_path / "a.csv").write_text("a,label\n" + 20 * "1,x\n" + 19 * "2,y\n")
    with pytest.raises(InputError, match=r"the class 'y' has too few series .* \(1 in all\); pass model="):
        case(Request(data=str(tmp_path / "a.csv")))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(LoadError, match=r"empty\.csv is empty or starts with an empty line"):
        case(Request(data=str(tmp_path / "empty.csv")))
    (tmp_path / "empty.csv").write_text("a,label\n\n")
    with pytest.raises(LoadError, match=r"empty\.csv has no rows; pass a table"):
        case(Request(data=str(tmp_path / "empty.csv")))
