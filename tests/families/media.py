"""Small networks that hear and watch."""

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.families.base import ACTIONS, IMAGE_SIZE, LAYERS, SOUNDS, random, saved, word_pieces
from tests.families.encoders import clip
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    TimesformerConfig,
    TimesformerForVideoClassification,
    TimesformerModel,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    XCLIPConfig,
    XCLIPModel,
)
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil


def _frame_processor() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the processor of clips: the middle of frames that are a little larger."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return VideoMAEImageProcessorPil(size={"shortest_edge": IMAGE_SIZE + 4}, crop_size=size)


def videomae(path: Path, seed: int = 0) -> Path:
    """Write a VideoMAE with a classifier's head."""
    kind: Any = VideoMAEConfig
    config = kind(
        **LAYERS,
        hidden_size=32,
        image_size=IMAGE_SIZE,
        patch_size=8,
        num_frames=4,
        id2label=ACTIONS,
    )
    model = random(VideoMAEForVideoClassification, config, seed)
    return saved(path, model, _frame_processor())


def videomae_backbone(path: Path, seed: int = 0) -> Path:
    """Write a VideoMAE without a head."""
    kind: Any = VideoMAEConfig
    config = kind(**LAYERS, hidden_size=32, image_size=IMAGE_SIZE, patch_size=8, num_frames=4)
    return saved(path, random(VideoMAEModel, config, seed), _frame_processor())


def timesformer(path: Path, seed: int = 0) -> Path:
    """Write a TimeSformer with a classifier's head."""
    kind: Any = TimesformerConfig
    config = kind(
        **LAYERS,
        hidden_size=32,
        image_size=IMAGE_SIZE,
        patch_size=8,
        num_frames=4,
        id2label=ACTIONS,
    )
    model = random(TimesformerForVideoClassification, config, seed)
    return saved(path, model, _frame_processor())


def timesformer_backbone(path: Path, seed: int = 0) -> Path:
    """Write a TimeSformer without a head."""
    kind: Any = TimesformerConfig
    config = kind(**LAYERS, hidden_size=32, image_size=IMAGE_SIZE, patch_size=8, num_frames=4)
    return saved(path, random(TimesformerModel, config, seed), _frame_processor())


def x_clip(path: Path, seed: int = 0) -> Path:
    """Write an X-CLIP with the tokenizer of `clip`."""
    clip(path, seed)
    (path / "preprocessor_config.json").unlink()
    written = json.loads((path / "config.json").read_text())
    text = written["text_config"]
    vision = {
        **LAYERS,
        "hidden_size": 48,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "num_frames": 4,
        "mit_hidden_size": 16,
        "mit_intermediate_size": 32,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }
    config = XCLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=16,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    return saved(path, random(XCLIPModel, config, seed), _frame_processor())


def audio_spectrogram(path: Path, seed: int = 0) -> Path:
    """Write an AST whose classes do not exclude each other."""
    kind: Any = ASTConfig
    config = kind(
        **LAYERS,
        hidden_size=32,
        max_length=96,
        num_mel_bins=32,
        id2label=SOUNDS,
        problem_type="multi_label_classification",
    )
    model = random(ASTForAudioClassification, config, seed)
    extractor: Any = ASTFeatureExtractor
    return saved(path, model, extractor(num_mel_bins=32, max_length=96))


def audio_spectrogram_backbone(path: Path, seed: int = 0) -> Path:
    """Write an AST without a head."""
    kind: Any = ASTConfig
    config = kind(**LAYERS, hidden_size=32, max_length=96, num_mel_bins=32)
    extractor: Any = ASTFeatureExtractor
    model = random(ASTModel, config, seed)
    return saved(path, model, extractor(num_mel_bins=32, max_length=96))


def clap(path: Path, seed: int = 0) -> Path:
    """Write a CLAP without fusion, which hears a second."""
    words = word_pieces()
    text = {
        **LAYERS,
        "hidden_size": 32,
        "vocab_size": len(words),
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    sound = {
        "num_mel_bins": 16,
        "spec_size": 64,
        "window_size": 4,
        "patch_size": 2,
        "patch_stride": [2, 2],
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 32,
        "freq_ratio": 2,
        "enable_fusion": False,
    }
    config = ClapConfig(text_config=text, audio_config=sound, projection_dim=16)
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc")
    return saved(path, random(ClapModel, config, seed), words, extractor)


def whisper(path: Path, seed: int = 0) -> Path:
    """Write a Whisper that hears three seconds."""
    words = word_pieces()
    config = WhisperConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=150,
        max_target_positions=40,
        decoder_start_token_id=5,
        bos_token_id=3,
        eos_token_id=3,
        pad_token_id=0,
        suppress_tokens=[6, 7],
        begin_suppress_tokens=[8, 3],
    )
    model = random(WhisperForConditionalGeneration, config, seed)
    model.generation_config.max_new_tokens = 12
    model.generation_config.no_timestamps_token_id = 4
    extractor: Any = WhisperFeatureExtractor
    return saved(path, model, words, extractor(chunk_length=3))


def _speech_config(**options: Any) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a wav2vec 2.0 that hears 400 samples in a frame, as the published ones do."""
    kind: Any = Wav2Vec2Config
    return kind(
        **LAYERS,
        hidden_size=32,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        **options,
    )


def wav2vec2(path: Path, seed: int = 0, **options: Any) -> Path:  # noqa: ANN401
    """Write a wav2vec 2.0 with a CTC head; its first layer is normalised over time."""
    path.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary = path / "vocab.json"
    vocabulary.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    tokenizer: Any = Wav2Vec2CTCTokenizer
    model = random(Wav2Vec2ForCTC, _speech_config(vocab_size=len(tokens), **options), seed)
    extractor: Any = Wav2Vec2FeatureExtractor
    return saved(path, model, tokenizer(str(vocabulary)), extractor())


def wav2vec2_classifier(path: Path, seed: int = 0) -> Path:
    """Write one with a classifier's head over all layers, each normalised alone."""
    config = _speech_config(
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        use_weighted_layer_sum=True,
        classifier_proj_size=16,
        id2label=SOUNDS,
    )
    model = random(Wav2Vec2ForSequenceClassification, config, seed)
    extractor: Any = Wav2Vec2FeatureExtractor
    return saved(path, model, extractor(return_attention_mask=True))
