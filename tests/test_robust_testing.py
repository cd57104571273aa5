"""Robustness inside a test suite, MLflow, and images on disk."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import signstep as ss
from signstep.errors import InputError, LoadError, MissingExtraError
from signstep.export import read_png, write_png
from signstep.testing import assert_robust

pytest_plugins = ["pytester"]


def linear() -> nn.Module:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.zero_()
    return model.eval()


X = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.52, 0.5], [0.1, 0.9]])
Y = torch.tensor([0, 1, 0, 1])


def test_enough_survivors_pass() -> None:
    assert_robust(linear(), (X, Y), threat=ss.linf(0.05), at_least=0.75)


def test_too_few_fail_with_the_table() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_robust(linear(), (X, Y), threat=ss.linf(0.05), at_least=0.8)
    text = str(caught.value)
    assert text.startswith("robust accuracy 0.7500 is under 0.8 (3 of 4)")
    assert "worst case" in text
    assert "SS301" in text


def test_a_ladder_can_be_climbed_in_a_test() -> None:
    rungs = ["fgsm", "pgd:steps=3"]
    assert_robust(linear(), (X, Y), threat=ss.linf(0.05), at_least=0.75, ladder=rungs)
    with pytest.raises(AssertionError, match="ladder custom: each rung"):
        assert_robust(linear(), (X, Y), threat=ss.linf(0.05), at_least=0.8, ladder=rungs)


def test_a_share_is_a_share() -> None:
    with pytest.raises(InputError, match="at_least=40"):
        assert_robust(linear(), (X, Y), threat=ss.linf(0.05), at_least=40)


def test_an_interrupted_audit_passes_no_test() -> None:
    class Stopping(nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 12:
                raise KeyboardInterrupt
            return x

    with pytest.raises(AssertionError, match="interrupted"):
        assert_robust(Stopping(), [(X, Y)] * 9, threat=ss.linf(0.01), at_least=0.0, attacks=["random-sign"])


def test_the_plugin_gives_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import torch, signstep as ss

        def test_robust(assert_robust):
            data = torch.tensor([[0.9, 0.3]]), torch.tensor([0])
            assert_robust(lambda x: x, data, threat=ss.linf(0.05), at_least=1.0)

        def test_brittle(assert_robust):
            data = torch.tensor([[0.5, 0.49]]), torch.tensor([0])
            assert_robust(lambda x: x, data, threat=ss.linf(0.05), at_least=1.0)
        """
    )
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["*robust accuracy 0.0000 is under 1.0*"])


def test_the_plugin_does_not_import_torch() -> None:
    code = "import sys, signstep_pytest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mlflow_gets_figures_and_record(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ss.audit(linear(), (X, Y), threat=ss.linf(0.05), attacks=["fgsm", "pgd:steps=5,restarts=2"])
    logged: dict[str, object] = {}
    fake = types.ModuleType("mlflow")
    fake.log_metrics = logged.update  # type: ignore[attr-defined]
    fake.log_text = lambda text, name: logged.update({name: text})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    result.log()
    assert logged["signstep.robust_accuracy"] == 0.75
    assert logged["signstep.pgd_steps_5_restarts_2.fooled"] == 1.0
    assert ss.Result.from_json(str(logged["signstep/result.json"])) == result
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'signstep\[mlflow\]'"):
        result.log()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_png_keeps_what_lies_on_the_grid(tmp_path: Path, channels: int, low: float, high: float) -> None:
    levels = torch.arange(256).repeat(channels).reshape(1, channels, 16, 16).double()
    images = (low + levels / 255 * (high - low)).float()
    path = tmp_path / "image.png"
    write_png(images, [path], low=low, high=high)
    with Image.open(path) as image:
        assert image.mode == ("L" if channels == 1 else "RGB")
    assert torch.equal(read_png([path], low=low, high=high), images)


def test_png_rounds_to_the_nearest_level(tmp_path: Path) -> None:
    write_png(torch.tensor([[[[0.4 / 255, 0.6 / 255]]]]), [tmp_path / "a.png"])
    assert (read_png([tmp_path / "a.png"]) * 255).round().tolist() == [[[[0.0, 1.0]]]]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is no image"):
        write_png(torch.zeros(1, 5), [tmp_path / "a.png"])
    with pytest.raises(LoadError, match="cannot be written"):
        write_png(torch.zeros(1, 1, 2, 2), [tmp_path / "none" / "a.png"])
    assert list(tmp_path.iterdir()) == []
