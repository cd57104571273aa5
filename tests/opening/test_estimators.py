"""Files of scikit-learn: skops by the types that it knows, pickles with trust alone."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples import data, fitted, needs

import signstep as ss
from signstep.cli import main
from signstep.errors import InputError, LoadError, MissingExtraError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    needs("sklearn")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = data(60)
    return make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(
        x.flatten(1).numpy(), y.numpy()
    )


def test_types_that_skops_does_not_know_are_refused_by_name() -> None:
    needs("skops")
    import skops.io

    pipeline = forest()
    skops.io.dump(pipeline, "forest.skops")
    types = skops.io.get_untrusted_types(file="forest.skops")
    assert types, "a forest is one of those here"
    with pytest.raises(InputError) as caught:
        ss.open("forest.skops")
    said = str(caught.value)
    assert f"has types that skops does not know as harmless, {types[0]}" in said
    assert f"pass args={{'trusted': {types}}} or trust=True" in said
    x, _ = data()
    wanted = torch.from_numpy(pipeline.predict(x.flatten(1).numpy()))
    for options in ({"args": {"trusted": ",".join(types)}}, {"args": {"trusted": tuple(types)}}, {"trust": True}):
        model = ss.open("forest.skops", **options)
        assert torch.equal(model(x).argmax(1), wanted)
        assert model.title == "forest.skops (Pipeline)"
    with pytest.raises(InputError, match="takes no argument 'width'"):
        ss.open("forest.skops", args={"width": 3})
    with pytest.raises(InputError, match="has types that skops does not know"):
        ss.open("forest.skops", args={"trusted": "builtins.eval"})


@pytest.mark.filterwarnings("ignore::FutureWarning")  # skops looks through all modules for the type
def test_a_type_of_somebodys_own_runs_nothing(here: Path) -> None:
    needs("skops")
    import skops.io

    (here / "evilkind.py").write_text(
        "from pathlib import Path\nfrom sklearn.base import BaseEstimator, ClassifierMixin\n"
        "class Evil(ClassifierMixin, BaseEstimator):\n"
        "    def __setstate__(self, state):\n        Path('PWNED').write_text('run')\n"
        "    def fit(self, x, y):\n        self.classes_ = [0, 1]\n        return self\n"
        "    def predict(self, x):\n        return x[:, 0]\n"
        "def build():\n    return Evil().fit(None, None)\n"
    )
    evil = ss.open("evilkind:build").network.estimator  # type: ignore[attr-defined]
    skops.io.dump(evil, "evil.skops")
    with pytest.raises(InputError, match=r"does not know as harmless, evilkind\.Evil"):
        ss.open("evil.skops")
    assert not (here / "PWNED").exists()


def test_a_pickle_needs_trust_and_runs_nothing_before(here: Path) -> None:
    code = b"cos\nsystem\n(S'touch PWNED'\ntR."
    for name in ("m.pkl", "m.pickle", "m.joblib"):
        Path(name).write_bytes(code)
        with pytest.raises(InputError, match="is a pickle, and loading one can run any code; pass trust=True"):
            ss.open(name)
    assert not (here / "PWNED").exists()
    with pytest.raises(InputError, match=r"m.pkl holds a int; save a fitted classifier of scikit-learn there"):
        ss.open("m.pkl", trust=True)


def test_a_plain_pickle_is_read_too() -> None:
    import pickle

    Path("plain.pkl").write_bytes(pickle.dumps(fitted()))
    assert ss.open("plain.pkl", trust=True).classes == ("ape", "bee", "cat")


@pytest.mark.parametrize("name", ["none.skops", "none.joblib"])
def test_a_missing_file(name: str) -> None:
    needs("skops")
    with pytest.raises(LoadError, match=f"the model {name} does not exist; check the path"):
        ss.open(name, trust=True)


def test_what_is_no_file_of_skops_is_one_sentence() -> None:
    needs("skops")
    Path("a.skops").write_bytes(b"no archive")
    with zipfile.ZipFile("b.skops", "w") as archive:
        archive.writestr("schema.json", "{}")
    with zipfile.ZipFile("c.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"0" * 2**29)
    for name, said in (
        ("a", "is no file of skops or is damaged"),
        ("b", "cannot be loaded"),
        ("c", "unpacks to 536870912"),
    ):
        with pytest.raises(LoadError, match=said) as caught:
            ss.open(f"{name}.skops")
        assert "\n" not in str(caught.value)


def test_a_regressor_is_no_classifier() -> None:
    import joblib
    from sklearn.linear_model import LinearRegression

    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), "line.joblib")
    with pytest.raises(InputError, match="the LinearRegression has no classes_"):
        ss.open("line.joblib", trust=True)


def test_a_file_of_another_version_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    import joblib
    import sklearn

    with monkeypatch.context() as older:
        older.setattr(sklearn.base, "__version__", "0.1")
        joblib.dump(fitted(), "old.joblib")
    model = ss.open("old.joblib", trust=True)
    assert "scikit-learn 0.1 wrote it, not the version that reads it: it may answer otherwise" in model.notes


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "skops.io", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    Path("a.skops").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"needs the package skops; run pip install 'signstep\[tabular\]'"):
        ss.open("a.skops")


def test_an_estimator_is_audited_by_a_command_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    import joblib

    estimator, (x, _) = fitted(), data(8)
    joblib.dump(estimator, "trees.joblib")
    y = np.searchsorted(estimator.classes_, estimator.predict(x.flatten(1).numpy()))
    np.savez("test.npz", x=x.numpy(), y=y)
    words = ["--model", "trees.joblib", "--trust", "--data", "test.npz"]
    assert main(["audit", *words, "--threat", "linf:0.2"]) == 0
    record = json.loads(Path("signstep-report/result.json").read_text())
    assert [entry["name"] for entry in record["attacks"]] == ["random-sign", "square:queries=500"]
    assert record["classes"] == ["ape", "bee", "cat"]
    assert record["clean_right"] == 8
    capsys.readouterr()
    assert main(["verify", "signstep-report", *words]) == 0, capsys.readouterr().out
