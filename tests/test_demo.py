from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from signstep import demo as module
from signstep.demo import demo


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of one epoch and an empty cache folder."""
    monkeypatch.setattr(module, "_RECIPE", replace(module._RECIPE, epochs=1))
    monkeypatch.setenv("SIGNSTEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def equal(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_demo_is_accurate_on_digits_it_has_not_seen(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNSTEP_CACHE", str(shop))
    shown = demo(batch_size=200)
    with torch.no_grad():
        right = torch.cat([shown.model(x).argmax(1) == y for x, y in shown.data])
    assert len(right) == 500
    assert right.double().mean() >= 0.97
    assert not any(part.training for part in shown.model.modules())
    assert all(parameter.grad is None for parameter in shown.model.parameters())
    assert shown.data.bounds == (0.0, 1.0)


def test_the_second_call_reads_the_cache(quick: Path) -> None:
    first, second = demo(), demo()
    (file,) = quick.iterdir()
    assert first.notes == (f"weights trained now and kept in {file}",)
    assert second.notes == (f"weights read from {file}",)
    assert equal(first.model, second.model)


def test_training_repeats_and_touches_nothing_global(quick: Path) -> None:
    torch.manual_seed(123)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = demo()
    assert torch.equal(state, torch.get_rng_state())
    cached = demo()
    assert torch.equal(state, torch.get_rng_state())
    for file in quick.iterdir():
        file.unlink()
    torch.manual_seed(7)
    with torch.inference_mode():
        again = demo()
    assert equal(first.model, again.model)
    assert equal(first.model, cached.model)
    assert torch.get_num_threads() == threads
    assert not any(parameter.is_inference() for parameter in again.model.parameters())


def test_damaged_files_are_replaced(quick: Path) -> None:
    first = demo()
    (file,) = quick.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]  # one bit of one weight: still a valid file
    for content in (b"", whole[:50], whole[: len(whole) // 2], b"x" * len(whole), flipped):
        file.write_bytes(content)
        shown = demo()
        assert shown.notes[0].startswith("weights trained now and kept")
        assert equal(first.model, shown.model)
        assert file.read_bytes() == whole
    assert list(quick.iterdir()) == [file]  # no temporary files stay


def test_another_recipe_has_another_file(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo()
    monkeypatch.setattr(module, "_RECIPE", replace(module._RECIPE, seed=1))
    assert demo().notes[0].startswith("weights trained now")
    assert len(list(quick.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(quick: Path) -> None:
    quick.write_text("a file where the folder should be")
    shown = demo()
    assert shown.notes == ("weights trained now and not kept: set SIGNSTEP_CACHE to a folder that can be written",)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("SIGNSTEP_CACHE", str(tmp_path / "own"))
    assert module._cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SIGNSTEP_CACHE")
    assert module._cache_folder() == tmp_path / "xdg" / "signstep"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert module._cache_folder() == tmp_path / "home" / ".cache" / "signstep"
