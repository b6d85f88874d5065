"""The `sensorium` command: the client's verbs, and those that other packages add.

Data goes to stdout, talk to stderr. Exit code 0: done, 1: failed, 2: misused. Packages add verbs
through the entry point group `sensorium.commands`; a verb is imported only when it is used.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from sensorium._client import Client
from sensorium._config import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_STEPS,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    address_from_url,
)
from sensorium._plugin import Verbs
from sensorium._retry import NOT_YET
from sensorium._search import modality_of, ranked
from sensorium.errors import ConfigurationError, InvalidInputError, SensoriumError, UnknownTaskError
from sensorium.results import Answer, Caption, Embedding, Events, Generated, Tags, Transcript

_LIKELY = 0.5
_BEST = 5
Sound = Annotated[Path, typer.Argument(help="A sound: WAV, FLAC, OGG or MP3.", show_default=False)]
Shown = Answer | Caption | Tags | Events

main = typer.Typer(
    cls=Verbs,
    help="Ask about pictures, sounds and clips, search and draw on a Sensorium server; run one.",
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
Bundle = Annotated[
    str,
    typer.Option(
        envvar="SENSORIUM_BUNDLE",
        help="Which bundle of the server to ask; without it, the default one.",
        show_default=False,
    ),
]
TimeoutS = Annotated[
    float, typer.Option(callback=_checked_seconds, help="Deadline of each request in seconds.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with timings.")]
Image = Annotated[Path, typer.Argument(help="A picture: JPEG, PNG or WebP.", show_default=False)]
Asked = Annotated[
    str | None, typer.Option("--question", "-q", help="Answer this question.", show_default=False)
]
WithEvents = Annotated[bool, typer.Option("--events", help="Tell what happens when.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw a timeline of the events into this file.", show_default=False),
]


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
    audio: Annotated[
        Path | None, typer.Option(help="Ask about this sound, too.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Answer a question about a picture, with the probability of the answer."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        if audio is None:
            answer = client.ask(image, question)
        else:
            answer = client.ask_image_and_audio(image, audio, question)
    _print(_said(answer), answer.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium caption photo.jpg")
def caption(
    image: Image,
    *,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Say what is on a picture."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        result = client.caption(image)
    _print(_said(result), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium classify photo.jpg --bundle vit_base")
def classify(
    image: Image,
    *,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tell which of the bundle's classes a picture belongs to; the five likeliest."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        result = client.classify_image(image)
    lines = [f"{tag.label}  ({tag.score:.0%})" for tag in result.tags[:_BEST]]
    _print("\n".join(lines), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium generate 'translate English to German: good morning'")
def generate(
    text: Annotated[str, typer.Argument(show_default=False)],
    *,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Turn a text into another, as the bundle was trained to."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        result = client.generate(text)
    _print(_said(result), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium transcribe speech.wav --bundle whisper_tiny")
def transcribe(
    audio: Sound,
    *,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Write down what is said in a recording."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        result = client.transcribe(audio)
    _print(_said(result), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium listen street.wav --events --plot timeline.png")
def listen(
    audio: Sound,
    *,
    question: Asked = None,
    events: WithEvents = False,
    plot: Plot = None,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tell what is heard: the sounds, or an answer to a question, or the events."""
    found: dict[str, Shown] = {}
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        if question is not None:
            found["answer"] = client.ask_audio(audio, question)
        if events or plot:
            found["events"] = client.detect_events(audio=audio)
        if not found:
            found["tags"] = client.tag_audio(audio)
    _report(found, plot, audio, as_json=as_json)


@main.command(epilog="Example: sensorium watch clip.mp4 -q 'what moves left?'")
def watch(
    video: Annotated[Path, typer.Argument(help="A clip: MP4 or WebM.", show_default=False)],
    *,
    question: Asked = None,
    events: WithEvents = False,
    actions: Annotated[bool, typer.Option("--actions", help="Tell the actions.")] = False,
    plot: Plot = None,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Tell what happens in a clip and on its sound track; by default a caption and the actions."""
    nothing_asked = question is None and not (events or actions or plot)
    found: dict[str, Shown] = {}
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        if question is not None:
            found["answer"] = client.ask_video(video, question)
        if nothing_asked:
            found["caption"] = client.caption_video(video)
        if actions or nothing_asked:
            found["actions"] = client.recognise_actions(video)
        if events or plot:
            found["events"] = client.detect_events(video=video)
    _report(found, plot, video, as_json=as_json)


@main.command(epilog="Example: sensorium draw 'a large red star on a gray background' --out a.png")
def draw(
    text: Annotated[str, typer.Argument(show_default=False)],
    *,
    out: Annotated[Path, typer.Option(help="The PNG file to write.", show_default=False)],
    seed: Annotated[int, typer.Option(help="The same seed draws the same picture.")] = 0,
    steps: Annotated[int, typer.Option(help="From noise to picture, 1 to 100.")] = DEFAULT_STEPS,
    guidance_scale: Annotated[
        float, typer.Option(help="How much the text counts, 0 to 20.")
    ] = DEFAULT_GUIDANCE_SCALE,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Draw a picture of what a text says."""
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        drawing = client.draw(text, seed=seed, steps=steps, guidance_scale=guidance_scale)
    path = os.fspath(drawing.save(out))
    _print(path, {**drawing.as_dict(), "png": path}, as_json=as_json)


@main.command(epilog="Example: sensorium embed 'a red star'; sensorium embed --image photo.jpg")
def embed(
    text: Annotated[str | None, typer.Argument(show_default=False)] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="Embed this picture instead.")] = None,
    audio: Annotated[Path | None, typer.Option(help="Embed this sound instead.")] = None,
    video: Annotated[Path | None, typer.Option(help="Embed this clip instead.")] = None,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Embed a text, a picture, a sound or a clip; prints the numbers on one line."""
    sources = {"text": text, "image": image, "audio": audio, "video": video}
    given = {name: source for name, source in sources.items() if source is not None}
    if len(given) != 1:
        raise typer.BadParameter("give exactly one of a text, --image, --audio and --video.")
    [(name, source)] = given.items()
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:
        result: Embedding = getattr(client, f"embed_{name}")(source)
    _print(" ".join(f"{x:.6g}" for x in result.vector), result.as_dict(), as_json=as_json)


@main.command(epilog="Example: sensorium search 'a red star' media/ --top-k 5")
def search(
    text: Annotated[str, typer.Argument(show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, show_default=False, help="Searched deep."),
    ],
    *,
    top_k: Annotated[int, typer.Option(min=1, help="How many to print.")] = 10,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Rank the pictures, sounds and clips in a folder by how well a text describes them."""
    paths = sorted(path for path in folder.rglob("*") if modality_of(path) and path.is_file())
    if not paths:
        raise InvalidInputError(f"{folder} has no pictures, sounds or clips (.jpg, .wav, .mp4 …).")
    with Client(url, timeout_s=timeout_s, bundle=bundle) as client:

        def embed_file(path: Path) -> Embedding:
            embedding: Embedding = getattr(client, f"embed_{modality_of(path)}")(path)
            return embedding

        query = client.embed_text(text)
        results = client.run_many(embed_file, paths, progress=sys.stderr.isatty())
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
            failed |= not isinstance(result, InvalidInputError | UnknownTaskError)
    return failed


@main.command(epilog="Example: sensorium ready --wait-s 60")
def ready(
    *,
    task: Annotated[str | None, typer.Option(help="Ask for one task only.")] = None,
    wait_s: Annotated[float, typer.Option(min=0, help="Wait so long for it.")] = 0.0,
    url: Url = DEFAULT_URL,
    bundle: Bundle = "",
    as_json: AsJson = False,
) -> None:
    """Tell whether the server answers now; exit code 0 if so, 1 if not."""
    with Client(url, bundle=bundle) as client:
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


def _said(result: Answer | Caption | Generated | Transcript) -> str:
    return f"{result.text}  ({result.score:.0%})"


def _lines(result: Shown) -> str:
    """Write a result for people; of tags, those that are more likely than not."""
    if isinstance(result, Answer | Caption):
        return _said(result)
    if isinstance(result, Tags):
        likely = [f"{tag.label}  ({tag.score:.0%})" for tag in result.above(_LIKELY)]
        return "\n".join(likely) or f"nothing is likely; the best guess is {result.best.label}"
    spans = [f"{e.start_s:6.2f} - {e.end_s:5.2f} s  {e.label}  ({e.score:.0%})" for e in result]
    return "\n".join(spans) or "no events"


def _report(found: Mapping[str, Shown], plot: Path | None, source: Path, *, as_json: bool) -> None:
    """Print results, as JSON by their names, and draw the events if there is a file to draw to."""
    values = {name: result.as_dict() for name, result in found.items()}
    _print("\n".join(map(_lines, found.values())), values, as_json=as_json)
    if plot is not None:
        from sensorium.plot import plot_events  # noqa: PLC0415 - only here

        plot_events(cast("Events", found["events"]), plot, title=source.name)


def _print(text: str, values: Any, *, as_json: bool) -> None:  # noqa: ANN401 - what JSON takes
    typer.echo(json.dumps(values) if as_json else text)
