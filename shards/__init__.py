"""The pure core: entries, shards, leases, segments, receipts, the run ledger, errors.

Standard library, numpy and pyarrow only; no Ray, no sockets, no Bacula.
"""
