"""Other people's words on pages that read Markdown."""

import pytest
from mora_launch.markdown import as_plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a cat, at noon", "a cat, at noon"),
        ("![x](http://evil/x.png)", r"\!\[x\]\(http\:\/\/evil\/x\.png\)"),
        ("<b>*loud*</b>\n# head", r"\<b\>\*loud\*\<\/b\> \# head"),
    ],
)
def test_what_would_mean_something_is_escaped(text: str, plain: str) -> None:
    assert as_plain(text) == plain
