"""Parts that multi-targeted and difference attacks stand on: ways, cotangents, changes of variables."""

import torch
from torch import Tensor

import signstep as ss
from signstep.engine.keys import Key
from signstep.engine.oracles import Autograd
from signstep.engine.problem import ModelProblem
from signstep.engine.tree import Tree, tree_map
from signstep.model.subject import Subject

W = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X @ W.T).argmax(1)


def problem(loss: str) -> ModelProblem:
    def model(x: Tensor) -> Tensor:
        return x @ W.T

    subject = Subject.of(ss.Model(model), ss.Search(loss=loss))
    with subject.opened():
        return subject.ask(X, Y, ss.linf(0.1), key=Key(0)).problem


def test_a_cotangent_gives_the_gradient_of_one_class_difference() -> None:
    k = (Y + 1) % 3
    weights = torch.zeros(5, 3, dtype=torch.float64).scatter(1, k.unsqueeze(1), 1.0)
    _, gradient = Autograd()(problem("margin"), X, Key(0), weights)
    assert isinstance(gradient, Tensor)
    assert torch.allclose(gradient, W[Y] - W[k])


def test_rows_times_classes_are_led_each_their_own_way() -> None:
    index = torch.arange(5).repeat_interleave(3)
    way = torch.arange(3).repeat(5)
    keep = way != Y[index]
    for loss, sign in (("margin", 1.0), ("dlr", 1.0)):
        rows = problem(loss).take(index[keep], way=way[keep], loss="margin")
        score, gradient = Autograd()(rows, X[index[keep]], Key(0))
        assert isinstance(gradient, Tensor)
        assert torch.allclose(gradient, sign * (W[way[keep]] - W[Y[index[keep]]]))
        assert torch.equal(rows.ids, problem(loss).ids[index[keep]])
        assert not bool(score.fooled.any())  # success stays what it was: any other class


def test_a_render_stands_between_the_attacked_variable_and_the_model() -> None:
    def halved(u: Tree) -> Tree:
        return tree_map(lambda part: part / 2, u)

    plain = problem("margin")
    twice = plain.through(halved).through(halved)
    assert torch.allclose(twice(X).loss, plain(X / 4).loss)
    _, gradient = Autograd()(twice, X, Key(0))
    _, there = Autograd()(plain, X / 4, Key(0))
    assert isinstance(gradient, Tensor)
    assert isinstance(there, Tensor)
    assert torch.allclose(gradient, there / 4)
