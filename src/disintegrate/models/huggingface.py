"""Hugging Face directories: the architecture that config.json names, with weights out of safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from disintegrate.errors import DamagedFile, InvalidValue, Untrusted


class Logits(nn.Module):
    """A classifier of transformers that answers its logits alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        """The logits `[n, classes]`."""
        logits: Tensor = self.classifier(inputs).logits
        return logits


def load_directory(path: Path, *, trust: bool) -> tuple[nn.Module, tuple[int, ...] | None]:
    """Load an image classifier, and the shape of one input.

    Raises:
        DamagedFile: there is no config.json, or the weights do not fit it.
        Untrusted: the directory brings code of its own, or weights as a pickle.
        InvalidValue: transformers is not installed, or knows no image classifier of this kind.
    """
    config = _config(path)
    safe = sorted(path.glob("*.safetensors"))
    if not trust and (config.get("auto_map") or not safe):
        what = "code of its own" if config.get("auto_map") else "no safetensors"
        raise Untrusted(
            f"{path} brings {what}, and loading it could run code.",
            instead="Save it with save_pretrained(), or give --trust-model if you trust whoever made it.",
        )
    try:
        from transformers import AutoModelForImageClassification  # noqa: PLC0415  an extra
    except ImportError:
        raise InvalidValue(
            "Hugging Face directories need transformers.", got="none", instead="Install disintegrate[huggingface]."
        ) from None
    try:
        found, report = AutoModelForImageClassification.from_pretrained(
            str(path),
            local_files_only=True,
            trust_remote_code=trust,
            use_safetensors=True if safe else None,
            output_loading_info=True,
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise DamagedFile(f"{path} is not an image classifier that transformers can load.", got=reason) from None
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise DamagedFile(f"The weights in {path} do not fit its config.json.", got=f"no {missing[0]}")
    return Logits(found).eval(), _shape(config)


def _config(path: Path) -> dict[str, object]:
    try:
        found = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DamagedFile(
            f"{path} is not a Hugging Face directory.",
            got="no config.json that is a JSON object",
            instead="Give a directory with config.json and model.safetensors.",
        )
    return found


def _shape(config: dict[str, object]) -> tuple[int, ...] | None:
    size, channels = config.get("image_size"), config.get("num_channels", 3)
    if isinstance(size, int) and isinstance(channels, int):
        return (channels, size, size)
    return None
