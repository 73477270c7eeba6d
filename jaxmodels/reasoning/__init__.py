"""Multi-hop logical queries on knowledge graphs."""
