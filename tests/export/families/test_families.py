"""Families: split into stages, a checkpoint answers as the library's own class does."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file
from tests import families
from torch.nn import functional as F

from sensorium_export.families import FAMILIES
from sensorium_export.families.generation import DEFAULT_NEW_TOKENS
from sensorium_export.probes import Probe, drawn_picture
from sensorium_export.probes_media import drawn_clip, drawn_sound
from sensorium_export.recipe import VideoRecipe
from sensorium_export.reference import Reference
from sensorium_export.reference_input import chosen_frames, mono_samples, rgb_picture, upright
from sensorium_export.source import open_source

QUESTIONS = ("what is red", "is it a star?", "RED stars", "x y z")
PROBES = [
    Probe(
        *(drawn_picture(5, number)[0], number, drawn_picture(5, number)[1], question),
        audio=drawn_sound(5, number)[1],
        video=drawn_clip(5, number)[1],
    )
    for number, question in enumerate(QUESTIONS * 2)
]

Answer = Mapping[str, Any]


class Library:
    """A directory as the library reads it: its own model, processor and tokenizer."""

    def __init__(self, path: Path, kind: str) -> None:
        library: Any = transformers
        self.model: Any = None
        if kind:
            self.model = getattr(library, kind).from_pretrained(path).eval()
        self.path = path

    def pixels(self, probe: Probe) -> dict[str, torch.Tensor]:
        """See a picture."""
        load: Any = transformers.AutoImageProcessor.from_pretrained
        return dict(load(self.path, backend="pil")(rgb_picture(probe.image), return_tensors="pt"))

    def frames(self, probe: Probe) -> torch.Tensor:
        """Watch a clip: four frames, each in the middle of a fourth."""
        load: Any = transformers.AutoImageProcessor.from_pretrained
        chosen, _ = chosen_frames(probe.video, VideoRecipe(4))
        pictures = [upright(frame) for frame in chosen]
        seen = load(self.path, backend="pil")(pictures, return_tensors="np")["pixel_values"]
        return torch.from_numpy(np.asarray(seen, np.float32))

    def heard(self, probe: Probe, rate: int) -> dict[str, torch.Tensor]:
        """Hear a sound, of samples that are resampled as the server does."""
        load: Any = transformers.AutoFeatureExtractor.from_pretrained
        samples = mono_samples(probe.audio, rate)
        return dict(load(self.path)(samples, sampling_rate=rate, return_tensors="pt"))

    def ids(self, probe: Probe, **options: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
        """Read a text."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.path)
        read = dict(tokenizer(probe.question, return_tensors="pt", **options))
        return {name: read[name] for name in ("input_ids", "attention_mask")}

    def generated(self, **inputs: torch.Tensor) -> str:
        """Return the text that the model generates."""
        longest = self.model.generation_config.max_new_tokens or DEFAULT_NEW_TOKENS
        tokens = self.model.generate(**inputs, max_new_tokens=longest)
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.path)
        return str(tokenizer.decode(tokens[0], skip_special_tokens=True))


def vit_answer(library: Library, probe: Probe) -> Answer:
    """Classify a picture, and take the state of its class token."""
    pixels, model = library.pixels(probe), library.model
    return {
        "image_embedding": model.vit(**pixels).last_hidden_state[:, 0],
        "image_classification": model(**pixels).logits.softmax(-1).sort(descending=True)[0],
    }


def resnet_answer(library: Library, probe: Probe) -> Answer:
    """Classify a picture, and pool its places."""
    pixels, model = library.pixels(probe), library.model
    return {
        "image_embedding": model.resnet(**pixels).pooler_output.flatten(1),
        "image_classification": model(**pixels).logits.softmax(-1).sort(descending=True)[0],
    }


def siglip_answer(library: Library, probe: Probe) -> Answer:
    """Embed a picture and a text, padded as the library's users are told to."""
    ids = library.ids(probe, padding="max_length", max_length=16)["input_ids"]
    found = library.model(input_ids=ids, **library.pixels(probe))
    return {"text_embedding": found.text_embeds, "image_embedding": found.image_embeds}


def clip_answer(library: Library, probe: Probe) -> Answer:
    """Embed a picture and a text."""
    found = library.model(**library.ids(probe), **library.pixels(probe))
    return {"text_embedding": found.text_embeds, "image_embedding": found.image_embeds}


def open_clip_answer(library: Library, probe: Probe) -> Answer:
    """Embed a picture and a text by the layers that OpenCLIP has, pictures as torchvision crops."""
    words = len(json.loads((library.path / "tokenizer.json").read_text())["model"]["vocab"])
    model = families.OpenClip(words)
    model.load_state_dict(load_file(library.path / "open_clip_model.safetensors"))
    pixels = open_source(library.path).image_values(probe.image)["pixel_values"]
    ids = library.ids(probe)["input_ids"]
    return {
        "text_embedding": model.encode_text(ids),
        "image_embedding": model.encode_image(torch.from_numpy(pixels)),
    }


def bert_answer(library: Library, probe: Probe) -> Answer:
    """Embed a sentence: the mean of its tokens, of length 1."""
    states = library.model(**library.ids(probe)).last_hidden_state
    return {"text_embedding": F.normalize(states.mean(dim=1), dim=-1)}


def actions_answer(library: Library, probe: Probe) -> Answer:
    """Classify a clip."""
    logits = library.model(pixel_values=library.frames(probe)).logits
    return {"action_recognition": logits.softmax(-1).sort(descending=True)[0]}


def video_answer(library: Library, probe: Probe) -> Answer:
    """Embed a clip by the mean of its states."""
    states = library.model(pixel_values=library.frames(probe)).last_hidden_state
    return {"video_embedding": states.mean(dim=1)}


def x_clip_answer(library: Library, probe: Probe) -> Answer:
    """Embed a clip and a text."""
    seen = library.model.get_video_features(pixel_values=library.frames(probe)).pooler_output
    read = library.model.get_text_features(**library.ids(probe)).pooler_output
    return {
        "text_embedding": F.normalize(read, dim=-1),
        "video_embedding": F.normalize(seen, dim=-1),
    }


def tags_answer(library: Library, probe: Probe) -> Answer:
    """Tag a sound whose classes do not exclude each other."""
    logits = library.model(**library.heard(probe, 16_000)).logits
    return {"audio_tagging": logits.sigmoid().sort(descending=True)[0]}


def clap_answer(library: Library, probe: Probe) -> Answer:
    """Embed a sound and a text; of a longer sound the library would take a random second."""
    short = soundfile_of(mono_samples(probe.audio, 48_000)[:48_000], 48_000)
    heard = library.heard(replace(probe, audio=short), 48_000)
    found = library.model(**library.ids(probe), input_features=heard["input_features"])
    return {"text_embedding": found.text_embeds, "audio_embedding": found.audio_embeds}


def soundfile_of(samples: NDArray[np.float32], rate: int) -> bytes:
    """Write samples as they are."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def whisper_answer(library: Library, probe: Probe) -> Answer:
    """Write down what is said, by Whisper's own `generate`."""
    heard = library.heard(probe, 16_000)["input_features"]
    return {"speech_recognition": library.generated(input_features=heard)}


def wav2vec2_answer(library: Library, probe: Probe) -> Answer:
    """Write down what is said, by the likeliest token of each frame."""
    logits = library.model(**library.heard(probe, 16_000)).logits[0].double()
    said = transformers.AutoTokenizer.from_pretrained(library.path).decode(logits.argmax(-1))
    return {"speech_recognition": (said, float(logits.log_softmax(-1).amax(-1).sum().exp()))}


def classified_sound(library: Library, probe: Probe) -> Answer:
    """Classify a sound."""
    logits = library.model(**library.heard(probe, 16_000)).logits
    return {"audio_tagging": logits.softmax(-1).sort(descending=True)[0]}


def caption(library: Library, probe: Probe) -> Answer:
    """Caption a picture by `generate`."""
    return {"image_captioning": library.generated(**library.pixels(probe))}


def blip_vqa_answer(library: Library, probe: Probe) -> Answer:
    """Answer a question by `generate`."""
    said = library.generated(**library.ids(probe), **library.pixels(probe))
    return {"visual_question_answering": said}


def vilt_answer(library: Library, probe: Probe) -> Answer:
    """Answer a question by its likeliest class."""
    logits = library.model(**library.ids(probe), **library.pixels(probe)).logits
    label = library.model.config.id2label[int(logits.argmax())]
    return {"visual_question_answering": (label, float(logits.softmax(-1).max()))}


def t5_answer(library: Library, probe: Probe) -> Answer:
    """Turn a text into another by `generate`."""
    return {"text_generation": library.generated(**library.ids(probe))}


CASES: dict[str, tuple[str, Callable[[Library, Probe], Answer]]] = {
    "audio_spectrogram": ("ASTForAudioClassification", tags_answer),
    "audio_spectrogram_backbone": (
        "ASTModel",
        lambda library, probe: {
            "audio_embedding": library.model(**library.heard(probe, 16_000)).pooler_output
        },
    ),
    "bert": ("BertModel", bert_answer),
    "blip": ("BlipForConditionalGeneration", caption),
    "blip_vqa": ("BlipForQuestionAnswering", blip_vqa_answer),
    "clap": ("ClapModel", clap_answer),
    "clip": ("CLIPModel", clip_answer),
    "dinov2": (
        "Dinov2Model",
        lambda library, probe: {
            "image_embedding": library.model(**library.pixels(probe)).last_hidden_state[:, 0]
        },
    ),
    "git": ("GitForCausalLM", caption),
    "open_clip": ("", open_clip_answer),
    "resnet": ("ResNetForImageClassification", resnet_answer),
    "siglip": ("SiglipModel", siglip_answer),
    "siglip2": ("SiglipModel", siglip_answer),
    "t5": ("T5ForConditionalGeneration", t5_answer),
    "timesformer": ("TimesformerForVideoClassification", actions_answer),
    "timesformer_backbone": (
        "TimesformerModel",
        lambda library, probe: {
            "video_embedding": library.model(pixel_values=library.frames(probe)).last_hidden_state[
                :, 0
            ]
        },
    ),
    "videomae": ("VideoMAEForVideoClassification", actions_answer),
    "videomae_backbone": ("VideoMAEModel", video_answer),
    "vilt": ("ViltForQuestionAnswering", vilt_answer),
    "vit": ("ViTForImageClassification", vit_answer),
    "vit_gpt2": ("VisionEncoderDecoderModel", caption),
    "wav2vec2": ("Wav2Vec2ForCTC", wav2vec2_answer),
    "wav2vec2_classifier": ("Wav2Vec2ForSequenceClassification", classified_sound),
    "whisper": ("WhisperForConditionalGeneration", whisper_answer),
    "x_clip": ("XCLIPModel", x_clip_answer),
}
"""For each small checkpoint: the library's class, and what it says of a probe by task."""


@pytest.mark.parametrize("name", CASES)
def test_stages_answer_as_the_library_does(name: str, tmp_path: Path) -> None:
    """From raw bytes, through the stages of the split, the answer is the unsplit model's."""
    kind, answer = CASES[name]
    path = getattr(families, name)(tmp_path / name)
    library, reference = Library(path, kind), Reference(open_source(path))

    for probe in PROBES:
        with torch.no_grad():
            expected = answer(library, probe)
        found = reference.run(probe).tasks
        assert found.keys() == expected.keys()
        for task, wanted in expected.items():
            assert_alike(found[task], wanted)


def assert_alike(found: Mapping[str, NDArray[Any]], wanted: Any) -> None:  # noqa: ANN401
    """Compare a task's outputs with what the library says: a vector, scores or a text."""
    if isinstance(wanted, torch.Tensor):
        array = found["embedding"] if "embedding" in found else found["scores"]
        np.testing.assert_allclose(array, wanted.numpy(), rtol=1e-5, atol=1e-5)
        return
    text, score = wanted if isinstance(wanted, tuple) else (wanted, None)
    [said] = [array.item().decode() for name, array in found.items() if name != "score"]
    assert said == text
    if score is not None:
        assert found["score"].item() == pytest.approx(score, rel=1e-5)


def test_every_family_is_here() -> None:
    """No family can be added without a small checkpoint that is compared."""
    assert {family.module for family in FAMILIES.values()} <= {
        *CASES,
        "vision_encoder_decoder",
    }
