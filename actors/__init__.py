"""The Ray actors: thin shells round the plain classes of bacula_bridge, filesystems and shards."""
