import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_credit import credit, network, people

from signstep.auditing.evidence import Evidence
from signstep.auditing.result import Result
from signstep.auditing.run import Run
from signstep.domains.case import Request
from signstep.domains.run import audit_case
from signstep.domains.tabular import CoordinateSearch, Layout, case, check, infer, parse_schema, schema_text
from signstep.errors import InputError, LoadError, ThreatError

SKLEARN = "sklearn"


@pytest.fixture
def credit_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A table, its schema, and a network to import, in the current folder."""
    schema = credit()
    model, decoded = network(schema), people(schema, 40)
    labels = model(Layout(schema).widen(decoded)).argmax(1).tolist()
    with (tmp_path / "people.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(feature.name for feature in schema.features), "granted"])
        for record, label in zip(decoded.tolist(), labels, strict=True):
            cells = [
                feature.levels[int(value)] if feature.named else repr(value)
                for feature, value in zip(schema.features, record, strict=True)
            ]
            writer.writerow([*cells, schema.target.classes[label]])
    (tmp_path / "credit.toml").write_text(schema_text(schema))
    save_file(model.net.state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "tabular_nets_for_tests.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))\n\n\n"
        "class Fitted:\n    classes_ = ('no', 'yes')\n\n    def predict(self, x):\n        return x[:, 0] > 0\n\n"
        "    def predict_proba(self, x):\n        import numpy as np\n\n"
        "        yes = 1 / (1 + np.exp(-x[:, 0]))\n        return np.stack([1 - yes, yes], 1)\n\n\n"
        "fitted = Fitted()\n\n\ndef nothing():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return Request(
        model="tabular_nets_for_tests:build",
        weights=Path("net.safetensors"),
        data="people.csv",
        schema=Path("credit.toml"),
    )


def test_an_audit_from_files_tells_its_story_and_its_points_check_again(credit_files: Request) -> None:
    evidence = Evidence()
    made = case(credit_files)
    result = audit_case(made, run=Run(evidence=evidence))
    assert result.clean_accuracy == 1.0
    assert result.fooled > 0
    assert all(entry.unverified == 0 for entry in result.attacks)
    assert {"weights", "data", "schema"} <= set(result.hashes)
    assert [section.title for section in result.sections] == [
        "One record, before and after",
        "How brittle the decisions are",
        "What the attacks changed",
        "The smallest change that turns the decision",
        "One wrong entry",
    ]
    one = result.sections[0]
    first = min(evidence.tensors()["row"].tolist())
    assert one.rows
    assert all(re.fullmatch("⟦.+ → .+⟧", change) for _, change in one.rows)
    assert "the first that fell: ⟦denied → granted⟧" in one.text[0] or "⟦granted → denied⟧" in one.text[0]
    assert result.worst_case.index("f") == first
    rows = result.sections[1].rows
    assert {row[0] for row in rows} == {"all", "sex f", "sex m", "age < 30", "age >= 30"}
    assert sum(int(row[3]) for row in rows if row[0] == "all") == result.fooled
    cheapest = result.sections[3]
    assert any(row[2].startswith("granted if ") for row in cheapest.rows if row[1] == "denied")
    assert any("every feature was searched through alone" in text for text in cheapest.text)
    named = [row[2] for row in cheapest.rows if " if " in row[2]]
    single = [said for said in named if " and " not in said]
    assert all(said.endswith("; no single feature does it for less") for said in named if said not in single)
    assert not any("no single feature" in said for said in single)
    assert len(named) > len(single)
    assert cheapest.chart is not None
    assert all(line.y[0] is not None and line.y[-1] is not None for line in cheapest.chart.lines)
    points = evidence.tensors()
    assert bool(check(result.terms, points["x"], points["x_adv"]).ok.all())
    outside = points["x_adv"].clone()
    outside[:, 0] += 1e4
    assert not bool(check(result.terms, points["x"], outside).ok.any())
    result.save("result.json")
    assert Result.load("result.json").sections == result.sections


def test_the_same_audit_twice_is_the_same(credit_files: Request) -> None:
    first, second = (
        audit_case(case(replace(credit_files, limit=12)), attacks=["pgd", CoordinateSearch(50)], curve=False)
        for _ in range(2)
    )
    assert first.per_example == second.per_example
    assert first.sections == second.sections


def test_half_the_budgets_and_few_records(credit_files: Request) -> None:
    made = case(replace(credit_files, threat="budget:0.5", limit=7, batch_size=3))
    assert [len(x) for x, _ in made.batches] == [3, 3, 1]
    assert "eps=0.5" in str(made.threat)
    with pytest.raises(ThreatError, match=r"pass budget:0\.5"):
        case(replace(credit_files, threat="linf:0.5"))


def test_an_estimator_from_python_is_asked_only(credit_files: Request) -> None:
    made = case(replace(credit_files, model="tabular_nets_for_tests:fitted", weights=None, limit=10))
    assert any("no gradients" in note for note in made.notes)
    assert made.curve is False
    result = audit_case(made)
    assert all(entry.backwards == 0 for entry in result.attacks)
    cheapest = next(section for section in result.sections if section.title.startswith("The smallest change"))
    assert any("asked for alone at part of their values" in text for text in cheapest.text)
    assert not any("no single feature" in cell for row in cheapest.rows for cell in row)


def test_without_labels_the_decisions_count_as_right(credit_files: Request) -> None:
    rows = [line.split(",") for line in Path("people.csv").read_text().splitlines()]
    with Path("people.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(row[:-1] for row in rows)
    made = case(credit_files)
    assert any("the model's own decisions count as right" in note for note in made.notes)
    assert audit_case(made, attacks=["fgsm"]).clean_accuracy == 1.0


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"schema": None}, InputError, "signstep schema --domain tabular --data people.csv"),
        ({"data": None}, InputError, "data is missing"),
        ({"model": None, "data": None}, InputError, "model and data are missing"),
        ({"schema": Path("none.toml")}, LoadError, "cannot be read"),
        ({"data": "none.csv"}, LoadError, "cannot be read"),
        ({"model": "tabular_nets_for_tests:nothing"}, InputError, "must return a torch.nn.Module"),
        ({"model": "no_such_module:build"}, InputError, "there is no module no_such_module"),
        ({"model": "trees.joblib", "weights": None}, InputError, "pass trust=True"),
        ({"limit": 0}, InputError, "limit=0"),
        ({"label_column": "sum"}, InputError, "sum"),
    ],
)
def test_bad_requests_are_one_clear_sentence(
    credit_files: Request, change: dict[str, object], kind: type[Exception], said: str
) -> None:
    if "label_column" in change:
        change = {"label_column": "income"}
        said = "'income' is the target and a feature"
    with pytest.raises(kind) as caught:
        case(replace(credit_files, **change))  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_bad_rows_are_skipped_on_request_and_counted(credit_files: Request) -> None:
    with Path("people.csv").open("a") as stream:
        stream.write("1,2,3\n")
    with pytest.raises(LoadError, match=r"people\.csv, line 42 has 3 cells instead of 13"):
        case(credit_files)
    made = case(replace(credit_files, skip_bad=True))
    assert made.terms["bad_rows"] == 1
    assert any("1 of 41 rows were left out" in note for note in made.notes)


def test_a_schema_is_inferred_from_the_data_of_a_request(credit_files: Request) -> None:
    schema = parse_schema(infer(credit_files))
    assert schema.target.column == "granted"
    assert schema["age"].change == "none"
    assert schema["purpose"].kind == "categorical"
    with pytest.raises(InputError, match="pass data="):
        infer(Request())


def test_a_pickled_pipeline_with_trust(credit_files: Request) -> None:
    joblib, linear = pytest.importorskip("joblib"), pytest.importorskip("sklearn.linear_model")
    schema = credit()
    layout, decoded = Layout(schema), people(schema, 60, seed=3)
    labels = network(schema)(layout.widen(decoded)).argmax(1)
    fitted = linear.LogisticRegression(max_iter=500).fit(layout.standardise(layout.widen(decoded)).numpy(), labels)
    joblib.dump(fitted, "model.joblib")
    made = case(replace(credit_files, model="model.joblib", weights=None, trust=True, limit=5))
    assert "LogisticRegression" in made.model.title
    x, _ = next(iter(made.batches))
    assert isinstance(x, torch.Tensor)
    assert made.model(x).shape == (5, 2)
    Path("model.joblib").write_bytes(b"nothing")
    with pytest.raises(LoadError, match="cannot be loaded"):
        case(replace(credit_files, model="model.joblib", weights=None, trust=True))


def test_the_embedded_example_is_deterministic_and_right() -> None:
    pytest.importorskip(SKLEARN)
    made, again = case(Request(limit=12)), case(Request(limit=12))
    (x, y), (other, _) = next(iter(made.batches)), next(iter(again.batches))
    assert isinstance(x, torch.Tensor)
    assert y is not None
    assert torch.equal(made.model(x), again.model(other))
    assert float((made.model(x).argmax(1) == y).double().mean()) > 0.85
    result = audit_case(made, curve=False)
    assert result.fooled + result.held + result.undetermined == result.clean_right
    assert len(result.sections) >= 3
    assert "breast" in result.data
