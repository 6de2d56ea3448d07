"""The first try in a process of its own on this machine, which has its predictions before Ray would have started.

The process loads the Predictor while this one looks for the rows. It ends with the try: torch stays in no driver.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from .errors import UserError
from .runtime import set_environment


class FirstTry:
    """Runs `workers.try_predictor`: `begin` gives it its arguments, and iteration what it yields.

    Args:
        num_cpus: of a predictor; 1 by default.

    Raises:
        UserError, RuntimeError: at iteration, what went wrong there.
    """

    def __init__(self, num_cpus: float | None) -> None:
        set_environment()
        context = multiprocessing.get_context("spawn")
        self.connection, its = context.Pipe()
        self.process = context.Process(target=_serve, args=(its, max(1, int(num_cpus or 1))))
        self.process.start()
        its.close()

    def __enter__(self) -> "FirstTry":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def begin(self, *arguments: Any) -> None:
        with suppress(ConnectionError):  # it ended already: iteration says why
            self.connection.send(arguments)

    def __iter__(self) -> Iterator[Any]:
        from .watch import PATIENCE  # with Ray, which the pipeline has imported by now

        while True:
            while not self.connection.poll(PATIENCE):
                print("Waiting for the first predictor, on this machine.", flush=True)
            try:
                result = self.connection.recv()
            except (EOFError, ConnectionError):
                self.process.join()
                raise self._why_it_ended() from None
            if isinstance(result, Exception):
                raise result
            yield result

    def _why_it_ended(self) -> Exception:
        if self.process.exitcode == -9:  # SIGKILL, which Windows does not have
            return UserError(
                "the first predictor was killed, as the system does where memory runs out. Lower --batch-size, or "
                "take a smaller model, a machine with more memory, or end what else runs here"
            )
        return RuntimeError(f"the first predictor's process ended with exit code {self.process.exitcode}")


def _serve(connection: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C, the other process hears as well, and ends this one
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # as Ray sets it for a predictor
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a Predictor that asks Ray for something would else start another
    from .workers import predictor_class, try_predictor

    with suppress(ConnectionError):  # the other process is gone
        try:
            predictor_class()  # which loads torch, while the rows are looked for
            for result in try_predictor(*connection.recv()):
                connection.send(result)
        except UserError as problem:
            connection.send(problem)
        except Exception:
            connection.send(RuntimeError(traceback.format_exc()))  # the error itself may not travel
