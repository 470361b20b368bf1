"""Chemistry from energies and forces: reactions and barriers."""
