"""The commands of the metrics' environment: `python -m mora_env_vbench COMMAND` (see `mora_environment.entry`)."""

from mora_environment import Kind, main

from mora_env_vbench.amt.options import AmtOptions
from mora_env_vbench.clip.options import AestheticOptions, ClipOptions
from mora_env_vbench.dino.options import DinoOptions
from mora_env_vbench.musiq.options import MusiqOptions
from mora_env_vbench.raft.options import RaftOptions
from mora_env_vbench.viclip.options import ViclipOptions

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
    "amt": Kind(
        options=AmtOptions,
        build="mora_env_vbench.amt.agent:AmtAgent",
        tiny="mora_env_vbench.amt.tiny:tiny_amt",
    ),
    "raft": Kind(
        options=RaftOptions,
        build="mora_env_vbench.raft.agent:RaftAgent",
        tiny="mora_env_vbench.raft.tiny:tiny_raft",
    ),
    "musiq": Kind(
        options=MusiqOptions,
        build="mora_env_vbench.musiq.agent:MusiqAgent",
        tiny="mora_env_vbench.musiq.tiny:tiny_musiq",
    ),
    "viclip": Kind(
        options=ViclipOptions,
        build="mora_env_vbench.viclip.agent:ViclipAgent",
        tiny="mora_env_vbench.viclip.tiny:tiny_viclip",
    ),
}

if __name__ == "__main__":
    main(KINDS)
