"""Overfits a tiny random autoencoder on a few frames of a clip: does it reproduce them?

Run with the opensora environment's interpreter: `python -m benchmarks.vae_roundtrip CLIP.mkv OUT.png`. The picture has
the original frames in its upper row and the decoded ones below.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import av
import torch
from mora_env_opensora.models import CausalVAEModel
from mora_env_opensora.pipelines.pixels import frames_to_pixels, pixels_to_frames
from mora_env_opensora.tiny import VAE_CONFIG
from PIL import Image
from torch import Tensor

_LEARNING_RATE = 2e-3


def read_frames(path: Path, count: int, every: int) -> Tensor:
    """Every n-th frame of the clip from its start, uint8 (count, H, W, 3)."""
    with av.open(str(path)) as container:
        frames = []
        for index, frame in enumerate(container.decode(video=0)):
            if index % every == 0:
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
            if len(frames) == count:
                return torch.stack(frames)
    raise SystemExit(f"{path.name}: expected {count} frames when taking every {every}th, got {len(frames)}")


def overfit(clip: Tensor, seconds: float) -> tuple[CausalVAEModel, list[float]]:
    """Train on one clip (1, 3, F, H, W) for the given processor time; returns the model and each step's mean error."""
    torch.manual_seed(0)
    model = CausalVAEModel.from_config(VAE_CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    errors: list[float] = []
    started_s = time.process_time()
    while time.process_time() - started_s < seconds:
        optimizer.zero_grad()
        error = (model.decode(model.encode(clip).sample()) - clip).abs().mean()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
    return model.eval(), errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of the training")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    frames = read_frames(arguments.clip, arguments.frames, arguments.every)
    pixels = frames_to_pixels(frames, arguments.doorbell, arguments.doorbell)
    clip = pixels.transpose(0, 1)[None]
    model, errors = overfit(clip, arguments.seconds)
    with torch.no_grad():
        decoded = model.decode(model.encode(clip).mode())[0].transpose(0, 1)
    rows = [torch.cat(list(pixels_to_frames(row)), dim=1) for row in (pixels, decoded)]
    Image.fromarray(torch.cat(rows).numpy()).save(arguments.out)
    final = (decoded - pixels).abs().mean().item()
    print(
        f"{len(errors)} steps; mean absolute error {errors[0]:.3f} -> {final:.3f} of a range of 2; see {arguments.out}"
    )


if __name__ == "__main__":
    main()
