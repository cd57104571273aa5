"""What may be named as a model of texts, and what is said of what may not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import TEXTS, bert_folder, bert_tokenizer

from signstep.domains.case import Request
from signstep.domains.language.spelling import longest, speller
from signstep.domains.language.tokenizers import PretrainedTokenizer
from signstep.domains.text.case import case
from signstep.domains.text.opening import Given, given_model
from signstep.domains.text.searching import read_to, read_words
from signstep.errors import InputError, LoadError, ModelError

OWN = """
import torch
import signstep as ss
from small_texts import bag, counted, tokenizer

def score(texts):
    return counted(texts)

def build():
    return score

def arrays():
    return lambda texts: [[1.0, 2.0, 0.0] for _ in texts]

def logit():
    return lambda texts: torch.tensor([float(len(text)) - 10 for text in texts])

def pair():
    return tokenizer(), bag()

def swapped():
    return bag(), tokenizer()

def declared():
    return ss.Model(score, classes=("ham", "spam"), outputs="logits")

def scaled():
    return ss.Model(score, mean=0.5, std=0.5)

def net():
    return bag()

def number():
    return 7

def dicts():
    return lambda texts: [{"label": "ham"} for _ in texts]

def short():
    return lambda texts: torch.zeros(3, 2)

things = {"a": 1}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    (tmp_path / "owntexts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("owntexts", None)


def opened(name: str, **said: Any) -> Given:
    return given_model(Request(model=name, **said))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "shape", "gradients"),
    [
        ("score", (6, 2), False),
        ("build", (6, 2), False),
        ("arrays", (6, 3), False),
        ("logit", (6,), False),
        ("pair", (6, 2), True),
        ("declared", (6, 2), False),
    ],
)
def test_python_of_ones_own(name: str, shape: tuple[int, ...], gradients: bool) -> None:
    given = opened(f"owntexts:{name}")
    assert tuple(given.network.reader.scores(TEXTS).shape) == shape
    assert given.gradients is gradients
    assert given.model.title == f"owntexts:{name}"
    assert set(given.model.hashes) == {"code"}
    assert given.model.classes == (("ham", "spam") if name == "declared" else ())


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swapped", "gives a pair whose second part is a WordTokenizer; let it return a function"),
        ("scaled", "declares mean, which texts do not have; leave it out"),
        ("net", r"gives a network without its tokenizer; return a pair \(tokenizer, network\)"),
        ("number", "gives a int; let it return a function from a list of texts to scores"),
        ("things", "is a dict"),
        ("nothing", "has no 'nothing'|has no nothing"),
    ],
)
def test_what_is_no_model_is_said_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises((InputError, LoadError), match=message):
        opened(f"owntexts:{name}")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"), [("dicts", "holds no table of numbers; return scores"), ("short", "for 6 texts; return a row")]
)
def test_what_is_no_score_is_said_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        opened(f"owntexts:{name}").network.reader.scores(TEXTS)


@pytest.mark.usefixtures("own")
def test_weights_go_into_the_network_of_a_pair(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from small_texts import bag

    save_file({name: part.clone() for name, part in bag(5).state_dict().items()}, tmp_path / "w.safetensors")
    plain, other = (opened("owntexts:pair", weights=weights) for weights in (None, tmp_path / "w.safetensors"))
    assert not torch.equal(plain.network.reader.scores(TEXTS), other.network.reader.scores(TEXTS))
    assert set(other.model.hashes) == {"code", "weights"}
    with pytest.raises(InputError, match=r"need an nn\.Module, and owntexts:build gives a function"):
        opened("owntexts:build", weights=tmp_path / "w.safetensors")


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    given = opened(f"hf:{bert_folder(tmp_path / 'bert')}")
    assert given.model.classes == ("ham", "spam")
    assert given.length == 24
    assert set(given.model.hashes) >= {"config", "weights"}
    transformers = pytest.importorskip("transformers")
    net = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "bert").eval()
    inner = bert_tokenizer()
    with torch.no_grad():
        for text in TEXTS:
            plain = inner(text, truncation=True, max_length=24, return_tensors="pt")
            plain.pop("token_type_ids", None)
            expected = net(**plain).logits[0]
            assert torch.allclose(given.network.reader.scores([text])[0], expected, rtol=1e-4, atol=1e-4)
    made = case(Request(model=str(tmp_path / "bert"), data=str(table(tmp_path)), threat="neighbours:1"))
    assert made.model.classes == ("ham", "spam")
    assert made.attacks == ("hotflip", "word-search", "random-words")
    change = made.terms["change"]
    assert set(change["offers"]) <= {"claim", "good", "the", "film", "was", "free", "now", "prize"}
    assert all(word.isalpha() for others in change["offers"].values() for word in others)


def table(folder: Path) -> Path:
    path = folder / "mails.csv"
    path.write_text("text,label\nthe film was good,ham\nclaim the free prize now,SPAM\n")
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "holds a BertForMaskedLM, which is no classifier of texts"),
        ({"architectures": ["ViTForImageClassification"]}, "which is no classifier of texts; pass one whose name ends"),
        ({"problem_type": "multi_label_classification"}, "gives several labels to a text"),
        ({"label2id": {"ham": 1, "spam": 0}}, "contradicts itself: 'ham' is 0 in id2label, 1 in label2id"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "names Python code of the folder's own"),
    ],
)
def test_folders_of_something_else(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = bert_folder(tmp_path / "bert") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises((InputError, LoadError), match=message):
        opened(f"hf:{path.parent}")


def test_a_folder_without_its_tokenizer(tmp_path: Path) -> None:
    path = bert_folder(tmp_path / "bert")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (path / file).unlink(missing_ok=True)
    with pytest.raises(LoadError, match="has no file of a tokenizer; save it there"):
        opened(f"hf:{path}")


def test_long_texts_are_cut_as_the_tokenizer_cuts_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = opened(f"hf:{bert_folder(tmp_path / 'bert', 8)}")
    text = "the film was good it is a great film"
    assert given.network.reader.read(text).cut  # type: ignore[attr-defined]
    assert read_to(given.network, text) == len("the film was good it is")
    assert read_words(given.network, text) == 6
    assert read_to(given.network, "a film") is None
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": text, "label": "ham"}) + "\n")
    made = case(Request(model=f"hf:{tmp_path / 'bert'}", data=str(tmp_path / "long.jsonl"), threat="typos:1"))
    assert any(
        "1 of 1 texts are longer than the 8 tokens" in note and "of their 9 words it reads 6" in note
        for note in made.notes
    )
    assert "longer than the specified" not in capsys.readouterr().err


def test_roberta_numbers_its_places_from_behind_the_padding() -> None:
    plain = PretrainedTokenizer(bert_tokenizer(10**30))

    class Config:
        max_position_embeddings, pad_token_id, model_type = 514, 1, "roberta"

    assert longest(plain, Config()) == 512
    Config.model_type = "bert"
    assert longest(plain, Config()) == 514
    assert longest(plain, None) is None
    assert speller(plain, None).read("a film").cut is False


@pytest.mark.usefixtures("own")
def test_a_pipeline_of_scikit_learn(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="a pipeline of scikit-learn")
    skops = pytest.importorskip("skops.io", reason="a file of skops")
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(list(TEXTS), ["ham", "spam"] * 3)
    skops.dump(pipeline, tmp_path / "filter.skops")
    given = opened("filter.skops")
    assert not given.gradients
    assert given.model.classes == ("ham", "spam")
    scores = given.network.reader.scores(TEXTS).softmax(1)
    assert torch.allclose(scores.double(), torch.from_numpy(pipeline.predict_proba(list(TEXTS))), atol=1e-6)
    numbers = make_pipeline(LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
    skops.dump(numbers, tmp_path / "numbers.skops")
    with pytest.raises(InputError, match="takes no list of texts"):
        opened("numbers.skops")
