"""Videos and pictures as training sees them, data sets, and clips that Mora draws itself. Needs no torch."""
