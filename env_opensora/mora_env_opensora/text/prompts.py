"""The words upstream adds to prompts when sampling."""

from __future__ import annotations

POSITIVE_TEMPLATE = "(masterpiece), (best quality), (ultra-detailed), {prompt}."
NEGATIVE_PROMPT = (
    "nsfw, lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)


def positive_prompt(prompt: str) -> str:
    return POSITIVE_TEMPLATE.format(prompt=prompt)
