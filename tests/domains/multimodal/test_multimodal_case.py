"""From a request to a record: the built-in example, one's own model, and what breaks when a point is changed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_pairs import TEXTS, bert, pieces, words
from torch import Tensor
from typer.testing import CliRunner

import signstep.domains.multimodal as mm
from signstep.auditing.evidence import Evidence
from signstep.auditing.rescore import allowed
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.cli import app
from signstep.domains import Request, audit_case, domain
from signstep.domains.multimodal.choices import ids_of
from signstep.domains.multimodal.fusion import nlvr_model, scenes_model
from signstep.domains.multimodal.scenes import LENGTH, SYNONYMS, scenes, tokenizer
from signstep.domains.multimodal.schema import read_schema
from signstep.errors import InputError, LoadError


@pytest.fixture(scope="module")
def example() -> tuple[Result, dict[str, Tensor]]:
    kept = Evidence()
    case = domain("multimodal").case(Request(limit=40))
    return audit_case(case, run=Run(evidence=kept)), kept.tensors()


def test_the_model_of_the_scenes_is_as_good_as_the_page_says() -> None:
    held = scenes(400, seed=7)
    ids = ids_of(tokenizer(), held.sentences, LENGTH)
    with torch.no_grad():
        right = scenes_model()(held.images, ids).argmax(1) == held.labels
    assert float(right.float().mean()) > 0.95
    assert torch.equal(held.images, (255 * held.images).round() / 255)
    assert torch.equal(held.images, scenes(400, seed=7).images)


def test_the_example_attacks_each_input_and_both(example: tuple[Result, dict[str, Tensor]]) -> None:
    result, points = example
    assert result.examples == 40
    assert [entry.name for entry in result.attacks][::3] == [
        "random on image",
        "random on text",
        "random on image + text",
    ]
    assert all(entry.unverified == 0 for entry in result.attacks)
    both, image = result.attack("pgd on image + text"), result.attack("pgd on image")
    assert both.fooled >= image.fooled > result.attack("random on image").fooled
    table, inside, typed = result.sections
    assert table.title == "Cross-over"
    assert len(table.rows) == len(result.attacks)
    for row in inside.rows:
        assert (row[2] == "0.0% (0.000)") == (row[1] == "text"), "the image branch moves when the image does"
        assert (row[3] == "0.0% (0.000)") == (row[1] == "image")
    assert table.chart is not None
    assert table.chart.kind == "bars"
    assert table.chart.categories == ("image", "text", "image + text")
    numbers = [line for line in typed.text if line.startswith("Typed again")]
    changed = int((mm.tokens_of(points["x:text"]) != mm.tokens_of(points["x_adv:text"])).any(1).sum())
    assert f"of {changed} fooling examples" in numbers[0]
    assert f"{changed} give the same wrong answer" in numbers[0]
    assert Result.from_json(result.to_json()) == result


def test_the_words_that_fool_say_the_same(example: tuple[Result, dict[str, Tensor]]) -> None:
    _, points = example
    same = {word: group for group in SYNONYMS for word in group}
    before, after = (mm.tokens_of(points[name]) for name in ("x:text", "x_adv:text"))
    for was, now in zip(before.tolist(), after.tolist(), strict=True):
        old, new = tokenizer().decode(was).split(), tokenizer().decode(now).split()
        assert len(old) == len(new)
        assert all(b in same[a] for a, b in zip(old, new, strict=True))
        assert sum(a != b for a, b in zip(old, new, strict=True)) <= 2


@pytest.mark.parametrize("input_", ["image", "text"])
def test_a_changed_point_fails_the_check(example: tuple[Result, dict[str, Tensor]], input_: str) -> None:
    result, points = example
    checkers = domain("multimodal").checkers
    assert allowed(result, points, checkers).holds
    broken = {name: part.clone() for name, part in points.items()}
    if input_ == "image":
        broken["x_adv:image"][0, 0, 0, 0] = broken["x:image"][0, 0, 0, 0] + 0.05
    else:
        for place in range(3):
            broken["x_adv:text"][0, place, 0] = torch.tensor([0.0, 1.0] + [0.0] * (points["x:text"].shape[3] - 2))
    assert not allowed(result, broken, checkers).holds


def test_the_threat_of_the_command_line(example: tuple[Result, dict[str, Tensor]]) -> None:
    case = domain("multimodal").case(Request(limit=6, threat="text=substitutions:1"))
    result = audit_case(case)
    assert [entry.name for entry in result.attacks] == ["random on text", "fgsm on text", "pgd on text"]
    assert isinstance(case.threat, dict)
    assert case.threat["text"].eps == 1
    vectors = domain("multimodal").case(Request(limit=6, threat="text=token:0.3; image=l2:0.5"))
    assert all(entry.unverified == 0 for entry in audit_case(vectors).attacks)
    with pytest.raises(InputError, match=r"name the inputs, as in image=\.\.\.;text=\.\.\."):
        domain("multimodal").case(Request(threat="linf:4/255"))
    with pytest.raises(InputError, match="whole number of substitutions"):
        domain("multimodal").case(Request(threat="text=substitutions:0.5"))
    assert example[0].terms["domain_terms"]["texts"]["text"]["eps"] == 2


MODEL = """
import torch
from signstep.domains.multimodal.fusion import FusionNet

def build():
    torch.manual_seed(0)
    return FusionNet(18, channels=(4, 8), width=8, embedding=6, hidden=16)
"""
SCHEMA = """
[inputs.image]
kind = "image"
threat = "linf:16/255"
size = [16, 16]
grid = 255

[inputs.text]
kind = "text"
column = "sentence"
length = 8
threat = "substitutions:1"
protected = ["not"]
nearest = 5

[tokenizer]
kind = "words"
path = "vocab.txt"

[label]
column = "label"
classes = ["no", "yes"]

[branches]
seen = "image_branch"
said = "text_branch"
"""


def _own(folder: Path, rows: int = 12, change: Callable[[list[dict[str, Any]]], None] | None = None) -> None:
    (folder / "own_pairs.py").write_text(MODEL, encoding="utf-8")
    (folder / "schema.toml").write_text(SCHEMA, encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(words().words) + "\n", encoding="utf-8")
    table = []
    for row in range(rows):
        Image.effect_noise((16, 16), 40 + 10 * row).convert("RGB").save(folder / f"{row}.png")
        table.append({"image": f"{row}.png", "sentence": TEXTS[row % len(TEXTS)], "label": ["no", "yes"][row % 2]})
    if change is not None:
        change(table)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, table)), encoding="utf-8")


ARGUMENTS = ["--domain", "multimodal", "--model", "own_pairs:build", "--data", "pairs.jsonl", "--schema", "schema.toml"]


def test_ones_own_model_from_the_command_line_to_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _own(tmp_path)
    done = CliRunner().invoke(app, ["audit", *ARGUMENTS, "--out", "report"])
    assert done.exit_code == 0, done.output
    assert "Cross-over" in done.output
    again = CliRunner().invoke(app, ["verify", "report", *ARGUMENTS])
    assert again.exit_code == 0, again.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Accuracy under attack on each input and on all" in page


def test_bad_rows_are_an_error_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(rows: list[dict[str, Any]]) -> None:
        rows[3]["sentence"] = "there is a wolf"
        rows[5]["image"] = "gone.png"

    monkeypatch.chdir(tmp_path)
    _own(tmp_path, change=worse)
    done = CliRunner().invoke(app, ["audit", *ARGUMENTS, "--out", "report"])
    assert done.exit_code != 0
    request = Request(model="own_pairs:build", data="pairs.jsonl", schema=Path("schema.toml"))
    with pytest.raises(InputError, match="row 4, column 'sentence': the vocabulary has no 'wolf'"):
        domain("multimodal").case(request)
    case = domain("multimodal").case(replace(request, skip_bad=True))
    assert case.total == 10
    assert any(note.startswith("2 of 12 rows left out") and "row 6, column 'image'" in note for note in case.notes)


def test_a_transformers_folder_is_a_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra multimodal")
    tokens = pieces(tmp_path)
    model: Any = bert(tokens.size)
    model.save_pretrained(tmp_path / "bert")
    ids = ids_of(tokens, TEXTS)
    with torch.no_grad():
        answers = model(input_ids=ids, attention_mask=(ids != 0).long()).logits.argmax(1).tolist()
    (tmp_path / "texts.jsonl").write_text(
        "\n".join(json.dumps({"said": text, "label": y}) for text, y in zip(TEXTS, answers, strict=True))
    )
    (tmp_path / "schema.toml").write_text(
        '[inputs.said]\nkind = "text"\nargument = "input_ids"\nmask = "attention_mask"\nlength = 12\n'
        'threat = "substitutions:2"\n[tokenizer]\nkind = "wordpiece"\npath = "vocab.txt"\n',
        encoding="utf-8",
    )
    request = Request(model=str(tmp_path / "bert"), data=str(tmp_path / "texts.jsonl"), schema=tmp_path / "schema.toml")
    result = audit_case(domain("multimodal").case(request))
    assert result.clean_right == len(TEXTS)
    assert result.attack("pgd on said").fooled > 0
    assert result.attack("pgd on said").unverified == 0
    spelled = domain("multimodal").case(replace(request, model=f"hf:{tmp_path / 'bert'}"))
    assert spelled.model.title == "bert (transformers)"
    assert spelled.model.hashes == domain("multimodal").case(request).model.hashes
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(LoadError, match=r"config.json names no architecture"):
        domain("multimodal").case(replace(request, model=str(tmp_path / "empty")))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(InputError, match="needs data beside what was given"):
        domain("multimodal").case(Request(model="a:b"))


def test_the_model_of_nlvr_fits_its_vocabulary_and_schema() -> None:
    schema = read_schema(Path(__file__).parents[3] / "examples" / "multimodal" / "nlvr.toml")
    assert schema.tokenizer is not None
    known = mm.WordTokenizer.read(schema.folder / schema.tokenizer.path)
    ids = ids_of(known, ["there is a tower with four blocks"])
    with torch.no_grad():
        assert nlvr_model()(torch.rand(1, 3, 40, 160), ids).shape == (1, 2)
    table = mm.offers(known, torch.randn(known.size, 4), groups=schema.inputs[1].groups).table
    assert int((table >= 0).any(1).sum()) == sum(map(len, schema.inputs[1].groups))
