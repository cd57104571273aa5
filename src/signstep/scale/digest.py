"""What two audits share that gave the same answer, however many workers they had."""

import hashlib
import json
from dataclasses import asdict

from signstep.auditing.result import Result


def digest(result: Result) -> str:
    """SHA-256 of a record without what no two runs share: seconds, the date, and the machines that did it."""
    plain = asdict(result)
    units = plain["terms"].get("units")
    if units is not None:
        plain["terms"] = {**plain["terms"], "units": {**units, "machines": []}}
    plain |= {"seconds": 0.0, "date": "", "attacks": [{**entry, "seconds": 0.0} for entry in plain["attacks"]]}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, allow_nan=False).encode()).hexdigest()
