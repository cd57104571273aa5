"""The example of tape on a sign: what it draws, and its whole way on a tiny budget."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytest.importorskip("PIL.Image", reason="needs Pillow (signstep[images])")


@pytest.fixture
def sticker() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("sticker")
    finally:
        sys.path.remove(str(EXAMPLES))
        sys.modules.pop("sticker", None)


def test_signs_differ_and_tape_lies_on_them(sticker: ModuleType) -> None:
    signs = torch.stack([sticker.sign(name) for name in sticker.SIGNS])
    assert signs.shape == (5, 3, sticker.SIDE, sticker.SIDE)
    far = (signs[:, None] - signs[None]).abs().flatten(2).mean(2) + torch.eye(5)
    assert float(far.min()) > 0.03
    bare = torch.tensor(sticker.BACKGROUND).reshape(3, 1, 1) / 255
    assert float((signs[:, :, 0, 0] - bare[:, 0, 0]).abs().max()) < 1e-6  # corners show the background
    mask = sticker.tape()
    assert 0 < float(mask.float().mean()) < 0.3
    assert bool((mask == mask[:1]).all())


def test_views_are_fresh_and_their_own(sticker: ModuleType) -> None:
    x = sticker.sign("stop").expand(3, -1, -1, -1)
    one, other = (sticker.views(x, sticker.Key(0).fold(purpose)) for purpose in ("judged", "shown"))
    assert torch.equal(one, sticker.views(x, sticker.Key(0).fold("judged")))
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    assert torch.equal(sticker.views(x[1:2].expand(2, -1, -1, -1), sticker.Key(0).fold("judged"))[0], one[0])


def test_one_command_writes_the_picture_and_says_what_it_shows(
    sticker: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    out = tmp_path / "sticker.png"
    words = ["--train", "3", "--steps", "2", "--eot", "2", "--views", "9", "--out", str(out)]
    before = torch.get_rng_state()
    sticker.main(words)
    said = capsys.readouterr().out.splitlines()
    assert torch.equal(torch.get_rng_state(), before)
    assert said[0].startswith("stop -> speed limit 30, tape on ")
    assert [line.count(" of 9 ") for line in said[1:7]] == [1] * 6
    assert "the tape, read back from PNG" in said[5]
    with Image.open(out) as picture:
        assert picture.size == (5 * (sticker.SHOWN + sticker.GAP) - sticker.GAP, sticker.SHOWN + sticker.CAPTION)
    sticker.main(words)
    assert capsys.readouterr().out.splitlines() == said


def test_a_sign_cannot_pass_for_itself(sticker: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sticker.main(["--target", "stop"])
    assert "is the sign itself" in capsys.readouterr().err


def test_the_picture_of_the_page_is_small() -> None:
    picture = EXAMPLES.parent / "docs" / "images" / "sticker.png"
    assert 5_000 < picture.stat().st_size < 150_000
