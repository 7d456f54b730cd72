"""InstructPix2Pix: pictures edited by an instruction, with guidance by the text and by the given picture."""
