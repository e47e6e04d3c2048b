"""Clusters that lose workers, memory or their scheduler."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import count

import numpy as np
import pytest
from running import INSTALL

pytest.importorskip("distributed", reason=INSTALL)
import dask.array as da
from clusters import cluster_of, dask_scheduler, overlapping, process_of
from distributed import Client

from npsoftmax import FullBatchTrainer, SoftmaxRegression
from npsoftmax.errors import ClusterError, InputError, ResumeWarning
from npsoftmax.ext import cluster
from npsoftmax.objective import FullBatch

D, K = 20, 4
N = 20_000
ROWS, LABELS = overlapping(N, D, K)
THETA = np.zeros((K, D + 1))
MB = 1_000_000


@pytest.fixture
def client():
    """Two workers as processes, which their nannies restart; new ones for each test."""
    with cluster_of(2) as client:
        yield client


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Wait longer: on a busy machine it takes minutes to start a worker four times."""
    monkeypatch.setattr(cluster, "PATIENCE", 600.0)


@contextmanager
def impatient():
    """Shorten the patience with a cluster that cannot compute; a busy one would be given up too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "TICK", 0.2)
        patch.setattr(cluster, "PATIENCE", 1.0)
        yield


def until(condition):
    """Wait until a condition holds."""
    while not condition():
        time.sleep(0.05)


def problem_on(client):
    return cluster.FullBatch(da.from_array(ROWS, chunks=(3000, D)), LABELS, 1e-3, client)


def trained_on(problem):
    model = SoftmaxRegression(D, K, dtype=np.float64)
    return model.theta, FullBatchTrainer(model, problem, tol=1e-9).fit()


def before_round(store, act):
    """Call a function before each round of a store, with its number counted from now."""
    original, numbers = store._run_round, count()

    def round_(*arguments):
        act(next(numbers))
        return original(*arguments)

    store._run_round = round_


def kill(client, workers, delay=0.0):
    """Return a function that kills workers after some seconds, in a thread."""
    processes = [process_of(client, worker) for worker in workers]

    def act():
        time.sleep(delay)
        for process in processes:
            os.kill(process, signal.SIGKILL)

    return threading.Thread(target=act, daemon=True).start


@pytest.fixture(scope="module")
def undisturbed():
    """Return the parameters and the number of rounds of a fit without faults."""
    rounds = []
    with cluster_of(2) as client:
        problem = problem_on(client)
        before_round(problem._store, rounds.append)
        theta, optimum = trained_on(problem)
    assert optimum.converged
    return theta, len(rounds)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 10))]
)
def test_a_worker_is_killed_and_the_result_has_the_same_bits(client, undisturbed, seed):
    expected, num_rounds = undisturbed
    rng = np.random.default_rng(seed)
    problem, workers = problem_on(client), sorted(client.nthreads())
    victim = workers[rng.integers(2)]
    act = kill(client, [victim], rng.uniform(0, 0.02))
    fatal = rng.integers(num_rounds - 1)
    before_round(problem._store, lambda number: number == fatal and act())
    theta, optimum = trained_on(problem)
    assert optimum.converged
    until(lambda: victim not in client.nthreads())
    np.testing.assert_array_equal(theta, expected)


def test_all_workers_are_killed_at_once_and_the_result_has_the_same_bits(client, undisturbed):
    problem = problem_on(client)
    act = kill(client, list(client.nthreads()))
    before_round(problem._store, lambda number: number == 5 and act())
    theta, optimum = trained_on(problem)
    assert optimum.converged
    np.testing.assert_array_equal(theta, undisturbed[0])


def test_a_worker_is_killed_while_chunks_are_computed(client, undisturbed):

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


def test_a_worker_that_stops_for_a_while_is_waited_for(client, undisturbed):
    problem = problem_on(client)
    process = process_of(client, sorted(client.nthreads())[0])

    def stop(number):
        if number == 5:
            os.kill(process, signal.SIGSTOP)
            threading.Timer(3, os.kill, (process, signal.SIGCONT)).start()

    before_round(problem._store, stop)
    theta, _ = trained_on(problem)
    np.testing.assert_array_equal(theta, undisturbed[0])


# Memory.


@pytest.mark.parametrize(("limit", "rows"), [(2_000 * MB, 50_000), (400 * MB, 12_500)])
def test_chunks_that_are_too_large_are_refused_with_the_size_to_use(limit, rows):
    with cluster_of(1, processes=False, memory_limit=limit) as client:
        X = da.zeros((200_000, 1_000), chunks=(100_000, 1_000))  # 800 MB each; a quarter fits
        with pytest.raises(
            InputError,
            match=rf"got 800.0 MB in block 0; use blocks of at most {rows:,} rows "
            rf"\(X.rechunk\(\({rows}, -1\)\), for files block_size={rows}\)",
        ):
            cluster.FullBatch(X, np.zeros(200_000, int), 0.1, client)


def greedy():
    """Take memory, and keep it long enough for the nanny to see it."""
    held = np.ones(400 * MB // 8)
    time.sleep(3)
    return held[:10_000].reshape(-1, 10)


def killed():
    """Die at once, as by the system where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("use", [killed, pytest.param(greedy, marks=pytest.mark.slow)])
def test_a_worker_that_runs_out_of_memory_names_the_block_and_a_size(use):
    with cluster_of(1, memory_limit=300 * MB) as client:
        X = da.map_blocks(use, chunks=((1_000,) * 3, (10,)), meta=np.zeros((0, 10)))
        with pytest.raises(ClusterError, match=r"^block [0-2]: its worker died 4 times, most likely"
                                               r".*; use blocks of at most 500 rows"):  # fmt: skip
            cluster.FullBatch(X, np.zeros(3_000, int), 0.1, client)


def test_an_allocation_that_fails_is_a_worker_out_of_memory(client):
    X = da.zeros((30, 2), chunks=10).map_blocks(lambda rows: np.empty(2**55, np.int8), dtype=float)
    with pytest.raises(ClusterError, match=r"out of memory; use blocks of at most 5 rows"):
        cluster.FullBatch(X, np.zeros(30, int), 0.1, client)


def size_of(keys, dask_scheduler):
    """Return the size of some objects according to Dask."""
    return sum(dask_scheduler.tasks[key].nbytes for key in keys)


def test_data_larger_than_memory_are_stored_on_disk():
    with cluster_of(1, memory_limit=350 * MB) as client:
        X = da.zeros((50_000, 1_000), chunks=(5_000, 1_000), dtype=np.float64)  # 400 MB
        problem = cluster.FullBatch(X, np.arange(50_000) % 2, 0.1, client)
        for _ in range(2):
            found = problem.loss_and_grad(np.zeros((2, 1_001)))
            assert found.crossentropy == pytest.approx(np.log(2)) and found.accuracy == 0.5
        keys = [shard.key for shard in problem._store._shards]
        assert len(keys) >= 5 and client.run_on_scheduler(size_of, keys) >= 400 * MB


def pause(client, workers=None):
    """Let workers pause as if their memory were full."""

    def pause_here(dask_worker):
        dask_worker.memory_manager.memory_pause_fraction = 1e-9
        return dask_worker.status.name

    until(lambda: "running" not in client.run(pause_here, workers=workers).values())


RELEASED = threading.Event()


def wait_for_release():
    return RELEASED.wait()


def executing(client):
    """Return the number of tasks that run, as the scheduler knows it."""
    workers = client.sync(client.scheduler.identity)["workers"].values()
    return sum(worker["metrics"].get("task_counts", {}).get("executing", 0) for worker in workers)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_cluster_whose_worker_pauses_is_waited_for_while_it_computes(num_workers, monkeypatch):
    RELEASED.clear()
    with cluster_of(num_workers, processes=False) as client:
        problem = problem_on(client)
        paused = list(client.nthreads())[:1]
        if num_workers == 2:
            pause(client, paused)  # the other one computes
        future = client.submit(wait_for_release)
        try:
            pause(client, paused)
            until(lambda: executing(client) == 1)
            with monkeypatch.context() as patch:
                patch.setattr(cluster, "TICK", 60.0)  # to answer
                assert cluster._can_compute(client)
        finally:
            RELEASED.set()
        assert cluster.wait(client, [future]) == [True]
        pause(client)
        with impatient(), pytest.raises(ClusterError, match="paused because their memory is full"):
            problem.loss_and_grad(THETA)


# Lost schedulers and workers.


def test_a_scheduler_that_does_not_answer_for_a_while():
    with dask_scheduler() as (address, scheduler), Client(address) as client:
        client.wait_for_workers(1)
        problem = problem_on(client)
        scheduler.send_signal(signal.SIGSTOP)
        try:
            message = f"the scheduler {address} does not answer"
            with impatient(), pytest.raises(ClusterError, match=message):
                problem.loss_and_grad(THETA)
        finally:
            scheduler.send_signal(signal.SIGCONT)
        assert problem.loss_and_grad(THETA).loss == pytest.approx(np.log(K))


def test_the_last_worker_is_lost_with_its_answer(monkeypatch):
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)

        def wait(futures, timeout):
            done = original(futures, timeout=timeout)
            client.cluster.scale(0)
            until(lambda: not client.nthreads())
            return done

        original = cluster.distributed.wait
        monkeypatch.setattr(cluster.distributed, "wait", wait)
        with impatient(), pytest.raises(ClusterError, match="no worker is left"):
            problem.loss_and_grad(THETA)


def test_a_client_that_was_closed_or_a_cluster_that_has_forgotten():
    with cluster_of(1, processes=False) as client:
        problem = problem_on(client)
        client.cancel(problem._store._shards)
        with pytest.raises(ClusterError, match="has forgotten the samples"):
            problem.loss_and_grad(THETA)
        problem = problem_on(client)
    closed = r"the client of inproc://.* is closed: .*; open another"
    with pytest.raises(ClusterError, match=closed):
        problem.loss_and_grad(THETA)
    with pytest.raises(ClusterError, match="client: expected an open one"):
        problem_on(client)


def test_a_client_that_is_not_the_default_one():
    with cluster_of(1, processes=False, default=False) as client:
        found = problem_on(client).loss_and_grad(THETA)
    assert found.loss == pytest.approx(np.log(K))


def test_no_worker_joins():
    with (
        cluster_of(0, processes=False) as client,
        impatient(),
        pytest.raises(ClusterError, match=r"no worker joined .* dask worker inproc://"),
    ):
        problem_on(client)


def test_the_scheduler_is_gone_and_a_checkpoint_is_kept(tmp_path):
    path = tmp_path / "c.npz"
    with dask_scheduler() as (address, scheduler), Client(address) as client:
        problem = problem_on(client)
        model = SoftmaxRegression(D, K, dtype=np.float64)
        trainer = FullBatchTrainer(model, problem, tol=1e-9, checkpoint=path)
        trainer.on_step = lambda trainer: len(trainer.history) == 4 and scheduler.kill()
        with pytest.raises(ClusterError, match=f"scheduler {address} is gone"):
            trainer.fit()
        with pytest.raises(ClusterError):  # and at every later attempt
            problem.loss_and_grad(model.theta)
    again = FullBatchTrainer(model, FullBatch(ROWS.T, LABELS, 1e-3, threads=1), tol=1e-9)
    with pytest.warns(ResumeWarning, match="a cluster, 1 shards there, this process here"):
        again.resume(path)
    assert len(again.history) >= 4 and again.fit().converged
