"""``ss.verify``: the checks of the command, for a model and data that are there already."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from forger import Forged
from safetensors.torch import load_file
from torch import Tensor, nn

import signstep as ss
from signstep.errors import InputError


def own() -> tuple[ss.Model, tuple[Tensor, Tensor]]:
    """The verifier's own model and data, which lie in the current folder."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    net.load_state_dict(load_file("net.safetensors"))
    saved = np.load("flat.npz")
    name = "forgednets:net with net.safetensors"
    return ss.Model(net, name=name), (torch.from_numpy(saved["x"]), torch.from_numpy(saved["y"]))


def state(checked: ss.Verification, name: str) -> str:
    return next(check.state for check in checked.checks if check.name == name)


def threat_of(forged: Forged) -> ss.ThreatModel:
    terms = forged.record["terms"]
    return ss.threat_model(terms["norm"], terms["eps"])


def test_an_honest_report_holds_and_a_changed_one_does_not(forged: Forged) -> None:
    report = forged.write()
    model, data = own()
    checked = ss.verify(report, model, data, threat=threat_of(forged), again=5)
    assert checked.holds, str(checked)
    assert state(checked, "answers") == state(checked, "clean inputs") == state(checked, "again") == "ok"
    assert checked.result is not None
    assert any(line.startswith("seconds") for line in checked.unprovable)
    with torch.no_grad():
        network = model.network
        assert isinstance(network, nn.Module)
        next(network.parameters()).mul_(-1)
    other = ss.verify(report, model, data, threat=threat_of(forged))
    assert not other.holds
    assert "FAIL" in str(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda model, data, threat: (model, data, ss.threat_model(threat.norm, 0.3)),
        lambda model, data, threat: (model, (data[0].flip(0), data[1]), threat),
        lambda model, data, threat: (model, (data[0], (data[1] + 1) % 4), threat),
    ],
    ids=["another threat", "other rows", "other labels"],
)
def test_what_the_verifier_brings_decides(
    forged: Forged, change: Callable[[ss.Model, tuple[Tensor, Tensor], ss.ThreatModel], tuple[object, object, object]]
) -> None:
    report = forged.write()
    model, data, threat = change(*own(), threat_of(forged))
    checked = ss.verify(report, model, data, threat=threat)  # type: ignore[arg-type]
    assert not checked.holds


def test_without_a_model_nothing_is_complete(forged: Forged, tmp_path: Path) -> None:
    report = forged.write()
    checked = ss.verify(report)
    assert checked.holds
    assert not checked.complete
    assert str(checked).endswith("incomplete: nothing fails")
    forged.record["examples"] += 1
    assert not ss.verify(forged.write()).holds
    model, data = own()
    for given, said in (({"model": model}, "belong together"), ({"model": model, "data": data}, "threat is missing")):
        with pytest.raises(InputError, match=said):
            ss.verify(report, **given)
    empty = ss.verify(tmp_path)
    assert not empty.holds
