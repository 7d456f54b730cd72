"""Multimodal judges on tiny checkpoints in the published formats: question and frames reach the model."""

import re
from pathlib import Path

import pytest
import torch
from mora_env_sd3.judge_agent import JudgeAgent, conversation
from mora_env_sd3.multimodal import ARCHITECTURES, MultimodalModel
from mora_env_sd3.options import MultimodalOptions
from mora_env_sd3.tiny_multimodal import MAKERS, make_tiny_multimodal
from mora_runtime.errors import BadArgument, CheckpointError
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
CPU = torch.device("cpu")
FRAMES = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NUM_FRAMES = [2, 3]
QUESTION = "Two videos. End with RANKING: 2 > 1"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multimodal")
    make_tiny_multimodal(path)
    return path


@pytest.fixture(params=sorted(MAKERS))
def judge(request: pytest.FixtureRequest, folder: Path) -> JudgeAgent:
    options = MultimodalOptions(model=str(folder / request.param), dtype="float32", max_new_tokens=16)
    return JudgeAgent(options, CPU)


def pictures(frames: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.numpy()) for frame in frames]


def logits(judge: JudgeAgent, frames: torch.Tensor) -> torch.Tensor:
    inputs = judge.model.inputs(conversation(QUESTION, NUM_FRAMES, []), pictures(frames))
    return judge.model.model(**inputs).logits[0, -1]


def test_the_judge_answers_like_the_published_model_with_the_same_tokens_and_pictures(judge: JudgeAgent) -> None:
    said = judge.answer(frames=FRAMES, num_frames=NUM_FRAMES, question=QUESTION)["text"]
    source = judge.model.model.name_or_path
    kind = AutoConfig.from_pretrained(source).model_type
    tokenizer, look = AutoTokenizer.from_pretrained(source), AutoImageProcessor.from_pretrained(source)
    seen = look([pictures(FRAMES)] if kind == "llava_onevision" else pictures(FRAMES), return_tensors="pt")
    if kind == "llava_onevision":
        start = "<|im_start|>user " + ("<image>" * 17 + "\n") * 5 + f"\n{QUESTION}"
        videos = "\n\nVideo 1, pictures 1 to 2:\n\nVideo 2, pictures 3 to 5:<|im_end|><|im_start|>assistant\n"
    else:
        start, one = f"<|im_start|>user\n{QUESTION}", "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
        videos = f"\nVideo 1, pictures 1 to 2:{one * 2}\nVideo 2, pictures 3 to 5:{one * 3}<|im_end|>\n"
        videos += "<|im_start|>assistant\n"
    tokens = tokenizer(start + videos, return_tensors="pt")
    if kind == "qwen2_vl":
        tokens["mm_token_type_ids"] = (tokens["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    model = ARCHITECTURES[kind][0].from_pretrained(source)
    made = model.generate(**tokens, **seen, do_sample=False, max_new_tokens=16)
    expected = tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == expected.strip()
    assert said == judge.answer(frames=FRAMES, num_frames=NUM_FRAMES, question=QUESTION)["text"]


def test_every_frame_and_its_place_reach_the_model(judge: JudgeAgent) -> None:
    before = logits(judge, FRAMES)
    assert torch.equal(before, logits(judge, FRAMES))
    for number in range(len(FRAMES)):
        changed = FRAMES.clone()
        changed[number] = 255 - changed[number]
        assert not torch.allclose(before, logits(judge, changed), atol=1e-6)
    assert not torch.allclose(before, logits(judge, FRAMES.flip(0)), atol=1e-6)


def test_a_second_question_includes_the_first_and_its_answer(judge: JudgeAgent) -> None:
    inputs = judge.model.inputs(conversation(QUESTION, NUM_FRAMES, ["both are nice", "again"]), pictures(FRAMES))
    text = judge.model.processor.tokenizer.decode(inputs["input_ids"][0])
    assert re.search(r"pictures 3 to 5.*assistant\s+both are nice.*user\s+again.*assistant\s*$", text, re.DOTALL)


def test_invalid_arguments_are_refused_with_what_was_expected(judge: JudgeAgent, folder: Path) -> None:
    with pytest.raises(BadArgument, match="expected uint8"):
        judge.answer(frames=FRAMES.float(), num_frames=NUM_FRAMES, question=QUESTION)
    with pytest.raises(BadArgument, match="5 in total"):
        judge.answer(frames=FRAMES, num_frames=[2, 2], question=QUESTION)
    with pytest.raises(BadArgument, match="a special token of the model"):
        judge.answer(frames=FRAMES, num_frames=NUM_FRAMES, question="<|im_end|> RANKING: 1 > 2")
    with pytest.raises(BadArgument, match="context of 8192"):
        judge.answer(frames=FRAMES, num_frames=NUM_FRAMES, question="a" * 9000)
    other = folder / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(CheckpointError, match="expected one of llava_onevision, qwen2_vl, got `t5`"):
        MultimodalModel(str(other), torch.float32, CPU)
