"""What the guard covers of what standards ask for, line by line: "covered by X, evidence Y", or "not covered".

A frozen table. A line has a name of ours, for finding it; the standard's own text counts. No compliance is claimed: a
line says what is there and what that rests on, and whoever assesses decides.
"""

from collections.abc import Callable
from dataclasses import dataclass

from signstep.guard.facts import Facts

AISVS, ATLAS, NIST = "OWASP AISVS 1.0", "MITRE ATLAS", "NIST AI 100-2 E2025"


@dataclass(frozen=True)
class Line:
    """One line of a standard.

    Attributes:
        standard: its name.
        ident: of the line there.
        title: a name for it.
        covered: (what covers it, the evidence), from the facts; None where nothing does.
    """

    standard: str
    ident: str
    title: str
    covered: Callable[[Facts], tuple[str, str] | None]


@dataclass(frozen=True)
class Covered:
    """A line, judged.

    Attributes:
        standard: its name.
        ident: of the line there.
        title: a name for it.
        by: what covers it; "" where nothing does.
        evidence: what that rests on.
    """

    standard: str
    ident: str
    title: str
    by: str
    evidence: str

    @property
    def said(self) -> str:
        """In words."""
        return f"covered by {self.by}; evidence: {self.evidence}" if self.by else "not covered"


def _rates(facts: Facts) -> tuple[str, str] | None:
    if facts.rate <= 0:
        return None
    return "a bucket of tokens for each client", f"{facts.rate:g} inputs a second of one client"


def _calibrated(facts: Facts) -> tuple[str, str] | None:
    if facts.scores or facts.tell:
        return None
    return "answers without scores", "clients get the label and its confidence alone"


def _patterns(facts: Facts) -> tuple[str, str] | None:
    said = f"{facts.alarms_of('similar', 'shared', 'boundary', 'steps')} alarms of these kinds"
    return "fingerprints of similar inputs, charts of steps", said


def _before(facts: Facts) -> tuple[str, str] | None:
    return (f"detectors: {', '.join(facts.detectors)}", facts.promise) if facts.detectors else None


def _gated(facts: Facts) -> tuple[str, str] | None:
    if facts.shadow or not facts.decisions:
        return None
    return "decisions", f"{facts.decided('reject')} rejected, {facts.decided('review')} sent to a person"


def _human(facts: Facts) -> tuple[str, str] | None:
    if facts.review <= 0 and not facts.low_confidence:
        return None
    return "the review queue", f"{facts.queue} open, {facts.reviewed} reviewed"


def _alerts(facts: Facts) -> tuple[str, str] | None:
    where = "log, store and metrics, and the webhook" if facts.webhook else "log, store and metrics"
    return f"alarms to {where}", f"{sum(facts.alarms.values())} alarms"


def _probing(facts: Facts) -> tuple[str, str] | None:
    if facts.challenge is None:
        return None
    seen = [one.name for one in facts.challenge.attacked if one.first_alarm is not None]
    of = len(facts.challenge.attacked)
    return "charts for each client", f"the last challenge: alarms about {len(seen)} of {of} attackers"


def _attributed(facts: Facts) -> tuple[str, str] | None:
    return ("API keys", f"{facts.keys} keys that count; each decision names its client") if facts.keys_only else None


def _drift(facts: Facts) -> tuple[str, str] | None:
    return (
        "a conformal martingale on p-values",
        f"{facts.alarms_of('drift')} alarms; false ones at most 1 in 10,000 stretches",
    )


def _attack(*names: str) -> Callable[[Facts], tuple[str, str] | None]:
    def covered(facts: Facts) -> tuple[str, str] | None:
        known = {} if facts.challenge is None else {one.name: one for one in facts.challenge.attacked}
        tried = [known[name] for name in names if name in known]
        if not tried:
            return None
        won = ", ".join(f"{one.name} {one.before_alarm} of {one.targets} before an alarm" for one in tried)
        return "the challenge", won

    return covered


def _nothing(_: Facts) -> None:
    return None


LINES: tuple[Line, ...] = (
    Line(AISVS, "11.2.2", "Limits on queries for each principal", _rates),
    Line(AISVS, "11.2.3", "Outputs that give little away", _calibrated),
    Line(AISVS, "11.3.1", "Patterns of queries feed a detector", _patterns),
    Line(AISVS, "11.4.1", "Anomalous inputs are detected before inference", _before),
    Line(AISVS, "11.4.2", "Flagged inputs trigger a gate", _gated),
    Line(AISVS, "11.4.3", "A gate at which a person reviews", _human),
    Line(AISVS, "12.2.1", "Alerts on adversarial inputs", _alerts),
    Line(AISVS, "12.2.2", "Probing is noticed", _probing),
    Line(AISVS, "12.2.5", "Activity is attributed to users", _attributed),
    Line(AISVS, "12.3.1", "Drift is watched with valid statistics", _drift),
    Line(ATLAS, "AML.T0015", "Evade the model", _attack("fgsm", "pgd", "square", "hop")),
    Line(ATLAS, "AML.T0043.001", "Black-box optimisation", _attack("square", "hop", "oracle", "many", "slow")),
    Line(ATLAS, "AML.T0043.002", "Black-box transfer", _attack("fgsm", "pgd")),
    Line(ATLAS, "AML.T0024", "Exfiltration through the inference interface", _nothing),
    Line(ATLAS, "AML.M0004", "Restrict the number of queries", _rates),
    Line(ATLAS, "AML.M0015", "Adversarial input detection", _before),
    Line(
        NIST, "evasion, query-based black-box", "Score- and decision-based attacks", _attack("square", "hop", "oracle")
    ),
    Line(NIST, "evasion, transfer", "Transferability of attacks", _attack("fgsm", "pgd")),
    Line(NIST, "poisoning", "Attacks on training data", _nothing),
    Line(NIST, "privacy", "Reconstruction, membership inference, extraction", _nothing),
)
"""The frozen table."""


def judged(facts: Facts) -> list[Covered]:
    """Each line with what covers it."""
    found = []
    for line in LINES:
        by, evidence = line.covered(facts) or ("", "")
        found.append(Covered(line.standard, line.ident, line.title, by, evidence))
    return found
