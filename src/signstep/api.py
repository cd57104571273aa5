"""The functions people call: one step, one attack."""

from torch import Tensor

from signstep.attacks.gradient.fgsm import fgsm as fgsm_recipe
from signstep.attacks.recipes import recipe as find_recipe
from signstep.engine import arrays
from signstep.engine.attack import Attack
from signstep.engine.keys import Key
from signstep.engine.norms import Norm
from signstep.engine.origin import contained
from signstep.engine.outcome import Outcome
from signstep.engine.shaped import need_check
from signstep.engine.threat import Box, Eps, Mask, Threat, threat_model
from signstep.engine.tree import Tree
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search, Target, refuse, search_of
from signstep.model.space import Statistic
from signstep.model.subject import Subject
from signstep.model.twin import Engine


@contained
def attack(
    model: Model | Callee,
    x: Tree | arrays.Array,
    y: Tensor | arrays.Array | None = None,
    *,
    threat: Threat,
    recipe: str | Attack = "fgsm",
    target: Target = None,
    mean: Statistic = None,
    std: Statistic = None,
    engine: Engine | None = None,
    search: Search | None = None,
    ids: Tensor | arrays.Array | None = None,
) -> Outcome:
    """Attack a batch and return the attacked inputs with their verdicts.

    Model, random state and the caller's tensors are left as they were found. Nothing here proves robustness: a row
    that was not fooled has survived this attack, no more.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable; a dict of inputs is passed as keyword arguments.
        x: inputs (R, ...), floating point, or a dict of tensors of which ``threat`` names the attacked ones; what else
            a dict holds (None, a number, text) is the same for every row. NumPy arrays and tables do for tensors,
            and take the precision of the model's weights; sparse tensors are made dense, with a note.
        y: labels; None takes the model's own predictions (safe from label leaking).
        threat: what may change, in raw input units: ``ss.linf("8/255")``, or one for each attacked input of a dict.
        recipe: "fgsm", "pgd:steps=50,restarts=10", ... (``signstep.RECIPES``) or an attack object.
        target: classes to reach (R,), or "random", "least-likely", "next". A single step rarely reaches a target.
            Short for the field of ``search``, as ``engine`` is.
        mean: of a bare network: it wants (x - mean) / std; a number, or one for each channel. Anything else about it is
            said by an `ss.Model`.
        std: see ``mean``.
        engine: "exact", or "fast" or "float32" to search on a twin of the model; see `ss.Search`.
        search: loss, surrogates, draws, engine, units of the budget, seed: an `ss.Search`.
        ids: (R,) int64 to key randomness by instead of the content.

    Returns:
        An `Outcome`: ``.x``, ``.fooled``, ``.undetermined``, ``.distance``, ``.loss`` and what it cost. Where the model
        declares a transform, a row counts as fooled when most of 32 draws that no search has used fail.

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
    chosen_search = search_of(search, target=target, engine=engine)
    subject = Subject.of(Model.of(model, mean=mean, std=std), chosen_search)
    chosen = find_recipe(recipe, oracle=subject.oracle)
    key = Key(chosen_search.seed)
    with subject.opened():
        question = subject.ask(x, y, threat, target=chosen_search.target, key=key, ids=ids, attack=chosen)
        return question.run(chosen, key.fold(chosen.name))


@contained
def fgsm(
    model: Model | Callee,
    x: Tensor | arrays.Array,
    y: Tensor | arrays.Array | None = None,
    *,
    eps: Eps,
    norm: Norm | str = "linf",
    box: Box = (0.0, 1.0),
    mask: Mask = None,
    grid: int | None = None,
    target: Target = None,
    mean: Statistic = None,
    std: Statistic = None,
    search: Search | None = None,
) -> Tensor:
    """Just the step: the exact maximiser of the linearised loss over ball, box and mask, for every row.

    For L-infinity ``clamp(x + eps * sign(gradient), low, high)`` (Goodfellow, Shlens & Szegedy 2014, section 4); in
    other norms the dual-norm step (FGM). One forward and one backward pass, no verdict; see `attack` for one.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable.
        x: inputs (R, ...).
        y: labels, or None for the model's predictions.
        eps: radius in raw input units, such as "8/255"; a tensor (R,) for one each; None for the box alone.
        norm: "linf", "l2", "l1", "l0", "pixel", "token" or a norm.
        box: (low, high) of valid inputs, or None.
        mask: True where the input may change.
        grid: 255 to stay on the grid of 8-bit images.
        target: see `attack`.
        mean: see `attack`.
        std: see `attack`.
        search: see `attack`; eps is in raw units here.

    Returns:
        The attacked inputs (R, ...) in raw units, in the dtype of x.

    Raises:
        InputError: as for `attack`.

    Example:
        >>> import torch, signstep as ss
        >>> w = torch.tensor([[3.0, -0.1, 0.0, -2.0]])
        >>> x = torch.tensor([[0.2, 0.5, 0.7, 0.9]])
        >>> ss.fgsm(lambda x: -(x @ w.T), x, torch.tensor([1]), eps=0.05)
        tensor([[0.2500, 0.4500, 0.7000, 0.8500]])
    """
    chosen_search = search_of(search, target=target)
    refuse(
        chosen_search,
        "fgsm",
        budget="its eps is in raw units; use attack(), whose outcome names the units",
        gradient_path="it takes one step and gives no verdict; use attack()",
    )
    subject = Subject.of(Model.of(model, mean=mean, std=std), chosen_search)
    chosen = fgsm_recipe(oracle=subject.oracle)
    key = Key(chosen_search.seed)
    with subject.opened():
        threat = threat_model(norm, eps, box=box, mask=mask, grid=grid)
        if chosen_search.engine != "exact":
            # No verdict is given here, so the twin may stand for the model throughout.
            subject = subject.searched_on_twin(subject.plain(x, []))
        question = subject.ask(x, y, threat, target=chosen_search.target, key=key, attack=chosen)
        crafted = chosen.craft(question.problem, question.region, question.x, key)
    assert isinstance(crafted, Tensor)
    return crafted
