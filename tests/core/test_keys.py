"""Random draws belong to examples: the same in any batch, order, dtype or process state."""

import pytest
import torch
from small_nets import rand
from torch import Tensor

from signstep.engine.keys import Key, content_ids

SHAPE = (2, 5)
CPU = torch.device("cpu")


@pytest.mark.kernels
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_do_not_depend_on_batch_or_order(kind: str) -> None:
    ids = torch.tensor([3, -7, 2**62, 0, 3, -(2**63)])

    def draw(rows: Tensor) -> Tensor:
        out: Tensor = getattr(Key(0).fold("start").draws(rows, CPU), kind)("ball", SHAPE)
        return out

    whole = draw(ids)
    assert whole.shape == (6, *SHAPE)
    assert whole.dtype == torch.float32
    for index in ([0], [5, 2], [4, 3, 2, 1, 0], list(range(6)), [1] * 9):
        assert torch.equal(draw(ids[index]), whole[index])
    assert torch.equal(whole[0], whole[4])
    assert len({tuple(row.flatten().tolist()) for row in whole}) == 5


def test_every_part_of_the_key_counts() -> None:
    ids = torch.tensor([11])
    keys = [
        Key(0),
        Key(1),
        Key(0).fold("restart", 0),
        Key(0).fold("restart", 1),
        Key(0).fold("restart", "1"),
        Key(0).fold("step", 1),
        Key(0).fold("restart", 1).fold("step", 1),
        Key(0).fold("restart/1"),
    ]
    draws = [key.draws(ids, CPU).uniform(purpose, (4,)) for key in keys for purpose in ("a", "b")]
    draws.append(Key(0).draws(torch.tensor([12]), CPU).uniform("a", (4,)))
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)
    assert len({key.integer() for key in keys}) == len(keys)
    assert Key(0).fold("restart", 1).integer() == Key(0).fold("restart").fold(1).integer()


def test_draws_are_distributed_as_they_say() -> None:
    ids = torch.arange(4000)
    uniform = Key(0).draws(ids, CPU).uniform("u", (5,))
    normal = Key(0).draws(ids, CPU).normal("n", (5,))
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.01
    assert abs(float(normal.mean())) < 0.03
    assert abs(float(normal.std()) - 1) < 0.03
    neighbours = torch.corrcoef(uniform[:, :2].T)[0, 1], torch.corrcoef(torch.stack([normal[:-1, 0], normal[1:, 0]]))
    assert abs(float(neighbours[0])) < 0.06
    assert abs(float(neighbours[1][0, 1])) < 0.06


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    ids = torch.arange(3)
    before = torch.get_rng_state()
    first = Key(4).draws(ids, CPU).normal("n", (6,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    second = Key(4).draws(ids, CPU).normal("n", (6,))
    torch.set_rng_state(before)
    assert torch.equal(first, second)


def test_content_ids_follow_the_example() -> None:
    x = (rand(7, 1, 4, 4) * 255).round() / 255
    ids = content_ids(x, (0.0, 1.0))
    assert ids.dtype == torch.int64
    assert len(set(ids.tolist())) == 7
    order = torch.tensor([3, 1, 6])
    assert torch.equal(content_ids(x[order], (0.0, 1.0)), ids[order])
    assert torch.equal(content_ids(x.transpose(2, 3).contiguous().transpose(2, 3), (0.0, 1.0)), ids)
    one_level = x.clone()
    one_level[0, 0, 0, 0] += 1 / 255
    assert content_ids(one_level, (0.0, 1.0))[0] != ids[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_content_ids_of_8_bit_images_do_not_depend_on_the_dtype(dtype: torch.dtype) -> None:
    """All 256 levels. In half precision two levels may meet, but none may leave its cell."""
    x = (torch.arange(256).reshape(16, 16).double() / 255).reshape(16, 1, 4, 4)
    assert torch.equal(content_ids(x.to(dtype), (0.0, 1.0)), content_ids(x, (0.0, 1.0)))


def test_content_ids_survive_normalisation_and_other_boxes() -> None:
    x = (rand(7, 3, 4, 4) * 255).round().float() / 255
    ids = content_ids(x, (0.0, 1.0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shape = (1, 3, 1, 1)
    back = ((x - mean.reshape(shape)) / std.reshape(shape)) * std.reshape(shape) + mean.reshape(shape)
    assert not torch.equal(back, x)
    assert torch.equal(content_ids(back, (0.0, 1.0)), ids)
    assert torch.equal(content_ids(2 * x - 1, (-1.0, 1.0)), ids)


def test_content_ids_without_a_span_see_every_digit() -> None:
    x = rand(3, 4, dtype=torch.float32) * 1e4
    near = x.clone()
    near[1, 2] = torch.nextafter(near[1, 2], torch.tensor(torch.inf))
    assert content_ids(x).tolist() != content_ids(near).tolist()
    assert content_ids(x)[0] == content_ids(near)[0]
    tokens = {"tokens": torch.arange(6).reshape(3, 2), "x": x}
    assert len(set(content_ids(tokens).tolist())) == 3
