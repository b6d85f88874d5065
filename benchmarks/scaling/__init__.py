"""A replica set under changing traffic, scaled by Kubernetes' rule on one signal or another."""
