"""Pictures: which examples, which values are black and white, how far the change is amplified, what is saved."""

import base64
import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import report_samples as samples
import torch

from signstep.report.pictures import MOST, amplification, choose, gallery

Image = pytest.importorskip("PIL.Image", reason="pictures need signstep[images]")


def test_the_pictures_show_the_points(tmp_path: Path) -> None:
    result, points = samples.images()
    html = samples.written(tmp_path, result, points)
    shown = gallery(result, points)
    gallery_alone = html[html.index('id="pictures"') :]
    uris = re.findall(r'src="(data:image/png;base64,[^"]+)"', gallery_alone)
    assert len(uris) == 3 * len(shown.pictures)
    for place, row in enumerate(choose(result, points)):
        clean, change, adversarial = (decoded(uri) for uri in uris[3 * place : 3 * place + 3])
        assert torch.equal(clean, levels(points["x"][row]))
        assert torch.equal(adversarial, levels(points["x_adv"][row]))
        moved = (points["x_adv"][row].double() - points["x"][row].double()) * shown.factor + 0.5
        assert (change.int() - levels(moved).int()).abs().max() <= 1
    assert f"times {shown.factor:g}" in html
    assert "the same factor for all" in html


def test_classes_take_turns_and_the_strongest_attack_comes_first() -> None:
    result, points = samples.images()
    rows = choose(result, points)
    labels = points["y"][rows].tolist()
    assert len(rows) == min(MOST, len(points["x"]))
    kinds = len(set(points["y"].tolist()))
    assert len(set(labels[:kinds])) == kinds
    many = {**points, "y": torch.arange(len(points["x"])), "attack": torch.arange(len(points["x"])) % 3}
    best = max(range(3), key=lambda k: (result.attacks[k].fooled, result.attacks[k].backwards))
    assert int(many["attack"][choose(result, many)[0]]) == best


def test_strips_are_saved_and_old_ones_go(tmp_path: Path) -> None:
    result, points = samples.images()
    samples.written(tmp_path, result, points)
    folder = tmp_path / "pictures"
    before = sorted(path.name for path in folder.iterdir())
    assert before == [f"{k:02d}.png" for k in range(1, len(gallery(result, points).pictures) + 1)]
    assert size(folder / "01.png") == (3 * 112 + 2 * 4, 112)
    (folder / "50.png").write_bytes(b"somebody else's")
    samples.written(tmp_path, result, {name: part[:1] for name, part in points.items()})
    assert sorted(path.name for path in folder.iterdir()) == ["01.png", "50.png"]


def test_values_are_shown_between_the_ends_of_the_box() -> None:
    result, points = samples.images()
    wide = {**points, "x": 255 * points["x"], "x_adv": 255 * points["x_adv"]}
    terms = {**result.terms, "box_span": 255.0, "threat_terms": {"low": 0.0, "high": 255.0}}
    pictures = gallery(replace(result, terms=terms), wide)
    assert "white 255" in pictures.sentence
    assert pictures.factor == gallery(result, points).factor
    old = {name: value for name, value in result.terms.items() if name != "threat_terms"}
    assert "Black is 0 and white 1" in gallery(replace(result, terms=old), points).sentence
    open_ = {**result.terms, "threat": "linf eps=1, no box", "box_span": None, "threat_terms": None}
    assert "no single box" in gallery(replace(result, terms=open_), points).sentence


def test_normalised_points_are_shown_in_raw_units() -> None:
    result, points = samples.images()
    space = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "inputs": "raw", "budget": "normalised"}
    mean, std = (torch.tensor(space[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    moved = {name: (points[name] - mean) / std if name in ("x", "x_adv") else points[name] for name in points}
    row = choose(result, points)[0]
    shown = gallery(replace(result, terms={**result.terms, "input_space": space}), moved)
    assert (decoded(shown.pictures[0].clean).int() - levels(points["x"][row]).int()).abs().max() <= 1


def test_large_pictures_are_reduced_on_the_page_and_whole_on_the_disk(tmp_path: Path) -> None:
    result, points = samples.images()
    large = {name: part[:2] for name, part in points.items()}
    for name in ("x", "x_adv"):
        large[name] = large[name].repeat(1, 1, 100, 120)
    html = samples.written(tmp_path, result, large)
    assert "Reduced on this page" in html
    assert 'class="small"' not in html
    picture = gallery(result, large).pictures[0]
    assert decoded(picture.clean).shape == (133, 160, 3)
    assert size(tmp_path / "pictures" / "01.png") == (3 * 480 + 8, 400)


def test_confidences_are_shown_where_there_are_any(tmp_path: Path) -> None:
    result, points = samples.images()
    sure = {**points, "confidence": torch.full((len(points["x"]),), 0.87)}
    assert "(87\u00a0%)" in samples.written(tmp_path, result, sure)


def test_grey_images_and_rows_alone() -> None:
    result, points = samples.images()
    grey = {name: points[name][:, :1] for name in ("x", "x_adv")}
    shown = gallery(result, grey)
    assert len(shown.pictures) == MOST
    assert shown.pictures[0].before == shown.pictures[0].attack == ""


def test_factors_never_leave_the_scale() -> None:
    assert [amplification(value) for value in (0.0, 4 / 255, 0.5, 0.9)] == [1, 30, 1, 0.5]
    assert all(amplification(k / 1000) * k / 1000 <= 0.5005 for k in range(1, 1001))


def test_without_pillow_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    result, points = samples.images()
    html = samples.written(tmp_path, result, points)
    assert "pictures need signstep[images]" in html
    assert "<img" not in html
    assert not (tmp_path / "pictures").exists()


def decoded(uri: str) -> torch.Tensor:
    """(H, W, C) levels."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.reshape(image.height, image.width, -1)


def levels(x: torch.Tensor) -> torch.Tensor:
    return (x.double().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        width, height = image.size
    return width, height
