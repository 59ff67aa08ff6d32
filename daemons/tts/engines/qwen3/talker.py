"""The talker: text and the codes so far → the first code of the next frame; its code predictor writes the others."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from daemons.tts.engines.qwen3.cache import Cache
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.predictor import Choose, CodePredictor
from daemons.tts.engines.qwen3.transformer import Transformer


class TalkerModel(Transformer):
    def __init__(self, config: TalkerConfig) -> None:
        super().__init__(config.transformer)
        self.codec_embedding = nn.Embedding(config.codes, config.transformer.hidden_size)
        self.text_embedding = nn.Embedding(config.text_tokens, config.text_hidden_size)


class TextProjection(nn.Module):
    def __init__(self, text_hidden_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(text_hidden_size, text_hidden_size)
        self.linear_fc2 = nn.Linear(text_hidden_size, hidden_size)

    def forward(self, embedding: Tensor) -> Tensor:
        projected: Tensor = self.linear_fc2(functional.silu(self.linear_fc1(embedding)))
        return projected


class Talker(nn.Module):
    """After `Qwen3TTSTalkerForConditionalGeneration`. A frame is `frame`, then `step`; the first one after `prefill`.

    Rows are streams, each at a position of its own; those of a batch that nobody uses compute along, unheard. In a
    batch of one shape no row's results depend on the others.
    """

    def __init__(self, config: TalkerConfig) -> None:
        super().__init__()
        self.model = TalkerModel(config)
        self.text_projection = TextProjection(config.text_hidden_size, config.transformer.hidden_size)
        self.codec_head = nn.Linear(config.transformer.hidden_size, config.codes, bias=False)
        self.code_predictor = CodePredictor(config)

    def embed_text(self, tokens: Tensor) -> Tensor:
        """int64 [...] → [..., hidden_size]."""
        projected: Tensor = self.text_projection(self.model.text_embedding(tokens))
        return projected

    def embed_code(self, codes: Tensor) -> Tensor:
        """Of the first codebook, or special ids: int64 [...] → [..., hidden_size]."""
        embedding: Tensor = self.model.codec_embedding(codes)
        return embedding

    def embed_frame(self, codes: Tensor) -> Tensor:
        """int64 [rows, codebooks] → the sum of their embeddings [rows, hidden_size]."""
        first, *others = codes.unbind(1)
        embeddings = [self.embed_code(first)]
        embeddings += [self.code_predictor.embed(code, codebook) for codebook, code in enumerate(others, start=1)]
        return torch.stack(embeddings, 1).sum(1)

    def prefill(self, embeddings: Tensor, lengths: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """Read prompts [rows, longest, hidden_size], of which `lengths`, int64 [rows], are meant; the rest is padding.

        The state and scores after each: [rows, hidden_size], [rows, codes].
        """
        rows, longest, _ = embeddings.shape
        positions = torch.arange(longest, device=embeddings.device).expand(rows, -1)
        states = self.model(embeddings, positions, cache)
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        hidden = states.gather(1, last)[:, 0]
        return hidden, self.codec_head(hidden)

    def frame(self, hidden: Tensor, first: Tensor, choose: Choose, cache: Cache) -> Tensor:
        """A frame's codes, int64 [rows, codebooks], of which the first, int64 [rows], are given.

        `hidden`: the state whose scores they were chosen by. `cache`: the predictor's.
        """
        others = self.code_predictor.frame(hidden, self.embed_code(first), choose, cache)
        return torch.cat((first[:, None], others), 1)

    def step(self, codes: Tensor, text: Tensor, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """Read a frame: its codes, int64 [rows, codebooks], and an embedding of text [rows, hidden_size].

        `positions`, int64 [rows]: the prompt's length and the frames before. The state and scores thereafter.
        """
        return self.read(self.embed_frame(codes) + text, positions, cache)

    def read(self, embeddings: Tensor, positions: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """What stands at `positions`, int64 [rows]: [rows, hidden_size]. The state and scores thereafter."""
        hidden = self.model(embeddings[:, None], positions[:, None], cache)[:, 0]
        return hidden, self.codec_head(hidden)
