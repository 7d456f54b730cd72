"""Cases of networks with made weights: RAFT and AMT-S whole, the transformers at reduced sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor, nn

from mora_env_vbench.amt.network import Amt
from mora_env_vbench.clip.network import Clip
from mora_env_vbench.clip.sizes import TextSizes, VisionSizes
from mora_env_vbench.clip.text import ClipText
from mora_env_vbench.clip.tokenizer import NUM_TOKENS, tokenizer
from mora_env_vbench.dino.network import Dino
from mora_env_vbench.dino.sizes import DinoSizes
from mora_env_vbench.formulas.dynamic import flow_values
from mora_env_vbench.goldens.case_file import Case, CaseFile
from mora_env_vbench.goldens.comparison import Differences
from mora_env_vbench.goldens.preparation_cases import clips_of
from mora_env_vbench.musiq.network import Musiq
from mora_env_vbench.musiq.sizes import MusiqSizes
from mora_env_vbench.preparation.network_input import channels_first
from mora_env_vbench.preparation.padding import padded
from mora_env_vbench.raft.network import Raft
from mora_env_vbench.viclip.vision import ViclipVision
from mora_env_vbench.weights.recipe import Recipe, made_clip

TOLERANCE = 1e-4
_ITERATED_TOLERANCE = 1e-3  # of flows after all iterations of RAFT, each of which enlarges differences
_NUM_ITERATIONS = 20
_AMT_MULTIPLE = 16  # of which the sides of its frames are multiples
_CHANNEL_STEP = 16  # of RAFT's features that the reference has
_Network = TypeVar("_Network", bound=nn.Module)


def check_network(file: CaseFile, case: Case, found: Differences) -> None:
    """Compare one case."""
    check = next((check for output, check in _CHECKS.items() if output in case.outputs), _musiq)
    with torch.inference_mode():
        check(file, case, found)


def recipe_of(args: dict[str, Any], seed: str = "weights_seed") -> Recipe:
    """The recipe that the arguments of a case or the entry of a file tell."""
    told: dict[str, Any] = {name: args[name] for name in ("half", "logit_scale", "gain", "special") if name in args}
    if "one_d_weight" in args:
        start, spread = args["one_d_weight"]
        told["one_d_weight"] = (start, spread)
    return Recipe(args[seed], **told)


def _made(network: _Network, recipe: Recipe) -> _Network:
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(recipe.made(shapes))
    return network.eval()


def _random(seed: int, shape: Sequence[int]) -> Tensor:
    values = numpy.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(values.astype(numpy.float32))


def _every(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """Every n-th row and column, with the n that gives the reference's size."""
    for step in range(1, min(whole.shape[-2:]) + 1):
        part = whole[..., ::step, ::step]
        if part.shape[-2:] == tuple(shape[-2:]):
            return part
    return whole


def _raft(file: CaseFile, case: Case, found: Differences) -> None:
    network = _made(Raft(), recipe_of(case.args))
    first, second = channels_first(case.inputs["frames"][:2]).float().split(1)
    features, other, context = network.features(first), network.features(second), network.context(first)
    low, _ = network.low_flow(features, other, context, _NUM_ITERATIONS)
    once, _ = network.low_flow(features, other, context, 1)
    flow = network.flow(features, other, context, _NUM_ITERATIONS)
    found.add(features[:, ::_CHANNEL_STEP], case.outputs["fmap"])
    found.add(context[:, ::_CHANNEL_STEP], case.outputs["context"])
    found.add(once, case.outputs["low_1"])
    found.add(low, case.outputs["low"], _ITERATED_TOLERANCE)
    found.add(_every(flow, case.outputs["flow"].shape), case.outputs["flow"], _ITERATED_TOLERANCE)
    found.add(float(flow_values(flow)[0]), case.values["value"], _ITERATED_TOLERANCE)


def _amt(file: CaseFile, case: Case, found: Differences) -> None:
    network = _made(Amt(), recipe_of(case.args))
    told = next(each.args["clip"] for each in (case, *file.cases) if "clip" in each.args)
    frames = padded(channels_first(made_clip(**told)).float() / 255.0, _AMT_MULTIPLE)
    seen: dict[str, Any] = {}
    for name in ("decoder3", "decoder2", "decoder1"):
        getattr(network, name).register_forward_hook(
            lambda module, given, returned, name=name: seen.update({name: (given[0], returned)})
        )
    image = network(frames[:1], frames[2:3])
    blends = seen["decoder1"][1]
    flows = {f"flow{frame}_1": flow for frame, flow in enumerate((blends.to_first, blends.to_second))}
    for level, decoder in ((4, "decoder3"), (3, "decoder2"), (2, "decoder1")):
        given = seen[decoder][0]
        flows |= {f"flow0_{level}": given.to_first, f"flow1_{level}": given.to_second}
    for name, reference in case.outputs.items():
        ours = image if name == "image" else flows[name]
        if reference.ndim == 5:
            ours = ours.unflatten(1, tuple(reference.shape[1:3]))
        found.add(_every(ours, reference.shape), reference)
    found.add(float(image.mean()), case.values["image_mean"])


def _dino(file: CaseFile, case: Case, found: Differences) -> None:
    sizes = DinoSizes(
        patch=16,
        grid=14,
        width=case.number(r"(\d+) wide", 64),
        num_blocks=case.number(r"(\d+) blocks", 2),
        num_heads=case.number(r"(\d+) heads", 4),
    )
    network = _made(Dino(sizes), recipe_of(case.args))
    found.add(network(_random(case.args["input_seed"], case.args["shape"])), case.outputs["cls"])


def _clip(file: CaseFile, case: Case, found: Differences) -> None:
    embed, side = case.number(r"embed (\d+)", 32), case.number(r"image (\d+)", 56)
    layers, width = case.number(r"vision (\d+)x", 2), case.number(r"vision \d+x(\d+)", 64)
    text_layers, text_width = case.number(r"text (\d+)x", 2), case.number(r"text \d+x(\d+)", 64)
    length = case.number(r"(\d+) tokens", 77)
    network = Clip(
        VisionSizes(side, case.number(r"patch (\d+)", 14), width, layers, embed),
        TextSizes(length, NUM_TOKENS, text_width, text_layers, embed),
    )
    network = _made(network, recipe_of(case.args))
    shape = case.args.get("shape", (len(case.outputs["image"]), 3, side, side))
    pictures = network.visual(_random(case.args["input_seed"], shape))
    texts = network.encode(tokenizer().batch(case.args["texts"], length, cut=False))
    found.add(pictures, case.outputs["image"])
    found.add(texts, case.outputs["text"])
    found.add(network.similarity(pictures, texts), case.outputs["logits_per_text"])


def _viclip(file: CaseFile, case: Case, found: Differences) -> None:
    embeds = case.numbers(r"out (\d+)")
    widths, layers, heads = case.numbers(r"(\d+) wide"), case.numbers(r"(\d+) blocks"), case.numbers(r"(\d+) heads")
    head_widths = [width // number for width, number in zip(widths, heads, strict=True)]
    side, length = case.number(r"image (\d+)", 56), case.number(r"(\d+) tokens", 32)
    sizes = VisionSizes(side, case.number(r"patch (\d+)", 14), widths[0], layers[0], embeds[0], head_widths[0])
    vision = _made(ViclipVision(sizes, case.args["shape"][1]), recipe_of(case.args, "vision_seed"))
    text_sizes = TextSizes(length, NUM_TOKENS, widths[1], layers[1], embeds[1], head_widths[1])
    text = _made(ClipText(text_sizes), recipe_of(case.args, "text_seed"))
    found.add(vision(_random(case.args["input_seed"], case.args["shape"])), case.outputs["vision"])
    found.add(text.encode(tokenizer().batch(case.args["texts"], length, cut=True)), case.outputs["text"])


def _musiq(file: CaseFile, case: Case, found: Differences) -> None:
    sizes = MusiqSizes(
        width=case.number(r"(\d+) wide", 48),
        mlp=case.number(r"mlp (\d+)", 96),
        num_heads=case.number(r"(\d+) heads", 4),
        num_blocks=case.number(r"(\d+) blocks", 2),
    )
    network = _made(Musiq(sizes), recipe_of(case.args))
    clips = clips_of(file.sibling("eval_prep"))
    for name, reference in case.outputs.items():
        scores = network(channels_first(clips[name][: len(reference)]).float() / 255.0)
        found.add(scores.reshape(reference.shape), reference)


_CHECKS: dict[str, Callable[[CaseFile, Case, Differences], None]] = {
    "low": _raft,
    "flow0_1": _amt,
    "cls": _dino,
    "logits_per_text": _clip,
    "vision": _viclip,
}
