"""What all tests share: a Ray token of this test run, fixtures of the lab."""

from cluster.ray_token import prepare_private_ray

prepare_private_ray()
