"""``ss.smooth``: the vote of a model under Gaussian noise, and how far no change in L2 moves it.

Source: Cohen, Rosenfeld & Kolter 2019, "Certified Adversarial Robustness via Randomized Smoothing" (arXiv:1902.02918),
section 3.2, algorithms PREDICT and CERTIFY.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from signstep.auditing.stream import Data, batches
from signstep.defences.smoothing.radius import chance, radius_of
from signstep.defences.smoothing.record import ABSTAINED, Certificates
from signstep.engine import arrays
from signstep.engine.keys import Key, content_ids
from signstep.engine.origin import contained
from signstep.engine.tasks import Multiclass, task_for
from signstep.engine.untouched import untouched
from signstep.errors import InputError, ModelError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.drawn import drawn_anew
from signstep.model.predictor import Predictor
from signstep.model.space import Statistic
from signstep.version import VERSION

_ROWS = 256  # noisy copies at a time


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smoothed classifier: g(x) = the class that a model answers most often at x + sigma N(0, 1). See `smooth`.

    Attributes:
        model: what is smoothed; where it declares a transform, noise comes before it, and it is drawn anew.
        sigma: standard deviation of the noise, in raw units. It is not cut to a box: the proof is of unbounded noise.
        seed: of the draws, with the content of each example.
    """

    model: Model
    sigma: float
    seed: int = 0

    @torch.no_grad()
    @contained
    def predict(self, x: Tensor | arrays.Array, *, n: int = 100, alpha: float = 0.001) -> Tensor:
        """The vote on each row (R,) int64: -1 where a binomial test at ``alpha`` cannot tell the first from the second.

        Raises:
            InputError: x or an option does not fit.
        """
        _check(n=n, alpha=alpha)
        x = arrays.one_tensor(x, arrays.Home(self.model.network))
        votes = self._votes(x, n, "predict")
        top = votes.topk(min(2, votes.shape[1]), dim=1)
        answers = []
        for counts, classes in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            sure = chance(counts[0], counts[1] if len(counts) > 1 else 0) <= alpha
            answers.append(classes[0] if sure else ABSTAINED)
        return torch.tensor(answers, dtype=torch.int64, device=x.device)

    @torch.no_grad()
    @contained
    def certify(
        self,
        data: Data | Tensor,
        *,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 0.001,
        limit: int | None = None,
        name: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Certificates:
        """The vote on each example and the L2 radius that it proves, each wrong with a chance of at most ``alpha``.

        ``n0`` draws choose the class; of ``n`` fresh ones the Clopper-Pearson bound on its share gives the radius
        sigma * Phi^-1(bound). Where that bound is no majority the vote abstains. Ctrl-C gives what was done by then.

        Args:
            data: batches ``(x, y)``, a pair of tensors, or inputs alone; labels are for the accuracy.
            n0: draws that choose.
            n: draws that prove; 100,000 in the paper. The largest radius that n can prove grows with it.
            alpha: chance for each example that its radius is wrong.
            limit: stop after this many examples.
            name: what the record calls the data.
            progress: called with the number of examples done, after each.

        Raises:
            InputError: the data or an option does not fit.
            ModelError: the model answers no classes.
        """
        _check(n0=n0, n=n, alpha=alpha)
        given: Data = (data, None) if isinstance(data, Tensor) else data
        answers: list[int] = []
        radii: list[float] = []
        counts: list[int] = []
        labels: list[int] = []
        partial, home = False, arrays.Home(self.model.network)
        try:
            for x, y in batches(given, limit):
                if not isinstance(x, Tensor):
                    raise InputError("smoothing needs one input, the data has several", remedy="pass one tensor")
                for row in range(len(x)):
                    one = x[row : row + 1].to(home.device)
                    answer, radius, votes = self._certified(one, n0, n, alpha)
                    answers.append(answer)
                    radii.append(radius)
                    counts.append(votes)
                    labels += [] if y is None else [int(y[row])]
                    if progress is not None:
                        progress(len(answers))
        except KeyboardInterrupt:
            if not answers:
                raise
            partial = True
        if not answers:
            raise InputError(Arg("data"), "gave no examples", remedy="pass at least one")
        whole = len(answers)
        return Certificates(
            model=self.model.title,
            data=name or ("tensors" if isinstance(data, (tuple, Tensor)) else type(data).__name__),
            sigma=self.sigma,
            alpha=alpha,
            n0=n0,
            n=n,
            seed=self.seed,
            answers=tuple(answers),
            radii=tuple(radii[:whole]),
            votes=tuple(counts[:whole]),
            labels=tuple(labels[:whole]) if len(labels) >= whole else (),
            passes="" if self.model.transform is None else str(self.model.transform),
            partial=partial,
            notes=tuple(f"model: {note}" for note in self.model.notes),
            versions={"signstep": VERSION, "torch": torch.__version__},
        )

    def _certified(self, x: Tensor, n0: int, n: int, alpha: float) -> tuple[int, float, int]:
        """Class (-1: abstained), radius and votes for the class chosen, of one example (1, ...)."""
        chosen = int(self._votes(x, n0, "choose").argmax(1))
        fresh = self._votes(x, n, "prove")[0]
        votes = int(fresh[chosen]) if chosen < len(fresh) else 0
        radius = radius_of(votes, n, sigma=self.sigma, alpha=alpha)
        return (ABSTAINED, 0.0, votes) if radius is None else (chosen, radius, votes)

    def _votes(self, x: Tensor, n: int, purpose: str) -> Tensor:
        """How often each class is answered in n draws (R, K) int64."""
        space = self.model.space()
        if not x.is_floating_point() or x.ndim < 2 or not len(x):
            raise InputError(
                Arg("x", tuple(x.shape), of="shape"), f"of {x.dtype}", remedy="pass floating-point inputs (R, ...)"
            )
        raw = space.to_raw(x) if space.inputs == "normalised" else x
        key = Key(self.seed).fold("smoothing", purpose)
        ids = content_ids(raw).cpu()
        predictor = drawn_anew(self.model, space, key.fold("transform"))
        with untouched(self.model.network, mode=self.model.mode):
            rows = [self._row(predictor, raw[row : row + 1], ids[row : row + 1], n, key) for row in range(len(raw))]
        most = max(map(len, rows))
        return torch.stack([_wider(votes, most) for votes in rows])

    def _row(self, predictor: Predictor, x: Tensor, identity: Tensor, n: int, key: Key) -> Tensor:
        total: Tensor | None = None
        for start in range(0, n, _ROWS):
            count = min(_ROWS, n - start)
            noise = key.fold("noise", start).draws(identity, x.device).normal("n", (count, *x.shape[1:]))[0]
            outputs = predictor(x + self.sigma * noise.to(x))
            task = task_for(self.model.task, outputs.scores)
            if not isinstance(task, Multiclass):
                raise ModelError(
                    f"smoothing takes a vote on classes, and the task is {task.name}", remedy="pass a classifier"
                )
            answers = task.predict(outputs).long()
            wide = outputs.raw.shape[1] if outputs.raw.ndim > 1 else 1
            votes = torch.bincount(answers.cpu(), minlength=max(2, wide))
            total = votes if total is None else _wider(total, len(votes)) + _wider(votes, len(total))
        assert total is not None
        return total


def _wider(votes: Tensor, classes: int) -> Tensor:
    """Of a model that answers labels alone nobody knows beforehand how many classes there are."""
    return torch.nn.functional.pad(votes, (0, max(0, classes - len(votes))))


def smooth(
    model: Model | Callee, sigma: float = 0.25, *, mean: Statistic = None, std: Statistic = None, seed: int = 0
) -> Smoothed:
    """A classifier smoothed by Gaussian noise: the one random defence with a proof.

    The proof speaks of the smoothed classifier, the vote, in L2: never of the model alone, or of another norm. A model
    that was not trained under such noise has little to vote about.

    Args:
        model: an `ss.Model`, or a bare nn.Module or callable that answers classes.
        sigma: standard deviation of the noise, in raw units.
        mean: of a bare network: it wants (x - mean) / std.
        std: see ``mean``.
        seed: of the draws, with the content of each example.

    Raises:
        InputError: sigma makes no sense, or the model cannot be called.

    Example:
        >>> import torch, signstep as ss
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.eye(2))
        >>> smoothed = ss.smooth(model, sigma=0.5)
        >>> x = torch.tensor([[2.0, 0.0], [0.01, 0.0]])
        >>> smoothed.predict(x)
        tensor([ 0, -1])
        >>> smoothed.certify(x, n=500).radii[0] > 1.0
        True
    """
    if not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
        raise InputError(Arg("sigma", sigma), remedy="pass a standard deviation above 0, in raw units")
    return Smoothed(Model.of(model, mean=mean, std=std), float(sigma), seed)


def _check(*, alpha: float, **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise InputError(Arg(name, count), remedy="pass a number of draws of at least 1")
    if not 0 < alpha < 1:
        raise InputError(Arg("alpha", alpha), remedy="pass a chance between 0 and 1, such as 0.001")
