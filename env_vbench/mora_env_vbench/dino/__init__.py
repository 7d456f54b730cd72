"""DINO: a vision transformer trained without labels, whose features follow the subject of a picture."""
