"""A model config as text to read and to edit: fields in order of interest, each one explained."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from sensorium.contract import bare_name

BLOCKS = (
    ("name", "backend", "platform", "default_model_filename"),
    ("max_batch_size",),
    ("input",),
    ("output",),
    ("ensemble_scheduling",),
    ("dynamic_batching",),
    ("instance_group",),
    ("parameters",),
)
"""The fields in order of interest; an empty line comes between two blocks."""

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "image_preprocess": "A picture's bytes become the array that the image encoder sees.",
        "text_preprocess": "A text's bytes become token ids.",
        "audio_preprocess": "A sound's or a clip's bytes become what the audio encoder hears.",
        "video_preprocess": "A clip's bytes become the frames that the video encoder sees.",
        "image_encoder": "A picture becomes tokens, and one vector in the shared space.",
        "audio_encoder": "A sound becomes tokens, one vector, and what is heard when.",
        "video_encoder": "Frames become tokens, one vector, and what does what when.",
        "text_encoder": "A text becomes tokens, and one vector in the shared space.",
        "media_join": "The tokens of a sound and of a picture or clip become one sequence.",
        "fusion": "Text tokens look at the tokens of pictures, sounds and clips.",
        "text_decoder": "Memory tokens become an answer or a caption, word by word.",
        "tag_postprocess": "What is heard becomes labels with scores, best first.",
        "action_postprocess": "What moves becomes labels with scores, best first.",
        "event_postprocess": "What is heard and what moves become events with start and end.",
        "label_postprocess": "A classifier's logits become labels with scores, best first.",
        "answer_postprocess": "A classifier's logits become the likeliest answer.",
        "ctc_postprocess": "The likeliest token of each frame becomes a part of a text.",
        "image_decoder": "Text tokens and noise become a picture, step by step.",
        "visual_question_answering": "A picture and a question become an answer.",
        "image_captioning": "A picture becomes a sentence.",
        "audio_question_answering": "A sound and a question become an answer.",
        "audio_tagging": "A sound becomes labels with scores.",
        "audio_visual_question_answering": "A picture, a sound and a question become an answer.",
        "video_question_answering": "A clip, its sound track and a question become an answer.",
        "video_captioning": "A clip becomes a sentence.",
        "action_recognition": "A clip becomes labels with scores.",
        "event_detection": "A clip, a sound or both become events with start and end.",
        "text_embedding": "A text becomes one vector in the space that all modalities share.",
        "image_embedding": "A picture becomes one vector in the space that all modalities share.",
        "audio_embedding": "A sound becomes one vector in the space that all modalities share.",
        "video_embedding": "A clip becomes one vector in the space that all modalities share.",
        "text_to_image": "A text becomes a picture.",
        "image_classification": "A picture becomes classes with scores.",
        "text_generation": "A text becomes another.",
        "speech_recognition": "Speech becomes its text.",
    }
)
"""What each model does, in one sentence."""

_COMMENTS = {
    "max_batch_size": "The first axis of every tensor is the batch; `dims` below leave it out.",
    "dynamic_batching": "Requests that queue up meanwhile run together, of equal length or not.",
    "ensemble_scheduling": "`key` is the stage's own tensor, `value` what this task calls it.",
    "instance_group": "One instance; a heavy encoder serves more with one for every core.",
}
_ON_GPU = "One instance on every GPU."
_EQUALS = "Requests of equal length that queue up meanwhile run together."
_PARAMETER_COMMENTS = {
    "image_size": "Side of the square picture, in pixels.",
    "resample": "The filter of the training run; another one gives other answers.",
    "crop": "squash: the whole picture becomes a square. center_crop: its middle does.",
    "resize_edge": "The shortest edge before the crop, in pixels.",
    "longest_edge": "The longest edge, in pixels, before it is rounded down.",
    "crop_rounding": "Half a pixel of the crop goes down, or to the next even number.",
    "multiple": "Both edges are rounded down to a multiple of this, in pixels.",
    "pad_to": "The network reads its padding: every text has this many tokens.",
    "activation": "softmax: one class is right. sigmoid: each may be.",
    "max_tokens": "The longest text, in tokens.",
    "pad_id": "The token that fills shorter texts of a batch; the mask hides it.",
    "buckets.sequence": "Shorter batches are padded to the next of these lengths.",
    "pad_value.input_ids": "What the padding holds; the mask hides it.",
    "frames": "How many frames of a clip the encoder sees.",
    "sampling": "uniform: frames over the whole clip. fps: so many a second from its start.",
    "fps": "Frames a second, for sampling fps.",
    "sample_rate": "Samples a second; every sound is resampled to it.",
    "n_fft": "Samples in one window of the spectrogram.",
    "hop": "Samples from one window to the next.",
    "mels": "Bands of the spectrogram, on Slaney's mel scale.",
    "min_hz": "Where the lowest band begins.",
    "max_hz": "Where the highest band ends.",
    "features": "What a network of another library hears.",
    "normalize": "true: the samples' mean is taken off, and their deviation becomes 1.",
    "window": "How much of a sound it hears at once.",
    "mean": "Taken off: of red, green and blue, which lie in 0 to 1; of a sound's logarithms.",
    "std": "Then divided by.",
    "noise_reduction": "none, or spectral_gate: steady noise is turned down first.",
    "labels": "What the scores stand for, in the encoder's order.",
    "tokens": "What each id stands for.",
    "blank": "The token that stands for nothing.",
    "word_delimiter": "The token that becomes a space.",
    "lower_case": "true: the text is put in small letters.",
    "clean_up": "true: no space stays before punctuation and English contractions.",
    "audio_labels": "The sounds in the encoder's order.",
    "video_labels": "The actions in the encoder's order.",
    "idle_label": "The action that is no event.",
    "hop_s": "Seconds from one frame of the spectrogram to the next.",
    "sound_threshold": "The least activity of a sound that is heard.",
    "median_frames": "Length of the median filter over the activity, odd.",
    "min_frames": "The shortest run of frames that is an event.",
    "track_threshold": "The least probability that a track is one.",
    "buckets.mel_frames": "Shorter sounds of a batch are padded to the next of these lengths.",
    "buckets.samples": "Shorter sounds of a batch are padded to the next of these lengths.",
    "mask.speech_frames": "The output that says which frames are no padding; others are cut off.",
    "buckets.media": "How many tokens the media of a question have.",
    "bos_id": "The token that generation starts from.",
    "prompt_ids": "The tokens that generation starts from; they are no part of the text.",
    "eos_id": "The token that ends it.",
    "max_new_tokens": "Where it ends at the latest.",
    "min_new_tokens": "No end token comes before so many others.",
    "suppress_ids": "Tokens that never come.",
    "begin_suppress_ids": "Tokens that never come first.",
    "repetition_penalty": "Above 1: tokens that have come become less likely.",
    "no_repeat_ngram_size": "So many tokens in a row come once only.",
    "num_beams": "Beam search with so many; each takes a slot.",
    "length_penalty": "Scores of beams are divided by their length to this power.",
    "early_stopping": "true: with as many texts as beams. never: when no better one is possible.",
    "do_sample": "true: tokens are drawn by their probability.",
    "temperature": "Below 1 the likely tokens become likelier.",
    "top_k": "Drawn is one of so many likeliest tokens.",
    "top_p": "Drawn is one of the likeliest tokens that have so much probability together.",
    "seed": "The same for the same text; a request may bring its own.",
    "slots": "Texts that are generated side by side; the next one takes the first that ends.",
    "scheduler": "Removes the noise as the class of diffusers does: ddim, pndm or euler.",
    "num_train_timesteps": "Times that the denoiser was trained on.",
    "beta_schedule": "How the noise of the training grew from beta_start to beta_end.",
    "beta_start": "Variance of the noise that the first time added.",
    "beta_end": "And the last one.",
    "prediction_type": "What the denoiser predicts: the noise (epsilon) or a velocity.",
    "timestep_spacing": "Which of the times are taken.",
    "steps_offset": "Added to each of them, where they are leading.",
    "set_alpha_to_one": "true: the last step ends without noise. false: with the training's least.",
    "final_sigmas_type": "zero: the last step ends without noise. sigma_min: with the least.",
    "max_steps": "The most steps of one request.",
    "precision": "bf16: computed by OpenVINO. int8: the file is quantised. Else fp32.",
    "FORCE_CPU_ONLY_INPUT_TENSORS": "no: what another stage left on the GPU stays there.",
    "intra_op_thread_count": "Threads of one session; throughput comes from batches.",
    "session.intra_op.allow_spinning": "0: waiting threads sleep, and leave the cores to others.",
}


_WIDTH = 100
_UP_TO_A_COMMA = re.compile(r".{1,60}(?:,|$)|.+")
_MAP_ENTRY = re.compile(r'\{\s+key: "(\S*)"\s+value: "(\S*)"\s+\}')


def pbtxt_from_config(config: ModelConfig) -> str:
    """Write a config as commented text."""
    written = {field.name for field, _ in config.ListFields()}
    forgotten = written.difference(*BLOCKS)
    assert not forgotten, f"no block for {forgotten}"  # noqa: S101 - our own mistake
    head = f"# {ABOUT[bare_name(config.name)]}\n# Written by `sensorium export`."
    blocks = [_block(config, fields) for fields in BLOCKS if written.intersection(fields)]
    return "\n\n".join([head, *blocks]) + "\n"


def _block(config: ModelConfig, fields: tuple[str, ...]) -> str:
    if fields == ("parameters",):
        order = [*_PARAMETER_COMMENTS, *sorted(config.parameters)]
        keys = sorted(config.parameters, key=order.index)
        return "\n\n".join(_parameter(config, key) for key in keys)
    alone = ModelConfig()
    alone.MergeFrom(config)
    for field, _ in config.ListFields():
        if field.name not in fields:
            alone.ClearField(field.name)
    comment = _COMMENTS.get(fields[0])
    if any(group.kind == ModelInstanceGroup.KIND_GPU for group in alone.instance_group):
        comment = _ON_GPU
    if fields == ("dynamic_batching",) and _is_rigid(config):
        comment = _EQUALS
    return (f"# {comment}\n" if comment else "") + _text(alone)


def _is_rigid(config: ModelConfig) -> bool:
    """Whether requests of unequal length would not meet in a batch."""
    return config.backend == "tensorrt" and any(
        -1 in tensor.dims and not tensor.allow_ragged_batch for tensor in config.input
    )


def _parameter(config: ModelConfig, key: str) -> str:
    value = config.parameters[key].string_value
    comment = _PARAMETER_COMMENTS.get(key)
    text = f'parameters {{ key: "{key}" value {{ string_value: "{_escaped(value)}" }} }}'
    if len(text) > _WIDTH:
        lines = "".join(f'\n      "{_escaped(part)}"' for part in _UP_TO_A_COMMA.findall(value))
        text = f'parameters {{\n  key: "{key}"\n  value {{\n    string_value:{lines}\n  }}\n}}'
    return f"# {comment}\n{text}" if comment else text


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _text(message: ModelConfig) -> str:
    text = text_format.MessageToString(message, use_short_repeated_primitives=True).rstrip()
    return _MAP_ENTRY.sub(r'{ key: "\1" value: "\2" }', text)
