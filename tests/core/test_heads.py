"""Only the unchanged output of a softmax or sigmoid is looked behind; whatever has been done to it is the model's own.

Each way of changing it in place is compared with the same function written without: the two are one model.
"""

import warnings
from collections.abc import Callable

import pytest
import torch
from small_nets import mlp, rand
from torch import Tensor, nn
from torch.nn import functional

import signstep as ss
from signstep.model.predictor import Predictor

X = rand(24, 18, seed=1, dtype=torch.float32)
NET = mlp(classes=4, dtype=torch.float32)
PRIOR = torch.tensor([0.1, 2.0, 0.5, 1.0])
Head = Callable[[Tensor], Tensor]


def _softmax(z: Tensor) -> Tensor:
    return z.softmax(1)


def _in_place(change: Callable[[Tensor], object]) -> Head:
    def head(z: Tensor) -> Tensor:
        p = _softmax(z)
        change(p)
        return p

    return head


def _zero_first(p: Tensor) -> None:
    p[:, 0] = 0


def _through_a_view(p: Tensor) -> None:
    p.view(-1, 2, 2)[:, 0, 0] = 0


def _put(p: Tensor) -> None:
    p.index_put_((torch.arange(len(p)), torch.zeros(len(p), dtype=torch.int64)), torch.zeros(len(p)))


def _times(p: Tensor) -> None:
    p *= PRIOR


def _out(p: Tensor) -> None:
    with torch.no_grad():
        torch.mul(p, PRIOR, out=p)


def _no_first(z: Tensor) -> Tensor:
    return torch.cat([_softmax(z)[:, :1] * 0, _softmax(z)[:, 1:]], 1)


def _weighted(z: Tensor) -> Tensor:
    return _softmax(z) * PRIOR


CHANGES: dict[str, tuple[Head, Head]] = {
    "p[:, 0] = 0": (_in_place(_zero_first), _no_first),
    "through a view": (_in_place(_through_a_view), _no_first),
    "index_put_": (_in_place(_put), _no_first),
    "*=": (_in_place(_times), _weighted),
    "mul_": (_in_place(lambda p: p.mul_(PRIOR)), _weighted),
    "div_": (_in_place(lambda p: p.div_(1 / PRIOR)), lambda z: _softmax(z) / (1 / PRIOR)),
    "log_": (_in_place(lambda p: p.log_()), lambda z: _softmax(z).log()),
    "masked_fill_": (_in_place(lambda p: p.masked_fill_(PRIOR == 0.1, 0)), _no_first),
    "index_fill_": (_in_place(lambda p: p.index_fill_(1, torch.tensor([0]), 0)), _no_first),
    "copy_ of a row": (_in_place(lambda p: p[:, 0].copy_(p[:, 0] * 0)), _no_first),
    "normalised again": (
        _in_place(lambda p: p.mul_(PRIOR).div_(p.detach().sum(1, keepdim=True))),
        lambda z: _weighted(z) / _weighted(z).detach().sum(1, keepdim=True),
    ),
}


def _attacked(head: Head, recipe: str) -> ss.Outcome:
    model = nn.Sequential(NET, _Lambda(head))
    with torch.no_grad():
        y = model(X).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ss.SignstepWarning)  # of probabilities without their logits, the same for both
        return ss.attack(model, X, y, threat=ss.linf(0.06), recipe=recipe)


class _Lambda(nn.Module):
    def __init__(self, function: Head) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("recipe", ["fgsm", "pgd:steps=3", "fab:steps=3", "square:queries=30"])
def test_changed_in_place_is_as_changed_in_a_copy(change: str, recipe: str) -> None:
    written, copied = (_attacked(head, recipe) for head in CHANGES[change])
    assert isinstance(written.x, Tensor)
    assert isinstance(copied.x, Tensor)
    torch.testing.assert_close(written.x, copied.x, rtol=0, atol=1e-6)
    assert torch.equal(written.fooled, copied.fooled)
    assert torch.equal(written.undetermined, copied.undetermined)
    assert written.notes == copied.notes
    assert not any("ends in" in note for note in written.notes)


def _form(head: Head, x: Tensor = X, net: nn.Module = NET) -> tuple[str, Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ss.SignstepWarning)
        outputs = Predictor(nn.Sequential(net, _Lambda(head)))(x)
    return outputs.form, outputs.scores, outputs.raw


def _half(z: Tensor) -> Tensor:
    return z.half().softmax(1).float()


def _autocast(z: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return z.bfloat16().softmax(1)


SAME: dict[str, Head] = {
    "as it is": _softmax,
    "a view": lambda z: _softmax(z).view(len(z), -1),
    "a slice of everything": lambda z: _softmax(z)[:, :],
    "a position that is alone": lambda z: z[..., None, None].softmax(1)[:, :, 0, 0],
    "moved there and back": lambda z: _softmax(z).transpose(0, 1).contiguous().transpose(0, 1),
    "over the last of three": lambda z: z.view(-1, 1, 4).softmax(-1).squeeze(1),
    "turned": lambda z: z.t().softmax(0).T,
    "a copy": lambda z: _softmax(z).clone(),
    "cut off": lambda z: _softmax(z).detach(),
    "wider": lambda z: _softmax(z).double(),
    "from half precision": _half,
    "under autocast": _autocast,
    "a copy, and the original written to": lambda z: _copied(_softmax(z)),
}


def _copied(p: Tensor) -> Tensor:
    q = p.clone()
    p.zero_()
    return q


@pytest.mark.parametrize("head", list(SAME))
def test_moved_or_widened_it_is_still_the_output(head: str) -> None:
    x = X.clone().requires_grad_()
    form, scores, raw = _form(SAME[head], x)
    assert form == "behind"
    assert scores.shape == raw.shape
    assert scores.requires_grad
    # Half precision holds two to three digits.
    torch.testing.assert_close(scores.float(), NET(x), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(scores.softmax(1).to(raw.dtype), raw, rtol=1e-2, atol=1e-3)
    (gradient,) = torch.autograd.grad(scores[:, 0].sum(), x)
    assert bool(gradient.any(1).all())


def _through_numpy(z: Tensor) -> Tensor:
    p = _softmax(z)
    p.detach().numpy()[:, 0] = 0
    return p


def _through_data(z: Tensor) -> Tensor:
    p = _softmax(z)
    p.data[:, 0] = 0
    return p


def _logits_written(z: Tensor) -> Tensor:
    p = _softmax(z)
    z *= 0
    return p


OTHER: dict[str, Head] = {
    "through numpy": _through_numpy,
    "through .data": _through_data,
    "its logits written to": _logits_written,
    "some classes": lambda z: _softmax(z)[:, 1:],
    "classes in another order": lambda z: _softmax(z)[:, torch.tensor([1, 0, 2, 3])],
    "a class twice": lambda z: _softmax(z)[:, [0, 0, 1, 2]],
    "narrower": lambda z: _softmax(z).half(),
    "pairs of classes": lambda z: z.view(-1, 2, 2).softmax(2).view(-1, 4),
    "over the examples": lambda z: z.softmax(0),
    "nothing": lambda z: _softmax(z).mul_(1.0),
    "an aside": lambda z: (_softmax(z), z)[1],
}


@pytest.mark.parametrize("head", list(OTHER))
def test_anything_else_is_not(head: str) -> None:
    assert _form(OTHER[head])[0] != "behind"


@pytest.mark.parametrize("grad", [True, False])
def test_a_row_is_read_alike_alone_and_in_a_batch(grad: bool) -> None:
    """Small probabilities are cut in place: rows that have none must not be read otherwise than those that have."""

    def cut(z: Tensor) -> Tensor:
        p = (4 * z).softmax(1)
        p[p < 0.02] = 0
        return p

    with torch.set_grad_enabled(grad):
        whole = _form(cut)
        alone = [_form(cut, X[row : row + 1]) for row in range(len(X))]
    assert bool((whole[2] == 0).any(1).any())
    assert not bool((whole[2] == 0).any(1).all())
    assert "behind" not in {whole[0], *(form for form, _, _ in alone)}


def test_inside_vmap_there_is_nothing_to_look_behind() -> None:
    mapped = torch.func.vmap(lambda row: functional.softmax(NET[1:](row), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ss.SignstepWarning)
        assert Predictor(mapped)(X).form == "lost"
        assert Predictor(mapped)(X[:1]).form == "lost"


def test_writing_into_what_another_derivative_needs_is_said_in_one_sentence() -> None:
    def model(u: Tensor) -> Tensor:
        e: Tensor = NET(u).exp()
        e[:, 0] = 0
        return e

    y = model(X).argmax(1)
    with pytest.raises(ss.errors.GradientError, match="writes in place"):
        ss.attack(model, X, y, threat=ss.linf(0.06))
    assert bool(ss.attack(model, X, y, threat=ss.linf(0.06), recipe="square:queries=20").verified.all())
