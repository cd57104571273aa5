"""Ladders, shards, engines and other models on the command line; what is printed, written, joined and refused."""

import json
from pathlib import Path

import pytest
import torch

from signstep.attacks.recipes import RECIPES
from signstep.auditing.checksums import write_sums
from signstep.auditing.ladder import LADDERS
from signstep.auditing.result import Result
from signstep.cli import main

SMALL = ["--limit", "60", "--batch-size", "32"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def record(folder: str) -> Result:
    return Result.load(Path(folder) / "result.json")


def test_a_ladder_from_the_command_line_and_again_from_its_own_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--ladder", "fgsm,pgd:steps=3,restarts=2,square:queries=20 near<=0.9", "--ladder", "bim near<=2"]
    status, text, _ = run(capsys, "audit", *words, *SMALL, "--out", "one")
    assert status == 0
    assert "ladder custom" in text
    first = record("one")
    assert [entry.name for entry in first.attacks] == [
        "fgsm",
        "pgd:steps=3,restarts=2",
        "square:queries=20 near<=0.9",
        "bim near<=2",
    ]
    assert run(capsys, "--config", "one/signstep.toml", "audit", "--out", "two")[0] == 0
    assert record("two").per_example == first.per_example
    assert run(capsys, "verify", "one")[0] == 0


def test_a_preset_by_its_name_without_version_and_one_recipe_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "audit", "--ladder", "quick", *SMALL, "--out", "a")[0] == 0
    assert record("a").ladder == next(name for name in LADDERS if name.startswith("quick@"))
    assert run(capsys, "verify", "a")[1].count("ladder: the rungs are those of quick@1") == 1
    assert run(capsys, "audit", "--ladder", "fgsm", *SMALL, "--out", "b")[0] == 0
    assert record("b").ladder == "custom"


def test_the_command_line_wins_over_the_other_way_to_say_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "audit", "--ladder", "quick", *SMALL, "--out", "a")[0] == 0
    assert '"quick@1"' in Path("a/signstep.toml").read_text()
    assert run(capsys, "--config", "a/signstep.toml", "audit", "--attack", "fgsm", "--out", "b")[0] == 0
    assert (record("b").ladder, len(record("b").attacks)) == ("", 1)
    assert run(capsys, "--config", "b/signstep.toml", "audit", "--out", "c")[0] == 0
    assert record("c").per_example == record("b").per_example
    assert run(capsys, "--config", "b/signstep.toml", "audit", "--ladder", "quick", "--out", "d")[0] == 0
    assert record("d").per_example == record("a").per_example
    both = ["audit", "--ladder", "quick", "--attack", "fgsm", *SMALL, "--out", "e"]
    assert run(capsys, *both)[0] == 2


def test_rungs_under_the_name_of_a_preset_that_they_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "audit", "--ladder", "fgsm,pgd:steps=3", *SMALL, "--out", "a")[0] == 0
    path = Path("a/result.json")
    plain = json.loads(path.read_text())
    for name in ("standard@1", "standard@9"):
        path.write_text(json.dumps({**plain, "ladder": name}))
        write_sums(Path("a"))  # whoever tampers writes the sums anew
        status, text, _ = run(capsys, "verify", "a")
        assert status == 1
        assert "FAIL  ladder" in text


def test_a_ladder_in_toml_is_a_name_or_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    table = '[audit]\nlimit = 40\nengine = "float32"\nladder = {}\n'
    Path("signstep.toml").write_text(table.format('["fgsm", "pgd:steps=3,restarts=2"]'))
    assert run(capsys, "audit", "--out", "a")[0] == 0
    assert [entry.name for entry in record("a").attacks] == ["fgsm", "pgd:steps=3,restarts=2"]
    assert record("a").terms["engine"] == "float32"
    assert any(note.startswith("search on a copy") for note in record("a").notes)
    Path("signstep.toml").write_text(table.format('"quick@1"'))
    assert run(capsys, "audit", "--out", "b")[0] == 0
    assert record("b").ladder == "quick@1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ladder", "strong@1"], "--ladder 'strong@1' is not one of quick@1"),
        (["--ladder", "fgsm", "--attack", "pgd"], "are both given"),
        (["--ladder", "fgsm,pgd", "--curve-attack", "pgd"], "rungs meet the survivors"),
        (["--shard", "4/4"], "--shard 4/4 is not I/N with 0 <= I < N"),
        (["--shard", "1"], "is not I/N"),
        (["--engine", "slow"], "--engine slow is not one of exact, fast, float32"),
        (["--transfer-to", "nets:net"], "is not NAME=MODEL"),
        (
            [
                "--transfer-to",
                "b=signstep.networks.small:digits_cnn",
                "--transfer-to",
                "b=signstep.networks.small:mnist_cnn",
            ],
            "names 'b' twice",
        ),
        (["--transfer-to", "b=signstep.networks.small:nothing"], "nothing"),
    ],
)
def test_wrong_use_is_named(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    status, _, said = run(capsys, "audit", *words, *SMALL, "--out", "a")
    assert status == 2
    assert message in said
    assert not Path("a").exists()


def test_shards_merged_are_the_whole_and_can_be_verified(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "--ladder", "fgsm,pgd:steps=3", "--limit", "61", "--batch-size", "16"]
    for number in range(3):
        assert run(capsys, *words, "--shard", f"{number}/3", "--out", f"s{number}")[0] == 0
        assert run(capsys, "verify", f"s{number}")[0] == 0
    status, text, _ = run(capsys, "merge", "s1", "s2", "s0", "--out", "all")
    assert status == 0
    assert "ladder custom" in text
    assert run(capsys, *words, "--out", "one")[0] == 0
    merged, one = record("all"), record("one")
    assert merged.per_example.ids == one.per_example.ids
    assert (merged.clean_right, merged.held, merged.terms) == (one.clean_right, one.held, one.terms)
    status, text, _ = run(capsys, "verify", "all")
    assert status == 0
    assert f"{one.fooled} of {one.fooled} fooled examples scored again" in text
    assert "shard" not in Path("all/signstep.toml").read_text()
    # The records alone can be merged too; without their folders there are no points.
    assert run(capsys, "merge", *(f"s{number}/result.json" for number in range(3)), "--out", "b", "--json")[0] == 0
    assert not Path("b/adversarial.safetensors").exists()
    status, _, said = run(capsys, "merge", "s0", "s2", "--out", "c")
    assert status == 2
    assert "shards are missing: 1/3" in said
    assert not Path("c").exists()


def test_a_shard_whose_points_are_of_another_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "--attack", "fgsm", "--limit", "40"]
    assert run(capsys, *words, "--shard", "0/2", "--out", "a")[0] == 0
    path = Path("a/result.json")
    plain = json.loads(path.read_text())
    plain["terms"]["shard"] = [1, 2]
    path.write_text(json.dumps(plain))
    write_sums(Path("a"))
    status, text, _ = run(capsys, "verify", "a")
    assert status == 1
    assert "FAIL  clean inputs" in text


def test_points_are_shown_to_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    from signstep.networks.small import digits_cnn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(digits_cnn().state_dict(), "b.safetensors")
    other = "b=signstep.networks.small:digits_cnn@b.safetensors"
    status, text, _ = run(capsys, "audit", "--attack", "fgsm", "--transfer-to", other, *SMALL, "--out", "a")
    assert status == 0
    fooled, able = record("a").attack("fgsm").transfers["b"]
    assert 0 < able < 60
    assert f"Points of fgsm also fool {fooled} of {able} right on b." in text


@pytest.mark.parametrize("engine", ["exact", "fast"])
def test_attack_takes_an_engine(capsys: pytest.CaptureFixture[str], engine: str) -> None:
    words = ["attack", "--recipe", "fgsm", "--engine", engine, "--limit", "12", "--format", "npz", "--out", "a"]
    assert run(capsys, *words)[0] == 0
    assert run(capsys, "attack", "--engine", "slow", "--limit", "12", "--out", "b")[0] == 2


def test_the_list_says_what_recipes_need_and_what_ladders_are_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = run(capsys, "list")
    for ladder in LADDERS.values():
        assert ladder.about in text
        for rung in ladder.rungs:
            assert f"  {rung}\n" in text
    for row in RECIPES.values():
        part = text[text.index(f"\n  {row.name} ") :]
        assert f"needs {row.needs}" in part[: part.index("options:")]
