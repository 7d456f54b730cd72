"""Other clients than the newest of OpenAI: an older one, and LiteLLM. Each is installed into a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mora_launch.environments.installer import HOST_PYTHON, install_variables

from .conftest import Serving

pytestmark = pytest.mark.timeout(600)
_INSTALL_DEADLINE_S = 400.0
_OPENAI = """
import json, sys, time
import openai
api = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
def finished(job):
    deadline = time.monotonic() + 60
    while (job := api.videos.retrieve(job.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    assert job.status == "completed", job
    return job
made = finished(api.videos.create(prompt="a red circle", model="mora", seconds="2", extra_body={"seed": 3}))
content = api.videos.download_content(made.id).read()
sheet = api.videos.download_content(made.id, variant="spritesheet").read()
remixed = finished(api.videos.remix(made.id, prompt="in blue"))
listed = [each.id for each in api.videos.list(limit=1)]
deleted = api.videos.delete(made.id).deleted
picture = api.images.generate(prompt="a red circle", model="mora", output_format="webp").data[0].b64_json
try:
    api.videos.create(prompt="a red circle", seconds="1.3")
except openai.BadRequestError as error:
    refused = error.message
print(json.dumps({
    "version": openai.__version__, "content": content[4:8].decode(), "sheet": sheet[:3].hex(),
    "source": remixed.remixed_from_video_id == made.id, "listed": made.id in listed and remixed.id in listed,
    "deleted": deleted, "picture": picture[:4], "refused": refused,
}))
"""
_LITELLM = """
import json, sys, time
import litellm
server = {"api_base": sys.argv[1], "api_key": "none", "custom_llm_provider": "openai"}
def finished(job):
    deadline = time.monotonic() + 60
    while (job := litellm.video_status(video_id=job.id, **server)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    assert job.status == "completed", job
    return job
made = finished(litellm.video_generation(prompt="a red circle", model="openai/mora", seconds="2", **server))
content = litellm.video_content(video_id=made.id, **server)
remixed = finished(litellm.video_remix(video_id=made.id, prompt="in blue", **server))
picture = litellm.image_generation(prompt="a red circle", model="openai/mora", api_base=sys.argv[1], api_key="none")
print(json.dumps({
    "content": content[4:8].decode(), "remixed": remixed.status, "picture": picture.data[0].b64_json[:4],
}))
"""


def installed(folder: Path, *requirements: str) -> Path:
    """A folder with these packages; skips the test if the index does not have them."""
    words = [HOST_PYTHON, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run(
        [*words, "--target", str(folder), *requirements], env=install_variables(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=_INSTALL_DEADLINE_S,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        pytest.skip(f"cannot install {' '.join(requirements)}: {reason[:200]}")
    return folder


def told(folder: Path, program: str, url: str) -> dict[str, object]:
    """What a program prints that imports from this folder first."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, url], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def test_the_first_clients_of_openai_with_videos_work(serving: Serving, tmp_path: Path) -> None:
    # its other requirements are those of the control environment
    folder = installed(tmp_path / "packages", "--no-deps", "openai==2.6.0", "distro", "jiter", "sniffio")
    assert told(folder, _OPENAI, serving.url) == {
        "version": "2.6.0", "content": "ftyp", "sheet": "ffd8ff", "source": True, "listed": True, "deleted": True,
        "picture": "UklG", "refused": told_refusal(),
    }  # fmt: skip


def told_refusal() -> str:
    """The error that the client shows for a length that cannot be made."""
    message = "seconds: expected whole frames at 8 a second; the nearest lengths are 1.25 and 1.375, got 1.3"
    error = {"message": message, "type": "invalid_request_error", "param": "seconds", "code": "bad_request"}
    return f"Error code: 400 - { ({'error': error}) }"


@pytest.mark.long
def test_litellms_client_works(serving: Serving, tmp_path: Path) -> None:
    folder = installed(tmp_path / "packages", "litellm")
    assert told(folder, _LITELLM, serving.url) == {"content": "ftyp", "remixed": "completed", "picture": "iVBO"}
