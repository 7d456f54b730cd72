"""Video agents on current diffusers, one folder for each model; the server calls them through `__main__`."""
