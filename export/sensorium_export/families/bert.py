"""BERT (Devlin et al., 2019) as a text encoder, with the pooling of sentence embeddings.

A directory of sentence-transformers says in `1_Pooling/config.json` how the tokens' states become
one vector (Reimers and Gurevych, 2019), and by a folder of a `Normalize` module that it has length
1. Without it, the vector is the mean of the states of the text's tokens.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel

from sensorium.errors import ConfigurationError
from sensorium_export.families.ensembles import native
from sensorium_export.families.source import FamilySource, loaded
from sensorium_export.families.texts import reading, text_recipe, text_tokenizer
from sensorium_export.recipe import family_recipe

POOLING_FILE = "1_Pooling/config.json"
MODULES_FILE = "modules.json"
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


class TextEncoder(nn.Module):
    """Tokens to an embedding."""

    def __init__(self, bert: Any, pooling: str, *, normalised: bool) -> None:  # noqa: ANN401
        super().__init__()
        self.bert, self.pooling, self.normalised = bert, pooling, normalised

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embedding [batch, embedding_dim] of ids and mask [batch, sequence]."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = _pooled(states, attention_mask, self.pooling)
        return F.normalize(pooled, dim=-1) if self.normalised else pooled


def _pooled(states: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return states[:, 0]
    shown = attention_mask[..., None] > 0
    if pooling == "max":
        return states.where(shown, -1e9).amax(dim=1)
    weight = shown.to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)


def load(path: Path, bundle: str) -> FamilySource:
    """Load a `BertModel`, or the one in a directory of sentence-transformers, with its tokenizer.

    Raises:
        ConfigurationError: Config and weights do not belong together, or the pooling is unknown.
    """
    bert = loaded(BertModel, path, unused="pooler.", add_pooling_layer=False)
    tokenizer = text_tokenizer(path)
    recipe = family_recipe(
        bundle,
        native("text_embedding"),
        sizes={"embedding_dim": bert.config.hidden_size, "vocabulary": bert.config.vocab_size},
        text=text_recipe(tokenizer, bert.config.max_position_embeddings),
    )
    holder = nn.Module()
    holder.text_encoder = TextEncoder(bert, pooling_of(path), normalised=_normalises(path))
    return FamilySource(path, holder.eval(), recipe, read=reading(tokenizer))


def pooling_of(path: Path) -> str:
    """Return "mean", "cls" or "max".

    Raises:
        ConfigurationError: The directory asks for another pooling, or for several.
    """
    file = path / POOLING_FILE
    if not file.is_file():
        return "mean"
    asked = json.loads(file.read_text(encoding="utf-8"))
    modes = [mode for mode, wanted in asked.items() if mode.startswith("pooling_mode") and wanted]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ConfigurationError(
            f"{path.name}/{POOLING_FILE}: {', '.join(modes) or 'no pooling'} cannot be served; "
            f"one of these can: {', '.join(_MODES)}"
        )
    return _MODES[modes[0]]


def _normalises(path: Path) -> bool:
    file = path / MODULES_FILE
    if not file.is_file():
        return False
    modules = json.loads(file.read_text(encoding="utf-8"))
    return any(str(module.get("type", "")).endswith(".Normalize") for module in modules)
