"""Many ranks: the layout, the mesh and the one recipe that lays a network out on it."""
