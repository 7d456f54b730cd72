"""The commands of the metrics' environment: `python -m mora_env_vbench COMMAND` (see `mora_environment.entry`)."""

from mora_environment import Kind, main

KINDS: dict[str, Kind] = {}

if __name__ == "__main__":
    main(KINDS)
