"""How the managers of a block are started on its nodes."""
