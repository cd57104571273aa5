"""Each transformation against somebody else's: Pillow, SciPy, or the definition; and what a chain refuses."""

import builtins
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_nets import mlp, rand
from torch import Tensor

import signstep as ss
from signstep.defences import DEFENCES, Chain, Step
from signstep.defences.transformations.total_variation import TotalVariation
from signstep.engine.keys import Key, RowDraws
from signstep.engine.ways import taking
from signstep.errors import InputError, MissingExtraError, ModelError

IMAGES = rand(4, 3, 16, 12, dtype=torch.float32)
OWN = sorted(DEFENCES.own)


def draws(rows: int = 4, *, first: int = 0, seed: int = 0) -> RowDraws:
    return Key(seed).draws(torch.arange(first, first + rows), torch.device("cpu"))


def passed(spec: str | Step, x: Tensor = IMAGES, **given: Any) -> Tensor:
    return Chain((ss.defend(mlp(), [spec]).transform.steps[0],), **given)(x, draws(len(x)))  # type: ignore[union-attr]


def test_jpeg_is_the_codec_of_pillow_byte_for_byte() -> None:
    for quality in (5, 75, 100):
        found = passed(f"jpeg:quality={quality}")
        for row, image in zip(IMAGES, found, strict=True):
            levels = (row * 255).round().byte().permute(1, 2, 0).numpy()
            buffer = io.BytesIO()
            Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
            read = np.asarray(Image.open(buffer))
            assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), read)
    grey = passed("jpeg:quality=50", IMAGES[:, :1])
    assert grey.shape == (4, 1, 16, 12)
    # Where the box is another one, so are the units, and nothing else.
    moved = passed("jpeg:quality=75", IMAGES * 4 - 2, ends=(-2.0, 2.0))
    torch.testing.assert_close(moved, passed("jpeg:quality=75") * 4 - 2, rtol=0, atol=2e-6)


def test_blurs_and_resizing_are_those_of_scipy_and_pillow() -> None:
    from scipy import ndimage

    wide = IMAGES.double().numpy()
    for sigma in (0.5, 1.5):
        kernel = {"sigma": (0, 0, sigma, sigma), "mode": "constant", "truncate": 30.0}
        expected = ndimage.gaussian_filter(wide, **kernel) / ndimage.gaussian_filter(np.ones_like(wide), **kernel)
        np.testing.assert_allclose(passed(f"gaussian-blur:sigma={sigma}").numpy(), expected, atol=1e-5)
    for size in (1, 3, 5):
        expected = ndimage.median_filter(IMAGES.numpy(), size=(1, 1, size, size), mode="nearest")
        assert np.array_equal(passed(f"median-blur:size={size}").numpy(), expected)
    found = passed("resize:pixels=3")
    for row, image in zip(IMAGES, found, strict=True):
        for channel, done in zip(row, image, strict=True):
            small = Image.fromarray(channel.numpy()).resize((9, 13), Image.Resampling.BILINEAR)
            back = np.asarray(small.resize((12, 16), Image.Resampling.BILINEAR))
            np.testing.assert_allclose(done.numpy(), back, atol=1e-5)


def test_bits_are_counted() -> None:
    for bits in (1, 3, 8):
        found = passed(f"bit-depth:bits={bits}")
        expected = np.rint(IMAGES.numpy() * (2**bits - 1)) / (2**bits - 1)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)
    found = passed("colour-332", rand(1, 3, 64, 64, dtype=torch.float32))
    assert [len(channel.unique()) for channel in found[0]] == [8, 8, 4]
    eight = (IMAGES * 255).round() / 255
    assert torch.equal(passed("bit-depth:bits=8", eight), passed("bit-depth:bits=8", passed("bit-depth:bits=8", eight)))


def test_total_variation_reaches_the_minimum_that_scipy_finds() -> None:
    from scipy.optimize import minimize

    image, weight, tiny = rand(1, 1, 6, 5, seed=3)[0, 0].numpy(), 0.1, 1e-9

    def energy(flat: Any) -> tuple[float, Any]:
        y = torch.tensor(flat.reshape(6, 5), requires_grad=True)
        down = torch.nn.functional.pad(y[1:] - y[:-1], (0, 0, 0, 1))
        across = torch.nn.functional.pad(y[:, 1:] - y[:, :-1], (0, 1))
        value = (y - torch.tensor(image)).square().sum() / (2 * weight)
        value = value + (down.square() + across.square() + tiny).sqrt().sum()
        (gradient,) = torch.autograd.grad(value, y)
        return value.item(), gradient.numpy().ravel()

    least = minimize(energy, image.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 3000}).fun
    step = TotalVariation(weight, 400)
    found = step.forward(torch.tensor(image)[None, None], draws(1), (0.0, 1.0)).numpy().ravel()
    assert energy(found)[0] <= least * (1 + 1e-3)
    assert energy(image.ravel())[0] > least * 1.5


def test_what_is_drawn_is_what_is_said() -> None:
    x = torch.full((400, 1, 8, 8), 0.5)
    uniform = passed("uniform-noise:radius=0.2", x) - 0.5
    assert float(uniform.abs().max()) <= 0.2
    assert abs(float(uniform.var()) - 0.2**2 / 3) < 5e-4
    assert abs(float((passed("gaussian-noise:std=0.1", x) - 0.5).std()) - 0.1) < 2e-3
    ramp = torch.arange(20.0).expand(50, 1, 20, 20) / 20
    padded = passed("resize-pad:shrink=0.5", ramp + 0.05)
    sides = (padded > 0).any(2).sum(-1)
    assert int(sides.min()) >= 10
    assert int(sides.max()) <= 20
    assert len(set(sides.flatten().tolist())) > 5
    crop = passed("random-crop:share=0.5", ramp)
    assert float((crop[..., -1] - crop[..., 0]).mean()) == pytest.approx(0.5 * 19 / 20, abs=0.03)
    assert int((crop[..., 0] == 0).sum()) < crop[..., 0].numel()  # at places that differ


@pytest.mark.parametrize("name", OWN)
def test_laws_of_every_row(name: str) -> None:
    """Shape, range, dtype, own draws in any batch, one way real and one way absent, a gradient of every input."""
    chain = ss.defend(mlp(), [name]).transform
    assert isinstance(chain, Chain)
    out = chain(IMAGES, draws())
    assert out.shape == IMAGES.shape
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    for place in range(4):
        alone = chain(IMAGES[place : place + 1], draws(1, first=place))
        torch.testing.assert_close(alone[0], out[place], rtol=0, atol=1e-6)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert chain(IMAGES.to(dtype), draws()).dtype == dtype
    for chosen in chain.ways:
        u = IMAGES.clone().requires_grad_()
        with taking(chosen):
            shown = chain(u, draws())
        assert torch.equal(shown.detach(), IMAGES if chosen == "straight" else out)
        (gradient,) = torch.autograd.grad(shown.square().sum(), u)
        assert bool(gradient.flatten(1).any(1).all())
    row = DEFENCES[name]
    assert row.random == chain.random == (not torch.equal(out, chain(IMAGES, draws(seed=1))))
    assert ("identity" in chain.ways) == ("identity" in row.gradient)
    assert row.source
    assert row.broken
    assert str(chain) == str(ss.defend(mlp(), [str(chain)]).transform)  # its words can be typed again


REFUSED = {
    "jpeg:quality=0": r"jpeg: quality=0; pass a quality from 1 to 100",
    "jpeg:quality=high": r"jpeg: quality='high'; pass a whole number",
    "jpeg:qualty=75": r"defence 'jpeg' has no option 'qualty=75'; did you mean quality=75\?",
    "jpg": r"did you mean 'jpeg'\?",
    "bit-depth:bits=0": "bits=0",
    "median-blur:size=4": "size=4.*odd",
    "gaussian-blur:sigma=nan": "sigma=nan",
    "resize-pad:shrink=1": "shrink=1",
    "total-variation:steps=0": "steps=0",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_options_that_make_no_sense_are_one_sentence(spec: str) -> None:
    with pytest.raises(InputError, match=REFUSED[spec]):
        ss.defend(mlp(), [spec])


def test_inputs_that_do_not_fit_and_defences_that_change_shape_or_range_are_one_sentence() -> None:
    flat = rand(2, 18, dtype=torch.float32)
    for name in ("jpeg", "median-blur", "resize-pad"):
        with pytest.raises(InputError, match=rf"{name} needs images .* \(2, 18\)"):
            passed(name, flat)
    with pytest.raises(InputError, match=r"colour-332 needs 3 channels"):
        passed("colour-332", IMAGES[:, :1])
    with pytest.raises(InputError, match="leaves nothing of images of 16 x 12"):
        passed("resize:pixels=12")
    for function, text in (
        (lambda x: x[:, :, 1:], r"defence smaller returned \(4, 3, 15, 12\) for inputs of shape .*; let it keep"),
        (lambda x: x * 2, r"defence smaller returned values from .* outside of \[0, 1\]; let it keep the range"),
        (lambda x: x * float("nan"), "outside of"),
    ):
        with pytest.raises(ModelError, match=text):
            passed(ss.defences.custom(function, name="smaller"))
    with pytest.raises(InputError, match="is no list"):
        ss.defend(mlp(), "jpeg")  # a single name is a sequence of letters
    with pytest.raises(InputError, match="low < high"):
        ss.defend(mlp(), ["bit-depth"], box=(1.0, 0.0))


def test_without_the_extra_jpeg_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "kornia":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"kornia.*pip install 'signstep\[defend\]'"):
        ss.defend(mlp(), ["jpeg"])
    assert ss.defend(mlp(), ["bit-depth"]).defences == ("bit-depth:bits=5",)
