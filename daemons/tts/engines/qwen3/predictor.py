"""The code predictor: the 15 further codes of a frame, one after the other."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from daemons.tts.engines.qwen3.cache import Cache
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.transformer import Transformer

Choose = Callable[[Tensor, int], Tensor]
"""(scores [rows, codes], codebook) → codes int64 [rows]."""


class PredictorModel(Transformer):
    def __init__(self, config: TalkerConfig) -> None:
        super().__init__(config.predictor.transformer)
        self.codec_embedding = nn.ModuleList(
            [nn.Embedding(config.predictor.codes, config.transformer.hidden_size) for _ in range(config.codebooks - 1)]
        )


class CodePredictor(nn.Module):
    """After `Qwen3TTSTalkerCodePredictorModelForConditionalGeneration`."""

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        outer_size, inner_size = config.transformer.hidden_size, config.predictor.transformer.hidden_size
        self.model = PredictorModel(config)
        self.lm_head = nn.ModuleList(
            [nn.Linear(inner_size, config.predictor.codes, bias=False) for _ in range(config.codebooks - 1)]
        )
        self.small_to_mtp_projection = nn.Identity() if outer_size == inner_size else nn.Linear(outer_size, inner_size)

    def embed(self, code: Tensor, codebook: int) -> Tensor:
        """Codes of codebook 1 …, int64 [rows] → [rows, the talker's hidden_size]."""
        embedding: Tensor = self.model.codec_embedding[codebook - 1](code)
        return embedding

    def frame(self, hidden: Tensor, first: Tensor, choose: Choose, cache: Cache) -> Tensor:
        """The codes of codebooks 1 …, int64 [rows, codebooks - 1].

        `hidden`, the talker's state, and `first`, the embedding of the first code: [rows, hidden_size]. `cache` is new,
        or static with room for as many positions as there are codebooks: then it may hold what it will of an earlier
        frame, which is not seen.
        """
        codes: list[Tensor] = []
        embeddings, start = torch.stack((hidden, first), 1), 0
        for codebook, head in enumerate(self.lm_head, start=1):
            positions = torch.arange(start, codebook + 1, device=hidden.device).expand(len(hidden), -1)
            state = self.model(self.small_to_mtp_projection(embeddings), positions, cache)[:, -1]
            codes.append(choose(head(state), codebook))
            embeddings, start = self.embed(codes[-1], codebook)[:, None], codebook + 1
        return torch.stack(codes, 1)
