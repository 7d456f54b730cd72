"""Shared by all pages and HTTP services of Mora: listening, access control, bodies, and the files of the pages."""
