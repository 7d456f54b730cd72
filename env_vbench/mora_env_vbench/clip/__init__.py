"""CLIP: pictures and texts as features that can be compared, its tokens, and the aesthetic head on its features.

`bpe_simple_vocab_16e6.txt.gz` is the vocabulary that OpenAI published with CLIP under the MIT licence, which is in
`LICENSE.txt`.
"""
