"""Work of a mapping on the workers of a dask cluster, whatever started them; only what is asked for and what was found travels.

A worker that ends takes its running tasks along, which others do again; what was sent to all workers and is nowhere left is sent
again. A scheduler that goes away is a named error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scgraft._version import __version__
from scgraft.errors import ClusterError

LOG = logging.getLogger(__name__)
AGAIN = "What is finished stays: run the same again, on this cluster, another one, or none."


def connect(address: str) -> Any:
    """A client of a running cluster: the scheduler's address (``tcp://host:8786``), or the file that it writes (``.json``).

    Raises
    ------
    ClusterError
        dask is not installed, or there is no scheduler.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError('dask is not installed: pip install "scgraft[dask]".') from error
    try:
        return Client(scheduler_file=address) if address.endswith(".json") else Client(address)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(
            f"There is no scheduler at {address} ({error}). Start one (dask scheduler), or look at its log."
        ) from error


def version_here() -> str:
    """The version that a process has."""
    return __version__


def check_workers(client: Any) -> int:
    """The number of workers, all of which have this version.

    Raises
    ------
    ClusterError
        There are none, or some have no scgraft or another version: their numbers could be others.
    """
    try:
        found: Mapping[str, str] = client.run(version_here)
    except ImportError as error:
        raise ClusterError(f"A worker has no scgraft ({error}). Install scgraft {__version__} there.") from error
    except OSError as error:
        raise ClusterError(f"The scheduler does not answer ({error}). {AGAIN}") from error
    if not found:
        raise ClusterError("The cluster has no workers. Start some (dask worker), then run this again.")
    others = sorted({version for version in found.values() if version != __version__})
    if others:
        raise ClusterError(
            f"Workers have scgraft {', '.join(others)}, and this is {__version__}. Install the same version on all."
        )
    return len(found)


def once_on(client: Any, function: Callable[..., Any], *given: Any) -> Any:
    """The result of one call, made by a worker."""
    return next(iter(each_on(client, function, given, [()])))[1]


def each_on(
    client: Any, function: Callable[..., Any], shared: tuple[Any, ...], calls: list[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """Results of ``function(*shared, *call)`` for each call, with its number, as they are finished; each exactly once.

    Parameters
    ----------
    client
        A ``distributed.Client``.
    function
        Of a module that workers can import.
    shared
        Values that every call takes: each worker gets them once.
    calls
        The other arguments, small.

    Raises
    ------
    ClusterError
        The scheduler or all workers went away, or the same call ended worker after worker.
    """
    left = dict(enumerate(calls))
    while left:
        check_workers(client)
        before = len(left)
        for number, result in _round(client, function, shared, left):
            del left[number]
            yield number, result
        if left and len(left) == before:
            raise ClusterError(
                f"No worker finished any of {before} tasks: the scheduler or the workers went away, or the tasks end them (look "
                f"into a worker's log; most often it is out of memory). {AGAIN}"
            )
        if left:
            LOG.warning("%d tasks were lost with their workers and are done again.", len(left))


def _round(
    client: Any, function: Callable[..., Any], shared: tuple[Any, ...], calls: Mapping[int, tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """What workers finish of the calls; errors of the calls themselves are raised, lost ones are left out."""
    from distributed import as_completed

    futures: dict[Any, int] = {}
    try:
        held = [client.scatter(value, broadcast=True, hash=False) for value in shared]
        futures = {client.submit(function, *held, *call, pure=False): number for number, call in calls.items()}
        for future in as_completed(list(futures)):
            if future.status == "finished":
                yield futures[future], future.result()
            elif future.status == "error" and not _is_loss(future.exception()):
                raise future.exception()
            future.release()
    except (OSError, TimeoutError) as error:  # the scheduler does not answer
        LOG.warning("The cluster does not answer: %s", error)
    finally:
        for future in futures:
            future.release()


def _is_loss(error: BaseException) -> bool:
    """Whether a task ended with its worker, or with what it needed, and not by an error of its own."""
    return type(error).__module__.split(".")[0] == "distributed" or type(error).__name__.endswith("CancelledError")
