"""Charts, fingerprints, steps and drift: what each promises, by exact sums, simulation or a search that it must see."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from guard_bench import SHAPE, clean

import signstep as ss
from signstep.guard.band import band, share_band
from signstep.guard.charts import designed, run_length
from signstep.guard.drift import Drift
from signstep.guard.fingerprints import Fingerprints
from signstep.guard.walks import Walks
from signstep.guard.watch import STATE_BYTES, Input, State, Watch, Watching


def test_the_band_of_a_rate_is_that_of_the_beta_distribution() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    for nominal, rows in ((0.01, 1000), (0.05, 200), (0.01, 99), (0.3, 37)):
        found, k = band(nominal, rows), int(nominal * (rows + 1) + 1e-9)
        assert found.low == pytest.approx(beta.ppf(0.05, k, rows + 1 - k), rel=1e-6)
        assert found.high == pytest.approx(beta.ppf(0.95, k, rows + 1 - k), rel=1e-6)
    assert f"{band(0.01, 1000).high:.2%}" == "1.57%"
    found = share_band(12, 300)
    assert found.high == pytest.approx(beta.ppf(0.95, 13, 288), rel=1e-6)
    assert found.low == pytest.approx(beta.ppf(0.05, 12, 289), rel=1e-6)
    assert (share_band(0, 50).low, share_band(50, 50).high) == (0, 1)


def test_a_rate_that_the_rows_cannot_carry_is_refused() -> None:
    with pytest.raises(ss.SignstepError, match="calibrate on at least 999 rows"):
        band(0.001, 998)
    assert band(0.001, 999).high < 0.004


def test_run_lengths_are_those_of_a_simulation() -> None:
    rng = np.random.default_rng(0)
    for rate, height in ((0.05, 25), (0.1, 35), (0.3, 35)):
        lengths, score, since = [], 0, 0
        for flagged in rng.random(300_000) < rate:
            since += 1
            score = max(0, score + (10 if flagged else -1))
            if score >= height:
                lengths.append(since)
                score = since = 0
        assert len(lengths) > 100
        error = np.std(lengths) / len(lengths) ** 0.5
        assert abs(np.mean(lengths) - run_length(rate, height)) < 4 * error


def test_a_chart_is_designed_for_the_upper_end_of_the_band() -> None:
    nominal, upper = designed(0.01), designed(band(0.01, 1000).high)
    assert nominal.height == 35
    assert run_length(0.01, nominal.height - 1) < 1e6 <= run_length(0.01, nominal.height)
    assert run_length(upper.rate, upper.height) >= 1e6 > run_length(upper.rate, nominal.height)
    # The price: a client with 30 % flags is named some inputs later.
    assert run_length(0.3, nominal.height) < 16 < run_length(0.3, upper.height) < 24
    with pytest.raises(ss.SignstepError, match="so often"):
        designed(0.1)


def test_an_input_is_similar_to_its_neighbours_and_to_no_other() -> None:
    rng = np.random.default_rng(1)
    prints = Fingerprints(3, most=300)
    rows = rng.random((200, 1, 16, 16)).astype(np.float32)
    assert all(prints.saw(row, "a", 0) is None for row in rows)
    moved = rows[7].copy()
    moved[0, 3, 3:6] = 0.9
    found = prints.saw(moved, "b", 1)
    assert found is not None
    assert (found.client, found.label, found.exact) == ("a", 0, False)
    again = prints.saw(rows[7], "c", 0)
    assert again is not None
    assert again.exact
    # Old ones are forgotten, with all that was kept of them.
    for row in rng.random((400, 1, 16, 16)).astype(np.float32):
        prints.saw(row, "a", 0)
    assert len(prints) == 300
    assert prints.saw(rows[7], "a", 0) is None
    assert sum(map(len, prints._by_hash.values())) <= 300 * 32


def test_steps_of_a_search_are_odd_and_those_of_clean_inputs_keep_their_rate() -> None:
    walks = Walks.calibrated(clean(600), 5)

    def share(rows: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> float:
        steps = np.diff(walks.sketches(rows), axis=0)
        return float(np.mean([walks.p_value(after, before) <= 0.01 for before, after in pairwise(steps)]))

    assert share(clean(3000, seed=1)) < 0.02
    rng = np.random.default_rng(2)
    start = clean(1, seed=3)
    probing = start + 0.05 * rng.choice([-1, 1], (200, *SHAPE)).astype(np.float32)
    assert share(probing) > 0.5
    line = start + np.linspace(0, 40, 200).reshape(-1, 1, 1, 1).astype(np.float32)
    assert share(line) > 0.5
    with pytest.raises(ss.SignstepError, match="too few"):
        Walks.calibrated(clean(50), 5)


def test_drift_is_seen_and_a_still_stream_is_left_alone() -> None:
    false = 0
    for seed in range(12):
        drift, rng = Drift(seed, capital=100, stretch=2000), np.random.default_rng(seed)
        # Many ties, as conformal p-values have.
        false += any(drift.saw(round(score, 1)) for score in rng.random(800))
    assert false <= 1  # of 12; Ville promises 1 % each
    drift, rng = Drift(0), np.random.default_rng(0)
    assert not any(drift.saw(score) for score in rng.random(500))
    assert any(drift.saw(score**3) for score in rng.random(500))
    assert drift.log10 >= 4


@pytest.mark.filterwarnings("error")
def test_numbers_that_no_clean_input_has_overflow_nowhere() -> None:
    """The reader lets through what float32 holds; squares and sums of it have to be numbers too."""
    walks, seen = Walks.calibrated(clean(300), 1), watch()
    rng = np.random.default_rng(3)
    huge = [np.full(SHAPE, one, np.float32) for one in (9e37, -9e37, 1e30, -1e20, 1e-40, np.inf, -np.inf, np.nan, 0)]
    rows = [*huge, *(rng.choice(np.array([9e37, -9e37, 1, np.inf], np.float32), SHAPE) for _ in range(20))]
    steps = np.diff(walks.sketches(np.stack(rows)), axis=0)
    assert np.isfinite(steps).all()
    assert all(0 < walks.p_value(after, before) <= 1 for before, after in pairwise(steps))
    for row in rows:
        seen.saw(Input(row, "a", flagged=False, label=0))


def watch(memory: int = 2**26) -> Watch:
    chart = designed(0.02)
    return Watch(
        Watching(chart, steps=chart, memory=memory), Fingerprints(1), Walks.calibrated(clean(300), 1), Drift(1)
    )


def test_repeats_of_one_input_count_once() -> None:
    one, seen = clean(1)[0], watch()
    for _ in range(500):
        assert seen.saw(Input(one, "a", flagged=True)) == []
    rows = clean(60, seed=9)
    kinds = [alarm.kind for row in rows for alarm in seen.saw(Input(row, "a", flagged=True))]
    assert "flags" in kinds
    assert seen.alarm_of("a") == "flags"
    assert seen.alarm_of("b") is None


def test_the_same_inputs_from_another_client_are_shared_ones() -> None:
    rows, seen = clean(60, seed=9), watch()
    found = [alarm.kind for client in "ab" for row in rows for alarm in seen.saw(Input(row, client, flagged=False))]
    assert found.count("shared") == 1


def test_an_alarm_about_a_client_comes_once_until_it_has_been_quiet() -> None:
    seen, rows = watch(), clean(700, seed=8)
    flagged = [row < 300 or row >= 600 for row in range(700)]
    places = [
        place
        for place, row in enumerate(rows)
        for alarm in seen.saw(Input(row, "a", flagged=flagged[place]))
        if alarm.kind == "flags"
    ]
    assert len(places) == 2
    assert places[0] < 20
    assert places[1] >= 600


def test_each_way_of_asking_sets_off_its_alarm() -> None:
    rng = np.random.default_rng(4)
    base = clean(1, seed=5)[0]
    near = [base + np.where(rng.random(SHAPE) < 0.1, 0.001, 0).astype(np.float32) * n for n in range(1, 90)]

    def kinds(seen: Watch, clients: list[str], labels: list[int]) -> set[str]:
        alarms = [
            alarm
            for n, x in enumerate(near)
            for alarm in seen.saw(Input(x, clients[n % len(clients)], flagged=False, label=labels[n % len(labels)]))
        ]
        return {alarm.kind for alarm in alarms}

    assert {"similar", "steps"} <= kinds(watch(), ["a"], [0])
    assert "boundary" not in kinds(watch(), ["a"], [0])
    assert "boundary" in kinds(watch(), ["a"], [0, 1])
    spread = kinds(watch(), [f"k{n}" for n in range(89)], [0])
    assert "shared" in spread
    assert "similar" not in spread
    # The same number of inputs that are nobody's neighbours.
    seen = watch()
    assert not [alarm for row in clean(89, seed=6) for alarm in seen.saw(Input(row, "a", flagged=False, label=0))]


def test_memory_is_held_under_ever_new_identities() -> None:
    seen = watch(memory=100 * STATE_BYTES)
    for number, row in enumerate(clean(1000)):
        seen.saw(Input(row, f"client {number}", flagged=True))
    assert len(seen) <= 100
    state = State(last=np.zeros(48, np.float32), step=np.zeros(48, np.float32), alarm="flags")
    size = sys.getsizeof(state) + 2 * sys.getsizeof(state.last) + 300  # name, entry of the table, numbers
    assert size <= STATE_BYTES
