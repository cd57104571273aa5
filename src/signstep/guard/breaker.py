"""The breaker: where most clients are flagged the world has moved, and refusing everybody helps nobody.

It counts clients, each by its last input. One client that floods the service with odd inputs weighs as one, so that
nobody can switch the guard off by being refused often; whoever holds half of all identities can.
"""

from collections import OrderedDict

_KEPT = 1024


class Breaker:
    """Opens where more than ``share`` of at least ``clients`` clients were flagged last; closes at half of that.

    Attributes:
        open: whether refusing is stopped.
    """

    def __init__(self, share: float, clients: int) -> None:
        self.share, self.clients, self.open = share, clients, False
        self._last: OrderedDict[str, bool] = OrderedDict()
        self._flagged = 0

    def saw(self, client: str, flagged: bool) -> bool:
        """Count an input; whether that opened or closed the breaker."""
        self._flagged += flagged - self._last.pop(client, False)
        self._last[client] = flagged
        if len(self._last) > _KEPT:
            self._flagged -= self._last.popitem(last=False)[1]
        before, now = self.open, self._flagged / len(self._last)
        enough = len(self._last) >= self.clients
        self.open = enough and now > (self.share / 2 if before else self.share)
        return self.open != before

    @property
    def flagged(self) -> tuple[int, int]:
        """Clients whose last input was flagged, and clients."""
        return self._flagged, len(self._last)
