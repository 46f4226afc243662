"""Other worlds' APIs over the mesh: each file speaks one protocol, and all ask models and agents the same way."""
