"""Recommenders that learn distances: DPCML and its relatives."""
