"""MUSIQ: the quality of single frames, for imaging quality."""
