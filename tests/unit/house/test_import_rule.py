"""Which package may import which: runtime imports no sibling, others import runtime, none imports an environment."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def environments(pattern: str) -> dict[str, Path]:
    """Folder of each environment whose manifest is found, by package."""
    return {tomllib.loads(path.read_text(encoding="utf-8"))["package"]: path.parent for path in ROOT.glob(pattern)}


ENVIRONMENTS = environments("env_*/mora-env.toml")
EXAMPLES = environments("examples/*/mora-env.toml")
PACKAGES = {
    "mora_runtime": ROOT / "runtime",
    "mora_training": ROOT / "runtime",
    "mora_environment": ROOT / "runtime",
    "mora_data": ROOT / "data",
    "mora_trainer": ROOT / "trainer",
    "mora_launch": ROOT / "launch",
    **ENVIRONMENTS,
    **EXAMPLES,
}
ALLOWED = {
    "mora_runtime": set(),
    "mora_training": {"mora_runtime"},
    "mora_environment": {"mora_runtime", "mora_training"},
    "mora_data": {"mora_runtime"},
    "mora_trainer": {"mora_runtime", "mora_training", "mora_environment", "mora_data"},
    "mora_launch": {"mora_runtime", "mora_trainer", "mora_training", "mora_environment", "mora_data"},
    **{package: {"mora_runtime", "mora_training", "mora_environment"} for package in ENVIRONMENTS},
    **{package: {"mora_runtime", "mora_environment"} for package in EXAMPLES},
}
# The rooms of the runtime in order: each may import those before it. Modules of vocabulary are at the top level.
ROOMS = ("vocabulary", "files", "process", "trace", "wire", "autograd", "device", "tensors", "rpc")
VOCABULARY = {"__init__", "__main__", "errors", "limits", "schema", "terminal"}
MAX_NUM_MODULES = 16  # of one folder, without its __init__
# What the launcher may import from the trainer and from the package for environments: none of it needs torch.
LAUNCH_MAY_SEE = {
    "mora_environment.adapters.names",
    "mora_environment.component",
    "mora_environment.cost",
    "mora_environment.interface",
    "mora_environment.keys.documented_keys",
    "mora_environment.vbench_totals",
    "mora_environment.weights.fetch_answer",
    "mora_environment.weights.missing_weights",
    "mora_trainer.settings",
    "mora_trainer.candidate_settings",
    "mora_trainer.checkpoint.commit_record",
    "mora_trainer.checkpoint.pin",
    "mora_trainer.terminal",
}
MODELS_MAY_SEE = {"torch", "safetensors"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def files_of(package: str) -> list[Path]:
    return sorted((PACKAGES[package] / package).rglob("*.py"))


def test_every_folder_of_an_environment_has_a_manifest() -> None:
    folders = {path for path in ROOT.glob("env_*") if any(path.rglob("*.py"))}
    assert set(ENVIRONMENTS.values()) == folders


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_the_siblings_it_may(package: str) -> None:
    assert files_of(package), "the package has moved; update this test"
    for path in files_of(package):
        siblings = {name.partition(".")[0] for name in imports_of(path)} & set(PACKAGES)
        assert siblings - {package} <= ALLOWED[package], f"{path} imports {siblings}"


def room_of(module: str) -> str:
    """Room of a module such as `mora_runtime.wire.codec`."""
    name = module.partition(".")[2].partition(".")[0]
    return name if name in ROOMS else "vocabulary"


def test_rooms_of_the_runtime_import_only_rooms_below_them() -> None:
    for path in files_of("mora_runtime"):
        inside = path.relative_to(PACKAGES["mora_runtime"] / "mora_runtime").parts
        if inside == ("__init__.py",):
            continue  # imports public names on first use
        own = ROOMS.index(inside[0]) if len(inside) > 1 else 0
        for name in imports_of(path):
            if name.startswith("mora_runtime."):
                assert ROOMS.index(room_of(name)) <= own, f"{path} imports {name}, which is above it"


def test_every_folder_says_what_it_owns_and_has_few_modules() -> None:
    for package, root in PACKAGES.items():
        for folder in {path.parent for path in files_of(package)}:
            said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
            assert said, f"{folder.relative_to(root)}/__init__.py: has no docstring"
            modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
            assert len(modules) <= MAX_NUM_MODULES, f"{folder.relative_to(root)}: {len(modules)} modules"


@pytest.mark.parametrize("package", ["mora_runtime", "mora_launch"])
def test_modules_outside_the_rooms_are_vocabulary_or_entry(package: str) -> None:
    assert {path.stem for path in (PACKAGES[package] / package).glob("*.py")} <= VOCABULARY


def test_the_launcher_sees_only_settings_and_records_of_trainer_and_environments() -> None:
    for path in files_of("mora_launch"):
        seen = {name for name in imports_of(path) if name.startswith(("mora_trainer", "mora_environment"))}
        assert seen <= LAUNCH_MAY_SEE, f"{path} imports {seen}"


@pytest.mark.parametrize("package", ["mora_launch", "mora_data"])
def test_importing_every_module_of_the_package_loads_no_torch(package: str) -> None:
    root = PACKAGES[package]
    modules = [".".join(path.relative_to(root).with_suffix("").parts) for path in files_of(package)]
    imports = "\n".join(f"import {name.removesuffix('.__init__')}" for name in modules if "__main__" not in name)
    told = "import sys; print(sorted({'torch', 'deepspeed', 'diffusers', 'transformers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{told}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["mora_env_opensora/models", "mora_env_svd/seine/models"])
def test_the_video_models_need_only_torch_and_safetensors(folder: str) -> None:
    package, standard = folder.partition("/")[0], sys.stdlib_module_names
    paths = sorted((PACKAGES[package] / folder).rglob("*.py"))
    assert paths
    for path in paths:
        foreign = {name.partition(".")[0] for name in imports_of(path)} - set(standard) - {package}
        assert foreign <= MODELS_MAY_SEE, f"{path} imports {foreign}"


def test_model_code_sees_no_socket_and_transport_code_no_model() -> None:
    for package in ENVIRONMENTS:
        for path in files_of(package):
            assert not {"zmq", "socket", "msgpack"} & imports_of(path), path
    for path in files_of("mora_runtime"):
        assert not {"diffusers", "transformers"} & {name.partition(".")[0] for name in imports_of(path)}, path


def test_pickle_is_imported_nowhere() -> None:
    for package in PACKAGES:
        for path in files_of(package):
            assert not {"pickle", "dill", "cloudpickle"} & {name.partition(".")[0] for name in imports_of(path)}, path
