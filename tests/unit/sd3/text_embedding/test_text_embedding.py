"""The text encoder: a vector a text, the mean over its tokens, whatever else is in the call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mora_env_sd3.text_embedding.agent import TextEmbeddingAgent
from mora_env_sd3.text_embedding.options import TextEmbeddingOptions
from mora_env_sd3.text_embedding.tiny import tiny_text_embedding
from mora_runtime.errors import BadArgument, CheckpointError
from transformers import BertModel, BertTokenizer

CPU = torch.device("cpu")
TEXTS = ["a red circle moves left", "a blue square", "a red circle moves left"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tiny_text_embedding(folder)
    return folder


def agent(folder: Path, **options: object) -> TextEmbeddingAgent:
    return TextEmbeddingAgent(TextEmbeddingOptions.model_validate({"model": str(folder), **options}), CPU)


def test_a_text_has_the_mean_of_its_tokens_alone_and_in_company(folder: Path) -> None:
    found = agent(folder).embed(TEXTS)["embeddings"]
    assert found.dtype == torch.float32
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(agent(folder).embed(TEXTS[:1])["embeddings"][0], found[0])
    tokens = BertTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")
    states = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()(**tokens).last_hidden_state[0]
    assert torch.allclose(found[1], states.mean(dim=0), atol=1e-6)
    first = agent(folder, pooling="first").embed(TEXTS[1:2])["embeddings"][0]
    assert torch.allclose(first, states[0], atol=1e-6)


def test_a_long_text_is_cut(folder: Path) -> None:
    short = agent(folder, max_length=8)
    assert torch.equal(
        short.embed(["abcdef"])["embeddings"], short.embed(["abcdef and much that comes after it"])["embeddings"]
    )


def test_empty_texts_and_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="not empty"):
        agent(folder).embed(["a", " "])
    with pytest.raises(CheckpointError, match="cannot be loaded as a text encoder"):
        agent(tmp_path)
