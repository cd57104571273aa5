"""An address in the place of a model on the command line: audit, attack, verify, transfer, a dry run, and bounds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from api_server import CLASSES, SECRET, Api, data, decoded, described, scores, served

import signstep as ss
from signstep.auditing.evidence import Evidence
from signstep.auditing.matrix import TransferMatrix
from signstep.cli import main
from signstep.export import write_png

pytestmark = pytest.mark.filterwarnings("ignore:eps=")
NETS = """
from api_server import Net

def net():
    return Net(0.05)
"""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("API_TOKEN", SECRET)
    x, y = data(6)
    np.savez("set.npz", x=x.numpy(), y=y.numpy())
    for number, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        rows = (y == number).nonzero().squeeze(1).tolist()
        write_png(x[rows], [tmp_path / "photos" / name / f"{row}.png" for row in rows])
    Path("apinets.py").write_text(NETS)
    with served() as one:
        yield one


def write(form: str = "png", *, limits: dict[str, Any] | None = None, **answer: Any) -> None:
    plain = described(form, **answer)
    plain["headers"] = {"Authorization": "Bearer $API_TOKEN"}
    plain["query"] = {"key": "$API_TOKEN"}
    plain["limits"] = {"backoff": 0.0, **(limits or {})}
    Path("victim.toml").write_text(tomli_w.dumps(plain))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(api: Api, capsys: pytest.CaptureFixture[str]) -> Run:
    def called(command: str, *words: str, model: bool = True) -> tuple[int, str, str]:
        named = ["--model", api.url, "--endpoint", "victim.toml"] if model else []
        status = main([command, *named, *words])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        for path in Path().rglob("*"):
            if path.is_file() and path.name != "victim.toml":
                assert SECRET.encode() not in path.read_bytes(), path
        return status, out, err

    return called


THREAT = ("--threat", "linf:40/255")


def test_an_audit_of_an_address_is_one_command_and_its_report_holds(api: Api, run: Run) -> None:
    write(limits={"price": 0.5, "currency": "EUR"})
    status, out, err = run("audit", "--data", "photos", *THREAT, "--max-requests", "5000", "--out", "report")
    assert status == 0, err
    result = ss.Result.load("report/result.json")
    asked = result.terms["requests"]
    assert asked["sent"] == api.count
    assert asked["cost"] == 0.5 * api.count
    assert (asked["most"], asked["retries"]) == (5000, 0)
    assert [entry.name for entry in result.attacks] == ["random-sign", "square:queries=500"]
    assert result.classes == CLASSES
    assert result.fooled > 0
    assert "grid of 255 steps" in result.terms["threat"]
    assert f"Sent to the endpoint: {api.count} requests (of 5000 at most), {0.5 * api.count:g} EUR." in " ".join(
        out.split()
    )
    assert str(api.count) in Path("report/index.html").read_text()
    before = api.count
    status, out, err = run("verify", "report", "--data", "photos", "--max-requests", "60")
    assert status == 0, out + err
    assert api.count - before <= 60
    assert "terms.requests" in out  # nobody can tell afterwards
    # Every point was sent as it is kept, to the bit.
    points = Evidence.load(Path("report/adversarial.safetensors"))["x_adv"]
    levels = (points * 255).round()
    assert torch.allclose(levels / 255, points)
    sent = {image.tobytes() for image in decoded(list(api.bodies))}
    assert all((level / 255).double().numpy().tobytes() in sent for level in levels.double())


def test_a_report_is_run_again_from_its_configuration(run: Run) -> None:
    write()
    words = ("--data", "set.npz", *THREAT, "--attack", "square:queries=40")
    assert run("audit", *words, "--out", "one")[0] == 0
    assert main(["--config", "one/signstep.toml", "audit", "--out", "two"]) == 0
    one, two = (ss.Result.load(f"{name}/result.json") for name in ("one", "two"))
    assert one.per_example == two.per_example
    assert one.terms["threat"] == two.terms["threat"]


def test_no_report_makes_verify_ask_an_address(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write()
    assert run("audit", "--data", "set.npz", *THREAT, "--attack", "square:queries=20", "--out", "report")[0] == 0
    before = api.count
    status, out, _ = run("verify", "report", model=False)
    assert status == 4
    assert api.url in out  # as words to type
    monkeypatch.chdir("report")
    assert main(["verify", "."]) == 4
    ss.verify(".")
    assert api.count == before
    monkeypatch.chdir("..")
    Path("report/victim.toml").write_text(Path("victim.toml").read_text())
    words = ("--model", api.url, "--endpoint", "report/victim.toml", "--data", "set.npz")
    status, _, err = run("verify", "report", *words, model=False)
    assert status == 2
    assert "--endpoint report/victim.toml lies inside the report" in err
    assert api.count == before


def test_a_budget_too_small_to_verify_leaves_it_open(api: Api, run: Run) -> None:
    write()
    assert run("audit", "--data", "set.npz", *THREAT, "--attack", "square:queries=60", "--out", "report")[0] == 0
    before = api.count
    status, out, err = run("verify", "report", "--data", "set.npz", "--max-requests", "8")
    assert status == 4, out + err
    assert api.count - before <= 8
    assert "FAIL" not in out
    assert "allows no more" in out


@pytest.mark.parametrize("fault", ["401", "404", "html", "too few", "elsewhere"])
@pytest.mark.parametrize("command", ["audit", "attack", "transfer"])
def test_a_mistake_is_one_request_and_one_sentence(api: Api, run: Run, command: str, fault: str) -> None:
    write()
    api.after = (0, fault)
    extra = {"attack": ("--recipe", "square:queries=10"), "transfer": ("--surrogate", "apinets:net")}.get(command, ())
    status, _, err = run(command, "--data", "set.npz", *THREAT, *extra)
    assert status == 2
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert api.url in err
    assert api.count == 1
    assert not Path("signstep-report").exists()


def test_a_dry_run_shows_one_request_and_sends_none(api: Api, run: Run) -> None:
    for form in ("png", "base64", "array", "multipart"):
        write(form, limits={"max_requests": 100, "price": 0.01, "currency": "USD", "requests_per_second": 2})
        for command in (("audit",), ("attack",), ("transfer", "--surrogate", "apinets:net")):
            status, out, err = run(command[0], "--data", "set.npz", *THREAT, "--dry-run", *command[1:])
            assert status == 0, err
            assert f"POST {api.url}?key=***" in out
            assert "Authorization: *** (from $API_TOKEN)" in out
            assert "3 scores (cat, dog, fox)" in out
            assert "at most 100 requests, 10 s each, 3 repetitions of one, 2 a second, 0.01 USD each, 1 USD" in out
            assert len(out) < 1500
    assert api.count == 0
    assert not Path("signstep-report").exists()
    status, _, err = run("audit", "--model", "apinets:net", "--data", "set.npz", *THREAT, "--dry-run", model=False)
    assert status == 2
    assert "--dry-run shows a request, and no model here is sent any; pass --model https" in err


def test_the_bound_ends_an_audit_with_what_was_found(api: Api, run: Run) -> None:
    write()
    words = ("--data", "set.npz", *THREAT, "--attack", "random-sign,square:queries=400")
    status, out, _ = run("audit", *words, "--max-requests", "60", "--out", "report")
    assert status == 130
    assert api.count <= 60
    result = ss.Result.load("report/result.json")
    assert result.partial
    assert result.undetermined + result.fooled == result.clean_right
    assert "PARTIAL" in out
    assert "--max-requests 60" in out or "max_requests=60" in out
    status, _, err = run("audit", *words, "--max-requests", "5")
    assert status == 2
    assert "6 more are needed for the next question, and --max-requests 5 allows no more; raise it, or use fewer" in err
    assert api.count <= 60  # nothing was spent on it


def test_an_api_that_goes_down_leaves_what_was_found(api: Api, run: Run) -> None:
    write(limits={"retries": 1})
    api.after = (50, "503")
    words = ("--data", "set.npz", *THREAT, "--attack", "square:queries=400", "--out", "report")
    assert run("audit", *words)[0] == 130
    result = ss.Result.load("report/result.json")
    assert result.partial
    assert api.count == 52 == result.terms["requests"]["sent"]
    assert result.terms["requests"]["retries"] == 1
    assert result.undetermined > 0


@pytest.mark.parametrize("at", [3, 40])
def test_an_interruption_during_a_request_keeps_what_was_found(
    run: Run, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from signstep.model.victims.wire import Wire

    write()
    whole, count = Wire.send, [0]

    def send(self: Wire, *args: Any) -> Any:
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return whole(self, *args)

    monkeypatch.setattr(Wire, "send", send)
    status, _, _ = run("audit", "--data", "set.npz", *THREAT, "--attack", "square:queries=400", "--out", "report")
    assert status == 130
    assert Path("report").exists() == (at == 40)
    if at == 40:
        result = ss.Result.load("report/result.json")
        assert result.partial
        assert result.undetermined > 0
        assert any("it was interrupted" in note for note in result.notes)
        status, out, _ = run("attack", "--data", "set.npz", *THREAT, "--recipe", "square:queries=30")
        assert status == 0, out


def test_crafted_here_and_shown_there(api: Api, run: Run) -> None:
    """The very image: what the server gets is the PNG of the crafted point, on the grid and inside the ball."""
    write()
    words = ("--surrogate", "mine=apinets:net", "--data", "photos", *THREAT, "--max-requests", "200")
    status, out, err = run("transfer", *words, "--out", "moved")
    assert status == 0, err
    matrix = TransferMatrix.load("moved/transfer.json")
    (victim,) = matrix.victims
    assert victim == api.url
    cell = matrix.cell("mine", victim)
    assert cell.right == 6
    assert cell.fooled > 0
    assert matrix.requests[victim]["sent"] == api.count
    assert f"{victim} was sent {api.count} requests" in out
    originals = data(6)[0].double().numpy()
    found = {"untouched": 0, "moved": 0, "wrong": 0}
    for image in np.concatenate(api.images):
        distances = np.abs(originals - image).reshape(6, -1).max(1)
        near = distances.argmin()
        assert distances[near] <= 40 / 255 + 1e-6  # in the ball, as it was sent: on the grid
        moved = distances[near] > 1e-6
        found["moved" if moved else "untouched"] += 1
        found["wrong"] += moved and scores(image[None]).argmax() != scores(originals[near][None]).argmax()
    # One look at what it takes, and one more at whether it is steady; of each example its own and those of two sources.
    assert (found["untouched"], found["moved"]) == (6 + 2, 2 * 6)
    assert found["wrong"] == cell.fooled + matrix.cell("random-sign", victim).fooled


def test_a_folder_of_hugging_face_is_the_surrogate(api: Api, run: Run) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write()
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    names = dict(enumerate(CLASSES))
    config = transformers.ViTConfig(image_size=4, patch_size=2, id2label=names, **small)
    transformers.ViTForImageClassification(config).eval().save_pretrained("mine")
    middle, size = [0.5] * 3, {"height": 4, "width": 4}
    transformers.ViTImageProcessor(size=size, image_mean=middle, image_std=middle).save_pretrained("mine")
    words = ("--surrogate", "hf:mine", "--data", "photos", *THREAT, "--max-requests", "200", "--out", "moved")
    status, out, err = run("transfer", *words)
    assert status == 0, err
    matrix = TransferMatrix.load("moved/transfer.json")
    assert matrix.victims == (api.url,)
    assert matrix.cell("hf:mine", api.url).right == 6
    assert f"was sent {api.count} requests" in " ".join(out.split())


def test_a_transfer_within_a_bound_shows_whole_examples(api: Api, run: Run) -> None:
    write()
    words = ("--surrogate", "apinets:net", "--data", "set.npz", *THREAT, "--out", "moved")
    status, out, _ = run("transfer", *words, "--max-requests", "12")
    assert status == 130
    assert api.count <= 12
    matrix = TransferMatrix.load("moved/transfer.json")
    assert matrix.partial
    (victim,) = matrix.victims
    assert matrix.seen[victim] == 3
    assert matrix.cell("apinets:net", victim).right == 3
    assert "was shown 3 of 6 examples, the others are undetermined" in " ".join(out.split())
    assert matrix.accuracy(victim).of == 3


def test_several_victims_and_descriptions_in_one_word(api: Api, run: Run) -> None:
    write()
    Path("other.toml").write_text(Path("victim.toml").read_text())
    words = ["--surrogate", "apinets:net", "--victim", f"theirs={api.url}:endpoint=other.toml,max_requests=40"]
    words += ["--victim", "ours=apinets:net", "--data", "set.npz", *THREAT, "--out", "moved"]
    status, _, err = run("transfer", *words, model=False)
    assert status == 0, err
    matrix = TransferMatrix.load("moved/transfer.json")
    assert matrix.victims == ("theirs", "ours")
    assert matrix.requests["theirs"]["most"] == 40
    assert matrix.cell("apinets:net", "ours").white_box
    words = ["--data", "set.npz", *THREAT, "--attack", "fgsm", "--transfer-to", f"api={api.url}:endpoint=other.toml"]
    status, out, err = run("audit", "--model", "apinets:net", *words, model=False)
    assert status == 0, err
    assert "api was sent" in " ".join(out.split())


def test_an_attack_saves_the_images_that_were_sent(api: Api, run: Run) -> None:
    write()
    status, _, err = run("attack", "--data", "set.npz", *THREAT, "--recipe", "square:queries=80", "--out", "made")
    assert status == 0, err
    told = json.loads(Path("made/attacked.json").read_text())
    assert told["requests"]["sent"] == api.count
    assert told["fooled"] == told["on_disk"] > 0
    assert f"sent: {api.count} requests" in err
    images = decoded([path.read_bytes() for path in sorted(Path("made").glob("*.png"))])
    sent = {image.tobytes() for image in np.concatenate(api.images)}
    assert all(image.tobytes() in sent for image in images)


def test_an_attack_that_needs_gradients_names_what_does_not(api: Api, run: Run) -> None:
    write()
    status, _, err = run("attack", "--data", "set.npz", *THREAT)
    assert status == 2
    assert "fgsm needs gradients" in err
    assert "use square or hop-skip-jump, which ask for what it has, or pass --surrogate" in err
    status, _, err = run(
        "attack", "--data", "set.npz", *THREAT, "--recipe", "pgd:steps=3", "--surrogate", "apinets:net"
    )
    assert status == 0, err
    assert api.count > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "https://me:{secret}@host.example/p"), "the address https://host.example/p has a user"),
        (("--model", "https://host.example/p?key={secret}"), "has a query or a fragment"),
        (("--model", "http://host.example/p"), "is not encrypted"),
        (("--model", "https://"), "is no address that can be asked"),
        (
            ("--model", "https://host.example/p", "--weights", "w.pt"),
            "--weights w.pt does not exist",
        ),
        (("--model", "apinets:net", "--endpoint", "victim.toml"), "--endpoint victim.toml describes an address"),
        (("--model", "apinets:net", "--max-requests", "5"), "--max-requests 5 bounds what an address is asked"),
        (
            ("--model", "{url}"),
            "does not say what it takes and answers; describe it in a file, and pass --endpoint file.toml",
        ),
        (("--model", "{url}", "--endpoint", "victim.toml", "--grid", "127"), "--grid 127 is not that of the endpoint"),
        (("--model", "{url}", "--endpoint", "victim.toml", "--box", "0,255"), "is not where the endpoint"),
        (("--model", "{url}", "--endpoint", "victim.toml", "--mean", "0.5", "--std", "0.2"), "drop --mean and --std"),
        (
            ("--transfer-to", "https://me:{secret}@h.example/", "--model", "apinets:net"),
            "has a user or a password before an @",
        ),
        (("--model", "{url}", "--endpoint", "victim.toml", "--domain", "tabular"), "--endpoint has no effect with"),
    ],
)
def test_wrong_uses_are_said_before_anything_is_asked(api: Api, run: Run, words: tuple[str, ...], said: str) -> None:
    write()
    typed = [word.format(secret=SECRET, url=api.url) for word in words]
    status, _, err = run("audit", *typed, "--data", "set.npz", *THREAT, model=False)
    assert status == 2
    assert said in err
    assert api.count == 0
