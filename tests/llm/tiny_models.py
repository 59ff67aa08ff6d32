"""Models of two layers with random weights, in folders as `save_pretrained` leaves them. Needs torch."""

from pathlib import Path
from typing import Any

TEXT = "the cat sat on a mat and looked at the dog while it rained in the town where nobody lived any more"
WORDS = TEXT.split()
END = "<|end|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
SOUND = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>"
    "{% endfor %}<|assistant|>"
)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}


def reader(folder: Path) -> Path:
    """It reads and writes."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    tokenizer = _tokenizer([])
    torch.manual_seed(3)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(vocab_size=len(tokenizer), **SIZES))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def listener(folder: Path) -> Path:
    """It hears, too."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    tokenizer = _tokenizer(SOUND)
    ears = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    config = transformers.Qwen2AudioConfig(
        audio_config={**ears, "num_mel_bins": 80, "max_source_positions": 1500, "initializer_range": 0.3},
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **SIZES},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(3)
    model = transformers.Qwen2AudioForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    features = transformers.WhisperFeatureExtractor(feature_size=80)
    transformers.Qwen2AudioProcessor(features, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


def _tokenizer(more: list[str]) -> Any:
    import tokenizers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, *ROLES, *more],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 10, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, chat_template=TEMPLATE)
