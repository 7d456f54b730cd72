"""ViCLIP: features of videos and of texts, for temporal style, overall consistency and TCON."""
