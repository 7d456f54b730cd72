"""The commands of this environment: `python -m mora_env_svd COMMAND` (see `mora_environment.entry`)."""

import os

# Set before transformers is imported, because ffmpeg forks after tokenizers ran, which would warn or hang.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from mora_environment import Kind, main

from mora_env_svd.seine.options import SeineOptions

KINDS = {
    "seine": Kind(
        options=SeineOptions,
        build="mora_env_svd.seine.agent:SeineAgent.from_options",
        weights="model",
        cost="mora_env_svd.seine.cost:seine_cost",
        tiny="mora_env_svd.seine.tiny:tiny_transition",
    ),
}

if __name__ == "__main__":
    main(KINDS)
