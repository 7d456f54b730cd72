"""What image models with a UNet of diffusers share: Stable Diffusion XL and InstructPix2Pix.

`options`: the options that both have (`UnetOptions`).
`loading`: UNet, autoencoder and scheduler from a folder or Hub id.
`sampler_steps`: the denoising steps of any of diffusers' schedulers, for `ImageGenerator` and `denoise`.
`denoising`: all steps of a micro-batch, the last K of them with gradient.
`autoencoder`: pictures to scaled latents and back; float32 where the model needs that.
`noise_objective`: the agents' own loss, the predicted noise weighted by min-SNR.
`clip_rows`: rows that start z, from CLIP text encoders.
`sized_parts`: models without weights, for plans.
`tiny_shapes`: what the makers of tiny models that draw shapes share.
"""
