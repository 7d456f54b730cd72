"""The training objective: the noise of a target's latents, predicted from the instruction and a given picture."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mora_env_sd3.image_generator import posterior_seed
from mora_env_sd3.instruct_pix2pix.editor import PictureEditor
from mora_env_sd3.unet.noise_objective import NoiseObjective


class EditObjective:
    """Losses of an editor's UNet; the mean over a batch of the predicted noise's error, weighted by min-SNR."""

    def __init__(self, editor: PictureEditor, gamma: float) -> None:
        self._editor = editor
        self.noise = NoiseObjective(editor.scheduler.alphas_cumprod, gamma)

    def loss(
        self, z: Tensor | None, texts: Sequence[Tensor], pictures: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Scalar float32, differentiable in z, in the given pictures and in the UNet.

        Neither instruction nor picture is dropped at random, so every sample has a gradient in all of these.

        Args:
            z: (rows, d) float32, or None.
            texts: encoder rows (L, d) of B instructions.
            pictures: the given ones, (B, 3, H, W) in [-1, 1]; targets: what they become, of the same shape.
            seeds: of each sample, for its timestep, its noise and the sample of the target's posterior.
        """
        editor = self._editor
        given, text = editor.given(pictures), editor.condition(texts, z)
        clean = editor.encode(targets, [posterior_seed(seed) for seed in seeds]).to(given.dtype)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return editor.noise(noisy, given, timesteps, text)

        return self.noise.loss(predict, clean, seeds)
