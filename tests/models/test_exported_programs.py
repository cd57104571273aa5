from pathlib import Path

import pytest
import torch
from torch import nn

from signstep.errors import InputError, LoadError
from signstep.model.opening import open_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch.export's own


def export(path: Path, *, free: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(), nn.Linear(72, 3)).eval()
    shapes = ({0: torch.export.Dim.DYNAMIC},) if free else None
    torch.export.save(torch.export.export(model, (torch.zeros(4, 1, 8, 8),), dynamic_shapes=shapes), path)
    return model


def test_a_trusted_program_is_a_differentiable_model(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    original = export(path, free=True)
    loaded = open_model(str(path), trust=True)
    assert loaded.title == f"exported program {path}"
    assert "weights" in loaded.hashes
    loaded.module.train()
    loaded.module.eval()  # a bare graph module raises here
    assert not any(module.training for module in loaded.module.modules())
    for rows in (1, 3, 6):
        x = torch.rand(rows, 1, 8, 8, requires_grad=True)
        torch.testing.assert_close(loaded.module(x), original(x))
        ours, theirs = (torch.autograd.grad(model(x).logsumexp(1).sum(), x)[0] for model in (loaded.module, original))
        torch.testing.assert_close(ours, theirs)


def test_a_program_is_not_loaded_without_trust(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"anything")
    with pytest.raises(
        LoadError, match=r"net.pt2 is an exported program, and loading one can run code; pass trust=True"
    ):
        open_model(str(path))


def test_a_program_for_one_batch_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    export(path, free=False)
    with pytest.raises(LoadError, match=r"for batches of exactly 4 row\(s\), .* dynamic_shapes="):
        open_model(str(path), trust=True)


def test_a_damaged_program(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"no program")
    with pytest.raises(LoadError, match=r"cannot be loaded as an exported program"):
        open_model(str(path), trust=True)


def test_a_missing_program() -> None:
    with pytest.raises(LoadError, match=r"the program none.pt2 does not exist"):
        open_model("none.pt2", trust=True)


def test_weights_and_arguments_make_no_sense_here() -> None:
    with pytest.raises(InputError, match=r"net.pt2 is a whole model with its own weights, got weights=w.pt"):
        open_model("net.pt2", weights="w.pt", trust=True)
    with pytest.raises(InputError, match=r"got arguments {'a': 1}; leave them out"):
        open_model("net.pt2", args={"a": 1}, trust=True)
