"""Learning on graphs: N2 (dynamic message passing with pseudo nodes), its peers, their losses and metrics."""
