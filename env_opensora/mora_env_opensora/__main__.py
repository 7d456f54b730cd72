"""The commands of the video environment: `python -m mora_env_opensora COMMAND` (see `mora_environment.entry`)."""

import os

# Set before transformers is imported, because ffmpeg forks after tokenizers ran, which would warn or hang.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from mora_environment import Kind, main

from mora_env_opensora.options import OpenSoraOptions

KINDS = {
    "opensora": Kind(
        options=OpenSoraOptions,
        build="mora_env_opensora.agent:OpenSoraAgent.from_options",
        weights="model",
        cost="mora_env_opensora.cost.clip_cost:clip_cost",
        tiny="mora_env_opensora.tiny:tiny_image_to_video",
        tiny_tasks={"shapes": "mora_env_opensora.tiny_shapes:make_shapes"},
    ),
}

if __name__ == "__main__":
    main(KINDS)
