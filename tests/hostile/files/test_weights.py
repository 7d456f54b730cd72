"""Files of strangers: weights. They are only numbers: no format that can contain a program is read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("runtime", "data", "trainer", "launch", "env_sd3", "env_opensora")
# Hugging Face's classes that hold weights; those of configurations, tokenizers and processors hold none.
WEIGHTS = ("Model", "AutoencoderKL", "Pipeline", "model_class")


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Every call of a function or method of this name in the code of Mora."""
    return [
        (path, node)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)) == name
    ]


def keywords(call: ast.Call) -> dict[str, object]:
    return {each.arg: getattr(each.value, "value", None) for each in call.keywords if each.arg}


def test_pickles_are_read_in_two_places_and_only_as_weights() -> None:
    loads = [(path, call) for path, call in calls("load") if ast.unparse(call.func) in ("torch.load", "np.load")]
    # the published autoencoder's .ckpt, and what `models fetch` converts
    assert sorted(path.name for path, _ in loads) == ["checkpoint_files.py", "conversion.py"]
    assert all(keywords(call)["weights_only"] is True for _, call in loads)


def test_models_of_the_image_environment_are_loaded_only_from_safetensors() -> None:
    found = [
        (path, call)
        for path, call in calls("from_pretrained")
        if "mora_env_sd3" in path.parts and any(word in ast.unparse(call.func) for word in WEIGHTS)
    ]
    assert len(found) >= 4
    for path, call in found:
        if not path.name.startswith("tiny"):  # made here, a moment before
            assert keywords(call).get("use_safetensors") is True, f"{path}: {ast.unparse(call)}"


@pytest.mark.parametrize("name", ["trust_remote_code", "allow_pickle", "custom_pipeline"])
def test_no_loader_allows_code_that_comes_with_weights(name: str) -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == name:
                    assert getattr(node.value, "value", None) is False, path
