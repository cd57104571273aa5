"""Which Python files are behind a model: the user's own, followed through imports; none that is installed."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from signstep.model.opening import open_model
from signstep.model.opening.sources import code_hash, source_files
from signstep.networks import small

FILES = {
    "srcnets": "import torch\nfrom srcparts import Block\n\ndef net():\n    return torch.nn.Sequential(Block())\n",
    "srcparts": "from torch import nn\nimport srcprep\n\nclass Block(nn.Linear):\n    def __init__(self):\n"
    "        super().__init__(2, 3)\n    def forward(self, x):\n        return super().forward(srcprep.scaled(x))\n",
    "srcprep": "def scaled(x):\n    return x / 2\n",
    "srcalone": "from torch import nn\n\ndef net():\n    return nn.Linear(2, 3)\n",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name, None)


def again(spec: str) -> str | None:
    for name in FILES:
        sys.modules.pop(name, None)
    return open_model(spec).hashes.get("code")


def test_one_file_has_its_own_hash(place: Path) -> None:
    digest = hashlib.sha256((place / "srcalone.py").read_bytes()).hexdigest()
    assert open_model("srcalone:net").hashes["code"] == digest


def test_imports_are_followed_to_the_preprocessing(place: Path) -> None:
    model = open_model("srcnets:net").module
    files = source_files("srcnets", model)
    assert {name: path.name for name, path in files.items()} == {
        "srcnets": "srcnets.py",
        "srcparts": "srcparts.py",
        "srcprep": "srcprep.py",
    }
    lines = [f"{hashlib.sha256(FILES[name].encode()).hexdigest()}  {name}\n" for name in sorted(files)]
    assert code_hash(files) == hashlib.sha256("".join(lines).encode()).hexdigest()
    before = again("srcnets:net")
    assert before == code_hash(files)
    for name in ("srcprep", "srcparts", "srcnets"):
        (place / f"{name}.py").write_text(FILES[name] + "# changed\n")
        assert again("srcnets:net") != before
        (place / f"{name}.py").write_text(FILES[name])
    (place / "srcalone.py").write_text("# nobody imports it\n")
    assert again("srcnets:net") == before


def test_installed_packages_are_told_by_their_versions(place: Path) -> None:
    del place
    assert list(source_files("srcalone", nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == []  # not imported
    open_model("srcalone:net")
    assert list(source_files("srcalone", nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == ["srcalone"]
    # The factory's own file counts wherever it lies.
    assert list(source_files("torch.nn.modules.linear", nn.Linear(2, 2))) == ["torch.nn.modules.linear"]
    assert list(source_files(small.__name__, nn.Linear(2, 2))) == ["signstep.networks.small"]


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_so_are_those_of_another_environment(folder: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PYTHONPATH, as clusters put them: of these, what has been imported differs from process to process."""
    there = place / "lib" / folder
    about = there / "srcparts-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: srcparts\nVersion: 1.0\n")
    (about / "RECORD").write_text("srcparts.py,sha256=x,1\nsrcprep.py,,\nsrcparts-1.0.dist-info/METADATA,,\n")
    for name in ("srcparts", "srcprep"):
        (place / f"{name}.py").rename(there / f"{name}.py")
    monkeypatch.syspath_prepend(str(there))
    assert list(source_files("srcnets", open_model("srcnets:net").module)) == ["srcnets"]


def test_code_that_no_package_put_among_packages_counts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No version tells of it."""
    there = place / "site-packages"
    (there / "other-1.0.dist-info").mkdir(parents=True)
    (there / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (there / "other-1.0.dist-info" / "RECORD").write_text("other/__init__.py,,\n")
    for name in ("srcparts", "srcprep"):
        (place / f"{name}.py").rename(there / f"{name}.py")
    monkeypatch.syspath_prepend(str(there))
    assert sorted(source_files("srcnets", open_model("srcnets:net").module)) == ["srcnets", "srcparts", "srcprep"]


def test_a_program_has_no_code(tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Linear(2, 2), (torch.zeros(3, 2),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    assert open_model(str(tmp_path / "net.pt2"), trust=True).hashes.get("code") is None
    assert code_hash({}) is None
