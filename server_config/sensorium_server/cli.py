"""The verb `sensorium serve`."""

import inspect
import json
import signal
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sensorium.errors import ConfigurationError
from sensorium_server.gate import WAY_OUT, check_verified
from sensorium_server.launch import Server, tasks_of
from sensorium_server.log_record import Log
from sensorium_server.replica_set import ReplicaSet
from sensorium_server.settings import Settings, flag_name, load

MISUSED = 2


def serve(*, as_json: bool, **flags: object) -> None:
    """Serve a model repository with Triton until SIGTERM or Ctrl-C, then drain and end.

    A flag beats SENSORIUM_<NAME> in the environment, which beats the profile. With a balancer,
    SIGHUP restarts the replicas one after the other.
    """
    try:
        settings = load(flags)
        log = Log(_to_stderr, settings.log_format, settings.log_level)
        _check_verified(settings, log)
        server = _server_of(settings, log)
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(MISUSED) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    if isinstance(server, ReplicaSet):
        signal.signal(signal.SIGHUP, lambda *_: server.request_restart())
    log.say(f"starting Triton on {settings.repository} …", "info")
    with server:
        typer.echo(_ready_line(server, settings, as_json=as_json))
        sys.stdout.flush()
        server.wait()
    log.say("drained and stopped", "info")


def _server_of(settings: Settings, log: Log) -> Server | ReplicaSet:
    """Return one Triton, or several behind a balancer."""
    if settings.balancer:
        return ReplicaSet(settings, check=lambda: _check_verified(settings, log))
    if settings.replicas > 1:
        raise ConfigurationError(
            f"replicas = {settings.replicas} needs something that spreads requests over them. "
            f"Add --balancer envoy, or start {settings.replicas} times with ports of their own."
        )
    return Server(settings)


def _check_verified(settings: Settings, log: Log) -> None:
    """Refuse bundles that are not proven, or tell which they are."""
    try:
        check_verified(settings.repository)
    except ConfigurationError as error:
        if not settings.allow_unverified:
            raise
        log.say(f"warning: {str(error).rpartition(WAY_OUT)[0].rstrip()}")


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


def _ready_line(server: Server | ReplicaSet, settings: Settings, *, as_json: bool) -> str:
    tasks = tasks_of(settings.repository)
    where = server.endpoints
    replicas = server.replicas if isinstance(server, ReplicaSet) else []
    if as_json:
        facts = {"ready_s": round(server.ready_s, 3), **asdict(where), "tasks": tasks}
        if isinstance(server, Server) and server.placements:
            facts["engines"] = {one.model: one.engine for one in server.placements}
        if replicas:
            facts["replicas"] = [
                {**asdict(replica.endpoints), "pid": replica.pid} for replica in replicas
            ]
        return json.dumps({**facts, "pid": server.pid}, ensure_ascii=False)
    own = f" and {where.service_metrics}" if where.service_metrics else ""
    behind = "".join(
        f" · {each.name} metrics {each.endpoints.metrics} and {each.endpoints.service_metrics}"
        for each in replicas
    )
    return (
        f"ready in {server.ready_s:.1f} s · gRPC {where.grpc} · HTTP {where.http} · "
        f"metrics {where.metrics}{own}{behind} · tasks: {', '.join(tasks) or 'none'}"
    )


def _parameters() -> list[inspect.Parameter]:
    """Return the verb's parameters: `--json`, and a flag for every setting."""
    as_json = Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("as_json", kind, default=False, annotation=as_json)]
    for name, field in Settings.model_fields.items():
        is_flag = field.annotation is bool
        option = typer.Option(
            f"{flag_name(name)}/--no-{flag_name(name)[2:]}" if is_flag else flag_name(name),
            help=f"{field.description} Default: {_shown(field.default)}.",
            show_default=False,
            metavar=None if is_flag else "VALUE",
        )
        value: Any = Annotated[bool | None, option] if is_flag else Annotated[str | None, option]
        parameters.append(inspect.Parameter(name, kind, default=None, annotation=value))
    return parameters


def _shown(default: Any) -> str:  # noqa: ANN401 - a setting's default
    return "none" if default in (None, "") else str(default)


# Typer reads a function's signature: ours is written by the settings, so that each is said once.
serve.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
serve.__annotations__ = {each.name: each.annotation for each in _parameters()}
serve.epilog = "Example: sensorium serve --repository model_repository --grpc-port 9001"  # type: ignore[attr-defined]
