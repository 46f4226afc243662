"""Everything that runs the mesh: the embedded one, Envoy, containers, code generation."""
