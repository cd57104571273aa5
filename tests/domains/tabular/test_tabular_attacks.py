import pytest
import torch
from small_credit import credit, network, people, wide
from torch import nn

import signstep as ss
from signstep.domains.tabular import CoordinateSearch, Layout, Schema, TabularNet, estimator_model, tabular_threat
from signstep.domains.tabular.forms import _class_order
from signstep.errors import InputError, ModelError, ThreatError

RECIPES = ("random-sign", "fgsm", "pgd:restarts=2", "mi-fgsm", "apgd:steps=10", "random-direction:queries=20")


@pytest.mark.parametrize("recipe", [*RECIPES, CoordinateSearch(60)], ids=lambda spec: getattr(spec, "name", spec))
@pytest.mark.parametrize("changes", [0, 2])
def test_every_attack_returns_records_that_pass_the_checker(recipe: str | CoordinateSearch, changes: int) -> None:
    schema = credit(changes=changes)
    x = wide(schema, 40)
    found = ss.attack(network(schema), x, threat=tabular_threat(schema), recipe=recipe)
    assert bool(found.verified.all())
    assert isinstance(found.x, torch.Tensor)
    answers = network(schema)(found.x).argmax(1)
    assert torch.equal(found.fooled, answers != network(schema)(x).argmax(1))


def test_the_gradient_of_a_group_tells_the_gain_of_each_category() -> None:
    schema = credit(rules=())
    layout, x = Layout(schema), wide(schema, 30)
    layer = nn.Linear(layout.width, 2).double()
    linear = TabularNet(layer, schema)
    y = linear(x).argmax(1)
    found = ss.attack(linear, x, y, threat=tabular_threat(schema), recipe="fgsm")
    assert isinstance(found.x, torch.Tensor)
    weight = layer.weight.detach()
    columns = [number for number, name in enumerate(layout.names) if name.startswith("purpose=")]
    towards = (weight[1 - y] - weight[y])[:, columns]
    assert torch.equal(found.x[:, columns].argmax(1), towards.argmax(1))


@pytest.mark.kernels
def test_coordinate_search_does_not_depend_on_the_batch_and_beats_blind_guessing() -> None:
    schema = credit()
    x, model, threat = wide(schema, 60), network(schema, seed=3), tabular_threat(schema, 0.5)
    search = CoordinateSearch(100)
    together = ss.attack(model, x, threat=threat, recipe=search)
    again = ss.attack(model, x.flip(0), threat=threat, recipe=search)
    assert torch.equal(together.fooled, again.fooled.flip(0))
    assert isinstance(together.x, torch.Tensor)
    assert isinstance(again.x, torch.Tensor)
    assert torch.equal(together.x, again.x.flip(0))
    blind = ss.attack(model, x, threat=threat, recipe="random-direction:queries=100")
    assert int(together.fooled.sum()) >= int(blind.fooled.sum())
    assert int(together.fooled.sum()) > 0
    assert int(together.forwards.max()) <= 101


def test_coordinate_search_is_for_tables() -> None:
    with pytest.raises(ThreatError, match="moves in tables"):
        ss.attack(nn.Linear(4, 2), torch.rand(3, 4), threat=ss.linf(0.1), recipe=CoordinateSearch())


@pytest.mark.parametrize("form", ["encoded", "wide", "codes", "records"])
def test_fitted_estimators_are_attacked_by_queries(form: str) -> None:
    pytest.importorskip("sklearn")
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    schema = Schema.of({**credit().plain(), "form": form})
    layout, decoded = Layout(schema), people(schema, 150)
    x = layout.widen(decoded)
    named = (network(schema)(x) if form in ("encoded", "wide") else network(credit())(x)).argmax(1)
    y = [schema.target.classes[label] for label in named.tolist()]
    estimator: object
    if form == "records":
        texts = [place for place, feature in enumerate(schema.features) if feature.named]
        numbers = [place for place in range(len(schema.features)) if place not in texts]
        split = make_column_transformer((OneHotEncoder(), texts), (StandardScaler(), numbers))
        estimator = make_pipeline(split, LogisticRegression(max_iter=500))
    else:
        estimator = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    model = estimator_model(_fitted(estimator, form, layout, decoded, y), schema)
    asked = model(x[:50])
    assert float((asked.argmax(1) == named[:50]).double().mean()) > 0.8
    found = ss.attack(model, x[:50], threat=tabular_threat(schema, 3.0), recipe=CoordinateSearch(80))
    assert bool(found.verified.all())
    assert int(found.fooled.sum()) > 0


def _fitted(estimator: object, form: str, layout: Layout, decoded: torch.Tensor, y: list[str]) -> object:
    import numpy as np

    wide_rows = layout.widen(decoded)
    if form == "encoded":
        rows: object = layout.standardise(wide_rows).numpy()
    elif form == "wide":
        rows = wide_rows.numpy()
    elif form == "codes":
        rows = decoded.numpy()
    else:
        texts = [
            [
                feature.levels[int(value)] if feature.named else value
                for feature, value in zip(layout.schema.features, record, strict=True)
            ]
            for record in decoded.tolist()
        ]
        rows = np.array(texts, dtype=object)
    estimator.fit(rows, y)  # type: ignore[attr-defined]
    return estimator


def test_a_frame_carries_the_names_and_texts() -> None:
    pandas, numpy = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    schema = Schema.of({**credit().plain(), "form": "frame"})

    class Reader:
        classes_ = ("no", "yes")

        def predict_proba(self, frame: object) -> object:
            assert isinstance(frame, pandas.DataFrame)
            yes = (frame["phone"] == "yes").to_numpy(float)
            return numpy.stack([1 - yes, yes], 1)

    assert estimator_model(Reader(), schema)(wide(schema, 3)).shape == (3, 2)


def test_classes_of_an_estimator_are_put_in_the_order_of_the_schema() -> None:
    schema = credit()
    assert _class_order(["yes", "no"], schema) == [1, 0]
    assert _class_order(["0", "1"], schema) == [0, 1]
    with pytest.raises(InputError, match="the model knows the classes good, bad"):
        _class_order(["good", "bad"], schema)


def test_an_estimator_that_refuses_a_record_is_one_clear_sentence() -> None:
    class Refuses:
        classes_ = ("no", "yes")

        def predict_proba(self, _: object) -> object:
            raise ValueError("unknown categories ['degree']")

    schema = Schema.of({**credit().plain(), "form": "records"})
    with pytest.raises(ModelError, match=r"the Refuses refused records .* correct \[model\] input"):
        estimator_model(Refuses(), schema)(wide(schema, 3))


def test_a_torch_module_needs_one_hot_groups() -> None:
    schema = Schema.of({**credit().plain(), "form": "codes"})
    with pytest.raises(InputError, match="no gradient for categories"):
        TabularNet(nn.Linear(12, 2), schema)
