"""The `sensorium` command: the client's verbs, and those that other packages add.

Data goes to stdout, talk to stderr. Exit code 0: done, 1: failed, 2: misused. Packages add verbs
through the entry point group `sensorium.commands`; a verb is imported only when it is used.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium._client import Client
from sensorium._config import DEFAULT_TIMEOUT_S, DEFAULT_URL, address_from_url
from sensorium._plugin import Verbs
from sensorium._retry import NOT_YET
from sensorium._search import is_picture_name, ranked
from sensorium.errors import ConfigurationError, InvalidInputError, SensoriumError
from sensorium.results import Embedding

main = typer.Typer(
    cls=Verbs,
    help="Ask, caption, embed and search pictures on a Sensorium server, and run one.",
    epilog="Example: sensorium ask photo.jpg 'what color is the large star?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _checked_url(url: str) -> str:
    try:
        address_from_url(url)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from error
    return url


def _checked_seconds(seconds: float) -> float:
    if not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} is not above 0.")
    return seconds


Url = Annotated[
    str,
    typer.Option(
        envvar="SENSORIUM_URL",
        callback=_checked_url,
        help="host:port for gRPC, http://host:port for HTTP.",
    ),
]
TimeoutS = Annotated[
    float, typer.Option(callback=_checked_seconds, help="Deadline of each request in seconds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with timings.")]
Image = Annotated[Path, typer.Argument(help="A picture: JPEG, PNG or WebP.", show_default=False)]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        import sensorium  # noqa: PLC0415 - only here

        typer.echo(f"sensorium {sensorium.__version__}")
        raise typer.Exit


@main.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


@main.command(epilog="Example: sensorium ask photo.jpg 'what color is the large star?'")
def ask(
    image: Image,
    question: Annotated[str, typer.Argument(show_default=False)],
    *,
    url: Url = DEFAULT_URL,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Answer a question about a picture, with the probability of the answer."""
    with Client(url, timeout_s=timeout_s) as client:
        answer = client.ask(image, question)
    _print(f"{answer.text}  ({answer.score:.0%})", answer.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium caption photo.jpg")
def caption(
    image: Image,
    *,
    url: Url = DEFAULT_URL,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Say what is on a picture."""
    with Client(url, timeout_s=timeout_s) as client:
        result = client.caption(image)
    _print(f"{result.text}  ({result.score:.0%})", result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium embed 'a red star'; sensorium embed --image photo.jpg")
def embed(
    text: Annotated[str | None, typer.Argument(show_default=False)] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="Embed this picture instead.")] = None,
    url: Url = DEFAULT_URL,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Embed a text or a picture; prints the numbers on one line."""
    if (text is None) == (image is None):
        raise typer.BadParameter("give either a text or --image, and not both.")
    with Client(url, timeout_s=timeout_s) as client:
        result = client.embed_image(image) if image else client.embed_text(text or "")
    _print(" ".join(f"{x:.6g}" for x in result.vector), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium search 'a red star' pictures/ --top-k 5")
def search(
    text: Annotated[str, typer.Argument(show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, show_default=False, help="Searched deep."),
    ],
    *,
    top_k: Annotated[int, typer.Option(min=1, help="How many to print.")] = 10,
    url: Url = DEFAULT_URL,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Rank the pictures in a folder by how well a text describes them."""
    paths = sorted(path for path in folder.rglob("*") if is_picture_name(path) and path.is_file())
    if not paths:
        raise InvalidInputError(f"{folder} has no pictures (.jpg, .png, .webp …) in it.")
    with Client(url, timeout_s=timeout_s) as client:
        query = client.embed_text(text)
        results = client.embed_images(paths, progress=sys.stderr.isatty())
    failed = _note_failures(paths, results)
    found = [(p, r) for p, r in zip(paths, results, strict=True) if isinstance(r, Embedding)]
    hits = ranked(query, found)[:top_k]
    lines = "\n".join(f"{similarity:.3f}  {path}" for similarity, path in hits)
    values = [{"path": os.fspath(path), "similarity": similarity} for similarity, path in hits]
    _print(lines, values, as_json=as_json)
    if failed or not hits:
        raise typer.Exit(1)


def _note_failures(paths: Iterable[Path], results: Iterable[object]) -> bool:
    """Note each file without an embedding; tell whether one of them is the server's fault."""
    failed = False
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, SensoriumError):
            typer.echo(f"skipped {path}: {result}", err=True)
            failed |= not isinstance(result, InvalidInputError)
    return failed


@main.command(epilog="Example: sensorium ready --wait-s 60")
def ready(
    *,
    task: Annotated[str | None, typer.Option(help="Ask for one task only.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="Wait so long for it.")] = 0.0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Tell whether the server answers now; exit code 0 if so, 1 if not."""
    with Client(url) as client:
        try:
            if wait_s:
                client.wait_ready(task, timeout_s=wait_s)
            is_ready, reason = bool(wait_s) or client.is_ready(task), "not ready; see --wait-s"
        except NOT_YET as error:
            is_ready, reason = False, str(error)
    _print("ready" if is_ready else "not ready", {"ready": is_ready, "url": url}, as_json=as_json)
    if not is_ready:
        typer.echo(f"{url}: {reason}", err=True)
        raise typer.Exit(1)


def _print(text: str, values: Any, *, as_json: bool) -> None:  # noqa: ANN401 - what JSON takes
    typer.echo(json.dumps(values) if as_json else text)
