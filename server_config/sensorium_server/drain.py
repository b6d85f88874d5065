"""Wait until a server has nothing to do.

Once told to stop, Triton refuses the next step even of a task that is half done. So the launcher
lets it serve on until, for a moment, no request was answered, none waited and no process worked;
only then it tells it to stop.
"""

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import psutil

QUIET_S = 0.5
"""How long nothing may move."""

IDLE_SHARE = 0.1
"""The share of one core below which Triton and its Python processes are idle."""

_POLL_S = 0.1
_ANSWERED = re.compile(r"^nv_inference_request_(?:success|failure)\{.*\} (\S+)$", re.MULTILINE)
_WAITING = re.compile(r"^nv_inference_pending_request_count\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Activity:
    """What a server has done and has to do."""

    answered: float
    waiting: float
    cpu_s: float


def await_quiet(measure: Callable[[], Activity | None], timeout_s: float) -> None:
    """Return when nothing moved for `QUIET_S`, after the timeout, or when nothing is measured."""
    begin = quiet_since = time.monotonic()
    before = measure()
    while before is not None and time.monotonic() - begin < timeout_s:
        time.sleep(_POLL_S)
        now = measure()
        if now is None:
            return
        if now.waiting or now.answered != before.answered or _is_busy(before, now, quiet_since):
            before, quiet_since = now, time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_S:
            return


def _is_busy(before: Activity, now: Activity, since: float) -> bool:
    # The first moments are too short for a share: what counts is the whole window.
    return now.cpu_s - before.cpu_s > IDLE_SHARE * max(QUIET_S, time.monotonic() - since)


def activity_of(pid: int, metrics_url: str) -> Activity | None:
    """Measure a running server; None when it does not answer."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=1) as answer:  # noqa: S310 - our own
            text = answer.read().decode()
        triton = psutil.Process(pid)
        processes = [triton, *triton.children(recursive=True)]
    except (OSError, psutil.Error):
        return None
    cpu_s = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu_s += times.user + times.system
    return activity_from(text, cpu_s)


def activity_from(metrics: str, cpu_s: float) -> Activity:
    """Read the metrics of all models."""
    return Activity(
        answered=sum(map(float, _ANSWERED.findall(metrics))),
        waiting=sum(map(float, _WAITING.findall(metrics))),
        cpu_s=cpu_s,
    )
