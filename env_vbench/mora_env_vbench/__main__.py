"""The commands of the metrics' environment: `python -m mora_env_vbench COMMAND` (see `mora_environment.entry`)."""

from mora_environment import Kind, main

from mora_env_vbench.clip.options import AestheticOptions, ClipOptions
from mora_env_vbench.dino.options import DinoOptions

KINDS = {
    "dino": Kind(
        options=DinoOptions,
        build="mora_env_vbench.dino.agent:DinoAgent",
        tiny="mora_env_vbench.dino.tiny:tiny_dino",
    ),
    "clip": Kind(
        options=ClipOptions,
        build="mora_env_vbench.clip.agent:ClipAgent",
        tiny="mora_env_vbench.clip.tiny:tiny_clip",
    ),
    "aesthetic": Kind(
        options=AestheticOptions,
        build="mora_env_vbench.clip.aesthetic_agent:AestheticAgent",
        tiny="mora_env_vbench.clip.tiny:tiny_aesthetic",
    ),
}

if __name__ == "__main__":
    main(KINDS)
