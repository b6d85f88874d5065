"""Small checkpoints of each family, saved by the library itself, as a user's directory."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5ForConditionalGeneration,
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    ViltConfig,
    ViltForQuestionAnswering,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    XCLIPConfig,
    XCLIPModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

_START, _END = "<|startoftext|>", "<|endoftext|>"
_IMAGE_SIZE = 32
_LAYERS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
_SOUNDS = {0: "bell", 1: "bark, dog"}
_ACTIONS = {0: "jumping, high", 1: "walking"}
_ANIMALS = {0: "tabby, tabby cat", 1: "dog", 2: "red fox"}


def saved(path: Path, *parts: Any) -> Path:  # noqa: ANN401 - transformers is untyped
    """Save a model and what goes with it; return the directory."""
    for part in parts:
        part.save_pretrained(path)
    return path


def random(
    kind: Any,  # noqa: ANN401 - transformers is untyped
    config: Any,  # noqa: ANN401
    seed: int = 0,
    spread: float = 0.1,
) -> Any:  # noqa: ANN401
    """Return a model of random weights that tell inputs apart: as initialised, all look alike."""
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * spread)
    return model


def word_pieces() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a tokenizer as BERT's: lower case, word pieces, [CLS] and [SEP] around."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    letters = [chr(one) for one in range(33, 127)]
    words += [*letters, *(f"##{one}" for one in letters), "red", "star", "what", "is"]
    tokenizer = Tokenizer(
        models.WordPiece({one: number for number, one in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )


def bert(path: Path, seed: int = 0) -> Path:
    """Write a BERT with the pooling of a directory of sentence-transformers."""
    words = word_pieces()
    config = BertConfig(
        **_LAYERS, hidden_size=32, vocab_size=len(words), max_position_embeddings=40
    )
    saved(path, random(BertModel, config, seed), words)
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = ["models.Transformer", "models.Pooling", "models.Normalize"]
    (path / "modules.json").write_text(
        json.dumps(
            [{"idx": n, "type": f"sentence_transformers.{m}"} for n, m in enumerate(modules)]
        )
    )
    return path


def siglip(path: Path, seed: int = 0) -> Path:
    """Write a SigLIP."""
    words = word_pieces()
    config = SiglipConfig(
        text_config={
            **_LAYERS,
            "hidden_size": 32,
            "projection_size": 32,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
        },
        vision_config={**_LAYERS, "hidden_size": 32, "image_size": _IMAGE_SIZE, "patch_size": 8},
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    return saved(path, random(SiglipModel, config, seed), words, SiglipImageProcessorPil(size=size))


def vit(path: Path, seed: int = 0) -> Path:
    """Write a ViT with a classifier's head."""
    config = ViTConfig(
        **_LAYERS, hidden_size=32, image_size=_IMAGE_SIZE, patch_size=8, id2label=_ANIMALS
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    model = random(ViTForImageClassification, config, seed)
    return saved(path, model, ViTImageProcessorPil(size=size))


class OpenClipTower(nn.Module):
    """A tower as OpenCLIP writes it, with its names."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList()
        for _ in range(layers):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            block.attn = nn.MultiheadAttention(width, heads, batch_first=True)
            block.mlp = nn.Sequential()
            block.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
            block.mlp.add_module("gelu", nn.GELU())
            block.mlp.add_module("c_proj", nn.Linear(4 * width, width))
            self.resblocks.append(block)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run all blocks; the norms come first."""
        blocks: Any = self.resblocks
        for block in blocks:
            normed = block.ln_1(states)
            states = states + block.attn(normed, normed, normed, attn_mask=mask)[0]
            states = states + block.mlp(block.ln_2(states))
        return states


class OpenClip(nn.Module):
    """A CLIP as OpenCLIP writes it: the same mathematics, other names."""

    def __init__(self, words: int, width: int = 64, size: int = _IMAGE_SIZE) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
        self.visual.class_embedding = nn.Parameter(torch.zeros(width))
        self.visual.positional_embedding = nn.Parameter(torch.zeros((size // 8) ** 2 + 1, width))
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.visual.transformer = OpenClipTower(width, 1, 2)
        self.visual.proj = nn.Parameter(torch.zeros(width, 16))
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(24, width))
        self.transformer = OpenClipTower(width, 2, 2)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, 16))
        self.logit_scale = nn.Parameter(torch.ones([]))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embed pictures."""
        tower: Any = self.visual
        states = tower.conv1(pixels).flatten(2).transpose(1, 2)
        first = tower.class_embedding.expand(len(states), 1, -1)
        states = torch.cat([first, states], dim=1) + tower.positional_embedding
        states = tower.transformer(tower.ln_pre(states))
        return nn.functional.normalize(tower.ln_post(states[:, 0]) @ tower.proj, dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Embed texts by the state of their end, the greatest id."""
        length = ids.shape[1]
        states = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        states = self.ln_final(self.transformer(states, mask))
        ends = states[torch.arange(len(ids)), ids.argmax(dim=1)]
        return nn.functional.normalize(ends @ self.text_projection, dim=-1)


def open_clip(path: Path, seed: int = 0) -> Path:
    """Write a CLIP as OpenCLIP saves it, with the tokenizer of `clip`."""
    clip(path, seed)
    words = len(json.loads((path / "tokenizer.json").read_text())["model"]["vocab"])
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (path / name).unlink()
    tower = {"layers": 2, "width": 64}
    text = {**tower, "heads": 2, "vocab_size": words, "context_length": 24}
    vision = {**tower, "image_size": _IMAGE_SIZE, "patch_size": 8}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    model = random(OpenClip, words, seed)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


def dinov2(path: Path, seed: int = 0) -> Path:
    """Write a DINOv2, which is cropped to less than what it was trained on."""
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
    )
    processor = BitImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}
    )
    return saved(path, random(Dinov2Model, config, seed), processor)


def resnet(path: Path, seed: int = 0) -> Path:
    """Write a ResNet with a classifier's head."""
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="bottleneck",
        id2label=_ANIMALS,
    )
    processor = ConvNextImageProcessorPil(size={"shortest_edge": 36}, crop_pct=0.875)
    return saved(path, random(ResNetForImageClassification, config, seed), processor)


def clip_tokenizer(**options: int) -> CLIPTokenizer:
    """Return a tokenizer as CLIP's: byte pairs, that know one word."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", _START, _END]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("r", "e"), ("re", "d</w>")]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **options)  # type: ignore[arg-type]


def clip(path: Path, seed: int = 0) -> Path:
    """Write a CLIP of random weights into `path`; return it."""
    tokenizer = clip_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**_LAYERS, **ids, "hidden_size": 32, "max_position_embeddings": 24},
        vision_config={**_LAYERS, "hidden_size": 48, "image_size": _IMAGE_SIZE, "patch_size": 8},
        projection_dim=16,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": _IMAGE_SIZE},
        crop_size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
    )
    return saved(path, random(CLIPModel, config, seed), tokenizer, processor)


def blip(path: Path, seed: int = 0) -> Path:
    """Write a BLIP that captions."""
    return _blip(BlipForConditionalGeneration, path, seed)


def clip_vit_b32(path: Path, seed: int = 0) -> Path:
    """Write a CLIP ViT-B/32 of random weights: 151 million parameters."""
    clip(path, seed)
    config = CLIPConfig.from_pretrained(path)
    ids = {
        name: getattr(config.text_config, name)
        for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    }
    torch.manual_seed(seed)
    size = {"height": 224, "width": 224}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size=size)
    return saved(path, CLIPModel(CLIPConfig(text_config=ids)), processor)


def blip_vqa_base(path: Path, seed: int = 0) -> Path:
    """Write a BLIP-VQA-base of random weights: 361 million parameters."""
    words = word_pieces()
    ids = {"vocab_size": 30_524, "bos_token_id": 5, "pad_token_id": 0, "sep_token_id": 3}
    config = BlipConfig(text_config=ids, vision_config={"image_size": 384})
    size = {"height": 384, "width": 384}
    model = random(BlipForQuestionAnswering, config, seed, spread=0.01)
    return saved(path, model, words, BlipImageProcessorPil(size=size))


def blip_vqa(path: Path, seed: int = 0) -> Path:
    """Write a BLIP that answers."""
    return _blip(BlipForQuestionAnswering, path, seed)


def _blip(kind: Any, path: Path, seed: int) -> Path:  # noqa: ANN401 - transformers is untyped
    words = word_pieces()
    # An answer is put into words from the question's tokens, so all widths are alike there.
    width = 32 if kind is BlipForQuestionAnswering else 48
    config = BlipConfig(
        text_config={
            **_LAYERS,
            "hidden_size": 32,
            "encoder_hidden_size": width,
            "vocab_size": len(words),
            "max_position_embeddings": 40,
            "bos_token_id": 5,
            "pad_token_id": 0,
            "sep_token_id": 3,
            "eos_token_id": 3,
        },
        vision_config={**_LAYERS, "hidden_size": width, "image_size": _IMAGE_SIZE, "patch_size": 8},
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    return saved(path, random(kind, config, seed), words, BlipImageProcessorPil(size=size))


def git(path: Path, seed: int = 0) -> Path:
    """Write a GIT."""
    words = word_pieces()
    config = GitConfig(
        **_LAYERS,
        hidden_size=32,
        vocab_size=len(words),
        max_position_embeddings=40,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        vision_config={**_LAYERS, "hidden_size": 48, "image_size": _IMAGE_SIZE, "patch_size": 8},
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": _IMAGE_SIZE},
        crop_size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE},
    )
    return saved(path, random(GitForCausalLM, config, seed), words, processor)


def vit_gpt2(path: Path, seed: int = 0) -> Path:
    """Write a ViT with a GPT-2 of another width."""
    words = word_pieces()
    vision = ViTConfig(**_LAYERS, hidden_size=48, image_size=_IMAGE_SIZE, patch_size=8)
    text = GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=40,
        vocab_size=len(words),
        bos_token_id=2,
        eos_token_id=3,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        vision, text, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3
    )
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    model = random(VisionEncoderDecoderModel, config, seed)
    model.generation_config.num_beams, model.generation_config.max_new_tokens = 3, 12
    return saved(path, model, words, ViTImageProcessorPil(size=size))


def _frame_processor() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the processor of clips: the middle of frames that are a little larger."""
    size = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    return VideoMAEImageProcessorPil(size={"shortest_edge": _IMAGE_SIZE + 4}, crop_size=size)


def videomae(path: Path, seed: int = 0) -> Path:
    """Write a VideoMAE with a classifier's head."""
    kind: Any = VideoMAEConfig
    config = kind(
        **_LAYERS,
        hidden_size=32,
        image_size=_IMAGE_SIZE,
        patch_size=8,
        num_frames=4,
        id2label=_ACTIONS,
    )
    model = random(VideoMAEForVideoClassification, config, seed)
    return saved(path, model, _frame_processor())


def videomae_backbone(path: Path, seed: int = 0) -> Path:
    """Write a VideoMAE without a head."""
    kind: Any = VideoMAEConfig
    config = kind(**_LAYERS, hidden_size=32, image_size=_IMAGE_SIZE, patch_size=8, num_frames=4)
    return saved(path, random(VideoMAEModel, config, seed), _frame_processor())


def timesformer(path: Path, seed: int = 0) -> Path:
    """Write a TimeSformer with a classifier's head."""
    kind: Any = TimesformerConfig
    config = kind(
        **_LAYERS,
        hidden_size=32,
        image_size=_IMAGE_SIZE,
        patch_size=8,
        num_frames=4,
        id2label=_ACTIONS,
    )
    model = random(TimesformerForVideoClassification, config, seed)
    return saved(path, model, _frame_processor())


def x_clip(path: Path, seed: int = 0) -> Path:
    """Write an X-CLIP with the tokenizer of `clip`."""
    clip(path, seed)
    (path / "preprocessor_config.json").unlink()
    written = json.loads((path / "config.json").read_text())
    text = written["text_config"]
    vision = {
        **_LAYERS,
        "hidden_size": 48,
        "image_size": _IMAGE_SIZE,
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
        **_LAYERS,
        hidden_size=32,
        max_length=96,
        num_mel_bins=32,
        id2label=_SOUNDS,
        problem_type="multi_label_classification",
    )
    model = random(ASTForAudioClassification, config, seed)
    extractor: Any = ASTFeatureExtractor
    return saved(path, model, extractor(num_mel_bins=32, max_length=96))


def clap(path: Path, seed: int = 0) -> Path:
    """Write a CLAP without fusion, which hears a second."""
    words = word_pieces()
    text = {
        **_LAYERS,
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


def vilt(path: Path, seed: int = 0) -> Path:
    """Write a ViLT."""
    words = word_pieces()
    config = ViltConfig(
        **_LAYERS,
        hidden_size=32,
        vocab_size=len(words),
        max_position_embeddings=40,
        image_size=_IMAGE_SIZE,
        patch_size=8,
        id2label=_ANIMALS,
    )
    kind: Any = ViltImageProcessorPil
    processor = kind(size={"shortest_edge": _IMAGE_SIZE}, size_divisor=8)
    return saved(path, random(ViltForQuestionAnswering, config, seed), words, processor)


def t5(path: Path, seed: int = 0) -> Path:
    """Write a T5."""
    words = word_pieces()
    kind: Any = T5Config
    config = kind(
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        vocab_size=len(words),
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=3,
    )
    return saved(path, random(T5ForConditionalGeneration, config, seed), words)
