"""A tokenizer and a processor of our own, so that ``mlx_vlm.load`` and ``mlx_vlm.generate`` take a forged folder.

Special tokens have the released names and ids. Every other id is a made-up word of three syllables, and text that is
no such word is taken byte by byte.
"""

from typing import Any

import msgspec

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
_SPACE = "▁"
_NAMED = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    4: _SPACE,
    105: "<start_of_turn>",
    106: "<end_of_turn>",
    107: "\n",
}
_FIRST_BYTE = 217
_SOFT = {
    "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
    "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>",
}  # fmt: skip
_CHAT = """\
{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}\
{% if item['type'] == 'image' %}<image_soft_token>{% elif item['type'] == 'audio' %}<audio_soft_token>\
{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
_IMAGES = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": 768, "width": 768},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_SOUNDS = {"feature_extractor_type": "Gemma3nAudioFeatureExtractor", "feature_size": 128, "sampling_rate": 16_000}


def files(config: dict[str, Any]) -> dict[str, bytes]:
    """What lies beside the weights, by file name; ``config`` is the checkpoint's config.json."""
    kind = {"processor_class": "Gemma3nProcessor"}
    ends = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "tokenizer.json": msgspec.json.encode(_tokenizer(config)),
        "tokenizer_config.json": pretty(
            {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
            | {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": _SOFT, **kind}
        ),
        "chat_template.jinja": _CHAT.encode(),
        "preprocessor_config.json": pretty(_IMAGES | _SOUNDS | kind),
        "processor_config.json": pretty(
            kind
            | {"image_seq_length": config["vision_soft_tokens_per_image"]}
            | {"audio_seq_length": config["audio_soft_tokens_per_image"]}
        ),
        "generation_config.json": pretty(ends),
    }


def pretty(value: object) -> bytes:
    """JSON to be read by people."""
    return msgspec.json.format(msgspec.json.encode(value))


def _tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    special = {config[f"{name}_id"]: text for name, text in _SOFT.items()}
    special |= {token: text for token, text in _NAMED.items() if text.startswith("<")}
    pieces = [_word(token) for token in range(config["vocab_size"])]
    pieces[_FIRST_BYTE : _FIRST_BYTE + 256] = [f"<0x{byte:02X}>" for byte in range(256)]
    for token, text in (_NAMED | special).items():
        pieces[token] = text
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": special[token], **flags} for token in sorted(special)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": _SPACE}, "behavior": "MergedWithNext", "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": True,
            "vocab": {piece: token for token, piece in enumerate(pieces)}, "merges": [],
        },
    }  # fmt: skip


def _word(token: int) -> str:
    count = len(_SYLLABLES)
    places = token // count**2, token // count % count, token % count
    return _SPACE + "".join(_SYLLABLES[place] for place in places)
