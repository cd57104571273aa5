"""Models that live elsewhere: functions on arrays, estimators, ONNX files and endpoints that fail on purpose."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import signstep as ss
from signstep.errors import GradientError, InputError, LoadError, MissingExtraError, ModelError, VictimError
from signstep.model import victims
from signstep.model.victims.arrays import Array

W = np.random.default_rng(0).normal(size=(6, 3))
X = torch.rand(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _scores(x: Array) -> Array:
    out: Array = x.reshape(len(x), -1).astype(float) @ W
    return out


def _linear(u: Tensor) -> Tensor:
    return u.flatten(1).double() @ torch.from_numpy(W)


def _y(x: Tensor = X) -> Tensor:
    return torch.from_numpy(_scores(x.numpy()).argmax(1))


@pytest.mark.parametrize("recipe", ["square:queries=60", "nes:queries=60,samples=10", "hop-skip-jump:queries=150"])
def test_a_function_on_arrays_is_attacked_without_gradients(recipe: str) -> None:
    outcome = ss.attack(victims.from_numpy(_scores), X, _y(), threat=ss.linf(0.3), recipe=recipe)
    assert isinstance(outcome.x, Tensor)
    assert int(outcome.fooled.sum()) > 0
    assert outcome.fooled.tolist() == (_y(outcome.x) != _y()).tolist()
    assert int(outcome.backwards.sum()) == 0


def test_gradient_attacks_say_what_to_use_instead() -> None:
    with pytest.raises(GradientError, match="square, hop-skip-jump"):
        ss.attack(victims.from_numpy(_scores), X, _y(), threat=ss.linf(0.3), recipe="pgd")


def test_batches_types_and_devices_of_a_function() -> None:
    seen: list[tuple[int, str]] = []

    def function(x: Array) -> NDArray[np.uint8]:
        seen.append((len(x), str(x.dtype)))
        return np.arange(len(x), dtype=np.uint8)

    labels = victims.from_numpy(function, batch=3, dtype="float16")(X[:7].bfloat16())
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert labels.dtype == torch.int64
    assert seen == [(3, "float16"), (3, "float16"), (1, "float16")]


def test_what_a_function_may_not_return() -> None:
    with pytest.raises(ModelError, match="for 8 inputs"):
        victims.from_numpy(lambda x: _scores(x)[0])(X)
    with pytest.raises(ModelError, match="type"):
        victims.from_numpy(lambda x: np.array(["cat"] * len(x)))(X)
    with pytest.raises(InputError, match="from arrays"):
        victims.from_numpy(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch=0"):
        victims.from_numpy(_scores, batch=0)


class _Estimator:
    """What scikit-learn's classifiers have in common."""

    classes_ = np.array(["ape", "bee", "cat"])

    def predict(self, x: Array) -> Array:
        assert x.ndim == 2
        out: Array = self.classes_[_scores(x).argmax(1)]
        return out


class _Decider(_Estimator):
    def decision_function(self, x: Array) -> Array:
        return _scores(x)


class _Prober(_Decider):
    def predict_proba(self, x: Array) -> Array:
        z = np.exp(60 * _scores(x))  # saturates: some probabilities are exactly zero
        out: Array = z / z.sum(1, keepdims=True)
        return out


def test_an_estimator_gives_the_best_it_has() -> None:
    x = X.reshape(8, 2, 3)
    log_p = victims.from_sklearn(_Prober())(x)
    assert torch.isfinite(log_p).all()
    assert float(log_p.max()) <= 0
    torch.testing.assert_close(victims.from_sklearn(_Decider())(x), torch.from_numpy(_scores(X.numpy())))
    assert victims.from_sklearn(_Estimator())(x).tolist() == _y().tolist()
    assert victims.from_sklearn(_Prober(), answer="labels")(x).tolist() == _y().tolist()
    assert torch.equal(log_p.argmax(1), _y())


def test_estimators_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="predict_proba"):
        victims.from_sklearn(_Estimator(), answer="probabilities")
    with pytest.raises(InputError, match="answer='scores'"):
        victims.from_sklearn(_Estimator(), answer="scores")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fit it first"):
        victims.from_sklearn(SimpleNamespace(predict=len))


def test_real_estimators() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    forest = pytest.importorskip("sklearn.ensemble")
    x = torch.rand(300, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = _y(x)
    for estimator in (linear.LogisticRegression(), linear.RidgeClassifier(), forest.RandomForestClassifier(10)):
        estimator.fit(x.numpy(), y.numpy())
        labels = torch.from_numpy(estimator.predict(x[:20].numpy()))
        for answer, recipe in (("auto", "square:queries=50"), ("labels", "hop-skip-jump:queries=200")):
            victim = victims.from_sklearn(estimator, answer=answer)  # type: ignore[arg-type]
            outcome = ss.attack(victim, x[:20], labels, threat=ss.linf(0.2), recipe=recipe)
            assert isinstance(outcome.x, Tensor)
            assert int(outcome.fooled.sum()) > 0
            changed = estimator.predict(outcome.x.numpy()) != labels.numpy()
            assert outcome.fooled.tolist() == changed.tolist()


def _runtime(rows: object, outputs: list[tuple[str, str]], inputs: int = 1) -> tuple[Any, list[Array]]:
    """What onnxruntime looks like from here."""
    fed: list[Array] = []

    class InferenceSession:
        def __init__(self, path: str, providers: list[str]) -> None:
            if Path(path).read_bytes() == b"broken":
                raise RuntimeError("invalid protobuf")
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name=f"x{i}", type="tensor(float)", shape=[rows, 6]) for i in range(inputs)]

        def get_outputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name=name, type=kind) for name, kind in outputs]

        def run(self, wanted: list[str], feed: dict[str, Array]) -> list[Array]:
            fed.append(feed["x0"])
            assert feed["x0"].dtype == np.float32
            z = _scores(feed["x0"]).astype(np.float32)
            return [z.argmax(1) if wanted == ["label"] else z]

    return SimpleNamespace(InferenceSession=InferenceSession), fed


def test_an_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    both = [("label", "tensor(int64)"), ("scores", "tensor(float)")]
    runtime, fed = _runtime("batch", both)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    assert torch.equal(victims.from_onnx(path)(X).argmax(1), _y())
    assert victims.from_onnx(path, output="label")(X).tolist() == _y().tolist()
    assert victims.from_onnx(path, output=0)(X).dtype == torch.int64
    with pytest.raises(InputError, match="label, scores"):
        victims.from_onnx(path, output="logits")
    runtime, fed = _runtime(5, both)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    assert torch.equal(victims.from_onnx(path)(X).argmax(1), _y())
    assert [len(part) for part in fed] == [5, 5]
    runtime, _ = _runtime(5, both, inputs=2)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    with pytest.raises(InputError, match="x0 tensor"):
        victims.from_onnx(path)


def test_an_onnx_file_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = _runtime(None, [])
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    with pytest.raises(LoadError, match="does not exist"):
        victims.from_onnx(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(LoadError, match="invalid protobuf"):
        victims.from_onnx(tmp_path / "broken.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"signstep\[onnx\]"):
        victims.from_onnx(tmp_path / "broken.onnx")


@pytest.mark.parametrize("rows", ["batch", 3])
def test_a_real_onnx_file(tmp_path: Path, rows: str | int) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(W.astype(np.float32), "w")
    ends = [helper.make_tensor_value_info(name, kind, [rows, size]) for name, size in (("x", 6), ("z", 3))]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"])], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "linear.onnx"))
    victim = victims.from_onnx(tmp_path / "linear.onnx")
    x = X.float()
    torch.testing.assert_close(victim(x), torch.from_numpy(_scores(x.numpy())).float())
    outcome = ss.attack(victim, x, _y(), threat=ss.linf(0.3), recipe="square:queries=40")
    assert int(outcome.fooled.sum()) > 0


class _Server:
    """A model on this machine that answers its n-th request as ``plan(n)`` says, n from 1."""

    def __init__(self) -> None:
        self.plan: dict[int, str] = {}
        self.after: tuple[int, str] | None = None
        self.sizes: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[str] = []
        self.leaving = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/predict"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.bodies.append(body)
        self.headers.append(handler.headers.get("X-Key", ""))
        inputs = np.array(json.loads(body)["inputs"])
        self.sizes.append(len(inputs))
        number = len(self.sizes)
        how = self.plan.get(number, "")
        if self.after is not None and number > self.after[0]:
            how = self.after[1]
        if how == "drop":
            handler.connection.close()
            return
        if how == "hang":
            self.leaving.wait()  # as long as the test lasts: only the client's patience ends it
        code = int(how) if how.isdigit() else 200
        said: dict[str, Any] = {"scores": _scores(inputs).tolist()}
        if how == "labels":
            said = {"labels": _scores(inputs).argmax(1).tolist()}
        if how == "short":
            said = {"scores": said["scores"][1:]}
        raw = b"no json" if how == "garbage" else json.dumps(said).encode()
        try:
            handler.send_response(code)
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            handler.wfile.write(raw)
        except OSError:
            pass  # the client of a hanging answer has gone


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("no_proxy", "*")
    served = _Server()
    thread = threading.Thread(target=served.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.leaving.set()
    served.http.shutdown()
    served.http.server_close()
    thread.join()


def test_an_endpoint_answers_in_batches(server: _Server) -> None:
    victim = victims.from_http(server.url, batch=3, headers={"X-Key": "secret"})
    torch.testing.assert_close(victim(X), torch.from_numpy(_scores(X.numpy())))
    assert server.sizes == [3, 3, 2]
    assert victim.requests == 3
    assert server.headers == ["secret"] * 3


def test_encode_and_decode(server: _Server) -> None:
    victim = victims.from_http(
        server.url,
        encode=lambda x: json.dumps({"inputs": (x * 2).tolist(), "model": "a"}).encode(),
        decode=lambda body: np.array(json.loads(body)["scores"]) / 2,
    )
    torch.testing.assert_close(victim(X), torch.from_numpy(_scores(X.numpy())))
    assert json.loads(server.bodies[0])["model"] == "a"


def test_labels_from_an_endpoint(server: _Server) -> None:
    server.after = (0, "labels")
    victim = victims.from_http(server.url)
    assert victim(X).tolist() == _y().tolist()
    outcome = ss.attack(victim, X, _y(), threat=ss.linf(0.3), recipe="hop-skip-jump:queries=100")
    assert int(outcome.fooled.sum()) > 0


@pytest.mark.parametrize("trouble", ["500", "503", "429", "drop", "hang"])
def test_trouble_that_passes_is_waited_out(server: _Server, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("signstep.model.victims.pace.time.sleep", naps.append) if trouble != "hang" else None
    server.plan = {1: trouble, 2: trouble}
    # Patience is short only where it is to run out, and many retries keep a busy machine from running out of them.
    hangs = trouble == "hang"
    victim = victims.from_http(server.url, retries=20 if hangs else 2, backoff=0.01, timeout=0.2 if hangs else 60)
    torch.testing.assert_close(victim(X), torch.from_numpy(_scores(X.numpy())))
    assert victim.requests >= 3 if hangs else victim.requests == 3
    assert victim.dead is None
    assert hangs or (0.005 <= naps[0] <= 0.01 <= naps[1] <= 0.02)


@pytest.mark.parametrize("trouble", ["garbage", "short"])
def test_an_answer_that_cannot_be_read_ends_it_at_once_unless_one_could_be(server: _Server, trouble: str) -> None:
    server.plan = {1: trouble, 3: trouble}
    victim = victims.from_http(server.url, backoff=0)
    with pytest.raises(VictimError, match=r"decode=|has the shape"):
        victim(X)
    assert len(server.sizes) == 1
    victim.revive()
    victim(X)
    torch.testing.assert_close(victim(X), torch.from_numpy(_scores(X.numpy())))
    assert len(server.sizes) == 4


def test_trouble_that_stays_ends_it(server: _Server) -> None:
    server.after = (0, "500")
    victim = victims.from_http(server.url, retries=2, backoff=0)
    with pytest.raises(VictimError, match=r"3 attempts.*HTTP 500"):
        victim(X)
    with pytest.raises(VictimError, match="3 attempts"):
        victim(X)
    assert len(server.sizes) == 3  # the second call asked nothing
    server.after = None
    victim.revive()
    assert victim(X).shape == (8, 3)


def test_a_refusal_is_not_repeated(server: _Server) -> None:
    server.after = (0, "403")
    victim = victims.from_http(server.url, retries=5)
    with pytest.raises(VictimError, match="403"):
        victim(X)
    assert len(server.sizes) == 1


def test_nobody_there() -> None:
    with socket.socket() as held:  # bound and deaf: nobody else can answer there meanwhile
        held.bind(("127.0.0.1", 0))
        victim = victims.from_http(f"http://127.0.0.1:{held.getsockname()[1]}/", retries=1, backoff=0)
        with pytest.raises(VictimError, match="nobody listens there"):
            victim(X)


def test_the_bound_on_requests_counts_repetitions(server: _Server) -> None:
    server.plan = {2: "500"}
    victim = victims.from_http(server.url, backoff=0, max_requests=3)
    victim(X)
    victim(X)
    with pytest.raises(VictimError, match="3 times"):
        victim(X)
    assert len(server.sizes) == 3


@pytest.mark.parametrize(
    "recipe",
    [
        "square:queries=400",
        "random-direction:queries=400",
        "nes:queries=400,samples=10",
        "spsa:queries=400,samples=10",
        "hop-skip-jump:queries=400",
    ],
)
def test_a_victim_that_dies_leaves_what_was_found(server: _Server, recipe: str) -> None:
    """Some rows fall before the last request; they stay fallen, and nothing is said of the others."""
    eps = 0.05 if recipe.startswith("hop") else 0.12
    whole = ss.attack(victims.from_http(server.url), X, _y(), threat=ss.linf(eps), recipe=recipe)
    assert 0 < int(whole.fooled.sum()) < len(X)
    assert whole.ended is None
    server.sizes.clear()
    # Probes of several directions travel in one request, so that the same search needs fewer of them.
    most = {"nes": 30, "spsa": 30, "hop-skip-jump": 45}.get(recipe.partition(":")[0], 120)
    victim = victims.from_http(server.url, backoff=0, retries=0, max_requests=most)
    outcome = ss.attack(victim, X, _y(), threat=ss.linf(eps), recipe=recipe)
    assert isinstance(outcome.x, Tensor)
    assert outcome.ended is not None
    assert "max_requests" in outcome.ended
    assert any("ended early" in note for note in outcome.notes)
    assert int(outcome.fooled.sum()) > 0
    assert torch.equal(outcome.fooled, (_y(outcome.x) != _y()) & outcome.fooled)  # seen to fool, and it does
    assert torch.equal(outcome.undetermined, ~outcome.fooled)
    assert bool(outcome.verified.all())


@pytest.mark.parametrize("recipe", [name for name, row in ss.RECIPES.items() if row.smallest])
@pytest.mark.parametrize("most", [1, 3, 20])
def test_a_victim_that_dies_during_a_search_for_the_smallest_change(recipe: str, most: int) -> None:
    """Led by a surrogate, or by its own gradients: what it was seen to fail on stays, the others are undetermined."""
    spec = f"{recipe}:queries=400" if ss.RECIPES[recipe].needs != "gradients" else f"{recipe}:steps=25"
    threat = ss.l0(2) if ss.RECIPES[recipe].norms == ("l0",) else ss.l2(0.3)
    for surrogate in (None, _linear):
        calls = [0]

        def victim(u: Tensor, calls: list[int] = calls) -> Tensor:
            calls[0] += 1
            if calls[0] > most + 2:
                raise VictimError("gone")
            return _linear(u)

        outcome = ss.attack(victim, X, _y(), threat=threat, recipe=spec, search=ss.Search(surrogate=surrogate))
        if outcome.ended is None:
            continue
        assert outcome.ended == "gone"
        assert isinstance(outcome.x, Tensor)
        assert bool(outcome.verified.all())
        assert bool((outcome.fooled | outcome.undetermined).all()) or outcome.smallest is not None
        assert not bool((outcome.fooled & (_linear(outcome.x).argmax(1) == _y())).any())


def test_a_victim_that_dies_at_the_verdict(server: _Server) -> None:
    """The last request of all is the verdict; what the search had seen still counts."""
    victim = victims.from_http(server.url)
    recipe = "square:queries=50"
    whole = ss.attack(victim, X, _y(), threat=ss.linf(0.12), recipe=recipe)
    again = victims.from_http(server.url, max_requests=victim.requests - 1)
    outcome = ss.attack(again, X, _y(), threat=ss.linf(0.12), recipe=recipe)
    assert outcome.ended is not None
    assert torch.equal(outcome.fooled, whole.fooled)
    assert isinstance(outcome.x, Tensor)
    assert isinstance(whole.x, Tensor)
    assert torch.equal(outcome.x, whole.x)


def test_a_victim_that_dies_in_a_later_run_settles_nothing_by_the_earlier_one(server: _Server) -> None:
    victim = victims.from_http(server.url, max_requests=70)
    outcome = ss.attack(victim, X, _y(), threat=ss.linf(0.12), recipe="square:queries=40,restarts=4")
    assert outcome.ended is not None
    assert 0 < int(outcome.fooled.sum()) < len(X)
    assert torch.equal(outcome.undetermined, ~outcome.fooled)


def test_wrong_endpoints_say_what_is_right() -> None:
    with pytest.raises(InputError, match="http"):
        victims.from_http("file:///etc/passwd")
    with pytest.raises(InputError, match="retries=-1"):
        victims.from_http("https://x", retries=-1)
    with pytest.raises(InputError, match="max_requests=0"):
        victims.from_http("https://x", max_requests=0)
