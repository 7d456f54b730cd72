"""The contact sheet is as wide as its longest clip."""

from __future__ import annotations

import numpy as np
from mora_data.contact_sheet import contact_sheet


def test_a_sheet_has_no_empty_columns_and_a_row_for_each_clip() -> None:
    short = np.full((3, 8, 8, 3), 200, dtype=np.uint8)
    sheet = np.asarray(contact_sheet([("one", short), ("two", short)], columns=6, cell_height=16))
    bright = (sheet == 200).all(axis=-1)
    columns = np.flatnonzero(bright.any(axis=0))
    assert columns.max() >= sheet.shape[1] - 5, "nothing right of the last frame but the gap"
    assert bright.sum() >= 2 * 3 * 16 * 16
