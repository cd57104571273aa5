"""Robustness as a test: ``assert_robust`` in any test suite, and as a fixture of the pytest plugin."""

from collections.abc import Sequence

from signstep.auditing.ladder import Rung
from signstep.auditing.run import Data, Run, audit
from signstep.engine.attack import Attack
from signstep.engine.threat import Threat
from signstep.errors import InputError
from signstep.messages import Arg
from signstep.model.declaration import Callee, Model
from signstep.model.search import Search
from signstep.model.space import Statistic
from signstep.model.twin import Engine
from signstep.plain import plain


def assert_robust(
    model: Model | Callee,
    data: Data,
    *,
    threat: Threat,
    at_least: float,
    attacks: Sequence[str | Attack] | None = None,
    ladder: str | Sequence[str | Attack | Rung] | None = None,
    mean: Statistic = None,
    std: Statistic = None,
    engine: Engine | None = None,
    limit: int | None = None,
    search: Search | None = None,
    run: Run | None = None,
) -> None:
    """Fail unless at least this share of all examples is right and survives every attack tried.

    Args:
        model: as for `signstep.audit`, as all arguments but one.
        data: batches (x, y), tensors, a Dataset.
        threat: what may change.
        at_least: robust accuracy over all examples, clean errors counted as errors, between 0 and 1.
        attacks: recipes.
        ladder: a preset or a list of recipes, such as "quick@1".
        mean: of a bare network.
        std: of a bare network.
        engine: what the search runs on.
        limit: the number of examples.
        search: how the attacker searches.
        run: how the audit is carried out.

    Raises:
        AssertionError: fewer survive, or the audit was interrupted; the message is the table and the findings.
        InputError: ``at_least`` is no share.
    """
    __tracebackhide__ = True
    if not 0 <= at_least <= 1:
        raise InputError(Arg("at_least", at_least), remedy="pass a share between 0 and 1, such as 0.4 for 40 %")
    result = audit(
        model,
        data,
        threat=threat,
        attacks=attacks,
        ladder=ladder,
        curve=False,
        mean=mean,
        std=std,
        engine=engine,
        limit=limit,
        search=search,
        run=run,
    )
    if result.partial:
        raise AssertionError(plain(f"the audit was interrupted; a partial result passes no test\n\n{result}"))
    if not result.robust_accuracy >= at_least:
        raise AssertionError(
            plain(
                f"robust accuracy {result.robust_accuracy:.4f} is under {at_least} "
                f"({result.held} of {result.examples})\n\n{result}"
            )
        )
