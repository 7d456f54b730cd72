"""An environment outside of Mora: a model that restyles pictures, and a critic of their brightness."""
