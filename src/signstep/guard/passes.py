"""What a pass of the model costs for itself and for each row, from passes of differing sizes: how large they should be.

A bound on waiting that follows the passes as they are runs away: a longer queue makes larger passes, which take longer,
which allows for a longer queue. What a pass costs for itself says where larger ones gain little.
"""

_KEPT = 0.99  # of what was measured, at each pass: some hundred passes are remembered
_GAINED = 3  # rows cost so many times what the pass itself does; larger passes would make at most a third more of them
_ODD = 4.0  # times the mean; what took longer counts as that: the process was stopped meanwhile
_DOUBT = 0.25  # rows squared; where passes vary by less than that, all that they take is taken to be for rows


class Passes:
    """Moving least squares of the seconds of a pass on its rows.

    Args:
        rows: of a pass, at most.
    """

    def __init__(self, rows: int) -> None:
        self._most = rows
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0

    def saw(self, rows: int, seconds: float) -> None:
        """Count a pass."""
        if self._weight > 1:
            seconds = min(seconds, _ODD * self._seconds / self._weight)
        self._weight = _KEPT * self._weight + 1
        self._rows = _KEPT * self._rows + rows
        self._seconds = _KEPT * self._seconds + seconds
        self._squares = _KEPT * self._squares + rows * rows
        self._products = _KEPT * self._products + rows * seconds

    @property
    def seconds(self) -> float:
        """Of a pass as they are, or where that is less, of one that is as large as it should be; 0 before the first."""
        if not self._weight:
            return 0.0
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        spread = max(0.0, self._squares / self._weight - rows * rows)
        together = self._products / self._weight - rows * seconds
        for_rows = seconds / rows
        for_a_row = min(max((together + _DOUBT * for_rows) / (spread + _DOUBT), 0.0), for_rows)
        alone = seconds - for_a_row * rows
        return min(seconds, alone + min(_GAINED * alone + for_a_row, for_a_row * self._most))
