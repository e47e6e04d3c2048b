"""Clusters that lose workers, memory, time or their scheduler."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import pytest
from running import INSTALL

pytest.importorskip("distributed", reason=INSTALL)
import dask.array as da
from clusters import cluster_of, dask_scheduler, overlapping, process_of
from distributed import Client

from npsoftmax import ObjectiveTrainer, SoftmaxRegression, fit
from npsoftmax.errors import ClusterError, InputError, SlowWorkerWarning
from npsoftmax.ext import _cluster_faults, _cluster_shards, _cluster_store, cluster

D, K = 20, 4
N = 20_000
ROWS, LABELS = overlapping(N, D, K)
MB = 1_000_000


@pytest.fixture
def client():
    """Two workers as processes, which their nannies start again: mostly, so new ones each time."""
    with cluster_of(2) as client:
        yield client


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_cluster_faults, "TICK", 0.2)
    monkeypatch.setattr(_cluster_faults, "PATIENCE", 1.0)


def problem_on(client):
    return cluster.FullBatch(da.from_array(ROWS, chunks=(3000, D)), LABELS, 1e-3, client)


def trained_on(problem, **settings):
    model = SoftmaxRegression(D, K, dtype=np.float64)
    trainer = ObjectiveTrainer(model, problem, **{"tol": 1e-9, **settings})
    return model.theta, trainer.fit()


def before_round(store, number, act):
    """Let something happen shortly before, in or after a round of a store, counted from now."""
    original, count = store._round, iter(range(10**6))

    def round_(*arguments):
        if next(count) == number:
            act()
        return original(*arguments)

    store._round = round_


def kill(client, workers, delay=0.0):
    """Kill workers after some seconds, in a thread of its own."""
    processes = [process_of(client, worker) for worker in workers]

    def act():
        time.sleep(delay)
        for process in processes:
            os.kill(process, signal.SIGKILL)

    return threading.Thread(target=act, daemon=True).start


@pytest.fixture(scope="module")
def undisturbed():
    """Return the parameters and the number of rounds of a fit in which nothing happens."""
    variables = dict(os.environ)
    with cluster_of(2) as client:
        problem, rounds = problem_on(client), []
        original = problem._store._round
        problem._store._round = lambda *arguments: rounds.append(1) or original(*arguments)
        theta, optimum = trained_on(problem)
    assert optimum.converged
    assert dict(os.environ) == variables, "or all that is started later is slow"
    return theta, len(rounds)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 10))]
)
def test_a_worker_is_killed_and_the_result_is_the_same(client, undisturbed, seed):
    expected, num_rounds = undisturbed
    rng = np.random.default_rng(seed)
    problem, workers = problem_on(client), sorted(client.nthreads())
    victim = workers[rng.integers(2)]
    act = kill(client, [victim], rng.uniform(0, 0.02))
    before_round(problem._store, rng.integers(num_rounds - 1), act)
    theta, optimum = trained_on(problem)
    assert optimum.converged and victim not in client.nthreads()
    np.testing.assert_array_equal(theta, expected)


def test_all_workers_are_killed_at_once(client, undisturbed):
    problem = problem_on(client)
    before_round(problem._store, 5, kill(client, list(client.nthreads())))
    theta, optimum = trained_on(problem)
    assert optimum.converged
    np.testing.assert_array_equal(theta, undisturbed[0])


def test_a_worker_is_killed_while_blocks_are_made(client, undisturbed):

    def slowly(rows):
        time.sleep(0.2)
        return rows

    X = da.from_array(ROWS, chunks=(3000, D)).map_blocks(slowly, dtype=float)
    thread = threading.Timer(0.5, kill(client, list(client.nthreads())[:1]))
    thread.start()
    problem = cluster.FullBatch(X, LABELS, 1e-3, client)
    thread.join()
    theta, _ = trained_on(problem)
    np.testing.assert_array_equal(theta, undisturbed[0])


def test_a_new_worker_takes_over_what_another_has_too_much_of(monkeypatch):
    monkeypatch.setattr(_cluster_store, "SPREAD_SECONDS", 0.0)
    with cluster_of(1, threads=2) as client:
        problem, theta = problem_on(client), np.zeros((K, D + 1))
        shards = problem._store._shards
        expected = problem.evaluate(theta)
        client.cluster.scale(2)
        client.wait_for_workers(2)
        until = time.monotonic() + 60
        while len(set(held := list(client.who_has(shards).values()))) < 2 or any(
            len(workers) > 1 for workers in held
        ):
            assert time.monotonic() < until, held
            np.testing.assert_array_equal(problem.evaluate(theta).grad, expected.grad)


def test_a_shard_on_its_way_to_a_worker_that_is_lost_holds_up_nobody(client, monkeypatch):
    monkeypatch.setattr(_cluster_store, "SPREAD_SECONDS", 0.0)
    monkeypatch.setattr(client, "replicate", lambda *_, **__: time.sleep(30))
    problem, theta = problem_on(client), np.zeros((K, D + 1))
    problem._store._spread([sorted(client.nthreads())[0]] * 2)
    problem.evaluate(theta)
    assert problem._store._mover.is_alive()


@contextmanager
def held_up(process, running, stopped):
    """Let a process run for a part of the time only."""
    done = threading.Event()

    def toggle():
        for number, seconds in cycle(((signal.SIGSTOP, stopped), (signal.SIGCONT, running))):
            if done.wait(0):
                break
            os.kill(process, number)
            time.sleep(seconds)
        os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_slow_worker_is_named_and_the_result_is_the_same(client):
    X = da.random.RandomState(0).uniform(size=(60_000, 200), chunks=(30_000, 200))
    problem = cluster.FullBatch(X, np.arange(60_000) % 3, 0.1, client)
    theta = np.random.default_rng(0).standard_normal((3, 201))
    expected = problem.evaluate(theta)
    slow = sorted(client.nthreads())[0]
    with (
        held_up(process_of(client, slow), running=0.01, stopped=0.1),
        pytest.warns(SlowWorkerWarning, match=f"worker {slow} takes .* times as long") as told,
    ):
        found = [problem.evaluate(theta) for _ in range(10)]
    assert len(told) == 1
    for evaluation in found:
        assert evaluation.loss == expected.loss
        np.testing.assert_array_equal(evaluation.grad, expected.grad)


def test_a_worker_that_stops_for_a_while_is_waited_for(client, undisturbed):
    problem = problem_on(client)
    process = process_of(client, sorted(client.nthreads())[0])

    def pause():
        os.kill(process, signal.SIGSTOP)
        threading.Timer(3, os.kill, (process, signal.SIGCONT)).start()

    before_round(problem._store, 5, pause)
    theta, _ = trained_on(problem)
    np.testing.assert_array_equal(theta, undisturbed[0])


# Slowness, by numbers.


def turns(*seconds, workers="abc"):
    return [_cluster_shards.Turn(w, s, 100) for w, s in zip(workers, seconds, strict=False)]


def watch(client):
    return _cluster_faults.Watch(client)


def test_who_is_slow_once_is_not_named(client, recwarn):
    told = watch(client)
    for _ in range(10):
        for _ in range(4):
            told.compare(turns(1.0, 0.1, 0.1))
        told.compare(turns(0.1, 0.1, 0.1))
    for _ in range(10):
        told.compare(turns(1.0, 0.1, 0.1))  # the slow one changes every time
        told.compare(turns(0.1, 1.0, 0.1))
    for _ in range(10):
        told.compare(turns(1.0))  # there is nobody to compare with
        told.compare(turns(0.09, 0.01, 0.01))  # nothing is lost by waiting for this one
        told.compare(turns(1.0, 0.4, 0.4))  # not slow enough
    assert not recwarn.list


def test_who_is_slow_five_times_is_named_once(client):
    told = watch(client)
    for _ in range(4):
        told.compare(turns(1.0, 0.1, 0.1))
    with pytest.warns(SlowWorkerWarning, match=r"worker a takes 10 times .*retire_workers\(\['a'"):
        told.compare(turns(1.0, 0.1, 0.1))
    for _ in range(10):
        told.compare(turns(1.0, 0.1, 0.1))


# Memory.


def test_blocks_that_are_too_large_are_refused_with_the_size_to_use():
    with cluster_of(1, processes=False, memory_limit=2_000 * MB) as client:
        X = da.zeros((200_000, 1_000), chunks=(100_000, 1_000))  # 800 MB of the 500 that fit
        with pytest.raises(
            InputError, match=r"blocks of at most 50,000 rows \(X.rechunk\(\(50000,"
        ):
            cluster.FullBatch(X, np.zeros(200_000, int), 0.1, client)


@pytest.mark.parametrize(("limit", "rows"), [(2_000 * MB, 50_000), (0, 80_000), (400 * MB, 12_500)])
def test_the_size_to_use_fits(limit, rows):
    memory = _cluster_faults.Memory(limit, 8_000, 160_000 if limit == 0 else 100_000)
    assert f"at most {rows:,} rows (X.rechunk(({rows}, -1)), for files block_size={rows})" in (
        memory.advice()
    )
    assert limit == 0 or rows <= memory.fitting_rows


def greedy(rows, megabytes):
    """Take memory, and keep it long enough for the nanny to see it."""
    held = np.ones(megabytes * MB // 8)
    time.sleep(3)
    return rows + 0 * held[0]


def test_a_worker_that_runs_out_of_memory_names_the_block_and_a_size():
    with cluster_of(1, memory_limit=300 * MB) as client:
        X = da.zeros((3_000, 10), chunks=(1_000, 10)).map_blocks(greedy, 400, dtype=float)
        with pytest.raises(ClusterError, match=r"^block [0-2]: its worker died 4 times, most likely"
                                               r".* blocks of at most 500 rows"):  # fmt: skip
            cluster.FullBatch(X, np.zeros(3_000, int), 0.1, client)


def test_an_allocation_that_fails_is_a_worker_out_of_memory(client):
    X = da.zeros((30, 2), chunks=10).map_blocks(lambda rows: np.empty(2**55, np.int8), dtype=float)
    with pytest.raises(ClusterError, match=r"out of memory: .* blocks of at most 5 rows"):
        cluster.FullBatch(X, np.zeros(30, int), 0.1, client)


def size_of(keys, dask_scheduler):
    """Return how many bytes Dask takes some objects for."""
    return sum(dask_scheduler.tasks[key].nbytes for key in keys)


def test_more_data_than_memory_wait_on_disk():
    with cluster_of(1, memory_limit=350 * MB) as client:
        X = da.zeros((50_000, 1_000), chunks=(5_000, 1_000), dtype=np.float64)  # 400 MB
        problem = cluster.FullBatch(X, np.arange(50_000) % 2, 0.1, client)
        for _ in range(2):
            found = problem.evaluate(np.zeros((2, 1_001)))
            assert found.crossentropy == pytest.approx(np.log(2)) and found.accuracy == 0.5
        keys = [shard.key for shard in problem._store._shards]
        assert len(keys) >= 5 and client.run_on_scheduler(size_of, keys) >= 400 * MB


def pauses(client, workers=None):
    """Let workers pause as if they had used up their memory."""

    def pause(dask_worker):
        dask_worker.memory_manager.memory_pause_fraction = 1e-9
        return dask_worker.status.name

    while "running" in client.run(pause, workers=workers).values():
        time.sleep(0.1)


def test_a_worker_that_pauses_for_good(impatient):
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)
        pauses(client)
        with pytest.raises(ClusterError, match=r"paused for want of memory: .* 1,500 rows"):
            problem.evaluate(np.zeros((K, D + 1)))


def test_a_worker_that_pauses_while_it_computes_is_waited_for(impatient):
    with cluster_of(1, processes=False) as client:
        problem, watch = problem_on(client), _cluster_faults.Watch(client)
        future = client.submit(time.sleep, 4)
        threading.Timer(0.5, pauses, (client,)).start()
        assert watch.results([future]) == [None]
        assert problem.summary.num_samples == N


def test_a_worker_that_pauses_while_others_compute_ends_nothing(impatient):
    with cluster_of(2, processes=False) as client:
        pauses(client, list(client.nthreads())[:1])
        futures = [client.submit(time.sleep, 0.5, pure=False) for _ in range(6)]
        assert _cluster_faults.Watch(client).results(futures) == [None] * 6


# Gone.


def test_a_scheduler_that_does_not_answer(impatient):
    with dask_scheduler() as (address, scheduler), Client(address) as client:
        problem = problem_on(client)
        scheduler.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(ClusterError, match=f"the scheduler {address} does not answer"):
                problem.evaluate(np.zeros((K, D + 1)))
        finally:
            scheduler.send_signal(signal.SIGCONT)
        assert problem.evaluate(np.zeros((K, D + 1))).loss == pytest.approx(np.log(K))


def test_no_worker_is_left(impatient):
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)
        client.cluster.scale(0)
        with pytest.raises(ClusterError, match="no worker is left, and none came"):
            problem.evaluate(np.zeros((K, D + 1)))


def test_the_last_worker_is_lost_with_the_answer(impatient, monkeypatch):
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)

        def wait(futures, timeout):
            done = original(futures, timeout=timeout)
            client.cluster.scale(0)
            while client.nthreads():
                time.sleep(0.05)
            return done

        original = _cluster_faults.wait
        monkeypatch.setattr(_cluster_faults, "wait", wait)
        with pytest.raises(ClusterError, match="no worker is left"):
            problem.evaluate(np.zeros((K, D + 1)))


def test_a_client_that_was_closed_or_a_cluster_that_has_forgotten():
    theta = np.zeros((K, D + 1))
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)
        client.cancel(problem._store._shards)
        with pytest.raises(ClusterError, match="has forgotten the samples"):
            problem.evaluate(theta)
        problem = problem_on(client)
    with pytest.raises(
        ClusterError, match=r"the client of inproc://.* is closed: .*; open another"
    ):
        problem.evaluate(theta)


def test_a_client_that_is_not_the_default_one():
    with cluster_of(1, processes=False, default=False) as client:
        found = problem_on(client).evaluate(np.zeros((K, D + 1)))
    assert found.loss == pytest.approx(np.log(K))


def test_no_worker_comes(monkeypatch):
    from npsoftmax.ext import _cluster_workers

    monkeypatch.setattr(_cluster_workers, "PATIENCE", 0.2)
    with (
        cluster_of(0, processes=False) as client,
        pytest.raises(ClusterError, match=r"no worker joined .* dask worker inproc://"),
    ):
        problem_on(client)


def test_the_scheduler_is_gone_and_a_checkpoint_is_kept(tmp_path):
    with dask_scheduler() as (address, scheduler), Client(address) as client:
        problem = problem_on(client)
        model = SoftmaxRegression(D, K, dtype=np.float64)
        trainer = ObjectiveTrainer(model, problem, tol=1e-9, checkpoint=tmp_path / "c.npz")
        trainer.on_step = lambda trainer: len(trainer.history) == 4 and scheduler.kill()
        with pytest.raises(ClusterError, match=f"scheduler {address} is gone"):
            trainer.fit()
        with pytest.raises(ClusterError):  # and at every later attempt
            problem.evaluate(model.theta)
    from npsoftmax import FullBatchTrainer
    from npsoftmax.errors import ResumeWarning

    again = SoftmaxRegression(D, K, dtype=np.float64)
    trainer = FullBatchTrainer(again, ROWS.T, LABELS, l2=1e-3, tol=1e-9, threads=2)
    with pytest.warns(ResumeWarning, match="threads"):
        trainer.resume(tmp_path / "c.npz")
    assert len(trainer.history) >= 4 and trainer.fit().converged
    expected = SoftmaxRegression(D, K, dtype=np.float64)
    fit(expected, ROWS.T, LABELS, l2=1e-3, tol=1e-9)
    np.testing.assert_allclose(again.theta, expected.theta, rtol=0, atol=1e-7)
