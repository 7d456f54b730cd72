"""Compares this package with reference values of VBench: `python -m mora_env_vbench.goldens FOLDER --json FILE`."""
