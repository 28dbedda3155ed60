"""Detectron2 deltas: configs that add the SRT ensemble to a model's own config."""
