"""Wan: clips from a first frame, with the models of Wan 2.1 (image to video) and of Wan 2.2 (TI2V-5B).

The models are those of diffusers and transformers. The kind `wan` tells the layouts apart by a model folder's configs.
"""
