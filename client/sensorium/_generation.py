"""How words are chosen, for one request."""

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How an answer or a caption is generated; what is None stays as the bundle has it.

    Names and meanings are those of transformers' `GenerationConfig`; the server checks the values.

    Usage:
        client.caption("photo.jpg", generation=Generation(num_beams=4, length_penalty=2.0))
        client.caption("photo.jpg", generation=Generation(do_sample=True, top_p=0.9, seed=3))

    Args:
        max_new_tokens: The most tokens; never more than the bundle allows.
        min_new_tokens: No end before so many.
        num_beams: Beam search with so many; 1 takes the likeliest token each time.
        length_penalty: Above 0 beam search prefers long texts, below 0 short ones.
        early_stopping: True ends beam search as soon as there are as many texts as beams, "never"
            when no better one is possible.
        repetition_penalty: Above 1, what was said becomes less likely.
        no_repeat_ngram_size: So many tokens in a row come once only.
        do_sample: Draw tokens by their probability; with the same seed, the same text.
        temperature: Of drawing; below 1 the likely tokens become likelier.
        top_k: Draw among so many likeliest tokens; 0 for all.
        top_p: Draw among the likeliest tokens that have so much probability together.
        seed: Of drawing; 0 to 2⁶³ - 1.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def written(self) -> str:
        """Write what is not None as the request's parameter."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if value is not None}
        )
