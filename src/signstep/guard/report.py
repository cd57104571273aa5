"""What a guard says of itself: what is checked, promised and measured, the last challenge, and lines of standards."""

import json
import time
from dataclasses import asdict
from typing import Any

from signstep.guard.facts import Facts
from signstep.guard.pages import rendered, style
from signstep.guard.reading import when
from signstep.guard.standards import judged


def summary(facts: Facts) -> list[tuple[str, str]]:
    """Facts in words, in order."""
    flagged = f"{facts.flagged} of {facts.decisions}" + (
        f" ({facts.flagged / facts.decisions:.2%}), attacks among them" if facts.decisions else ""
    )
    said = {
        "Model": f"{facts.model or 'unknown'}, weights {facts.digest[:12] or 'unknown'}",
        "Detectors": ", ".join(facts.detectors) or "none",
        "Promise": facts.promise or "none",
        "Calibration": f"{facts.rows} clean rows, {facts.age():.1f} days old" if facts.made else "unknown",
        "Chart of flags": f"alarm at {facts.height}, falsely once in {facts.length:.2g} inputs at the band's upper end",
        "Mode": "shadow: nothing is withheld" if facts.shadow else "what is refused is withheld",
        "Decisions": f"{facts.decisions}, since {when(facts.first)}" if facts.decisions else "none",
        "Flagged": flagged,
        "Rejected": str(facts.decided("reject")),
        "Sent to a person": f"{facts.decided('review')}; {facts.queue} wait, {facts.reviewed} were seen",
        "Alarms": ", ".join(f"{kind} {count}" for kind, count in sorted(facts.alarms.items())) or "none",
        "Challenge": "never" if facts.challenge is None else f"{when(facts.challenge.at)}, {facts.challenge.threat}",
    }
    return list(said.items())


def challenge_table(facts: Facts) -> list[list[str]]:
    """The last challenge as rows, the first of them heads; empty without one."""
    if facts.challenge is None:
        return []
    heads = ["Attacker", "Success", "Before an alarm", "Queries", "First alarm at", "Alarms"]
    rows = [
        [
            one.name,
            "-" if one.name == "clean" else f"{one.successes} of {one.targets}",
            "-" if one.name == "clean" else str(one.before_alarm),
            str(one.queries),
            "-" if one.first_alarm is None else str(one.first_alarm),
            ", ".join(f"{kind} {count}" for kind, count in sorted(one.alarms.items())) or "-",
        ]
        for one in (facts.challenge.clean, *facts.challenge.attacked)
    ]
    return [heads, *rows]


def report_json(facts: Facts) -> str:
    """The report as JSON."""
    plain: dict[str, Any] = {
        "at": time.time(),
        "facts": asdict(facts),
        "lines": [{**asdict(line), "covered": bool(line.by)} for line in judged(facts)],
        "note": "No compliance is claimed.",
    }
    return json.dumps(plain, indent=1, sort_keys=True)


def report_page(facts: Facts) -> str:
    """The report as one page of HTML that fetches nothing."""
    return rendered(
        "health.html.j2",
        title="Guard report",
        nav=False,
        style=style(),
        facts=summary(facts),
        table=challenge_table(facts),
        lines=judged(facts),
    )
