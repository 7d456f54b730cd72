"""What all image agents of this environment share.

`picture_agent`: the methods of an agent that do not depend on its model, requests in batches among them.
`text_store`: encoded prompts and rows of z by content key, in memory and in the job's folder.
`target_frames`: first frames of target clips by content key.
`tiny_parts`: the autoencoder and the tokenizer of tiny models.
"""
