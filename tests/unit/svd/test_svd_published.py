"""The published configs, on the meta device: the library's keys and shapes, and the known numbers of parameters."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from mora_env_svd.svd import published
from mora_env_svd.svd.models import check_configs
from mora_env_svd.svd.options import SvdOptions
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection


@pytest.mark.parametrize("name", [published.SVD, published.SVD_XT, published.SVD_XT_1_1])
def test_keys_shapes_and_numbers_are_the_librarys(name: str) -> None:
    with torch.device("meta"):
        unet = UNetSpatioTemporalConditionModel(**published.UNET)
        librarys = UNetSpatioTemporalConditionModel(num_frames=published.NUM_FRAMES[name])  # by its own defaults
        vae = AutoencoderKLTemporalDecoder(**published.VAE)
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**published.IMAGE_ENCODER))
    shapes = {key: tensor.shape for key, tensor in unet.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in librarys.state_dict().items()}
    assert len(shapes) == 1428
    assert shapes["add_embedding.linear_1.weight"] == (1280, 768)
    assert shapes["conv_in.weight"] == (320, 8, 3, 3)
    counts = {
        part: sum(parameter.numel() for parameter in model.parameters())
        for part, model in {"unet": unet, "vae": vae, "image_encoder": vision}.items()
    }
    assert counts == published.NUM_PARAMETERS[name]
    check_configs(unet.config, vae.config, vision.config, EulerDiscreteScheduler(**published.SCHEDULER).config)


def test_the_text_tower_has_the_width_of_the_image_embeddings() -> None:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        max_position_embeddings=77, hidden_act="gelu",
    )  # fmt: skip
    with torch.device("meta"):
        text = CLIPTextModel(config)
    count = sum(parameter.numel() for parameter in text.parameters())
    assert count == published.NUM_PARAMETERS[published.OPENCLIP_H]["text_encoder"]
    assert config.hidden_size == published.IMAGE_ENCODER["projection_dim"] == published.UNET["cross_attention_dim"]


def test_components_are_counted_without_the_weights() -> None:
    options = SvdOptions(
        model=published.SVD_XT, num_frames=25, height=576, width=1024, dtype="bfloat16",
        text_encoder=published.OPENCLIP_H,
    )  # fmt: skip
    found = {component.name: component for component in options.components()}
    assert {name: component.num_parameters for name, component in found.items()} == {
        **published.NUM_PARAMETERS[published.SVD_XT], "text_encoder": 340_387_840
    }  # fmt: skip
    assert [name for name, component in found.items() if component.trainable] == ["unet"]
    assert found["text_encoder"].is_unloaded
    assert (found["unet"].dtype_nbytes, found["vae"].dtype_nbytes) == (2, 4)
    places = {(source.name, source.subfolder) for source in options.weights_sources()}
    assert places == {
        *((published.SVD_XT, name) for name in ("unet", "vae", "image_encoder", "feature_extractor", "scheduler")),
        *((published.OPENCLIP_H, name) for name in ("text_encoder", "tokenizer")),
    }
