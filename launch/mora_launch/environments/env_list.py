"""The environments as `mora env list` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import distributions

from mora_launch.environments.catalog import Environments, checkout_environments
from mora_launch.environments.venvs import CONTROL, Venv

# The packages in which the environments of the checkout differ.
SHOWN_PACKAGES = ("torch", "diffusers", "transformers", "huggingface_hub", "numpy", "deepspeed")
REASON = (
    "diffusers 0.42 (Stable Diffusion 3) requires huggingface_hub >= 1.32, transformers 4.40.1 (Open-Sora-Plan v1.2) "
    "requires huggingface_hub < 1.0: one environment cannot contain both. "
    "Proof: pip install --dry-run diffusers==0.42.1 transformers==4.40.1"
)


def installed_versions(venv: Venv) -> dict[str, str]:
    """Return the versions of the shown packages, from metadata, without importing them."""
    site_packages = str(venv.folder / "lib" / f"python{venv.python_version}" / "site-packages")
    found = {d.metadata["Name"].lower().replace("-", "_"): d.version for d in distributions(path=[site_packages])}
    return {name: found[name] for name in SHOWN_PACKAGES if name in found}


def describe() -> dict[str, dict[str, object]]:
    """Return interpreter, package, state, lock hash and versions of the launcher's and the checkout's environments."""
    venvs = {CONTROL.name: ("mora_launch", CONTROL), **_venvs(checkout_environments())}
    return {
        name: {
            "package": package,
            "python": str(venv.python),
            "python_version": venv.python_version,
            "built": venv.is_built(),
            "lock_hash": venv.lock_hash,
            "packages": installed_versions(venv),
        }
        for name, (package, venv) in venvs.items()
    }


def _venvs(environments: Environments) -> Mapping[str, tuple[str, Venv]]:
    return {name: (each.package, each.venv) for name, each in environments.items() if each.venv is not None}
