"""A real one-node CephFS with two active MDS ranks, from Debian's packages, for tests."""
