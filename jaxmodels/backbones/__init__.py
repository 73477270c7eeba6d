"""Backbones: images (or other inputs) to features, with named ports."""
