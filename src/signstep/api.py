"""The functions people call: one step, one attack."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from signstep.attacks.gradient.fixed_budget import fgsm as fgsm_recipe
from signstep.attacks.recipes import recipe as find_recipe
from signstep.engine import arrays
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.norms import Norm
from signstep.engine.origin import contained
from signstep.engine.outcome import Outcome
from signstep.engine.shaped import need_check
from signstep.engine.tasks import Task, TaskName
from signstep.engine.threat import Box, Eps, Mask, Threat, threat_model
from signstep.engine.transform import Transform
from signstep.engine.tree import Tree
from signstep.engine.untouched import Mode
from signstep.model.predictor import Kind, Selector
from signstep.model.space import Statistic
from signstep.model.subject import Model, Subject, Target
from signstep.model.twin import Engine


@contained
def attack(
    model: Model,
    x: Tree | arrays.Array,
    y: Tensor | arrays.Array | None = None,
    *,
    threat: Threat,
    recipe: str | Attack = "fgsm",
    target: Target = None,
    task: Task | TaskName = "auto",
    loss: str | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    inputs: Literal["raw", "normalised"] = "raw",
    budget: Literal["raw", "normalised"] = "raw",
    output: Selector = None,
    outputs: Kind = "auto",
    mode: Mode = "eval",
    surrogate: Model | Sequence[Model] | None = None,
    engine: Engine = "exact",
    transform: Transform | None = None,
    eot: int = 1,
    seed: int = 0,
    ids: Tensor | arrays.Array | None = None,
) -> Outcome:
    """Attack a batch and return the attacked inputs with their verdicts.

    Model, random state and the caller's tensors are left as they were found. Nothing here proves robustness: a row
    that was not fooled has survived this attack, no more.

    Args:
        model: an nn.Module or any callable; a dict of inputs is passed as keyword arguments.
        x: inputs (R, ...), floating point, or a dict of tensors of which ``threat`` names the attacked ones; what else
            a dict holds (None, a number, text) is the same for every row. NumPy arrays and tables do for tensors,
            and take the precision of the model's weights; sparse tensors are made dense, with a note.
        y: labels; None takes the model's own predictions (safe from label leaking).
        threat: what may change, in raw input units: ``ss.linf("8/255")``, or one for each attacked input of a dict.
        recipe: "fgsm", "pgd:steps=50,restarts=10", ... (``signstep.RECIPES``) or an attack object.
        target: classes to reach (R,), or "random", "least-likely", "next". A single step rarely reaches a target.
        task: "auto" (several scores: multiclass, one: binary), "multilabel", "segmentation" or a task object.
        loss: the task's default, cross-entropy, searched in its log-odds form; or "margin", "dlr", ...
        mean: raw inputs are normalised with mean and std before the model sees them; number or one for each channel.
        std: see ``mean``.
        inputs: "normalised" if ``x`` already is (x_raw - mean) / std; the outcome is in raw units all the same.
        budget: "normalised" to measure eps in the model's normalised coordinates, which results then name.
        output: where the scores are in what the model returns: a key, an index or a function.
        outputs: "auto" recognises a final softmax or sigmoid; "logits" and "probabilities" declare it.
        mode: "eval" attacks in evaluation mode, "keep" leaves every submodule as it is.
        surrogate: take gradients from this model, or the mean over these (transfer attack).
        engine: "fast" searches on a twin of the model (BatchNorm folded, channels-last, bfloat16 where the hardware
            has it), "float32" on one in full precision; the verdict is the model's own all the same.
        transform: what happens to inputs on their way to the model, such as ``ss.transforms.Noise(0.05)``, drawn for
            each row; a row counts as fooled when most of 32 draws that no search has used fail.
        eot: average each gradient over this many draws of the transform, or passes of a random model.
        seed: with the content of each example, all randomness.
        ids: (R,) int64 to key randomness by instead of the content.

    Returns:
        An `Outcome`: ``.x``, ``.fooled``, ``.undetermined``, ``.distance``, ``.loss`` and what it cost.

    Raises:
        InputError: x, y, target or an option does not fit; the message says what would.
        ThreatError: the threat makes no sense for this input.
        ScaleError: x lies outside the box.
        ModelError: the model cannot be called or read, or has no gradient path.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(4, 3)
        >>> x, y = torch.rand(8, 4), torch.randint(3, (8,))
        >>> outcome = ss.attack(model, x, y, threat=ss.linf(0.1), recipe="pgd")
        >>> outcome.x.shape, bool((outcome.distance <= 0.1 + 1e-7).all())
        (torch.Size([8, 4]), True)
    """
    need_check(threat)
    subject = Subject.of(
        model,
        task=task,
        loss=loss,
        mean=mean,
        std=std,
        inputs=inputs,
        budget=budget,
        output=output,
        outputs=outputs,
        mode=mode,
        surrogate=surrogate,
        engine=engine,
        transform=transform,
        eot=eot,
    )
    chosen = find_recipe(recipe, oracle=subject.oracle)
    key = Key(seed)
    with subject.opened():
        question = subject.ask(x, y, threat, target=target, key=key, ids=ids, attack=chosen)
        return question.run(chosen, key.fold(chosen.name))


@contained
def fgsm(  # noqa: D417 - the arguments it shares with `attack` are described there
    model: Model,
    x: Tensor | arrays.Array,
    y: Tensor | arrays.Array | None = None,
    *,
    eps: Eps,
    norm: Norm | str = "linf",
    box: Box = (0.0, 1.0),
    mask: Mask = None,
    grid: int | None = None,
    target: Target = None,
    task: Task | TaskName = "auto",
    loss: str | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    inputs: Literal["raw", "normalised"] = "raw",
    output: Selector = None,
    outputs: Kind = "auto",
    mode: Mode = "eval",
    surrogate: Model | Sequence[Model] | None = None,
    engine: Engine = "exact",
    seed: int = 0,
) -> Tensor:
    """Just the step: the exact maximiser of the linearised loss over ball, box and mask, for every row.

    For L-infinity ``clamp(x + eps * sign(gradient), low, high)`` (Goodfellow, Shlens & Szegedy 2014, section 4); in
    other norms the dual-norm step (FGM). One forward and one backward pass, no verdict; see `attack` for one.

    Args:
        model: see `attack`, as for the arguments not listed here.
        x: inputs (R, ...).
        y: labels, or None for the model's predictions.
        eps: radius in raw input units, such as "8/255"; a tensor (R,) for one each; None for the box alone.
        norm: "linf", "l2", "l1", "pixel", "token" or a norm.
        box: (low, high) of valid inputs, or None.
        mask: True where the input may change.
        grid: 255 to stay on the grid of 8-bit images.

    Returns:
        The attacked inputs (R, ...) in raw units, in the dtype of x.

    Example:
        >>> import torch, signstep as ss
        >>> w = torch.tensor([[3.0, -0.1, 0.0, -2.0]])
        >>> x = torch.tensor([[0.2, 0.5, 0.7, 0.9]])
        >>> ss.fgsm(lambda x: -(x @ w.T), x, torch.tensor([1]), eps=0.05)
        tensor([[0.2500, 0.4500, 0.7000, 0.8500]])
    """
    subject = Subject.of(
        model,
        task=task,
        loss=loss,
        mean=mean,
        std=std,
        inputs=inputs,
        output=output,
        outputs=outputs,
        mode=mode,
        surrogate=surrogate,
        engine=engine,
    )
    chosen = fgsm_recipe(oracle=subject.oracle)
    key = Key(seed)
    with subject.opened():
        threat = threat_model(norm, eps, box=box, mask=mask, grid=grid)
        if engine != "exact":
            subject = subject.searched_on_twin(
                subject.plain(x, [])
            )  # no verdict is given here, so the twin may stand for the model throughout
        question = subject.ask(x, y, threat, target=target, key=key, attack=chosen)
        crafted = chosen.craft(question.problem, question.region, question.x, key)
    assert isinstance(crafted, Tensor)
    return crafted
