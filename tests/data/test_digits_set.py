import pytest
import torch

from signstep.data.digits import digits
from signstep.errors import InputError


def test_digits_have_the_declared_shape_space_and_grid() -> None:
    x, y = digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((500, 1, 8, 8), torch.float32, (500,), torch.int64)
    assert (x.min().item(), x.max().item()) == (0, 1)
    assert torch.equal(x * 16, (x * 16).round())
    assert sorted(set(y.tolist())) == list(range(10))


def test_splits_are_disjoint_parts_of_the_1797() -> None:
    train, test = digits("train"), digits("test")
    assert (len(train[0]), len(test[0])) == (1297, 500)
    assert [int(label) for label in train[1][:10]] == list(range(10))  # the order of UCI's file
    seen = {image.numpy().tobytes() for image in train[0]}
    assert not any(image.numpy().tobytes() in seen for image in test[0])


def test_the_callers_changes_do_not_reach_the_next_caller() -> None:
    digits()[0].zero_()
    assert digits()[0].any()


def test_unknown_split() -> None:
    with pytest.raises(InputError, match="split='valid'; pass 'train' or 'test'"):
        digits("valid")
