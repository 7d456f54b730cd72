"""Training losses, their parameter gradients, loss weights and conditioning equal upstream's."""

from __future__ import annotations

import pytest
import reference
import torch
from mora_env_opensora.conditioning import frame_mask, latent_mask, masked_latents, place_frames
from mora_env_opensora.models import CausalVAEModel, OpenSoraInpaint, OpenSoraT2V
from mora_env_opensora.noise_schedule import NoiseSchedule
from mora_env_opensora.objective import DenoisingLoss, LossSettings, TextBatch
from reference import assert_equal_to

MODELS = {"train_t2v": OpenSoraT2V, "train_i2v": OpenSoraInpaint}
CASES = [(file, case) for file in MODELS for case in reference.case_names(file)]


@pytest.mark.parametrize(("file", "name"), CASES)
def test_training_loss_and_parameter_gradients(file: str, name: str) -> None:
    golden = reference.read(file)
    model = MODELS[file].from_config(golden.meta["config"])
    model.load_state_dict(golden.weights(), strict=True)
    case = golden.case(name)
    inputs, args = case.inputs, case.args
    settings = LossSettings(args["prediction_type"] or "epsilon", args["snr_gamma"], args["noise_offset"])
    clean, condition = inputs["model_input"][:, :4], inputs["model_input"][:, 4:]
    loss = DenoisingLoss(settings)(
        model,
        clean,
        inputs["noise"] + settings.noise_offset * inputs["noise_offset_rand"],
        inputs["timesteps"],
        TextBatch(inputs["encoder_hidden_states"], inputs["encoder_attention_mask"]),
        condition=condition if condition.shape[1] else None,
        attention_mask=inputs["attention_mask"],
    )
    assert_equal_to(case.outputs["loss"], loss[None], "loss")
    loss.backward()
    parameters = dict(model.named_parameters())
    for key in args["grad_params"]:
        assert_equal_to(case.outputs[f"grad.{key}"], parameters[key].grad, f"gradient of {key}")


@pytest.mark.parametrize("name", reference.case_names("minsnr"))
def test_schedule_and_loss_weights(name: str) -> None:
    case = reference.read("minsnr").case(name)
    schedule, gamma = NoiseSchedule(), case.args["snr_gamma"]
    timesteps, pair = case.inputs["timesteps"], case.inputs["ts_pair"]
    clean, noise = case.inputs["x0"], case.inputs["noise"]
    got = {
        "alphas_cumprod": schedule.alphas_cumprod[timesteps],
        "snr": schedule.snr(timesteps),
        "weight_epsilon": schedule.min_snr_weight("epsilon", gamma, timesteps),
        "weight_v_prediction": schedule.min_snr_weight("v_prediction", gamma, timesteps),
        "add_noise": schedule.add_noise(clean, noise, pair),
        "velocity": schedule.target("v_prediction", clean, noise, pair),
    }
    assert got.keys() == case.outputs.keys()
    for key, value in got.items():
        assert_equal_to(case.outputs[key], value, key)


@pytest.mark.parametrize("name", reference.case_names("inpaint_mask"))
def test_mask_in_latent_layout_is_exact(name: str) -> None:
    case = reference.read("inpaint_mask").case(name)
    args = case.args
    mask = frame_mask(args["num_frames"], args["indices"])[None]
    assert torch.equal(latent_mask(mask, args["height"] // 8, args["width"] // 8), case.outputs["mask"])


@pytest.mark.parametrize("name", reference.case_names("inpaint_mask"))
def test_masked_latents(name: str) -> None:
    golden = reference.read("inpaint_mask")
    vae = CausalVAEModel.from_config(golden.meta["vae_config"])
    vae.load_state_dict(golden.weights("vae_weights"), strict=True)
    case = golden.case(name)
    images = [case.inputs[f"cond_image.{i}"] for i in range(case.args["n_cond"])]
    clip = place_frames(images, case.args["indices"], case.args["num_frames"])
    with torch.no_grad():
        latents = masked_latents(vae, clip, case.inputs["vae_eps"])
    assert_equal_to(case.outputs["masked_video_latents"], latents, "masked-video latents")
