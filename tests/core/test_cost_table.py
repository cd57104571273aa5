"""The cost table: what its rows say follows from audits of the same examples; sentences; the commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import labels, mlp, rand

import signstep as ss
from signstep.defences import Bench, CostRow, table
from signstep.defences.cost.record import worth
from signstep.errors import InputError
from signstep.report.costs import write_costs

NET = mlp(64, 5, seed=4, dtype=torch.float32, scale=2.5)
X = rand(14, 1, 8, 8, dtype=torch.float32)
Y = labels(NET, X)
THREAT = ss.linf(0.03)


class Refusing:
    """A detector that refuses every third input, and so holds of two attacks what is left."""

    name, kind = "refusing", "detector"

    def measured(self, bench: Bench) -> CostRow:
        assert bench.base is not None
        letters = "".join("h" if place % 3 == 0 else letter for place, letter in enumerate(bench.base.worst_case))
        return bench.row(
            self.name,
            self.kind,
            clean=2 / 3,
            unaware=letters.count("h") / len(letters),
            aware=bench.base.robust_accuracy,
            p=bench.against_base(bench.base.worst_case),
            training="clean rows to calibrate on",
            ease="medium: refusals need a plan",
        )


def test_rows_are_audits_of_the_same_examples(tmp_path: Path) -> None:
    chain = ["bit-depth:bits=2", "gaussian-blur:sigma=0.5"]
    stronger = mlp(64, 5, seed=4, dtype=torch.float32, scale=0.5)
    found = table(
        NET,
        (X, Y),
        threat=THREAT,
        rows=["bit-depth:bits=2", chain, Refusing()],
        trained={"smaller": stronger},
        sigma=0.1,
        attacks=["pgd:steps=3"],
    )
    names = ["undefended", "bit-depth:bits=2", " + ".join(chain), "refusing", "smoothing:sigma=0.1", "smaller"]
    assert [row.name for row in found.rows] == names
    assert [row.kind for row in found.rows] == [
        "none", "transformation", "transformation", "detector", "smoothing", "training",
    ]  # fmt: skip
    plain = found["undefended"]
    assert plain.aware == ss.audit(NET, [(X, Y)], threat=THREAT, attacks=["pgd:steps=3"], curve=False).robust_accuracy
    for row, spec in ((found.rows[1], chain[:1]), (found.rows[2], chain)):
        for path, share in (("aware", row.aware), ("straight", row.unaware)):
            search = ss.Search(gradient_path=path)  # type: ignore[arg-type]
            audit = ss.audit(
                ss.defend(NET, spec), [(X, Y)], threat=THREAT, attacks=["pgd:steps=3"], curve=False, search=search
            )
            assert share == audit.robust_accuracy
        assert row.aware is not None
        assert row.unaware is not None
        assert row.aware <= row.unaware
        assert row.latency is not None
        assert all(time > 0 for time in row.latency)
    assert "of other norms" in found["smoothing:sigma=0.1"].verdict
    plain_record = json.loads(found.to_json())
    assert plain_record["kind"] == "defences"
    assert [row["aware"] for row in plain_record["rows"]] == [row.aware for row in found.rows]
    text = str(found)
    assert all(row.name in text for row in found.rows)
    write_costs(found, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert all(row.verdict in page for row in found.rows[1:])
    assert "<script" not in page


def test_a_policy_is_a_row_that_an_aware_attacker_meets() -> None:
    calm = rand(120, 1, 8, 8, dtype=torch.float32, seed=9)
    detector = ss.detectors.fit("confidence", NET, (calm, labels(NET, calm)))
    policy = ss.Policy(detectors=[detector], reject=0.1)
    found = table(NET, (X, Y), threat=THREAT, rows=[policy], attacks=["pgd:steps=3"])
    row = found.rows[1]
    assert row.kind == "detector"
    assert row.name == "confidence at 0.1"
    assert row.aware is not None
    assert row.unaware is not None
    assert row.aware <= row.unaware <= row.clean
    assert "right answers refused" in row.note


SENTENCES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"clean": 0.888, "unaware": 0.51, "aware": 0.204, "p": 0.5},
     "costs 1.2 points clean, gains 31.0 unaware, 0.4 aware: usability, not security"),
    ({"clean": 0.8, "unaware": None, "aware": 0.7, "p": 1e-9},
     "costs 10.0 points clean, gains 50.0 robust: worth something against these attacks, and nothing is proved"),
    ({"clean": 0.9, "unaware": 0.2, "aware": 0.2, "p": 1.0},
     "costs 0.0 points clean, gains 0.0 unaware, 0.0 aware: not even an unaware attacker is held off"),
    ({"clean": 0.5, "unaware": 0.4, "aware": 0.4, "p": 1e-9}, "it costs more than it gains"),
    ({"clean": 0.9, "unaware": 0.4, "aware": 0.3, "p": 0.2}, "too few examples, or too weak attacks"),
)  # fmt: skip


@pytest.mark.parametrize(("given", "sentence"), SENTENCES, ids=range(len(SENTENCES)))
def test_the_sentence_follows_from_the_numbers(given: dict[str, Any], sentence: str) -> None:
    row = CostRow(name="", kind="", latency=None, training="", ease="", verdict="", **given)
    assert sentence in worth(0.9, 0.2, row)


def test_without_rows_all_that_fit_are_measured_and_the_others_named() -> None:
    found = table(mlp(18, 3, dtype=torch.float32), (rand(6, 18, dtype=torch.float32), None), threat=THREAT)
    assert [row.name.partition(":")[0] for row in found.rows] == [
        "undefended", "bit-depth", "uniform-noise", "gaussian-noise",
    ]  # fmt: skip
    assert any("jpeg was not measured: jpeg needs images" in note for note in found.notes)
    with pytest.raises(InputError, match="needs images"):
        table(mlp(18, 3, dtype=torch.float32), (rand(6, 18, dtype=torch.float32), None), threat=THREAT, rows=["jpeg"])
    with pytest.raises(InputError, match="no box with two ends"):
        table(NET, (X, Y), threat=ss.linf(0.03, box=None))


NETS = """
import torch
from torch import nn


def net(scale=1.0):
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(scale * torch.tensor([[4.0, -1.0, 0.5, 2.0], [-2.0, 3.0, 1.0, -1.0]]))
        layer.bias.zero_()
    return layer


def points(rows=12, seed=0):
    x = torch.rand(rows, 4, generator=torch.Generator().manual_seed(seed))
    return [(x, net()(x).argmax(1))]


def calm():
    return points(60, 1)
"""


def test_the_commands_print_and_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from signstep.cli import main

    (tmp_path / "costnets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--model", "costnets:net", "--data", "costnets:points"]
    words = ["defences", *own, "--threat", "linf:0.1", "--attack", "pgd:steps=2", "--defend", "bit-depth:bits=2"]
    words += ["--defend", "bit-depth+uniform-noise:radius=0.02", "--trained", "twice=costnets:net", "--out", "costs"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in record["rows"]][1:] == [
        "bit-depth:bits=2", "bit-depth:bits=5 + uniform-noise:radius=0.02", "twice",
    ]  # fmt: skip
    assert record == json.loads((tmp_path / "costs" / "defences.json").read_text(encoding="utf-8"))
    assert (tmp_path / "costs" / "index.html").is_file()
    assert main(["defences", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ss.defences.DEFENCES.own)
    assert main([*words[:5], "--threat", "linf:0.1", "--defend", "jpg"]) == 2
    assert "did you mean 'jpeg'?" in capsys.readouterr().err
    assert main([*words[:5], "--threat", "linf:0.1", "--trained", "costnets:net"]) == 2
    assert "NAME=MODEL" in capsys.readouterr().err
    smooth = ["smooth", *own, "--sigma", "0.1", "--draws", "60", "--limit", "5"]
    assert main([*smooth, "--out", "smooth.json"]) == 0
    assert "smoothed classifier" in capsys.readouterr().out
    record = json.loads((tmp_path / "smooth.json").read_text(encoding="utf-8"))
    assert len(record["radii"]) == 5
    assert record["n"] == 60
    assert main([*smooth, "--sigma", "0"]) == 2
    assert "sigma" in capsys.readouterr().err


def test_detectors_are_rows_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each a row beside transformations, by name, joined, or by file; the numbers are those of the policy in Python."""
    from signstep.cli import main

    (tmp_path / "costwatch.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--model", "costwatch:net", "--data", "costwatch:points", "--threat", "linf:0.1"]
    fit = ["detect", "fit", "--model", "costwatch:net", "--data", "costwatch:calm", "--detect", "energy"]
    assert main([*fit, "--out", "e.safetensors"]) == 0
    capsys.readouterr()
    words = ["defences", *own, "--attack", "pgd:steps=2", "--json", "--reject", "0.1", "--clean", "costwatch:calm"]
    words += ["--detect", "confidence", "--detect", "confidence+energy", "--detect", "e.safetensors"]
    assert main([*words, "--defend", "bit-depth:bits=2"]) == 0
    found = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in found] == [
        "undefended", "bit-depth:bits=2", "confidence at 0.1", "confidence + energy at 0.1", "energy at 0.1",
    ]  # fmt: skip
    assert [row["kind"] for row in found[2:]] == ["detector"] * 3
    import costwatch  # type: ignore[import-not-found]

    ((x, y),) = costwatch.points()
    net = costwatch.net()
    detector = ss.detectors.fit("confidence", net, costwatch.calm())
    policy = ss.Policy(detectors=[detector], reject=0.1)
    alone = table(net, (x, y), threat=ss.linf(0.1), rows=[policy], attacks=["pgd:steps=2"])["confidence at 0.1"]
    shown = ("clean", "unaware", "aware", "note")
    assert {name: found[2][name] for name in shown} == {name: getattr(alone, name) for name in shown}
    for more, said in (
        (["--detect", "confidence"], "--reject 0.01"),
        (["--detect", "squeese", "--reject", "0.1"], "did you mean 'squeeze'"),
        (["--detect", "confidence+energy", "--reject", "0.1"], "--clean"),
        (["--reject", "0.1"], "without detectors"),
        (["--detect", "energy", "--reject", "0.1", "--clean", "costwatch:points"], "the data that is audited"),
        (["--detect", "energy", "--reject", "0.001", "--clean", "costwatch:calm"], "at least 999 clean rows"),
    ):
        assert main(["defences", *own, *more]) == 2
        assert said in capsys.readouterr().err
