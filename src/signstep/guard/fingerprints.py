"""Fingerprints of inputs: whether one is nearly another one that was asked before, by whomever.

An input is quantised, cut into windows that overlap, each window is hashed under a key, and the smallest hashes are
its fingerprint (Li et al., "Blacklight", USENIX Security 2022). A query attack asks for thousands of inputs that differ
in few places, whose fingerprints therefore share most hashes; two photographs share none, two records may share some:
from which share on two are similar is measured on clean inputs (`clean_share`). The key is drawn for each
process: who does not know it cannot choose inputs whose hashes avoid each other. Rejections as an oracle find the way
around all the same (Feng et al., "OARS", 2023): this is one signal among several.
"""

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Hashes = np.ndarray[Any, np.dtype[np.uint64]]

WINDOW = 20
KEPT = 32
LEVELS = 50  # of the span between the ends; Blacklight's step of 50 of 255 is coarser, for natural images


@dataclass(frozen=True)
class Similar:
    """A fingerprint asked before.

    Attributes:
        client: who asked.
        label: what the answer was.
        share: of hashes that both have.
        exact: whether it is the very same input.
    """

    client: str
    label: int | None
    share: float
    exact: bool


def clean_share(rows: Array, ends: tuple[float, float], *, most: int = 2000) -> float:
    """A share of hashes that no two of these clean rows (R, ...) have in common: a half, or a tenth above their most.

    Above 1, where clean rows are all but the same, it calls nothing similar but the very same input.
    """
    prints = Fingerprints(0, ends, share=0.0)
    shares = [found.share for row in rows[:most] if (found := prints.saw(row, "", None)) and not found.exact]
    return max(0.5, max(shares, default=0.0) + 0.1)


class Fingerprints:
    """The last inputs of all clients, as fingerprints, the least recently asked dropped first.

    Args:
        seed: of the key; draw one for each process.
        ends: (low, high) of the input space.
        most: fingerprints that are kept; each takes about 4 kB.
        share: of hashes from which on two are similar.
    """

    def __init__(self, seed: int, ends: tuple[float, float] = (0.0, 1.0), most: int = 4096, share: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self._odd = rng.integers(1, 2**62, WINDOW, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._key, self.ends, self.most, self.share = rng.bytes(32), ends, most, share
        self._number = 0
        self._kept: OrderedDict[int, tuple[bytes, Hashes, str, int | None]] = OrderedDict()
        self._by_hash: dict[int, list[int]] = {}
        self._exact: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def hashes(self, x: Array) -> Hashes:
        """The smallest hashes of an input's windows, sorted."""
        low, high = self.ends
        flat = np.asarray(x, dtype=np.float64).reshape(-1)
        steps = np.nan_to_num((flat - low) / (high - low) * LEVELS, nan=0.0, posinf=0.0, neginf=0.0)
        levels = np.clip(np.rint(steps), -(2**31), 2**31 - 1).astype(np.int64).astype(np.uint64)
        wide = min(WINDOW, max(1, len(levels) // 8))
        windows = np.lib.stride_tricks.sliding_window_view(levels, wide)
        with np.errstate(over="ignore"):
            mixed = (windows * self._odd[:wide]).sum(axis=1, dtype=np.uint64)
            if wide < WINDOW:  # the few numbers of a record mean something by their place
                mixed += np.arange(len(mixed), dtype=np.uint64) * self._odd[-1]
            mixed ^= mixed >> np.uint64(29)
            mixed *= self._odd[0]
            mixed ^= mixed >> np.uint64(32)
        return _smallest(mixed)

    def digest(self, x: Array) -> bytes:
        """Of the very input, keyed."""
        return hashlib.blake2b(np.ascontiguousarray(x).tobytes(), key=self._key, digest_size=16).digest()

    def saw(self, x: Array, client: str, label: int | None) -> Similar | None:
        """Keep an input, and tell the one before it that is most like it, if one is."""
        digest, hashes = self.digest(x), self.hashes(x)
        known = self._exact.get(digest)
        if known is not None:
            _, theirs, who, answer = self._kept[known]
            self._kept[known] = (digest, theirs, client, label)  # whose it is now: who asks again, asks again
            self._kept.move_to_end(known)
            return Similar(who, answer, 1.0, exact=True)
        found = self._nearest(hashes)
        self._keep(digest, hashes, client, label)
        return found

    def _nearest(self, hashes: Hashes) -> Similar | None:
        votes = Counter(number for one in hashes.tolist() for number in self._by_hash.get(one, ()))
        if not votes or not len(hashes):
            return None
        number, count = max(votes.items(), key=lambda pair: (pair[1], pair[0]))
        _, theirs, client, label = self._kept[number]
        share = count / max(len(hashes), len(theirs))
        return Similar(client, label, share, exact=False) if share >= self.share else None

    def _keep(self, digest: bytes, hashes: Hashes, client: str, label: int | None) -> None:
        self._number += 1
        self._kept[self._number] = (digest, hashes, client, label)
        self._exact[digest] = self._number
        for one in hashes.tolist():
            at = self._by_hash.setdefault(one, [])
            at.append(self._number)
            if len(at) > 64:  # flat inputs share their windows with thousands: the latest say enough
                del at[0]
        while len(self._kept) > self.most:
            number, (old, theirs, _, _) = self._kept.popitem(last=False)
            self._exact.pop(old, None)
            for one in theirs.tolist():
                at = self._by_hash[one]
                if number in at:
                    at.remove(number)
                if not at:
                    del self._by_hash[one]


def _smallest(hashes: Hashes) -> Hashes:
    """The `KEPT` smallest that differ, sorted; found among the smallest few where those are enough."""
    few = 4 * KEPT
    if len(hashes) > 2 * few:
        found = np.unique(np.partition(hashes, few)[:few])
        if len(found) >= KEPT:
            return found[:KEPT]
    return np.unique(hashes)[:KEPT]
