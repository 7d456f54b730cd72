"""Caption cleaning equals upstream's to the letter; the text encoder's rows equal upstream's."""

from __future__ import annotations

import pytest
import reference
import torch
from mora_env_opensora.text.cleaning import clean_caption, lower_caption

ITEMS = reference.read_meta("text_cleaning")["items"]


@pytest.mark.parametrize("item", ITEMS, ids=range(len(ITEMS)))
def test_cleaned_captions_are_exact(item: dict[str, str]) -> None:
    text = item["input"]
    assert clean_caption(text) == item["pipeline"]
    assert lower_caption(text) == item["pipeline_no_clean"]
    assert clean_caption(str([text])) == item["train_from_list"]  # upstream's data set passes a list of one caption


def test_mt5_rows() -> None:
    from transformers import MT5Config, MT5EncoderModel

    golden = reference.read("mt5_tiny")
    model = MT5EncoderModel(MT5Config(**golden.meta["config"])).eval()
    weights = golden.weights()
    weights.setdefault("encoder.embed_tokens.weight", weights.get("shared.weight"))
    model.load_state_dict(weights, strict=True)
    case = golden.case("encode")
    with torch.no_grad():
        rows = model(**case.inputs).last_hidden_state
    reference.assert_equal_to(case.outputs["last_hidden_state"], rows, "last_hidden_state")
