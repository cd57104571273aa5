"""`--domain text` from the command to the page and back: records, verification, shards, escapes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_texts import bag, counted, tokenizer

import signstep as ss
from signstep.auditing.merge import merge
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.cli import main
from signstep.domains import Case, Request, audit_case, domain
from signstep.domains.text import texts_of, typed
from signstep.domains.text.case import case
from signstep.domains.text.embedding import embedding_case
from signstep.domains.text.opening import of_pair
from signstep.domains.text.summary import Teller

HERE = Path(__file__).parent
MODEL = """
from small_texts import bag, counted, tokenizer


def score(texts):
    return counted(texts)


def pair():
    return tokenizer(), bag()
"""
SCHEMA = """
[label]
classes = ["ham", "spam"]
[change]
kinds = ["zero-width", "homoglyphs", "synonyms"]
words = 2
keep = ["great"]
[synonyms]
cash = ["money"]
"""
EVIL = "<b>free</b> \\u202elunch, \\u001b[2J & \\u0441laim | now"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HERE))
    (tmp_path / "texts_of_ours.py").write_text(MODEL)
    (tmp_path / "schema.toml").write_text(SCHEMA)
    (tmp_path / "names.txt").write_text("yes\nno\n")
    rows = [
        '{"text": "' + EVIL + '", "label": "spam"}',
        *(
            json.dumps({"text": text, "label": label})
            for text, label in (
                ("the film was good and great", "ham"),
                ("win cash, claim the prize", "spam"),
                ("it is fine", "ham"),
                ("a free lunch", "spam"),
                ("a GREAT free prize", "spam"),
            )
        ),
    ]
    (tmp_path / "mails.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def asked(**said: Any) -> Case:
    return domain("text").case(Request(**{"model": "texts_of_ours:score", "data": "mails.jsonl", **said}))


WORDS = ["--domain", "text", "--model", "texts_of_ours:score", "--data", "mails.jsonl", "--schema", "schema.toml"]


def test_a_report_is_written_escaped_and_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *WORDS, "--attack", "word-search:queries=60,random-words:queries=60", "--out", "out"]) == 0
    said = capsys.readouterr()
    record = (folder / "out/result.json").read_text()
    page = (folder / "out/index.html").read_text()
    for text in (said.out, said.err, record, page):
        assert not set(text) & set("\u202e\x1b\u200b\u200c\u200d\u2060")
    for text in (said.out, said.err, page):  # the record has the table of look-alikes
        assert not set(text) & set("\u0430\u0441\u0435\u043e")
    assert "<b>free" not in page
    assert "&lt;<mark>b&gt;free&lt;/b → " in page
    result = Result.load(folder / "out/result.json")
    assert result.fooled
    assert result.terms["domain"] == "text"
    assert [section.title for section in result.sections] == ["How few words", "Texts that fool"]
    assert " → " in result.sections[1].rows[0][3]
    points = load_file(folder / "out/adversarial.safetensors")
    again = counted(texts_of(points["x_adv"])).argmax(1)
    assert again.tolist() == points["answer_adv"].tolist()
    for was, now in zip(texts_of(points["x"]), texts_of(points["x_adv"]), strict=True):
        assert "great" not in was or "great" in now
    assert main(["verify", "out", *WORDS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok    threat model") for line in lines)
    assert main(["verify", "out", *WORDS, "--again", "2"]) == 0
    # One letter of one saved text.
    points["x_adv"][0, 0] += 1
    save_file(points, folder / "out/adversarial.safetensors")
    assert main(["verify", "out", *WORDS]) == 1
    assert "FAIL" in capsys.readouterr().out.upper()


def test_a_record_with_milder_rules_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *WORDS, "--attack", "random-words:queries=30", "--out", "out"]) == 0
    path = folder / "out/result.json"
    record = json.loads(path.read_text())
    record["terms"]["domain_terms"]["change"]["keep"] = []
    path.write_text(json.dumps(record))
    assert main(["verify", "out", *WORDS]) == 1
    assert "domain" in capsys.readouterr().out


def test_shards_join_to_the_whole(folder: Path) -> None:
    assert folder
    said: Any = {"schema": Path("schema.toml"), "batch_size": 2}
    attacks = ["word-search:queries=40", "random-words:queries=40"]
    whole = audit_case(asked(schema=Path("schema.toml")), attacks=attacks)
    parts = [audit_case(asked(**said), attacks=attacks, run=Run(shard=(part, 2))) for part in (0, 1)]
    assert merge(parts).per_example == whole.per_example
    few = audit_case(asked(limit=2, **said), attacks=attacks)
    assert few.per_example.ids == whole.per_example.ids[:2]
    for name in attacks:
        assert few.per_example.verdicts[name] == whole.per_example.verdicts[name][:2]
        assert few.per_example.passes[name] == whole.per_example.passes[name][:2]


def test_what_is_run_and_said_by_kind_of_model(folder: Path) -> None:
    assert folder
    plain = asked(threat="typos:25%", schema=Path("schema.toml"))
    assert plain.attacks == ("word-search", "random-words")
    assert plain.curve == (1.0,)  # a quarter of the seven words of the longest text
    assert any("gives no gradients" in note for note in plain.notes)
    assert any("nothing may change" in note for note in asked(threat="typos:10%", schema=Path("schema.toml")).notes)
    both = asked(model="texts_of_ours:pair", threat="typos:1", classes=("ham", "spam"))
    assert both.attacks == ("hotflip", "word-search", "random-words")
    assert both.model.classes == ("ham", "spam")
    assert set(both.hashes) == {"data"}
    assert set(plain.hashes) == {"data", "schema"}
    assert set(both.model.hashes) == {"code"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "texts_of_ours:pair"], "needs --data beside what was given; pass --model hf:FOLDER"),
        (["--threat", "linf:8/255"], "write kinds of synonyms, neighbours"),
        (["--goal", "next"], "--goal has no effect with --domain text"),
        ([*WORDS[2:6], "--threat", "typos:1"], "'spam' is a name, and nothing says which class it is"),
        (
            [*WORDS[2:], "--threat", "neighbours:1"],
            "neighbours are those of a model's embedding, and this one shows none",
        ),
        ([*WORDS[2:], "--threat", "embedding-l2:0.1"], "gives scores alone, and has no embedding to move"),
        ([*WORDS[2:], "--attack", "hotflip"], "hotflip needs gradients, and this model gives scores alone"),
        ([*WORDS[2:], "--attack", "fgsm"], "a text is made of letters, which have no gradient"),
        ([*WORDS[2:], "--label-column", "kind"], "--label-column kind is no column of mails.jsonl"),
        ([*WORDS[2:], "--classes", "names.txt"], "'spam' is not one of yes, no"),
        (["--attack", "coordinate-search"], "is an attack of --domain tabular alone"),
        (["--threat", "embedding-linf:-1"], "write a size above 0"),
    ],
)
def test_wrong_options_are_one_sentence(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder
    assert main(["audit", "--domain", "text", *words, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.strip().splitlines()[-1].startswith("error: ")


def embedded(threat: str) -> Case:
    net = bag()
    given = of_pair(tokenizer(), net, ss.Model(net, name="a bag"))
    texts = ("the film was good", "claim the free prize now", "zzz win")
    y = given.network.reader.scores(texts).argmax(1)
    return embedding_case(Request(threat=threat, batch_size=2), given, texts, y, "three texts", {})


@pytest.mark.parametrize("threat", ["embedding-l2:0.5", "embedding-linf:0.5"])
def test_fgsm_in_the_embedding_moves_words_alone_by_a_stated_length(threat: str) -> None:
    made = embedded(threat)
    batches: list[Any] = list(made.batches)
    result = audit_case(replace(made, batches=batches))
    assert result.examples == 3
    weight = bag().words.weight.detach()
    used = {token for x, _ in batches for token in x["text_ids"].flatten().tolist()} - {0}
    scale = float(weight[sorted(used)].double().norm(dim=1).median())
    assert made.terms["length"] == pytest.approx(scale)
    expected = 0.5 * scale / (1 if "l2" in threat else 2)  # four coordinates
    ball: Any = made.threat
    assert ball["text"].eps == pytest.approx(expected)
    x, y = batches[0]
    outcome = ss.attack(made.model, x, y, threat={"text": ball["text"].rows(0, 2, 3)}, recipe="fgsm")
    assert isinstance(outcome.x, dict)
    moved = outcome.x["text"] - x["text"]
    length = moved.norm(dim=2) if "l2" in threat else moved.abs().amax(2)
    there = x["text_ids"] != 0
    assert torch.allclose(length[there], torch.tensor(expected), rtol=1e-4)
    assert not bool(moved[~there].any())
    assert any("No text has these embeddings" in note for note in result.notes)
    assert "No text has these embeddings" in result.sections[0].text[0]


def test_the_embedded_example_has_a_command_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "--domain", "text", "--limit", "6", "--out", "out", "--attack", "hotflip:queries=60"]) == 0
    assert main(["verify", "out"]) == 0
    assert case(Request()).total == 22


def test_changes_are_marked_and_everything_strange_is_written_out() -> None:
    assert typed("Win cash now", "Win c\u200bash n\u043ew") == "Win ⟦cash → c\\u200bash⟧ ⟦now → n\\u043ew⟧"
    long = "word " * 60
    shown = typed(f"{long}cash {long}", f"{long}caash {long}")
    assert "⟦cash → caash⟧" in shown
    assert len(shown) < 140
    assert typed("a\u202eb cash\x1b", "a\u202eb caash\x1b") == "a\\u202eb ⟦cash → caash⟧\\u001b"
    assert "\n" not in typed("a\nb", "a\nc")
    assert typed("a ⟦b⟧", "c ⟦b⟧") == "⟦a → c⟧ \\u27e6b\\u27e7"


def test_words_say_when_nothing_was_found() -> None:
    result = audit_case(replace(embedded("embedding-l2:0.1"), batches=list(embedded("embedding-l2:0.1").batches)))
    assert Teller((), 1)(result, {})[-1].text == ("No text was found that fools.",)
