"""What every page and HTTP service of Mora shares: its address, who may ask, and the files of the pages."""
