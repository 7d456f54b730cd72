"""The commands of the image environment: `python -m mora_env_sd3 COMMAND` (see `mora_environment.entry`)."""

from mora_environment import Kind, main

from mora_env_sd3.instruct_pix2pix.options import InstructPix2PixOptions
from mora_env_sd3.options import MultimodalOptions, Sd3ImageToImageOptions, Sd3Options
from mora_env_sd3.sdxl.options import SdxlOptions
from mora_env_sd3.text_embedding.options import TextEmbeddingOptions

SHAPES = {"shapes": "mora_env_sd3.tiny_shapes:make_shapes"}

KINDS = {
    "sd3": Kind(
        options=Sd3Options,
        build="mora_env_sd3.agent:Sd3Agent",
        weights="transformer",
        diffusers_component="transformer",
        cost="mora_env_sd3.cost.picture_cost:picture_cost",
        tiny="mora_env_sd3.tiny:tiny_text_to_image",
        tiny_tasks=SHAPES,
    ),
    "sd3_image_to_image": Kind(
        options=Sd3ImageToImageOptions,
        build="mora_env_sd3.image_to_image_agent:Sd3ImageToImageAgent",
        weights="transformer",
        diffusers_component="transformer",
        cost="mora_env_sd3.cost.picture_cost:picture_cost",
        tiny="mora_env_sd3.tiny:tiny_image_to_image",
        tiny_tasks=SHAPES,
    ),
    "sdxl": Kind(
        options=SdxlOptions,
        build="mora_env_sd3.sdxl.agent:SdxlAgent",
        weights="unet",
        diffusers_component="unet",
        cost="mora_env_sd3.sdxl.cost:sdxl_cost",
        tiny="mora_env_sd3.sdxl.tiny:tiny_sdxl",
        tiny_tasks={"shapes": "mora_env_sd3.sdxl.tiny_shapes:make_shapes"},
    ),
    "instruct_pix2pix": Kind(
        options=InstructPix2PixOptions,
        build="mora_env_sd3.instruct_pix2pix.agent:InstructPix2PixAgent",
        weights="unet",
        diffusers_component="unet",
        cost="mora_env_sd3.instruct_pix2pix.cost:edit_cost",
        tiny="mora_env_sd3.instruct_pix2pix.tiny:tiny_edit",
        tiny_tasks={"shapes": "mora_env_sd3.instruct_pix2pix.tiny_shapes:make_shapes"},
    ),
    "multimodal": Kind(
        options=MultimodalOptions,
        build="mora_env_sd3.judge_agent:JudgeAgent",
        tiny="mora_env_sd3.tiny_multimodal:tiny_judge",
    ),
    "text_embedding": Kind(
        options=TextEmbeddingOptions,
        build="mora_env_sd3.text_embedding.agent:TextEmbeddingAgent",
        tiny="mora_env_sd3.text_embedding.tiny:tiny_text_embedding",
    ),
}

if __name__ == "__main__":
    main(KINDS)
