"""Robustness as a test: ``assert_robust`` in any test suite, and as a fixture of the pytest plugin."""

from typing import Any

from signstep.auditing.findings import examine
from signstep.auditing.run import Data, audit
from signstep.engine.threat import Threat
from signstep.errors import InputError
from signstep.model.subject import Model
from signstep.plain import plain


def assert_robust(model: Model, data: Data, *, threat: Threat, at_least: float, **options: Any) -> None:
    """Fail unless at least this share of all examples is right and survives every attack tried.

    Args:
        model: as for `signstep.audit`.
        data: as for `signstep.audit`.
        threat: as for `signstep.audit`.
        at_least: robust accuracy over all examples, clean errors counted as errors, between 0 and 1.
        options: any further arguments of `signstep.audit`, such as ``ladder="quick@1"``.

    Raises:
        AssertionError: fewer survive, or the audit was interrupted; the message is the table and the findings.
        InputError: ``at_least`` is no share.
    """
    __tracebackhide__ = True
    if not 0 <= at_least <= 1:
        raise InputError(f"at_least={at_least}: pass a share between 0 and 1, such as 0.4 for 40 %")
    result = audit(model, data, threat=threat, **options)
    if result.partial:
        raise AssertionError(plain(f"the audit was interrupted; a partial result passes no test\n\n{result}"))
    if not result.robust_accuracy >= at_least:
        findings = "\n".join(str(finding) for finding in examine(result))
        raise AssertionError(
            plain(
                f"robust accuracy {result.robust_accuracy:.4f} is under {at_least} "
                f"({result.held} of {result.examples})\n\n{result}\n{findings}"
            )
        )
