"""The published modules, which ours are compared with."""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

import pytest


def upstream(module: str) -> Any:
    """`qwen_tts.` + `module`. Skips the calling test module where qwen-tts or transformers is not installed."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    if "qwen_tts" not in sys.modules:
        found = find_spec("qwen_tts")
        if found is None or found.submodule_search_locations is None:
            pytest.skip("qwen-tts is not installed", allow_module_level=True)
        (folder,) = found.submodule_search_locations
        # Their own __init__ would import what nothing here needs: sox, librosa, torchaudio.
        for name, place in (("qwen_tts", folder), ("qwen_tts.core", f"{folder}/core")):
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [place]
            sys.modules[name] = module_from_spec(spec)
        # Names that the talker's module imports for cloning voices and for loading the codec.
        _stand_in("librosa")
        _stand_in("librosa.filters", mel=None)
        _stand_in("qwen_tts.inference")
        _stand_in("qwen_tts.inference.qwen3_tts_tokenizer", Qwen3TTSTokenizer=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"qwen_tts.{module}")


def _stand_in(name: str, **names: object) -> None:
    module = sys.modules.setdefault(name, ModuleType(name))
    vars(module).update(names)
