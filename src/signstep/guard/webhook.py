"""Alarms to one address, from a thread of its own: no request waits for it, and it is never sent elsewhere."""

import json
import logging
import queue
import threading
import time

from signstep.guard.watch import Alarm
from signstep.model.victims.address import Address
from signstep.model.victims.wire import Silence, Wire
from signstep.plain import one_line

LOG = logging.getLogger("signstep.guard")
_WAITING = 1000


class Webhook:
    """Posts alarms as JSON: kind, client, text, decision, at. No redirect is followed, and no answer is heeded.

    Args:
        url: https, or http on this machine.
        timeout: seconds that a post may take.

    Attributes:
        sent: alarms that were taken.
        failed: alarms that were not.

    Raises:
        InputError: not an address that can be asked.
    """

    def __init__(self, url: str, timeout: float = 5.0) -> None:
        self._wire = Wire(Address.of(url), "POST", timeout)
        self._queue: queue.Queue[tuple[float, Alarm] | None] = queue.Queue(_WAITING)
        self.sent = self.failed = 0
        self._thread = threading.Thread(target=self._run, name="signstep-guard-webhook", daemon=True)
        self._thread.start()

    def __call__(self, alarm: Alarm) -> None:
        """Have an alarm sent."""
        try:
            self._queue.put_nowait((time.time(), alarm))
        except queue.Full:
            self.failed += 1

    def close(self) -> None:
        """Send what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (one := self._queue.get()) is not None:
            at, alarm = one
            plain = {
                "kind": alarm.kind,
                "client": one_line(alarm.client),
                "text": one_line(alarm.text),
                "decision": alarm.decision,
                "at": at,
            }
            try:
                reply = self._wire.send(json.dumps(plain).encode(), {"Content-Type": "application/json"}, {})
                taken = 200 <= reply.status < 300
            except Silence:
                taken = False
            self.sent, self.failed = self.sent + taken, self.failed + (not taken)
            if not taken:
                LOG.error("the webhook did not take an alarm of kind %s", alarm.kind)
