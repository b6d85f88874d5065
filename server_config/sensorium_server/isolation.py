"""A child process for native decoders, so that their hang or crash costs one request.

    stage ─ (function, arguments) ─▶ child: decode ─ (value or complaint) ─▶ stage

FFmpeg and libsndfile read what strangers send. In the child they have a time limit, which the
kernel keeps even inside native code, and a memory limit. When the child dies, the next request
finds a new one. An idle child ends with its parent, as its input then ends; a busy one at its time
limit. It holds faults, not attackers: it runs as the same user and speaks pickle.
"""

import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sensorium.errors import InvalidInputError, ServerError

Result = TypeVar("Result")

MEMORY_BYTES = 4 * 1024**3
"""The most address space that a child may take."""

_VALUE, _INVALID, _TOO_MUCH, _FAILED = "value", "invalid", "too much", "failed"


class IsolatedWorker:
    """Calls functions in a child process of its own, one at a time.

    Functions are sent by name, so they must be importable; arguments and results are pickled.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._start()

    @property
    def pid(self) -> int:
        """The process id of the present child."""
        return self._child.pid

    def load(self, function: Callable[..., object]) -> None:
        """Have the child import a function's module now, so that the first call is no slower."""
        self.call("module", callable, function)

    def call(
        self, kind: str, function: Callable[..., Result], *args: object, **options: object
    ) -> Result:
        """Return what the function returns in the child.

        Args:
            kind: What is decoded, for complaints: `audio` or `video`.
            function: An importable function.
            *args: Its arguments.
            **options: Its keyword arguments.

        Raises:
            InvalidInputError: the function raised it, or it took too long, too much or crashed.
            ServerError: the function failed otherwise; the message is for the server's log.
        """
        with self._turn:
            try:
                pickle.dump((function, args, options), self._input, pickle.HIGHEST_PROTOCOL)
                self._input.flush()
                outcome, value = pickle.load(self._output)  # noqa: S301 - from our own child
            except (BrokenPipeError, EOFError, pickle.UnpicklingError):
                raise self._bury(kind) from None
        if outcome == _VALUE:
            return value  # type: ignore[no-any-return] # it is what the function returned
        if outcome == _INVALID:
            raise InvalidInputError(value)
        if outcome == _TOO_MUCH:
            raise InvalidInputError(
                f"{kind} takes more than {MEMORY_BYTES / 2**30:g} GiB of memory to decode. "
                f"Send a shorter or smaller one."
            )
        raise ServerError(value)

    def close(self) -> None:
        """End the child."""
        self._end()

    def _start(self) -> None:
        """Start a child, without waiting for it; it ends when this object does."""
        self._child = subprocess.Popen(  # noqa: S603 - our own command
            [_python(), "-m", "sensorium_server.isolation", str(self._timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "OMP_NUM_THREADS": "1",
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
        )
        if self._child.stdin is None or self._child.stdout is None:
            raise AssertionError("pipes were asked for")
        self._input, self._output = self._child.stdin, self._child.stdout
        self._end = weakref.finalize(self, _end, self._child)

    def _bury(self, kind: str) -> InvalidInputError | ServerError:
        """Return what the child died of, and have a new one."""
        self._end()
        code = self._child.returncode
        self._start()
        if code == -signal.SIGALRM:
            return InvalidInputError(
                f"{kind} took longer than {self._timeout_s:g} s to decode "
                f"(decode_timeout_s). Send a shorter or smaller one, or raise the limit on the "
                f"server."
            )
        if code < 0:
            return InvalidInputError(
                f"{kind} crashed the decoder: it is damaged or very unusual. Encode it anew."
            )
        return ServerError(f"the decoding process ended by itself with exit code {code}")


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child, whatever it is doing, and close its pipes."""
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    child.wait()


def _python() -> str:
    """Return this environment's interpreter; inside Triton's stub `sys.executable` is another."""
    return str(Path(sys.prefix, "bin", "python3"))


def serve(timeout_s: float) -> None:
    """Be the child: answer the calls on stdin until it ends."""
    calls = sys.stdin.buffer
    # Native code may print to stdout, which must not meddle with the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                function, args, options = pickle.load(calls)  # noqa: S301 - from our own parent
                # What a SIGALRM does by default is to end the process, also inside native code.
                signal.setitimer(signal.ITIMER_REAL, timeout_s)
                answer = _answer(function, args, options)
                signal.setitimer(signal.ITIMER_REAL, 0)
                pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()


def _answer(
    function: Callable[..., object], args: Sequence[object], options: Mapping[str, object]
) -> tuple[str, object]:
    try:
        return _VALUE, function(*args, **options)
    except InvalidInputError as error:
        return _INVALID, str(error)
    except MemoryError:
        return _TOO_MUCH, None
    except Exception:  # noqa: BLE001 - the parent has it logged
        return _FAILED, traceback.format_exc()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
