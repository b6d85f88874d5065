"""Ways to carry a request to a server, behind the seam in `base`."""
