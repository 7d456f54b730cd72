"""The commands of this environment: `python -m mora_env_svd COMMAND` (see `mora_environment.entry`)."""

import os

# Set before transformers is imported, because ffmpeg forks after tokenizers ran, which would warn or hang.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from mora_environment import Kind, main

from mora_env_svd.seine.options import SeineOptions
from mora_env_svd.svd.options import SvdOptions
from mora_env_svd.wan.options import WanOptions

KINDS = {
    "seine": Kind(
        options=SeineOptions,
        build="mora_env_svd.seine.agent:SeineAgent.from_options",
        weights="model",
        cost="mora_env_svd.seine.cost:seine_cost",
        tiny="mora_env_svd.seine.tiny:tiny_transition",
        tiny_tasks={"shapes": "mora_env_svd.seine.tiny_shapes:make_shapes"},
    ),
    "wan": Kind(
        options=WanOptions,
        build="mora_env_svd.wan.agent:wan_agent",
        weights="transformer",
        diffusers_component="transformer",
        cost="mora_env_svd.wan.cost:wan_cost",
        tiny="mora_env_svd.wan.tiny:tiny_wan",
    ),
    "svd": Kind(
        options=SvdOptions,
        build="mora_env_svd.svd.agent:SvdAgent.from_options",
        weights="unet",
        cost="mora_env_svd.svd.cost:svd_cost",
        tiny="mora_env_svd.svd.tiny:tiny_image_to_video",
        tiny_tasks={"shapes": "mora_env_svd.svd.tiny_shapes:make_shapes"},
    ),
}

if __name__ == "__main__":
    main(KINDS)
