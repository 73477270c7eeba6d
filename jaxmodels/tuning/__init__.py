"""Tuners of frozen backbones."""
