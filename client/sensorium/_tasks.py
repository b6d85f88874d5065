"""What the blocking client can be asked: one method for each task, and many at once."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from sensorium._base import BaseClient, check_task, pair_of
from sensorium._batch import DEFAULT_CONCURRENCY, run_many
from sensorium._config import DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS
from sensorium._generation import Generation
from sensorium._input import MediaInput
from sensorium.errors import SensoriumError
from sensorium.results import (
    RESULTS,
    Answer,
    Caption,
    Drawing,
    Embedding,
    Events,
    Generated,
    Result,
    Tags,
    Transcript,
)

R = TypeVar("R", bound=Result)
T = TypeVar("T")
V = TypeVar("V")


class Tasks(BaseClient):
    """The tasks of the contract as methods; `Client` adds the connection and the waiting."""

    def ask(
        self,
        image: MediaInput,
        question: str,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a picture."""
        inputs = {"image": image, "question": question}
        return self._run(
            "visual_question_answering",
            inputs,
            Answer,
            timeout_s,
            request_id,
            generation=generation,
        )

    def ask_audio(
        self,
        audio: MediaInput,
        question: str,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a sound."""
        inputs = {"audio": audio, "question": question}
        return self._run(
            "audio_question_answering", inputs, Answer, timeout_s, request_id, generation=generation
        )

    def ask_video(
        self,
        video: MediaInput,
        question: str,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a clip, its sound track included."""
        inputs = {"video": video, "question": question}
        return self._run(
            "video_question_answering", inputs, Answer, timeout_s, request_id, generation=generation
        )

    def ask_image_and_audio(
        self,
        image: MediaInput | None,
        audio: MediaInput | None,
        question: str,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a question about a picture and a sound together; one of them may be None."""
        inputs = {"image": image, "audio": audio, "question": question}
        return self._run(
            "audio_visual_question_answering",
            inputs,
            Answer,
            timeout_s,
            request_id,
            generation=generation,
        )

    def caption(
        self,
        image: MediaInput,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Caption:
        """Say what is on a picture."""
        inputs = {"image": image}
        return self._run(
            "image_captioning", inputs, Caption, timeout_s, request_id, generation=generation
        )

    def caption_video(
        self,
        video: MediaInput,
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Caption:
        """Say what happens in a clip."""
        inputs = {"video": video}
        return self._run(
            "video_captioning", inputs, Caption, timeout_s, request_id, generation=generation
        )

    def tag_audio(
        self,
        audio: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Tags:
        """Tell which sounds are heard."""
        inputs = {"audio": audio}
        return self._run("audio_tagging", inputs, Tags, timeout_s, request_id)

    def recognise_actions(
        self,
        video: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Tags:
        """Tell which actions a clip shows."""
        inputs = {"video": video}
        return self._run("action_recognition", inputs, Tags, timeout_s, request_id)

    def detect_events(
        self,
        *,
        audio: MediaInput | None = None,
        video: MediaInput | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Events:
        """Tell what is heard and seen when, in a sound, in a clip or in both together.

        Without `audio`, the clip's own sound track is heard.
        """
        inputs = {"audio": audio, "video": video}
        return self._run("event_detection", inputs, Events, timeout_s, request_id)

    def embed_text(
        self,
        text: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Embedding:
        """Embed a text in the space that all modalities share."""
        inputs = {"text": text}
        return self._run("text_embedding", inputs, Embedding, timeout_s, request_id)

    def embed_image(
        self,
        image: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Embedding:
        """Embed a picture in the space that all modalities share."""
        inputs = {"image": image}
        return self._run("image_embedding", inputs, Embedding, timeout_s, request_id)

    def embed_audio(
        self,
        audio: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Embedding:
        """Embed a sound in the space that all modalities share."""
        inputs = {"audio": audio}
        return self._run("audio_embedding", inputs, Embedding, timeout_s, request_id)

    def embed_video(
        self,
        video: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Embedding:
        """Embed a clip in the space that all modalities share."""
        inputs = {"video": video}
        return self._run("video_embedding", inputs, Embedding, timeout_s, request_id)

    def draw(
        self,
        text: str,
        *,
        seed: int = 0,
        steps: int = DEFAULT_STEPS,
        guidance_scale: float = DEFAULT_GUIDANCE_SCALE,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Drawing:
        """Draw a picture of what a text says.

        Args:
            text: What to draw.
            seed: The same seed draws the same picture, to the byte; 0 to 2⁶³ - 1.
            steps: How many steps lead from noise to the picture; 1 to 100.
            guidance_scale: How much the text counts (Ho and Salimans 2022); 1 is plain, 0 ignores
                it, at most 20.
            timeout_s: The deadline of the call, instead of the client's.
            request_id: Names the request in the server's log.
        """
        inputs = {"text": text, "seed": seed, "steps": steps, "guidance_scale": guidance_scale}
        return self._run("text_to_image", inputs, Drawing, timeout_s, request_id)

    def classify_image(
        self,
        image: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Tags:
        """Tell which of the bundle's classes a picture belongs to."""
        inputs = {"image": image}
        return self._run("image_classification", inputs, Tags, timeout_s, request_id)

    def generate(
        self,
        text: str,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Generated:
        """Turn a text into another, as the bundle was trained to: a translation, a summary."""
        inputs = {"text": text}
        return self._run("text_generation", inputs, Generated, timeout_s, request_id)

    def transcribe(
        self,
        audio: MediaInput,
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Transcript:
        """Write down what is said in a recording."""
        inputs = {"audio": audio}
        return self._run("speech_recognition", inputs, Transcript, timeout_s, request_id)

    def infer(
        self,
        task: str,
        inputs: Mapping[str, object],
        *,
        generation: Generation | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Result:
        """Run any task of the contract by its name, with its inputs by their names.

        Raises:
            UnknownTaskError: there is no such task.
        """
        check_task(task)
        return self._run(task, inputs, RESULTS[task], timeout_s, request_id, generation=generation)

    def ask_many(
        self,
        pairs: Iterable[tuple[MediaInput, str]],
        *,
        generation: Generation | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Answer | SensoriumError]:
        """Answer many (image, question) pairs; what fails is an error in its place.

        Args:
            pairs: Drawn one by one, so a generator may be long.
            generation: How each answer is generated, instead of the bundle's way.
            concurrency: How many requests are under way at a time.
            progress: Show a progress bar on stderr.
            timeout_s: The deadline of each item.
        """

        def ask(pair: object) -> Answer:
            image, question = pair_of(pair)
            inputs = {"image": image, "question": question}
            return self._run(
                "visual_question_answering", inputs, Answer, timeout_s, generation=generation
            )

        return run_many(ask, pairs, concurrency, "Asking" if progress else None)

    def caption_many(
        self,
        images: Iterable[MediaInput],
        *,
        generation: Generation | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Caption | SensoriumError]:
        """Caption many pictures, as `ask_many` answers many questions."""
        call = partial(self.caption, generation=generation, timeout_s=timeout_s)
        return run_many(call, images, concurrency, "Captioning" if progress else None)

    def embed_texts(
        self,
        texts: Iterable[str],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many texts, as `ask_many` answers many questions."""
        call = partial(self.embed_text, timeout_s=timeout_s)
        return run_many(call, texts, concurrency, "Embedding texts" if progress else None)

    def embed_images(
        self,
        images: Iterable[MediaInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many pictures, as `ask_many` answers many questions."""
        call = partial(self.embed_image, timeout_s=timeout_s)
        return run_many(call, images, concurrency, "Embedding pictures" if progress else None)

    def embed_audios(
        self,
        audios: Iterable[MediaInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many sounds, as `ask_many` answers many questions."""
        call = partial(self.embed_audio, timeout_s=timeout_s)
        return run_many(call, audios, concurrency, "Embedding sounds" if progress else None)

    def embed_videos(
        self,
        videos: Iterable[MediaInput],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
        timeout_s: float | None = None,
    ) -> list[Embedding | SensoriumError]:
        """Embed many clips, as `ask_many` answers many questions."""
        call = partial(self.embed_video, timeout_s=timeout_s)
        return run_many(call, videos, concurrency, "Embedding clips" if progress else None)

    def run_many(
        self,
        call: Callable[[T], V],
        items: Iterable[T],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        progress: bool = False,
    ) -> list[V | SensoriumError]:
        """Call any method for many items, as `ask_many` does: `run_many(client.tag_audio, paths)`.

        Args:
            call: A method of this client, or a function that calls one.
            items: Drawn one by one, so a generator may be long.
            concurrency: How many requests are under way at a time.
            progress: Show a progress bar on stderr.
        """
        return run_many(call, items, concurrency, "Running" if progress else None)

    @abstractmethod
    def _run(
        self,
        task: str,
        inputs: Mapping[str, object],
        result_type: type[R],
        timeout_s: float | None,
        request_id: str | None = None,
        *,
        generation: Generation | None = None,
    ) -> R:
        """Send a request and wait for its result."""
